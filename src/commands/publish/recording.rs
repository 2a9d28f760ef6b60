//! A recording: the lines of one or more JSONL files, in the order of their times.
//!
//! Each file is in order by itself; together they are merged by the records' timestamps (Unix seconds,
//! or RFC 3339), so that a day of many tickers comes as it came then. Lines are passed on untouched:
//! the readers of the topic decide whether they are valid. No timestamp is waited for that cannot be meant: one far
//! from those of its file counts as that of the line before, and a pause is no longer than `--max-gap`.
#![cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "only publishing reads recordings"))]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::publish_options::PublishOptions;
use super::publish_outcome::PublishError;
use crate::commands::line_hints::LineHints;
use crate::source::kafka::kafka_options::ORDERFLOW_TOPIC;
use crate::source::recorded::dataset::{DataDate, Dataset, DatasetOptions};
use crate::source::recorded::file_kind::{ENOUGH, NotJsonLines};
use crate::source::recorded::index::BYTE_ORDER_MARK;
use crate::source::recorded::lines::MAX_LINE;

/// One line, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedLine {
    /// The record's ticker or symbol.
    pub key: Option<String>,
    /// The line without its line break.
    pub payload: Vec<u8>,
    /// When it is due at recorded speed, after the first line.
    pub due: Duration,
}

/// Lines of several files, merged.
pub struct Recording {
    files: Vec<RecordedFile>,
    /// The next line of each file, by time (Unix µs) and then by file.
    next: BinaryHeap<Reverse<(i64, usize)>>,
    /// Time and due of the last line that was taken.
    last: Option<(i64, Duration)>,
    max_gap: Duration,
    too_long: u64,
    odd: OddTimes,
}

/// Lines whose time is far from the others of their file.
#[derive(Debug, Default)]
struct OddTimes {
    count: u64,
    /// The first ones, until they are taken: path, line number from 1, and the timestamp as it stands there.
    told: Vec<String>,
}

/// One file.
struct RecordedFile {
    path: PathBuf,
    reader: BufReader<File>,
    /// The key of every line; its own ticker or symbol otherwise.
    key: Option<String>,
    waiting: Option<(Option<String>, Vec<u8>)>,
    /// Time of the last line, Unix µs; at first, the first time that is not odd.
    last_us: i64,
    /// Times further than [`FAR_US`] from it are odd.
    usual_us: i64,
    /// The number of the line that was read last, from 1.
    number: u64,
    lines: i64,
}

/// A line without a time is due this long after the one before.
const USUAL_US: i64 = 1_000_000;

/// A time this far from the usual one of its file is not meant: a year.
const FAR_US: i64 = 366 * 86_400 * 1_000_000;

/// The usual time of a file is the median of those in its first bytes, so many.
const SAMPLE: usize = 256 << 10;

/// Odd times that are told one by one.
const TOLD: usize = 5;

impl Recording {
    /// Opens what `options` asks for.
    pub fn open(options: &PublishOptions) -> Result<Self, PublishError> {
        if let Some(file) = &options.file {
            return Self::of(vec![(file.clone(), None)], options);
        }
        let dataset = DatasetOptions { data_dir: options.data_dir.clone(), data_date: options.date, strict: false };
        if options.topic == ORDERFLOW_TOPIC {
            let files = Dataset::find(&dataset)?.files.into_iter();
            let orderflow = files.filter(|file| file.category == ORDERFLOW_TOPIC);
            let files = orderflow.map(|file| (file.path, Some(file.ticker)));
            return Self::of(files.collect(), options);
        }
        let date = match options.date {
            DataDate::On(date) => date,
            DataDate::Latest => Dataset::find(&dataset)?.date,
        };
        let name = format!("{}.jsonl", options.topic);
        let path = options.data_dir.join(date.to_string()).join("streams").join(name);
        Self::of(vec![(path, None)], options)
    }

