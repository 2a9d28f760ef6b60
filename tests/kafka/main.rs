//! Kafka, with a real broker: topics as sources, and several nodes.
//!
//! `broker.py` runs an Apache Kafka in KRaft mode for as long as these tests do; with `KAFKA_BROKERS`
//! set, the tests that need not stop the broker use that one instead.

#[path = "../common/mod.rs"]
mod common;

mod broker;
mod delivery;
mod feeding;
mod listener;
mod outage;
mod recording;
mod recreated;
mod resume;
mod settings;
mod topic;
mod transactions;

use std::sync::OnceLock;

use common::dataset::Dataset;
use common::server::{Server, serve};

/// A node's command line: it reads `topics` and lets anybody in. Nothing of the recorded day is heard.
pub fn node_command(brokers: &str, topics: &[&str], id: &str, more: &[(&str, &str)]) -> std::process::Command {
    // One day for all: it must outlive every node, and no node changes it.
    static DAY: OnceLock<Dataset> = OnceLock::new();
    let topics = topics.join(",");
    let own = [
        ("WS_KAFKA_BROKERS", brokers),
        ("WS_KAFKA_TOPICS", topics.as_str()),
        ("FLOWCAST_NODE_ID", id),
        ("FLOWCAST_ALLOW_ANONYMOUS", "true"),
        ("FLOWCAST_KAFKA_REFRESH", "200ms"),
        ("FLOWCAST_KAFKA_BACKOFF", "50ms"),
        ("FLOWCAST_KAFKA_BACKOFF_MAX", "500ms"),
    ];
    serve(DAY.get_or_init(Dataset::usual), &[&own, more].concat())
}

/// A node that serves, whether it has reached the broker or not.
pub fn node(brokers: &str, topics: &[&str], id: &str, more: &[(&str, &str)]) -> Server {
    Server::launch(&mut node_command(brokers, topics, id, more)).serving()
}

/// Waits until the node reads so many partitions: every message that comes after is its.
pub fn reading(server: Server, partitions: usize) -> Server {
    common::eventually(&format!("the node reads {partitions} partitions"), || {
        (server.log().matches(" reading topic=").count() >= partitions).then_some(())
    });
    server
}
