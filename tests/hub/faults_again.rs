//! The same plan, the same seed, the same clients: the same faults at the same ticks (`docs/faults.md`, "The same twice").

use serde_json::Value;

use crate::common::client::{Client, JSON, JSON_RELIABLE, PROTOBUF, PROTOBUF_RELIABLE};
use crate::common::dataset::Dataset;
use crate::common::eventually;
use crate::common::faults::{entries, keyed, order, standing, step};
use crate::common::http;
use crate::common::server::Server;

/// Faults of every class; nobody is closed, so that all clients see all ticks.
const PLAN: &str = r#"
[[fault]]
chance = 0.3
do = "drop"

[[fault]]
every = 3
who = { share = 0.5 }
do = "duplicate"

[[fault]]
every = 4
for = 2
who = { share = 0.4, key = "k?" }
do = "corrupt"

[[fault]]
chance = 0.2
do = "delay"
by = "1ms"
jitter = "20ms"

[[fault]]
chance = 0.2
do = "ping-flood"
count = 1

[[fault]]
chance = 0.5
do = "refuse-negotiate"

[[fault]]
at = 9
who = { share = 0.5 }
do = "reset"
"#;

/// An entry without what differs from run to run: ids.
fn stable(mut entry: Value) -> String {
    entry["connection"] = Value::Null;
    for frame in entry["frames"].as_array_mut().into_iter().flatten() {
        frame["sequence_id"] = Value::Null;
    }
    entry.to_string()
}

/// What a plan does to twelve clients in ten ticks, sorted: shards write side by side.
fn run(seed: u64, shards: &str) -> Vec<String> {
    let server = standing(&Dataset::usual(), &[("FLOWCAST_SHARDS", shards)]);
    let subprotocols = [JSON, JSON_RELIABLE, PROTOBUF, PROTOBUF_RELIABLE];
    let _clients: Vec<Client> = (0..12).map(|at| keyed(&server, &format!("k{at}"), subprotocols[at % 4])).collect();
    order(&server, &format!("seed = {seed}\n{PLAN}"));
    for at in 0..8 {
        http::request(server.address, "GET", "/negotiate", &[("Authorization", &format!("Basic n{at}"))]);
    }
    step(&server, 10);
    settled(&server);
    let mut entries: Vec<String> = entries(&server).into_iter().map(stable).collect();
    entries.sort();
    entries
}

/// Waits until the shards have acted on everything.
fn settled(server: &Server) {
    let told = || server.get("/faults").json()["total"].clone();
    let mut last = (told(), 0);
    eventually("nothing more is struck", || {
        let now = told();
        last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
        std::thread::sleep(std::time::Duration::from_millis(10));
        (last.1 > 30).then_some(())
    });
}

#[test]
fn two_runs_of_a_plan_strike_the_same_clients_at_the_same_ticks() {
    let first = run(7, "2");
    for kind in ["drop", "duplicate", "corrupt", "delay", "ping-flood", "refuse-negotiate", "reset"] {
        assert!(first.iter().any(|entry| entry.contains(&format!("\"do\":\"{kind}\""))), "{kind} is among {first:#?}");
    }
    assert_eq!(first, run(7, "2"));
    assert_eq!(first, run(7, "1"), "on however many shards");
    assert_ne!(first, run(8, "2"), "another seed strikes others");
}
