//! Datasets of known records: a record's number tells every value in it.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

use super::protobuf::{Fields, zigzag};

pub const DATE: &str = "2025-11-28";

/// Timestamp of record 0 of every ticker; record `n` is `n` seconds later.
pub const FIRST: i64 = 1_764_340_200;

/// The JSONL keys of the numbers, in the order of their protobuf fields from 3 on, from the table
/// that was written by hand for the golden files.
pub fn keys() -> &'static [String] {
    static KEYS: OnceLock<Vec<String>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let table = include_str!("../fixtures/golden/orderflow_fields.json");
        let rows: Vec<serde_json::Value> = serde_json::from_str(table).unwrap();
        assert_eq!(rows.len(), 37);
        let numbered = rows.iter().enumerate().all(|(at, row)| row["number"] == at + 1);
        assert!(numbered, "the table is in the order of the fields");
        rows[2..].iter().map(|row| row["key"].as_str().unwrap().to_owned()).collect()
    })
}

/// Fields 3 to 11 are prices: unsigned, and ×100 in both profiles.
const PRICES: usize = 9;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    V2025,
    V2026,
}

/// What a payload says, as integers of the wire: timestamp, ticker, the 35 numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    pub timestamp: i64,
    pub ticker: String,
    pub numbers: Vec<i64>,
}

impl Payload {
    /// Reads `zstd(protobuf(Orderflow))`.
    pub fn read(compressed: &[u8]) -> Self {
        let message = zstd::decode_all(compressed).expect("a zstd frame");
        let fields = Fields::read(&message);
        let number = |at: usize| {
            let value = fields.number(at as u64 + 3);
            if at < PRICES { i64::try_from(value).unwrap() } else { zigzag(value) }
        };
        Self {
            timestamp: fields.number(1).cast_signed(),
            ticker: fields.text(2),
            numbers: (0..35).map(number).collect(),
        }
    }

    /// Which record of its ticker this is.
    pub fn index(&self) -> u64 {
        u64::try_from(self.timestamp - FIRST).unwrap()
    }
}

/// The numbers of record `n` in hundredths.
fn hundredths(ticker: &str, n: u64) -> Vec<i64> {
    let ticker: u64 = ticker.bytes().map(u64::from).sum();
    let value = |at: u64| {
        let mixed = (n * 7919 + at * 104_729 + ticker * 31) % 2_000_000;
        if at < PRICES as u64 { mixed.cast_signed() } else { mixed.cast_signed() - 1_000_000 }
    };
    (0..35).map(value).collect()
}

/// The JSONL line of record `n`, without a line break.
pub fn line(ticker: &str, n: u64) -> String {
    let mut line = format!(r#"{{"timestamp":{},"ticker":"{ticker}""#, FIRST + n.cast_signed());
    for (key, value) in keys().iter().zip(hundredths(ticker, n)) {
        let (sign, value) = (if value < 0 { "-" } else { "" }, value.abs());
        write!(line, r#","{key}":{sign}{}.{:02}"#, value / 100, value % 100).unwrap();
    }
    line + "}"
}

/// What clients must find in the payload of record `n`.
pub fn payload(ticker: &str, n: u64, profile: Profile) -> Payload {
    let mut numbers = hundredths(ticker, n);
    if profile == Profile::V2025 {
        numbers[PRICES..].iter_mut().for_each(|value| *value /= 100);
    }
    Payload { timestamp: FIRST + n.cast_signed(), ticker: ticker.to_owned(), numbers }
}

pub fn group(ticker: &str) -> String {
    format!("blue_{ticker}_orderflow_orderflow")
}

/// A data directory of its own, gone with the test.
#[derive(Debug)]
pub struct Dataset(TempDir);

impl Dataset {
    pub fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Files of the first records of each ticker.
    pub fn new(tickers: &[(&str, u64)]) -> Self {
        let dataset = Self::empty();
        for &(ticker, records) in tickers {
            let lines: String = (0..records).map(|n| line(ticker, n) + "\n").collect();
            dataset.write(ticker, lines);
        }
        dataset
    }

    /// SPX and ES_SPX, a hundred records and seventy.
    pub fn usual() -> Self {
        Self::new(&[("SPX", 100), ("ES_SPX", 70)])
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, ticker: &str) -> PathBuf {
        self.path().join(DATE).join(ticker).join("orderflow").join("orderflow.jsonl")
    }

    pub fn write(&self, ticker: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let file = self.file(ticker);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, content).unwrap();
        file
    }

    /// Writes a file of the day's folder `streams/`.
    pub fn stream(&self, channel: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let file = self.path().join(DATE).join("streams").join(format!("{channel}.jsonl"));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, content).unwrap();
        file
    }
}
