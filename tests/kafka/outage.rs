//! The broker goes away, and comes back: nothing is lost, nothing comes twice.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::common::eventually;
use crate::common::server::Server;
use crate::listener::{Listener, assert_complete, by_partition};
use crate::topic::{self, Writer};
use crate::{broker, node, reading};

fn health(node: &Server, stream: &str) -> Value {
    node.get("/websocket/status").json()["stream_health"][stream].clone()
}

fn is_healthy(node: &Server, stream: &str, expected: bool) {
    eventually(&format!("is_healthy is {expected}"), || (health(node, stream)["is_healthy"] == expected).then_some(()));
}

/// A message's number; the last one has none.
fn number(payload: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Value>(payload).unwrap()["number"].as_u64()
}

fn without(all: &[u64], some: &[u64]) -> Vec<u64> {
    let some: HashSet<_> = some.iter().collect();
    all.iter().copied().filter(|number| !some.contains(number)).collect()
}

fn distinct(numbers: &[u64]) -> usize {
    numbers.iter().collect::<HashSet<_>>().len()
}

/// 200 messages a second, the broker gone for so many seconds in between; `end` takes it away.
fn nothing_is_lost(seconds: u64, end: impl FnOnce(&mut broker::Broker)) {
    const PARTITIONS: i32 = 3;
    let mut broker = broker::of_its_own();
    let lines = topic::name("lines");
    topic::create(&broker.plain, &lines, PARTITIONS);
    let nodes = ["x", "y"].map(|id| reading(node(&broker.plain, &[&lines], id, &[]), PARTITIONS as usize));
    let stop = AtomicBool::new(false);
    let (sent, heard) = thread::scope(|scope| {
        let writer = Writer::new(&broker.plain);
        let (stop, lines) = (&stop, lines.as_str());
        let writing = scope.spawn(move || {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                let partition = (sent % PARTITIONS as u64) as i32;
                writer.queue(lines, partition, None, Some(topic::numbered(partition, sent).as_bytes()));
                sent += 1;
                thread::sleep(Duration::from_millis(5));
            }
            writer.count(lines, PARTITIONS, sent..sent + PARTITIONS as u64);
            sent + PARTITIONS as u64
        });
        let listening: Vec<_> = nodes
            .iter()
            .map(|node| {
                let mut listener = Listener::new(node, &[lines]);
                scope.spawn(move || {
                    let first = listener.take(1)[0];
                    // The last of each partition is known only at the end: read until it came.
                    let mut heard = vec![first];
                    let mut open = PARTITIONS;
                    while open > 0 {
                        let one = listener.hear();
                        if one["payload"]["last"] == true {
                            open -= 1;
                        } else {
                            heard.push(crate::listener::Numbered::of(&one));
                        }
                    }
                    heard
                })
            })
            .collect();
        thread::sleep(Duration::from_secs(2));
        end(&mut broker);
        for node in &nodes {
            is_healthy(node, lines, false);
            assert_eq!(node.get("/healthz").status, 200, "it serves on");
        }
        thread::sleep(Duration::from_secs(seconds));
        for node in &nodes {
            assert!(health(node, lines)["recovery_attempts"].as_u64().unwrap() > 0);
        }
        broker.resume();
        for node in &nodes {
            is_healthy(node, lines, true);
        }
        thread::sleep(Duration::from_secs(2));
        stop.store(true, Ordering::Relaxed);
        let sent: u64 = writing.join().unwrap();
        let writer = Writer::new(&broker.plain);
        for partition in 0..PARTITIONS {
            writer.queue(lines, partition, None, Some(br#"{"last":true}"#));
        }
        writer.flush();
        (sent, listening.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>())
    });
    assert!(sent > 100 * seconds, "{sent}");
    // What Kafka holds is the truth: whether it keeps what a producer gave it is not ours to prove.
    let held: Vec<Vec<u64>> = topic::contents(&broker.plain, &lines, PARTITIONS)
        .iter()
        .map(|held| held.iter().filter_map(|payload| number(payload)).collect())
        .collect();
    assert!(held.iter().map(Vec::len).sum::<usize>() as u64 > 100 * seconds, "messages on both sides of the gap");
    for (at, heard) in heard.iter().enumerate() {
        for (partition, heard) in by_partition(heard, PARTITIONS as u64).into_iter().enumerate() {
            // The writer began before they listened.
            let from = held[partition].iter().position(|number| heard.first() == Some(number)).unwrap();
            let (lost, twice) = (without(&held[partition][from..], &heard), heard.len() - distinct(&heard));
            assert!(lost.is_empty(), "node {at} lost {lost:?} of partition {partition}");
            assert_eq!(twice, 0, "node {at} said some of partition {partition} twice");
            assert_eq!(heard, held[partition][from..], "node {at} keeps the order of partition {partition}");
        }
    }
    for node in &nodes {
        assert_eq!(node.closed("lag"), 0, "what waited comes no faster than clients can take it");
        assert_eq!(node.metric("flowcast_shard_overruns_total"), 0);
    }
}

#[test]
fn a_broker_stopped_for_ten_seconds_under_load_costs_nothing() {
    nothing_is_lost(10, broker::Broker::stop);
}

#[test]
fn a_broker_killed_under_load_costs_nothing() {
    nothing_is_lost(3, broker::Broker::kill);
}

#[test]
fn a_node_serves_without_a_broker_and_reads_when_it_comes() {
    let mut broker = broker::of_its_own();
    let lines = topic::name("lines");
    topic::create(&broker.plain, &lines, 1);
    Writer::new(&broker.plain).count(&lines, 1, 0..5);
    broker.stop();
    let node = node(&broker.plain, &[&lines], "lonely", &[]);
    let mut listener = Listener::new(&node, &[&lines]);
    node.logged("Kafka does not answer");
    let stream = health(&node, &lines);
    assert_eq!(stream["is_healthy"], false);
    eventually("it tries again", || (health(&node, &lines)["recovery_attempts"].as_u64()? > 1).then_some(()));
    broker.resume();
    is_healthy(&node, &lines, true);
    let _reading = reading(node, 1);
    Writer::new(&broker.plain).count(&lines, 1, 5..10);
    assert_complete(&listener.take(5), 1, 5..10);
}

#[test]
fn a_broker_that_restarts_before_the_first_message_costs_none() {
    let mut broker = broker::of_its_own();
    let lines = topic::name("lines");
    topic::create(&broker.plain, &lines, 1);
    let node = reading(node(&broker.plain, &[&lines], "prompt", &[]), 1);
    let mut listener = Listener::new(&node, &[&lines]);
    broker.kill();
    is_healthy(&node, &lines, false);
    broker.resume();
    Writer::new(&broker.plain).count(&lines, 1, 0..5);
    assert_complete(&listener.take(5), 1, 0..5);
}

#[test]
fn a_node_that_never_found_its_broker_stops_all_the_same() {
    let mut node = node("127.0.0.1:1", &["lines"], "forsaken", &[]);
    node.logged("Kafka does not answer");
    node.signal(Signal::TERM);
    assert!(node.ended().success());
}
