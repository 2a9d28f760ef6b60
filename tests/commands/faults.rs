//! `flowcast faults`: plans checked, begun, shown and ended from a terminal.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::common::dataset::Dataset;
use crate::common::faults::standing;
use crate::common::server::{program, refusal};
use crate::{said, url};

const PLAN: &str = "seed = 7\n[[fault]]\nat = \"10s\"\nwho = { share = 0.1, key = \"k*\" }\ndo = \"reset\"\n";

fn file(dataset: &Dataset, name: &str, plan: &str) -> PathBuf {
    let path = dataset.path().join(name);
    std::fs::write(&path, plan).unwrap();
    path
}

#[test]
fn a_plan_is_checked_without_a_server() {
    let dataset = Dataset::usual();
    let (toml, json) = (file(&dataset, "plan.toml", PLAN), file(&dataset, "plan.json", r#"{"fault":[]}"#));
    assert!(said(&["faults", "check", toml.to_str().unwrap()]).ends_with("plan.toml: a plan of 1 fault\n"));
    assert!(said(&["faults", "check", json.to_str().unwrap()]).ends_with("plan.json: a plan of 0 faults\n"));
    let shown: Value = serde_json::from_str(&said(&["faults", "check", "--json", toml.to_str().unwrap()])).unwrap();
    let fault = json!({"at": "10s", "who": {"share": 0.1, "key": "k*"}, "do": "reset"});
    assert_eq!(shown, json!({"seed": 7, "fault": [fault]}), "the body of a PUT");
    let bad = file(&dataset, "bad.toml", "[[fault]]\nat = 1\ndo = \"stall\"\n");
    let refused = refusal(program(&["faults", "check"]).arg(&bad));
    assert!(refused.contains("bad.toml: fault 1: for: expected how long the stall lasts, got nothing"), "{refused}");
    let none = refusal(&mut program(&["faults", "check", "/nowhere.toml"]));
    assert!(none.contains("/nowhere.toml: expected a readable plan of faults"), "{none}");
}

#[test]
fn a_plan_is_begun_shown_and_ended() {
    let dataset = Dataset::usual();
    let server = standing(&dataset, &[("FLOWCAST_CONTROL_TOKEN", "s3cret")]);
    let path = file(&dataset, "plan.toml", PLAN);
    let (url, path) = (url(&server), path.to_str().unwrap());
    let steered = |args: &[&str]| said(&[&["faults", "--url", &url, "--control-token", "s3cret"], args].concat());
    assert_eq!(said(&["faults", "--url", &url]), "no plan of faults runs\n");
    let refused = refusal(&mut program(&["faults", "--url", &url, "set", path]));
    assert!(refused.contains("missing token"), "{refused}");
    let begun = steered(&["set", path]);
    assert_eq!(begun, "plan 1 runs: seed 7, tick 0\n  1  at=10s who={share=0.1 key=k*} do=reset: 0 struck\n");
    let read = said(&["faults", "show", "--url", &url]);
    assert!(read.contains("key=***"), "{read}");
    let shown: Value = serde_json::from_str(&steered(&["show", "--json"])).unwrap();
    assert_eq!((&shown["active"], &shown["plan"]), (&json!(true), &json!(1)));
    assert_eq!(steered(&["clear"]), "no plan of faults runs\n");
    let refused = refusal(&mut program(&["faults", "--url", &url, "--control-token", "wrong", "clear"]));
    assert!(refused.contains("wrong token"), "{refused}");
}
