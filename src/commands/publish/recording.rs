//! A recording: the lines of one or more JSONL files, in the order of their times.
//!
//! Each file is in order by itself; together they are merged by the records' timestamps (Unix seconds,
//! or RFC 3339), so that a day of many tickers comes as it came then. Lines are passed on untouched:
//! the readers of the topic decide whether they are valid.
#![cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "only publishing reads recordings"))]

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::publish_options::PublishOptions;
use super::publish_outcome::PublishError;
use crate::source::kafka::kafka_options::ORDERFLOW_TOPIC;
use crate::source::recorded::dataset::{DataDate, Dataset, DatasetOptions};
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
    first_us: Option<i64>,
    too_long: u64,
}

/// One file.
struct RecordedFile {
    path: PathBuf,
    reader: BufReader<File>,
    /// The key of every line; its own ticker or symbol otherwise.
    key: Option<String>,
    waiting: Option<(Option<String>, Vec<u8>)>,
    /// Time of the last line, Unix µs.
    last_us: i64,
    lines: i64,
}

/// The fields of a line that give its time and key.
#[derive(Deserialize)]
struct Hints<'a> {
    #[serde(borrow, default)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow, default)]
    ticker: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    symbol: Option<Cow<'a, str>>,
}

/// A line without a time is due this long after the one before.
const USUAL_US: i64 = 1_000_000;

impl Recording {
    /// Opens what `options` asks for.
    pub fn open(options: &PublishOptions) -> Result<Self, PublishError> {
        if let Some(file) = &options.file {
            return Self::of(vec![(file.clone(), None)], options.interval);
        }
        let dataset = DatasetOptions { data_dir: options.data_dir.clone(), data_date: options.date, strict: false };
        if options.topic == ORDERFLOW_TOPIC {
            let files = Dataset::find(&dataset)?.files.into_iter();
            let orderflow = files.filter(|file| file.category == ORDERFLOW_TOPIC);
            let files = orderflow.map(|file| (file.path, Some(file.ticker)));
            return Self::of(files.collect(), options.interval);
        }
        let date = match options.date {
            DataDate::On(date) => date,
            DataDate::Latest => Dataset::find(&dataset)?.date,
        };
        let name = format!("{}.jsonl", options.topic);
        let path = options.data_dir.join(date.to_string()).join("streams").join(name);
        Self::of(vec![(path, None)], options.interval)
    }

    /// The lines of these files, each with the key of all its lines, if they have one.
    fn of(files: Vec<(PathBuf, Option<String>)>, interval: Option<Duration>) -> Result<Self, PublishError> {
        let files = files.into_iter().map(|(path, key)| RecordedFile::open(path, key)).collect::<Result<_, _>>()?;
        let mut recording = Self { files, next: BinaryHeap::new(), first_us: None, too_long: 0 };
        for file in 0..recording.files.len() {
            recording.advance(file, interval)?;
        }
        Ok(recording)
    }

    /// The next line; `None` at the end.
    pub fn next(&mut self, interval: Option<Duration>) -> Result<Option<RecordedLine>, PublishError> {
        let Some(Reverse((time_us, file))) = self.next.pop() else { return Ok(None) };
        let Some((key, payload)) = self.files[file].waiting.take() else { return Ok(None) };
        let first_us = *self.first_us.get_or_insert(time_us);
        let due = Duration::from_micros(time_us.saturating_sub(first_us).max(0).unsigned_abs());
        self.advance(file, interval)?;
        Ok(Some(RecordedLine { key, payload, due }))
    }

    /// Lines left out so far because they are longer than a message may be.
    pub fn too_long(&self) -> u64 {
        self.too_long
    }

    fn advance(&mut self, at: usize, interval: Option<Duration>) -> Result<(), PublishError> {
        let file = &mut self.files[at];
        let unreadable = |source, path: &Path| PublishError::Unreadable { path: path.to_owned(), source };
        if let Some(time_us) =
            file.advance(interval, &mut self.too_long).map_err(|source| unreadable(source, &file.path))?
        {
            self.next.push(Reverse((time_us, at)));
        }
        Ok(())
    }
}

impl RecordedFile {
    fn open(path: PathBuf, key: Option<String>) -> Result<Self, PublishError> {
        let file = File::open(&path).map_err(|source| PublishError::Unreadable { path: path.clone(), source })?;
        Ok(Self { path, reader: BufReader::new(file), key, waiting: None, last_us: 0, lines: 0 })
    }

    /// Reads the next line into `waiting`; returns its time, Unix µs, or `None` at the end. Times of a
    /// file never go back.
    fn advance(&mut self, interval: Option<Duration>, too_long: &mut u64) -> io::Result<Option<i64>> {
        loop {
            let mut line = Vec::new();
            if (&mut self.reader).take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line)? == 0 {
                return Ok(None);
            }
            if line.len() > MAX_LINE && !line.ends_with(b"\n") {
                *too_long += 1;
                self.reader.skip_until(b'\n')?;
                continue;
            }
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            let hints = serde_json::from_slice::<Hints<'_>>(line).ok();
            let own = hints.as_ref().and_then(|hints| hints.ticker.as_deref().or(hints.symbol.as_deref()));
            let key = self.key.clone().or_else(|| own.map(str::to_owned));
            let told = hints.and_then(|hints| hints.timestamp).and_then(|told| unix_us(told.get()));
            let time_us = match (interval, told) {
                (Some(interval), _) => {
                    self.lines.saturating_mul(i64::try_from(interval.as_micros()).unwrap_or(i64::MAX))
                }
                (None, Some(told)) if self.lines == 0 => told,
                (None, Some(told)) => told.max(self.last_us),
                (None, None) => self.last_us.saturating_add(USUAL_US),
            };
            self.lines += 1;
            self.last_us = time_us;
            self.waiting = Some((key, line.to_owned()));
            return Ok(Some(time_us));
        }
    }
}

/// A timestamp's JSON text, as Unix µs: a number of seconds, or RFC 3339 in quotes.
fn unix_us(json: &str) -> Option<i64> {
    if let Ok(seconds) = json.parse::<f64>() {
        return Some((seconds * 1e6) as i64);
    }
    json.trim_matches('"').parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(files: &[(&str, Option<&str>)], interval: Option<Duration>) -> Vec<(Option<String>, String, u128)> {
        let dir = tempfile::tempdir().unwrap();
        let files = files.iter().enumerate().map(|(at, (text, key))| {
            let path = dir.path().join(at.to_string());
            std::fs::write(&path, text).unwrap();
            (path, key.map(str::to_owned))
        });
        let mut recording = Recording::of(files.collect(), interval).unwrap();
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
        let mut recording = Recording::of(vec![(path, None)], None).unwrap();
        assert_eq!(recording.next(None).unwrap().unwrap().payload, b"1");
        assert_eq!(recording.next(None).unwrap().unwrap().payload, b"2");
        assert_eq!(recording.next(None).unwrap(), None);
        assert_eq!(recording.too_long(), 1);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Recording::of(vec![("/no/such.jsonl".into(), None)], None).err().unwrap().to_string();
        assert!(error.starts_with("/no/such.jsonl: expected a readable JSONL file"), "{error}");
    }
}
