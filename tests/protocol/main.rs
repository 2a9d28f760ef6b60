//! Does the framing keep to RFC 6455? Autobahn's test suite, a foreign implementation, against an echo server on it.
//! `make test-protocol` installs the suite and sets `WSTEST`; the last result is in `docs/conformance.md`.

mod echo_door;

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Cases of permessage-deflate, which the server never negotiates.
const NOT_APPLICABLE: [&str; 2] = ["12.*", "13.*"];

#[test]
fn every_applicable_case_of_autobahns_suite_passes_strictly() {
    let wstest = std::env::var("WSTEST").expect("WSTEST, the path of Autobahn's wstest: run `make test-protocol`");
    let folder = tempfile::tempdir().unwrap();
    let reports = folder.path().join("reports");
    let spec = folder.path().join("fuzzingclient.json");
    let asked = json!({
        "outdir": reports,
        "servers": [{ "agent": "flowcast", "url": format!("ws://{}", echo_door::open()) }],
        "cases": [std::env::var("CASES").unwrap_or_else(|_| "*".to_owned())],
        "exclude-cases": NOT_APPLICABLE,
        "exclude-agent-cases": {},
    });
    fs::write(&spec, asked.to_string()).unwrap();
    let run = Command::new(wstest).args(["--mode", "fuzzingclient", "--spec"]).arg(&spec).stdin(Stdio::null()).output();
    let run = run.expect("wstest can be started");
    let said = String::from_utf8_lossy(&run.stderr);
    let index = fs::read_to_string(reports.join("index.json"));
    let index = index.unwrap_or_else(|error| panic!("expected a report, got {error}; wstest said:\n{said}"));
    let index: Value = serde_json::from_str(&index).unwrap();
    let cases = index["flowcast"].as_object().expect("the report is of our server");

    let mut groups: BTreeMap<u64, BTreeMap<&str, u64>> = BTreeMap::new();
    let mut failed = Vec::new();
    for (case, result) in cases {
        let group = case.split('.').next().and_then(|group| group.parse().ok()).expect("a case has a number");
        let text = |key: &str| result[key].as_str().unwrap_or("nothing");
        *groups.entry(group).or_default().entry(text("behavior")).or_default() += 1;
        // INFORMATIONAL: RFC 6455 leaves it open.
        let passed = ["behavior", "behaviorClose"].iter().all(|key| ["OK", "INFORMATIONAL"].contains(&text(key)));
        if !passed {
            failed.push(format!("{case}: {} (close: {})", text("behavior"), text("behaviorClose")));
        }
    }
    for (group, results) in &groups {
        println!("{group}: {results:?}");
    }
    println!("{} cases, {} failed", cases.len(), failed.len());
    assert!(failed.is_empty(), "expected every case to pass, got:\n{}", failed.join("\n"));
    assert!(std::env::var_os("CASES").is_some() || cases.len() > 280, "only {} cases were run", cases.len());
}