    /// The lines of these files, each with the key of all its lines, if they have one.
    fn of(files: Vec<(PathBuf, Option<String>)>, options: &PublishOptions) -> Result<Self, PublishError> {
        let files = files.into_iter().map(|(path, key)| RecordedFile::open(path, key)).collect::<Result<_, _>>()?;
        let (next, max_gap) = (BinaryHeap::new(), options.interval.map_or(options.max_gap, |_| Duration::MAX));
        let mut recording = Self { files, next, last: None, max_gap, too_long: 0, odd: OddTimes::default() };
        for file in 0..recording.files.len() {
            recording.advance(file, options.interval)?;
        }
        Ok(recording)
    }

    /// The next line; `None` at the end.
    pub fn next(&mut self, interval: Option<Duration>) -> Result<Option<RecordedLine>, PublishError> {
        let Some(Reverse((time_us, file))) = self.next.pop() else { return Ok(None) };
        let Some((key, payload)) = self.files[file].waiting.take() else { return Ok(None) };
        let due = self.last.map_or(Duration::ZERO, |(last_us, due)| {
            let gap = Duration::from_micros(time_us.saturating_sub(last_us).max(0).unsigned_abs());
            due + gap.min(self.max_gap)
        });
        self.last = Some((time_us, due));
        self.advance(file, interval)?;
        Ok(Some(RecordedLine { key, payload, due }))
    }

    /// Lines left out so far because they are longer than a message may be.
    pub fn too_long(&self) -> u64 {
        self.too_long
    }

    /// Lines so far whose time was far from the others of their file.
    pub fn odd_times(&self) -> u64 {
        self.odd.count
    }

    /// What is to be told of the first of them, once.
    pub fn take_odd_times(&mut self) -> Vec<String> {
        std::mem::take(&mut self.odd.told)
    }

    fn advance(&mut self, at: usize, interval: Option<Duration>) -> Result<(), PublishError> {
        let file = &mut self.files[at];
        let unreadable = |source, path: &Path| PublishError::Unreadable { path: path.to_owned(), source };
        if let Some(time_us) = file
            .advance(interval, &mut self.too_long, &mut self.odd)
            .map_err(|source| unreadable(source, &file.path))?
        {
            self.next.push(Reverse((time_us, at)));
        }
        Ok(())
    }
}

impl RecordedFile {
    fn open(path: PathBuf, key: Option<String>) -> Result<Self, PublishError> {
        let unreadable = |source| PublishError::Unreadable { path: path.clone(), source };
        // Not read twice: it may be a pipe.
        let mut reader = BufReader::with_capacity(SAMPLE, File::open(&path).map_err(unreadable)?);
        let mut sample = reader.fill_buf().map_err(unreadable)?;
        NotJsonLines::check(&path, &sample[..sample.len().min(ENOUGH)])?;
        let mark = if sample.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        sample = &sample[mark..];
        let (usual_us, first_us) = usual_time(sample).unwrap_or_default();
        reader.consume(mark);
        Ok(Self { path, reader, key, waiting: None, last_us: first_us, usual_us, number: 0, lines: 0 })
    }

    /// Reads the next line into `waiting`; returns its time, Unix µs, or `None` at the end. Times of a
    /// file never go back.
    fn advance(
        &mut self,
        interval: Option<Duration>,
        too_long: &mut u64,
        odd: &mut OddTimes,
    ) -> io::Result<Option<i64>> {
        loop {
            let mut line = Vec::new();
            if (&mut self.reader).take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if line.len() > MAX_LINE && !line.ends_with(b"\n") {
                *too_long += 1;
                self.reader.skip_until(b'\n')?;
                continue;
            }
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            let hints = LineHints::read(line).unwrap_or_default();
            let own = hints.ticker.as_deref().or(hints.symbol.as_deref());
            let key = self.key.clone().or_else(|| own.map(str::to_owned));
            let time_us = match (interval, hints.unix_us()) {
                (Some(interval), _) => {
                    self.lines.saturating_mul(i64::try_from(interval.as_micros()).unwrap_or(i64::MAX))
                }
                (None, Some(told)) if is_far(told, self.usual_us) => {
                    odd.count += 1;
                    if odd.told.len() < TOLD && odd.count <= TOLD as u64 {
                        let text = hints.timestamp().unwrap_or_default();
                        let (path, number) = (self.path.display(), self.number);
                        odd.told.push(format!("{path}:{number}: timestamp {text} is more than a year from the others"));
                    }
                    self.last_us
                }
                (None, Some(told)) if self.lines == 0 => told,
                (None, Some(told)) => told.max(self.last_us),
                (None, None) if self.lines == 0 => self.last_us,
                (None, None) => self.last_us.saturating_add(USUAL_US),
            };
            self.lines += 1;
            self.last_us = time_us;
            self.waiting = Some((key, line.to_owned()));
            return Ok(Some(time_us));
        }
    }
}

