//! `flowcast inspect`: a line per ticker, and every problem.

use crate::common::dataset::{Dataset, line};
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
