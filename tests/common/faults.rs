//! A server whose clock is stepped by hand, a plan of faults on it, and what the ledger says of it.

use serde_json::{Value, json};

use super::client::Client;
use super::dataset::Dataset;
use super::eventually;
use super::http;
use super::server::Server;

const JSON: (&str, &str) = ("Content-Type", "application/json");
const TOML: (&str, &str) = ("Content-Type", "application/toml");

/// A server whose clock stands, and moves by [`step`] alone.
pub fn standing(dataset: &Dataset, settings: &[(&str, &str)]) -> Server {
    let standing = [("FLOWCAST_CONTROL_RATE", "10000"), ("FLOWCAST_START_PAUSED", "true")];
    Server::with(dataset, &[&standing, settings].concat())
}

/// Begins a plan, which must be accepted.
pub fn order(server: &Server, plan: &str) -> Value {
    let answer = http::request_with(server.address, "PUT", "/faults", &[TOML], plan);
    assert_eq!(answer.status, 200, "{plan}: {answer:?}");
    answer.json()
}

/// Ends the plan.
pub fn clear(server: &Server) -> Value {
    let answer = http::request_with(server.address, "DELETE", "/faults", &[], "");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// So many ticks of the clock.
pub fn step(server: &Server, ticks: u64) {
    let body = json!({ "step": ticks }).to_string();
    let answer = http::request_with(server.address, "PATCH", "/replay", &[JSON], &body);
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// What the ledger says of faults, in its order.
pub fn entries(server: &Server) -> Vec<Value> {
    let ticks = server.get("/ticks").json();
    let of_tick = |tick: &Value| tick["faults"].as_array().cloned().unwrap_or_default();
    ticks["ticks"].as_array().unwrap().iter().flat_map(of_tick).collect()
}

/// The same, once there are so many.
pub fn entries_until(server: &Server, count: usize) -> Vec<Value> {
    eventually(&format!("there are {count} entries"), || Some(entries(server)).filter(|entries| entries.len() >= count))
}

/// A client with a key of its own that has joined SPX.
pub fn keyed(server: &Server, key: &str, subprotocol: &str) -> Client {
    Client::open_at(server, &format!("/client/hubs/orderflow?access_token={key}:1"), subprotocol).joined(&["SPX"])
}

/// How many clients and requests a kind has struck.
pub fn struck(server: &Server, kind: &str) -> u64 {
    server.metric(&format!("flowcast_faults_total{{do=\"{kind}\"}}"))
}

/// How many frames.
pub fn frames(server: &Server, kind: &str) -> u64 {
    server.metric(&format!("flowcast_fault_frames_total{{do=\"{kind}\"}}"))
}
