//! A generated trading day, in memory, for the benches that need real records.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use flowcast::commands::generate::{GenerateOptions, generate};

/// Group names as a client joins them.
pub const GROUP: &str = "blue_SPX_orderflow_orderflow";

/// The recorded series that the group has.
pub const SERIES: &str = "orderflow/orderflow";

/// Writes `records` lines of `series` (`package/category`) per ticker into `out`; the same bytes on every machine.
pub fn write(out: &Path, series: &str, tickers: &[&str], records: u32) {
    let options = GenerateOptions {
        out: out.to_owned(),
        date: "2025-11-28".parse().expect("a date"),
        tickers: tickers.iter().map(|&ticker| ticker.to_owned()).collect(),
        records: Some(records),
        categories: vec![series.parse().expect("a category")],
        strikes: 90,
        seed: 1,
        force: false,
    };
    generate(&options, &AtomicBool::new(false)).expect("an empty folder to write to");
}

/// The lines of a series of SPX's day, without line breaks.
pub fn lines(series: &str, records: u32) -> Vec<Vec<u8>> {
    let out = tempfile::tempdir().expect("a temporary folder");
    write(out.path(), series, &["SPX"], records);
    let text = fs::read(out.path().join(format!("2025-11-28/SPX/{series}.jsonl"))).expect("just written");
    text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}