/// The median of the times in these lines, and the first time that is not far from it; Unix µs. `None` if no line has
/// one.
fn usual_time(lines: &[u8]) -> Option<(i64, i64)> {
    let time = |line: &[u8]| LineHints::read(line)?.unix_us();
    let times: Vec<i64> = lines.split(|&byte| byte == b'\n').filter_map(time).collect();
    let mut sorted = times.clone();
    sorted.sort_unstable();
    let &usual = sorted.get(sorted.len() / 2)?;
    times.into_iter().find(|&time| !is_far(time, usual)).map(|first| (usual, first))
}

fn is_far(time_us: i64, usual_us: i64) -> bool {
    time_us.abs_diff(usual_us) > FAR_US.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(interval: Option<Duration>) -> PublishOptions {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            options: PublishOptions,
        }
        let cli: Cli = clap::Parser::parse_from(["publish", "--brokers", "b:1", "--topic", "lines"]);
        PublishOptions { interval, ..cli.options }
    }

    fn recorded(files: &[(&str, Option<&str>)], interval: Option<Duration>) -> Vec<(Option<String>, String, u128)> {
        let dir = tempfile::tempdir().unwrap();
        let files = files.iter().enumerate().map(|(at, (text, key))| {
            let path = dir.path().join(at.to_string());
            std::fs::write(&path, text).unwrap();
            (path, key.map(str::to_owned))
        });
        let mut recording = Recording::of(files.collect(), &options(interval)).unwrap();
        let mut lines = Vec::new();
        while let Some(RecordedLine { key, payload, due }) = recording.next(interval).unwrap() {
            lines.push((key, String::from_utf8(payload).unwrap(), due.as_millis()));
        }
        lines
    }

    #[test]
    fn files_are_merged_by_time_and_keep_their_own_order() {
        let one = "{\"timestamp\":100,\"n\":1}\n{\"timestamp\":102,\"n\":2}\n{\"timestamp\":101,\"n\":3}\n";
        let two = "{\"timestamp\":101.5,\"n\":4}";
        let lines = recorded(&[(one, Some("A")), (two, Some("B"))], None);
        let told: Vec<_> =
            lines.iter().map(|(key, line, due)| (key.as_deref(), &line[line.len() - 2..], *due)).collect();
        let (a, b) = (Some("A"), Some("B"));
        assert_eq!(told, [(a, "1}", 0), (b, "4}", 1500), (a, "2}", 2000), (a, "3}", 2000)]);
    }

    #[test]
    fn a_line_is_passed_on_untouched_with_its_own_symbol_as_key() {
        let text = "\n {\"symbol\":\"AAPL\" , \"timestamp\":\"2025-11-28T14:30:00Z\"} \r\nnonsense\n\
                    {\"timestamp\":\"2025-11-28T14:30:02.5Z\",\"ticker\":\"SPX\"}\n";
        let lines = recorded(&[(text, None)], None);
        assert_eq!(lines[0].0.as_deref(), Some("AAPL"));
        assert_eq!(lines[0].1, "{\"symbol\":\"AAPL\" , \"timestamp\":\"2025-11-28T14:30:00Z\"}");
        assert_eq!(lines[1], (None, "nonsense".to_owned(), 1000));
        assert_eq!((lines[2].0.as_deref(), lines[2].2), (Some("SPX"), 2500));
    }

    #[test]
    fn a_time_far_from_the_others_is_not_waited_for_and_told() {
        let good = |second: u32| format!("{{\"timestamp\":\"2025-11-28T14:30:{second:02}Z\"}}");
        let odd = |year: &str| format!("{{\"timestamp\":\"{year}-01-01T00:00:00Z\"}}");
        for (lines, expected) in [
            (vec![odd("0001"), good(10), good(12)], vec![0, 0, 2000]),
            (vec![good(10), odd("2099"), good(12), good(13)], vec![0, 0, 2000, 3000]),
            (vec!["{\"timestamp\":0}".to_owned(), good(10), good(11)], vec![0, 0, 1000]),
            (vec![good(10), good(11), odd("9998")], vec![0, 1000, 1000]),
        ] {
            let text = format!("\u{feff}{}\n", lines.join("\n"));
            let told = recorded(&[(&text, None)], None);
            assert_eq!(told.iter().map(|(.., due)| *due).collect::<Vec<_>>(), expected, "{lines:?}");
            assert_eq!(told[0].1, lines[0], "without the byte order mark");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trades.jsonl");
        std::fs::write(&path, [odd("0001"), good(1), good(2), odd("2099")].join("\n")).unwrap();
        let mut recording = Recording::of(vec![(path, None)], &options(None)).unwrap();
        while recording.next(None).unwrap().is_some() {}
        let told = recording.take_odd_times();
        assert_eq!((told.len(), recording.odd_times()), (2, 2));
        assert!(
            told[1].ends_with("trades.jsonl:4: timestamp \"2099-01-01T00:00:00Z\" is more than a year from the others")
        );
        assert!(recording.take_odd_times().is_empty());
    }

    #[test]
    fn a_long_pause_is_cut() {
        let text = "{\"timestamp\":0}\n{\"timestamp\":86400}\n{\"timestamp\":86401}\n";
        let dues: Vec<u128> = recorded(&[(text, None)], None).into_iter().map(|(.., due)| due).collect();
        assert_eq!(dues, [0, 3_600_000, 3_601_000]);
    }

    #[test]
    fn an_interval_overrules_the_timestamps() {
        let text = "{\"timestamp\":100}\n{\"timestamp\":200}\n{}\n";
        let dues = |lines: Vec<(_, _, u128)>| {
            lines.into_iter().map(|line: (Option<String>, String, _)| line.2).collect::<Vec<_>>()
        };
        let interval = Some(Duration::from_millis(20));
        assert_eq!(dues(recorded(&[(text, None), (text, None)], interval)), [0, 0, 20, 20, 40, 40]);
    }

    #[test]
    fn a_line_too_long_for_a_message_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("long");
        std::fs::write(&path, format!("1\n{}\n2\n", "x".repeat(3 * MAX_LINE))).unwrap();
        let mut recording = Recording::of(vec![(path, None)], &options(None)).unwrap();
        assert_eq!(recording.next(None).unwrap().unwrap().payload, b"1");
        assert_eq!(recording.next(None).unwrap().unwrap().payload, b"2");
        assert_eq!(recording.next(None).unwrap(), None);
        assert_eq!(recording.too_long(), 1);
    }

    #[test]
    fn a_compressed_file_is_not_sent_as_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trades.jsonl");
        std::fs::write(&path, b"\x1f\x8b\x08\n").unwrap();
        let error = Recording::of(vec![(path, None)], &options(None)).err().unwrap().to_string();
        assert!(error.contains("got a file compressed with gzip"), "{error}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Recording::of(vec![("/no/such.jsonl".into(), None)], &options(None)).err().unwrap().to_string();
        assert!(error.starts_with("/no/such.jsonl: expected a readable JSONL file"), "{error}");
    }
}
