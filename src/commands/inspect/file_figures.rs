//! Figures over one file, read line by line: the same memory whatever its size.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::day_span::DaySpan;
use crate::source::recorded::dataset::RecordFile;
use crate::source::recorded::file_kind::{ENOUGH, NotJsonLines};
use crate::source::recorded::index::BYTE_ORDER_MARK;
use crate::source::recorded::line_stats::{LineStats, counted};
use crate::source::recorded::lines::MAX_LINE;
use crate::wire::gexbot::{GroupName, PayloadKind};
use crate::wire::payload::{Encoder, EncoderOptions, Parsed, Profile, Record};
use crate::wire::webpubsub::{PlainForm, append_data};

/// What one file holds.
#[derive(Debug, Default)]
pub struct FileFigures {
    /// Figures over its lines.
    pub lines: LineStats,
    /// Bytes of all its records' frames, by [`PlainForm::index`].
    pub bytes: [u64; PlainForm::ALL.len()],
    /// Records of another day, and the line number and time of the first.
    pub astray: Option<(u64, u64, i64)>,
    /// Why the server would leave it out, if it would.
    pub failed: Option<UnreadFile>,
}

/// Why a file gives no records. The other files are not affected.
#[derive(Debug, thiserror::Error)]
pub enum UnreadFile {
    /// It cannot be opened or read.
    #[error("{path}: expected a readable file: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// It must be imported first.
    #[error(transparent)]
    Kind(#[from] NotJsonLines),
    /// It has no byte.
    #[error("{path}: expected records, got an empty file")]
    Empty { path: PathBuf },
    /// It has lines, but no good one.
    #[error("{path}: expected records, got {} and no good one", counted(*.bad, "bad line", "bad lines"))]
    NoRecords { path: PathBuf, bad: u64 },
}

impl FileFigures {
    /// Reads a file. An error only if there is no memory for an encoder.
    pub fn read(file: &RecordFile, day: &DaySpan, options: EncoderOptions) -> io::Result<Self> {
        let mut scale = RecordScale::new(file, options)?;
        let mut figures = Self::default();
        figures.failed = figures.read_lines(file, day, &mut scale).err();
        Ok(figures)
    }

    /// Whether nothing was bad.
    pub fn is_clean(&self) -> bool {
        self.failed.is_none() && self.lines.bad == 0 && self.astray.is_none()
    }

    /// Bytes of a record's frame in a form, on average.
    pub fn bytes_per_record(&self, form: PlainForm) -> f64 {
        self.bytes[form.index()] as f64 / self.lines.records.max(1) as f64
    }

    fn read_lines(&mut self, file: &RecordFile, day: &DaySpan, scale: &mut RecordScale) -> Result<(), UnreadFile> {
        let failed = |source| UnreadFile::Io { path: file.path.clone(), source };
        let mut reader = open(&file.path).map_err(failed)?;
        let first = reader.fill_buf().map_err(failed)?;
        NotJsonLines::check(&file.path, &first[..first.len().min(ENOUGH)])?;
        if first.starts_with(BYTE_ORDER_MARK) {
            reader.consume(BYTE_ORDER_MARK.len());
        }
        let mut line = Vec::new();
        loop {
            line.clear();
            // One byte more than may be, and the line break: enough to see that a line is too long.
            if reader.by_ref().take(MAX_LINE as u64 + 2).read_until(b'\n', &mut line).map_err(failed)? == 0 {
                break;
            }
            self.lines.lines += 1;
            let content = line.strip_suffix(b"\n").unwrap_or(&line);
            if content.len() > MAX_LINE {
                let whole = line.ends_with(b"\n");
                self.lines.bad(format_args!("expected a line of at most {MAX_LINE} bytes, got a longer one"));
                if !whole {
                    reader.skip_until(b'\n').map_err(failed)?;
                }
                continue;
            }
            match content.trim_ascii() {
                [] => {}
                content => self.line(content, day, scale),
            }
        }
        let path = || file.path.clone();
        match (self.lines.lines, self.lines.records) {
            (0, _) => Err(UnreadFile::Empty { path: path() }),
            (_, 0) => Err(UnreadFile::NoRecords { path: path(), bad: self.lines.bad }),
            _ => Ok(()),
        }
    }

    fn line(&mut self, line: &[u8], day: &DaySpan, scale: &mut RecordScale) {
        match Record::parse(scale.kind, line) {
            Ok(Parsed { record, noticed }) => {
                self.lines.good(record.timestamp(), noticed);
                if !day.may_have(record.timestamp()) {
                    let first = self.astray.get_or_insert((0, self.lines.lines, record.timestamp()));
                    first.0 += 1;
                }
                scale.weigh(record, &mut self.bytes);
            }
            Err(error) => self.lines.bad(error),
        }
    }
}

/// Only a regular file: opening a FIFO would wait for a writer.
fn open(path: &Path) -> io::Result<BufReader<File>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(BufReader::with_capacity(256 << 10, File::open(path)?))
}

/// Weighs records: how long their frames are in each form.
struct RecordScale {
    kind: PayloadKind,
    group: String,
    encoder: Encoder,
    frame: Vec<u8>,
}

impl RecordScale {
    fn new(file: &RecordFile, options: EncoderOptions) -> io::Result<Self> {
        let series = file.series();
        let group = GroupName { ticker: &file.ticker, series }.with_prefix("blue");
        Ok(Self { kind: series.kind(), group, encoder: Encoder::new(options)?, frame: Vec::new() })
    }

    fn weigh(&mut self, mut record: Record, bytes: &mut [u64; PlainForm::ALL.len()]) {
        let Self { kind, group, encoder, frame } = self;
        // A record is parsed in the scale of the newest profile; the older one is made from it.
        for profile in [Profile::V2026_04, Profile::V2025_11] {
            record.rescale(profile);
            let payload = record.encode(encoder);
            for form in PlainForm::ALL.into_iter().filter(|form| form.profile == profile) {
                frame.clear();
                append_data(form.syntax, group, kind.type_url(), payload, frame);
                bytes[form.index()] += frame.len() as u64;
            }
        }
    }
}
