//! The files of a recording: whole lines only, one file per series and day.
//!
//! Lines wait in memory and are written together. What a full disk or a crash leaves of a line is cut off again, so a
//! file always ends with a whole line. A file is locked while it is recorded.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use memchr::memrchr;
use serde::de::IgnoredAny;

use crate::source::recorded::file_kind::{ENOUGH, NotJsonLines};

/// Lines are written when this many bytes of a file wait, or at the next sync.
const WAITING_BYTES: usize = 64 << 10;

/// How much of a file is read at a time to find its last line. A longer line is not recognized when it comes again.
const TAIL_BYTES: u64 = 4 << 20;

/// Why nothing more can be recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordedFileError {
    /// The disk is full, or the file cannot be written for another reason.
    #[error(
        "{path}: cannot write: {source}. The file ends with a whole line; check that the disk has free space and that \
         the folder is writable, then start again: recording goes on behind that line"
    )]
    Write { path: PathBuf, source: io::Error },
    /// The file is there and cannot be continued.
    #[error("{path}: cannot continue the file: {source}")]
    Open { path: PathBuf, source: io::Error },
    /// Another process writes it.
    #[error("{path}: another process records into this file; expected a folder of its own (--data-dir)")]
    Locked { path: PathBuf },
    /// The file is there, and has no lines to go on behind.
    #[error(transparent)]
    Kind(#[from] NotJsonLines),
}

/// One record, and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedRecord {
    /// Its series: the path of the file in the folder of its day, such as `SPX/orderflow/orderflow.jsonl`.
    pub series: PathBuf,
    /// Unix seconds; they decide about the day.
    pub at: i64,
    /// One line of JSON without its line break.
    pub line: Vec<u8>,
}

/// The figures of one series.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SeriesFigures {
    /// Lines that were recorded.
    pub records: u64,
    /// Records that came again after a new connection, and were left out.
    pub repeated: u64,
}

/// All files of a recording.
pub struct RecordedFiles {
    data_dir: PathBuf,
    /// Days end at midnight here.
    zone: TimeZone,
    /// The open file of each series. Bounded by the series that were asked for.
    open: HashMap<PathBuf, SeriesFile>,
    figures: HashMap<PathBuf, SeriesFigures>,
}

/// The file of a series on one day.
struct SeriesFile {
    date: Date,
    path: PathBuf,
    file: File,
    /// Bytes of whole lines in the file.
    len: u64,
    /// Whole lines that are not in the file yet.
    waiting: Vec<u8>,
    /// The last line, written or waiting.
    last: Vec<u8>,
    /// Whether the next record may be the last one again.
    may_repeat: bool,
    is_synced: bool,
}

impl RecordedFiles {
    /// No file is touched yet.
    pub fn new(data_dir: &Path, zone: TimeZone) -> Self {
        Self { data_dir: data_dir.to_owned(), zone, open: HashMap::new(), figures: HashMap::new() }
    }

    /// Records one line.
    pub fn append(&mut self, record: RecordedRecord) -> Result<(), RecordedFileError> {
        let RecordedRecord { series, at, line } = record;
        let date = Timestamp::from_second(at).map_or(Date::ZERO, |at| at.to_zoned(self.zone.clone()).date());
        let figures = self.figures.entry(series.clone()).or_default();
        let file = match self.open.get_mut(&series) {
            Some(file) if file.date == date => file,
            before => {
                // Midnight: the day before is complete.
                if let Some(before) = before {
                    before.sync()?;
                }
                let path = self.data_dir.join(date.to_string()).join(&series);
                let file = SeriesFile::open(path, date)?;
                self.open.insert(series.clone(), file);
                self.open.get_mut(&series).expect("it was just inserted")
            }
        };
        if std::mem::take(&mut file.may_repeat) && file.last == line {
            figures.repeated += 1;
            return Ok(());
        }
        figures.records += 1;
        file.append(line)
    }

    /// A new connection: each series may send its newest record again.
    pub fn may_repeat(&mut self) {
        self.open.values_mut().for_each(|file| file.may_repeat = true);
    }

    /// Writes what waits, and has the system bring it to the disk.
    pub fn sync(&mut self) -> Result<(), RecordedFileError> {
        self.open.values_mut().try_for_each(SeriesFile::sync)
    }

