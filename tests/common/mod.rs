//! What the black-box tests share: a dataset of known records, the built server on a free port, and
//! clients that speak literal bytes.
//!
//! Nothing here uses flowcast's own code: what it decodes, it decodes by itself.
#![allow(dead_code, reason = "every test binary uses its own part")]

pub mod client;
pub mod dataset;
pub mod faults;
pub mod http;
pub mod live;
pub mod protobuf;
pub mod server;
pub mod socket;
pub mod streams;

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before a test counts as hanging. Nothing is measured against it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until there is an answer.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
