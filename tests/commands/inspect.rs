//! `flowcast inspect`: a line per file, and every problem.

use crate::common::dataset::{Dataset, FIRST, line};
use crate::common::server::{program, refusal};
use crate::said;

#[test]
fn inspect_prints_a_line_per_ticker_and_every_problem() {
    let dataset = Dataset::new(&[("ES_SPX", 70)]);
    let content = [0, 1, 10, 3].map(|n| line("SPX", n)).join("\n") + "\nnonsense\n";
    let path = dataset.write("SPX", content).display().to_string();
    dataset.write("NDX", "");
    let folder = dataset.path().to_str().unwrap();
    let out = said(&["inspect", "2025-11-28", "--data-dir", folder]);
    // FIRST is 14:30:00 UTC, 9:30 in New York.
    let row = |ticker: &str| -> Vec<String> {
        let line = out.lines().find(|line| line.starts_with(&format!("{ticker} "))).unwrap_or_else(|| panic!("{out}"));
        line.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(row("ES_SPX")[..7], ["ES_SPX", "70", "09:30:00", "09:31:09", "0", "1s", "0"]);
    assert_eq!(row("SPX")[..7], ["SPX", "4", "09:30:00", "09:30:03", "1", "9s", "1"]);
    assert_eq!(row("SPX").len(), 12, "and the encoded size of each of the four wire forms");
    assert!(out.contains(&format!("{path}:5: expected one JSON object")), "{out}");
    assert!(out.contains(&format!("{path}: 1 record is older than the one before")), "{out}");
    assert!(out.contains("expected records, got an empty file"), "{out}");

    let latest = said(&["inspect", "--data-dir", folder]);
    assert_eq!(latest, out);
    assert!(refusal(&mut program(&["inspect", "--data-dir", folder, "--strict"])).contains("--strict"));
    assert!(refusal(&mut program(&["inspect", "2020-01-01", "--data-dir", folder])).contains("2025-11-28"));
}

#[test]
fn every_category_has_a_line_in_the_table_of_its_ticker() {
    let dataset = Dataset::new(&[("SPX", 3)]);
    let classic = dataset.file("SPX").parent().unwrap().with_file_name("classic");
    std::fs::create_dir(&classic).unwrap();
    let gex = include_str!("../fixtures/gexbot/gex_full.jsonl");
    let long = "x".repeat(3 << 20);
    let odd = gex.replace("[[6830,10.125]", "[[6830]");
    std::fs::write(classic.join("gex_full.jsonl"), format!("\u{feff}{gex}{long}\n\n{odd}")).unwrap();
    std::fs::write(classic.join("gex_one.json.gz"), b"\x1f\x8b\x08").unwrap();
    let folder = dataset.path().to_str().unwrap();
    let out = said(&["inspect", "--data-dir", folder]);
    let row = |start: &str| out.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{out}"));
    assert!(row("SPX ").contains("records"));
    assert_eq!(row("orderflow/orderflow ").split_whitespace().nth(1), Some("3"));
    let gex: Vec<&str> = row("classic/gex_full ").split_whitespace().collect();
    assert_eq!(gex[1..8], ["2", "09:30:02", "09:30:02", "0", "0s", "1", "0"]);
    assert_eq!((gex[8], gex[10]), (gex[9], gex[11]), "both profiles scale GEX alike");
    assert!(out.contains("gex_full.jsonl:2: expected a line of at most 1048576 bytes"), "{out}");
    assert!(out.contains("gex_full.jsonl: 1 row of a list is malformed and left out"), "{out}");
    assert!(out.contains("gex_one.json.gz: expected one JSON object a line, got a file compressed with gzip"), "{out}");
    assert!(refusal(&mut program(&["inspect", "--data-dir", folder, "--strict"])).contains("--strict"));
}

#[test]
fn a_day_without_one_record_is_an_error() {
    let dataset = Dataset::empty();
    dataset.write("SPX", "nonsense");
    dataset.write("NDX", b"PK\x03\x04");
    let refused = refusal(&mut program(&["inspect", "--data-dir", dataset.path().to_str().unwrap()]));
    assert!(refused.contains("none of the day's files"), "{refused}");
}

#[test]
fn the_folder_streams_is_inspected_as_serve_reads_it() {
    let dataset = Dataset::new(&[("SPX", 70)]);
    let trade = |at: &str| format!(r#"{{"timestamp":"{at}","symbol":"SPX","side":"BUY","quantity":1,"price":1}}"#);
    let folder = dataset.path().to_str().unwrap();
    let inspect = ["inspect", "--data-dir", folder];
    let strict = || refusal(&mut program(&["inspect", "--data-dir", folder, "--strict"]));
    dataset.stream("trades", [trade("2025-11-28T14:30:00Z"), trade("2025-11-28T09:31:00-05:00")].join("\n"));
    let out = said(&[&inspect[..], &["--strict"]].concat());
    let row = |out: &str| {
        let line = out.lines().find(|line| line.starts_with("trades ")).unwrap_or_else(|| panic!("{out}")).to_owned();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row(&out), ["trades", "2", "09:30:00", "09:31:00", "0"]);
    dataset.stream("trades", ["junk".to_owned(), trade("2025-11-28T14:30:00Z")].join("\n"));
    let out = said(&inspect);
    assert_eq!(row(&out), ["trades", "1", "09:30:00", "09:30:00", "1"]);
    assert!(out.contains("trades.jsonl:1: expected one JSON object"), "{out}");
    assert!(strict().contains("--strict"));
    dataset.stream("trades", [trade("2025-11-28T14:30:00Z"), trade("2099-01-01T00:00:00Z")].join("\n"));
    assert!(said(&inspect).contains("trades.jsonl:2: timestamp: expected a time of the session"));
    assert!(strict().contains("--strict"));
}

#[test]
fn a_time_of_another_day_is_shown_with_its_date_and_strict_refuses_it() {
    let dataset = Dataset::new(&[("SPX", 3)]);
    let early = line("SPX", 0).replacen(&FIRST.to_string(), "0", 1);
    dataset.write("SPX", [early, line("SPX", 1)].join("\n"));
    let folder = dataset.path().to_str().unwrap();
    let out = said(&["inspect", "--data-dir", folder]);
    assert!(out.contains("1969-12-31 19:00:00"), "{out}");
    assert!(out.contains("orderflow.jsonl:1: 1 record is of another day: 1969-12-31 19:00:00"), "{out}");
    assert!(refusal(&mut program(&["inspect", "--data-dir", folder, "--strict"])).contains("--strict"));
}