    /// What was recorded, by series, sorted.
    pub fn figures(&self) -> Vec<(&Path, SeriesFigures)> {
        let mut figures: Vec<_> = self.figures.iter().map(|(series, figures)| (series.as_path(), *figures)).collect();
        figures.sort_by_key(|(series, _)| *series);
        figures
    }
}

impl SeriesFile {
    /// Opens or creates a file, and cuts off a line that a crash left unfinished.
    fn open(path: PathBuf, date: Date) -> Result<Self, RecordedFileError> {
        let failed = |source| RecordedFileError::Open { path: path.clone(), source };
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(|source| RecordedFileError::Write { path: path.clone(), source })?;
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RecordedFileError::Locked { path }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let mut first = [0; ENOUGH];
        let read = file.read(&mut first).map_err(failed)?;
        NotJsonLines::check(&path, &first[..read])?;
        let (len, last) = whole_lines(&mut file, &path).map_err(failed)?;
        // The file's name must survive a crash, too.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        let may_repeat = !last.is_empty();
        Ok(Self { date, path, file, len, waiting: Vec::new(), last, may_repeat, is_synced: true })
    }

    fn append(&mut self, line: Vec<u8>) -> Result<(), RecordedFileError> {
        self.waiting.extend_from_slice(&line);
        self.waiting.push(b'\n');
        self.last = line;
        if self.waiting.len() >= WAITING_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), RecordedFileError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.is_synced = false;
        if let Err(source) = self.file.write_all(&self.waiting) {
            // Part of a line may be there.
            let _ = self.file.set_len(self.len);
            return Err(RecordedFileError::Write { path: self.path.clone(), source });
        }
        self.len += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }

    fn sync(&mut self) -> Result<(), RecordedFileError> {
        self.write()?;
        if !self.is_synced {
            self.file.sync_data().map_err(|source| RecordedFileError::Write { path: self.path.clone(), source })?;
            self.is_synced = true;
        }
        Ok(())
    }
}

/// Ends the file with a whole line: completes the last one if only its line break is missing, else cuts it off. Returns
/// the file's length, and its last line.
fn whole_lines(file: &mut File, path: &Path) -> io::Result<(u64, Vec<u8>)> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let begin = last_line(file, end)?;
    if begin < end {
        if is_whole(file, begin, end)? {
            file.write_all(b"\n")?;
            end += 1;
        } else {
            eprintln!("{}: an unfinished line of {} bytes is cut off", path.display(), end - begin);
            file.set_len(begin)?;
            end = begin;
        }
    }
    let tail = read_at(file, end.saturating_sub(TAIL_BYTES), end)?;
    let lines = tail.strip_suffix(b"\n").unwrap_or(&tail);
    let last = memrchr(b'\n', lines).map_or(lines, |newline| &lines[newline + 1..]);
    Ok((end, last.to_vec()))
}

