//! The swarm, run to its end, and what it said.

use std::process::Command;

use serde_json::Value;

/// What a run of the swarm came to.
pub struct Outcome {
    pub exit_code: i32,
    pub report: Value,
    pub output: String,
}

impl Outcome {
    /// (kind, client) of each fault, in order of the list.
    pub fn faults(&self) -> Vec<(String, u64)> {
        let faults = self.report["facts"]["faults"].as_array().cloned().unwrap_or_default();
        let mut faults: Vec<_> = faults
            .iter()
            .map(|fault| (fault["kind"].as_str().unwrap().to_owned(), fault["client"].as_u64().unwrap()))
            .collect();
        faults.sort();
        faults
    }

    #[track_caller]
    pub fn assert_exit(&self, code: i32) {
        assert_eq!(self.exit_code, code, "{}", self.output);
    }
}

/// Runs the swarm with eight clients, two of each protocol, for a second.
pub fn swarm(url: &str, arguments: &[&str]) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let output = Command::new(env!("CARGO_BIN_EXE_swarm"))
        .args(["--url", url, "--connections", "8", "--duration", "1s", "--quiet"])
        .args(["--ramp", "40", "--drain", "2s", "--setup-timeout", "3s"])
        .args(default_of("--protocols", "json,json.reliable,protobuf,protobuf.reliable", arguments))
        .args(arguments)
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    let report = std::fs::read(&json).ok().map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap());
    let output_text = [output.stdout, output.stderr].concat();
    Outcome {
        exit_code: output.status.code().unwrap(),
        report,
        output: String::from_utf8_lossy(&output_text).into_owned(),
    }
}

/// An argument that is a list, unless it is among the given ones: lists add up.
pub fn default_of<'a>(name: &'a str, value: &'a str, arguments: &[&str]) -> Vec<&'a str> {
    if arguments.contains(&name) { Vec::new() } else { vec![name, value] }
}
