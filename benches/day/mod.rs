//! A generated trading day, in memory, for the benches that need real records.

use std::fs;
use std::path::Path;

use flowcast::commands::generate::{GenerateOptions, generate};

/// Group names as a client joins them.
pub const GROUP: &str = "blue_SPX_orderflow_orderflow";

/// Writes `records` lines per ticker into `out`; the same bytes on every machine.
pub fn write(out: &Path, tickers: &[&str], records: u32) {
    let options = GenerateOptions {
        out: out.to_owned(),
        date: "2025-11-28".parse().expect("a date"),
        tickers: tickers.iter().map(|&ticker| ticker.to_owned()).collect(),
        records: Some(records),
        categories: vec!["orderflow".parse().expect("a package")],
        strikes: 90,
        seed: 1,
        force: false,
    };
    generate(&options).expect("an empty folder to write to");
}

/// The lines of SPX's day, without line breaks.
pub fn lines(records: u32) -> Vec<Vec<u8>> {
    let out = tempfile::tempdir().expect("a temporary folder");
    write(out.path(), &["SPX"], records);
    let text = fs::read(out.path().join("2025-11-28/SPX/orderflow/orderflow.jsonl")).expect("just written");
    text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}