/// Where what comes behind the last line break begins. However long that is, it is looked for in steps.
fn last_line(file: &mut File, mut end: u64) -> io::Result<u64> {
    while end > 0 {
        let from = end.saturating_sub(TAIL_BYTES);
        if let Some(newline) = memrchr(b'\n', &read_at(file, from, end)?) {
            return Ok(from + newline as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}

/// Whether these bytes are a record to its end. What is left of an object, an array or a text is no JSON; what is left
/// of a number is another number.
fn is_whole(file: &mut File, begin: u64, end: u64) -> io::Result<bool> {
    if !matches!(read_at(file, begin, begin + 1)?[..], [b'{' | b'[' | b'"']) {
        return Ok(false);
    }
    file.seek(SeekFrom::Start(begin))?;
    let line = BufReader::new(file.take(end - begin));
    match serde_json::from_reader::<_, IgnoredAny>(line) {
        Err(error) if error.is_io() => Err(error.into()),
        parsed => Ok(parsed.is_ok()),
    }
}

fn read_at(file: &mut File, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.take(to - from).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_764_349_200;

    fn record(at: i64, line: &str) -> RecordedRecord {
        RecordedRecord { series: "SPX/orderflow/orderflow.jsonl".into(), at, line: line.as_bytes().to_vec() }
    }

    fn recording(folder: &Path) -> RecordedFiles {
        RecordedFiles::new(folder, TimeZone::get("America/New_York").unwrap())
    }

    fn content(folder: &Path, date: &str) -> String {
        fs::read_to_string(folder.join(date).join("SPX/orderflow/orderflow.jsonl")).unwrap()
    }

    #[test]
    fn a_day_ends_at_midnight_of_the_exchange() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = recording(folder.path());
        // 23:59:59 and 00:00:00 in New York.
        for (at, line) in [(1_764_392_399, "1"), (1_764_392_400, "2"), (1_764_392_399, "3")] {
            files.append(record(at, line)).unwrap();
        }
        files.sync().unwrap();
        assert_eq!(content(folder.path(), "2025-11-28"), "1\n3\n");
        assert_eq!(content(folder.path(), "2025-11-29"), "2\n");
    }

    #[test]
    fn what_a_crash_leaves_of_a_line_is_cut_off_and_the_file_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("2025-11-28/SPX/orderflow/orderflow.jsonl");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        for (left, expected) in [
            ("", "{\"a\":1}\n"),
            ("{\"a\":1}\n", "{\"a\":1}\n"),
            ("{\"a\":0}\n{\"a\":1", "{\"a\":0}\n{\"a\":1}\n"),
            ("{\"a\":0}\n{\"a\":1}", "{\"a\":0}\n{\"a\":1}\n"),
            ("{\"a\"", "{\"a\":1}\n"),
            ("[0]", "[0]\n{\"a\":1}\n"),
            ("\"a\"", "\"a\"\n{\"a\":1}\n"),
            ("\"a", "{\"a\":1}\n"),
            // What is left of 12345.
            ("12345\n123", "12345\n{\"a\":1}\n"),
            ("\0\0\0", "{\"a\":1}\n"),
        ] {
            fs::write(&path, left).unwrap();
            let mut files = recording(folder.path());
            files.append(record(NOON, "{\"a\":1}")).unwrap();
            files.sync().unwrap();
            drop(files);
            assert_eq!(content(folder.path(), "2025-11-28"), expected, "{left:?}");
        }
    }

    #[test]
    fn a_last_line_of_any_length_is_completed_or_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("2025-11-28/SPX/orderflow/orderflow.jsonl");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(2 * TAIL_BYTES as usize));
        for before in ["", "{\"a\":0}\n"] {
            for (left, kept) in [(&long[..], format!("{before}{long}\n")), (&long[..long.len() - 1], before.to_owned())]
            {
                fs::write(&path, format!("{before}{left}")).unwrap();
                let mut files = recording(folder.path());
                files.append(record(NOON, "{\"a\":1}")).unwrap();
                files.sync().unwrap();
                drop(files);
                assert!(content(folder.path(), "2025-11-28") == format!("{kept}{{\"a\":1}}\n"), "{} bytes", left.len());
            }
        }
    }

    #[test]
    fn the_newest_record_counts_once_when_it_comes_again_after_a_new_connection() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = recording(folder.path());
        for line in ["1", "1"] {
            files.append(record(NOON, line)).unwrap();
        }
        files.may_repeat();
        for line in ["1", "1", "2"] {
            files.append(record(NOON, line)).unwrap();
        }
        files.sync().unwrap();
        assert_eq!(content(folder.path(), "2025-11-28"), "1\n1\n1\n2\n", "only the first one is left out");
        assert_eq!(files.figures()[0].1, SeriesFigures { records: 4, repeated: 1 });
    }

    #[test]
    fn two_recordings_do_not_share_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let (mut one, mut other) = (recording(folder.path()), recording(folder.path()));
        one.append(record(NOON, "1")).unwrap();
        let error = other.append(record(NOON, "2")).unwrap_err().to_string();
        assert!(error.contains("another process records into this file"), "{error}");
    }

    #[test]
    fn a_compressed_file_is_not_continued() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("2025-11-28/SPX/orderflow/orderflow.jsonl");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, b"\x1f\x8b\x08").unwrap();
        let error = recording(folder.path()).append(record(NOON, "1")).unwrap_err().to_string();
        assert!(error.contains("got a file compressed with gzip"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"\x1f\x8b\x08");
    }

    #[test]
    fn a_full_disk_is_an_error_that_says_what_to_do() {
        // Every write to it fails with ENOSPC.
        let file = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let (date, path) = (Date::ZERO, PathBuf::from("day/SPX.jsonl"));
        let (waiting, last) = (b"1\n".to_vec(), Vec::new());
        let mut full = SeriesFile { date, path, file, len: 0, waiting, last, may_repeat: false, is_synced: true };
        let error = full.sync().unwrap_err().to_string();
        assert!(error.starts_with("day/SPX.jsonl: cannot write: No space left on device"), "{error}");
        assert!(error.contains("goes on behind that line"), "{error}");
    }
}
