//! The broker goes away, and comes back: nothing is lost, nothing comes twice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::common::eventually;
use crate::common::server::Server;
use crate::listener::{Listener, assert_complete};
use crate::topic::{self, Writer};
use crate::{broker, node, reading};

fn health(node: &Server, stream: &str) -> Value {
    node.get("/websocket/status").json()["stream_health"][stream].clone()
}

fn is_healthy(node: &Server, stream: &str, expected: bool) {
    eventually(&format!("is_healthy is {expected}"), || (health(node, stream)["is_healthy"] == expected).then_some(()));
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
    for heard in heard {
        // The writer began before they listened.
        let first = heard.iter().map(|one| one.number).min().unwrap();
        let complete = (first..first + 30).find(|&from| {
            (0..PARTITIONS as u64).all(|partition| {
                let first = heard.iter().find(|one| one.partition == partition).unwrap().number;
                first <= from + PARTITIONS as u64
            })
        });
        let from = complete.expect("each partition begins close to the others") + PARTITIONS as u64;
        let heard: Vec<_> = heard.into_iter().filter(|one| one.number >= from).collect();
        assert_complete(&heard, PARTITIONS as u64, from..sent);
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
