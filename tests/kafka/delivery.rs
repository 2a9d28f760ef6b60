//! What is written to a topic reaches every client of every node, in order.

use crate::common::eventually;
use crate::common::server::Server;
use crate::listener::{Listener, Numbered, assert_complete, by_partition};
use crate::topic::{self, Writer};
use crate::{broker, node, reading};
use rustix::process::Signal;
use serde_json::Value;

#[test]
fn a_message_arrives_as_it_was_written_with_key_and_kafkas_time() {
    let (brokers, lines) = (broker::shared(), topic::name("lines"));
    topic::create(&brokers, &lines, 1);
    let node = reading(node(&brokers, &[&lines], "one", &[]), 1);
    let mut listener = Listener::new(&node, &[&lines]);
    let writer = Writer::new(&brokers);
    let payload = r#"{"bid": 1.50, "text": "\u00e9", "more":[1,null]}"#;
    writer.queue(&lines, 0, Some("AAPL"), Some(payload.as_bytes()));
    writer.queue(&lines, 0, None, Some(b"\x00\xffnot text"));
    let first = listener.hear_text();
    assert!(first.contains(payload), "to the letter: {first}");
    let first: Value = serde_json::from_str(&first).unwrap();
    assert_eq!((first["channel"].as_str(), first["key"].as_str()), (Some(lines.as_str()), Some("AAPL")));
    let at: jiff::Timestamp = first["timestamp"].as_str().unwrap().parse().unwrap();
    assert!(at.duration_until(jiff::Timestamp::now()).as_secs().abs() < 600, "{at} is when it was written");
    let second = listener.hear();
    assert_eq!((second["encoding"].as_str(), second.get("key")), (Some("base64"), None), "{second}");
    assert_eq!(second["payload"], "AP9ub3QgdGV4dA==");
}

#[test]
fn the_clients_of_three_nodes_all_get_the_identical_sequence_of_each_partition() {
    const PARTITIONS: i32 = 4;
    const MESSAGES: u64 = 4000;
    let (brokers, lines) = (broker::shared(), topic::name("lines"));
    topic::create(&brokers, &lines, PARTITIONS);
    let nodes: Vec<Server> =
        ["a", "b", "c"].iter().map(|id| reading(node(&brokers, &[&lines], id, &[]), PARTITIONS as usize)).collect();
    let listeners: Vec<Listener> =
        nodes.iter().flat_map(|node| [Listener::new(node, &[&lines]), Listener::new(node, &[&lines])]).collect();
    let heard: Vec<Vec<Numbered>> = std::thread::scope(|scope| {
        let hearing: Vec<_> =
            listeners.into_iter().map(|mut listener| scope.spawn(move || listener.take(MESSAGES as usize))).collect();
        // In bursts, so that partitions interleave differently on every node.
        let writer = Writer::new(&brokers);
        for burst in 0..MESSAGES / 100 {
            writer.count(&lines, PARTITIONS, 100 * burst..100 * (burst + 1));
        }
        hearing.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(heard.len(), 6);
    for heard in &heard {
        assert_complete(heard, PARTITIONS as u64, 0..MESSAGES);
        assert_eq!(by_partition(heard, PARTITIONS as u64), by_partition(&heard[..], PARTITIONS as u64));
    }
    for node in &nodes {
        assert_eq!(node.metric(&format!("flowcast_kafka_messages_total{{topic=\"{lines}\"}}")), MESSAGES);
        assert_eq!(node.metric("flowcast_shard_overruns_total"), 0);
    }
}

#[test]
fn a_node_that_has_never_read_starts_behind_the_newest_message() {
    let (brokers, lines) = (broker::shared(), topic::name("lines"));
    topic::create(&brokers, &lines, 2);
    let writer = Writer::new(&brokers);
    writer.count(&lines, 2, 0..10);
    let node = reading(node(&brokers, &[&lines], "late", &[]), 2);
    let mut listener = Listener::new(&node, &[&lines]);
    writer.count(&lines, 2, 10..20);
    assert_complete(&listener.take(10), 2, 10..20);
}

#[test]
fn a_killed_node_goes_on_where_it_left_off() {
    let (brokers, lines) = (broker::shared(), topic::name("lines"));
    topic::create(&brokers, &lines, 2);
    let writer = Writer::new(&brokers);
    let first = reading(node(&brokers, &[&lines], "phoenix", &[]), 2);
    let mut listener = Listener::new(&first, &[&lines]);
    writer.count(&lines, 2, 0..100);
    assert_complete(&listener.take(100), 2, 0..100);
    for partition in 0..2 {
        eventually("what was passed on is committed", || {
            (topic::committed(&brokers, "ws-realtime-phoenix", &lines, partition) == Some(50)).then_some(())
        });
    }
    first.signal(Signal::KILL);
    drop(first);
    writer.count(&lines, 2, 100..160);
    let again = reading(node(&brokers, &[&lines], "phoenix", &[]), 2);
    let mut listener = Listener::new(&again, &[&lines]);
    let read = format!("flowcast_kafka_messages_total{{topic=\"{lines}\"}}");
    assert_eq!(again.metric_until(&read, |read| read >= 60), 60, "what came meanwhile, and nothing twice");
    writer.count(&lines, 2, 160..200);
    // What it passed on while we joined may come before.
    let mut heard = Vec::new();
    while heard.len() < 40 {
        heard.extend(listener.take(1).into_iter().filter(|one| one.number >= 160));
    }
    assert_complete(&heard, 2, 160..200);
}

#[test]
fn a_node_that_dies_before_its_first_message_skips_none() {
    let (brokers, lines) = (broker::shared(), topic::name("lines"));
    topic::create(&brokers, &lines, 1);
    let writer = Writer::new(&brokers);
    writer.count(&lines, 1, 0..7);
    let first = reading(node(&brokers, &[&lines], "unlucky", &[]), 1);
    eventually("its start is committed", || topic::committed(&brokers, "ws-realtime-unlucky", &lines, 0));
    first.signal(Signal::KILL);
    drop(first);
    writer.count(&lines, 1, 7..12);
    let again = reading(node(&brokers, &[&lines], "unlucky", &[]), 1);
    let read = format!("flowcast_kafka_messages_total{{topic=\"{lines}\"}}");
    assert_eq!(again.metric_until(&read, |read| read >= 5), 5);
}

#[test]
fn a_stopped_node_has_committed_all_it_passed_on() {
    let (brokers, lines) = (broker::shared(), topic::name("lines"));
    topic::create(&brokers, &lines, 1);
    let mut node = reading(node(&brokers, &[&lines], "tidy", &[]), 1);
    let mut listener = Listener::new(&node, &[&lines]);
    Writer::new(&brokers).count(&lines, 1, 0..25);
    listener.take(25);
    drop(listener);
    node.signal(Signal::TERM);
    assert!(node.ended().success());
    assert_eq!(topic::committed(&brokers, "ws-realtime-tidy", &lines, 0), Some(25));
}

#[test]
fn with_start_latest_what_came_meanwhile_is_skipped() {
    let (brokers, lines) = (broker::shared(), topic::name("lines"));
    topic::create(&brokers, &lines, 1);
    let writer = Writer::new(&brokers);
    let mut first = reading(node(&brokers, &[&lines], "impatient", &[]), 1);
    writer.count(&lines, 1, 0..5);
    first.metric_until(&format!("flowcast_kafka_messages_total{{topic=\"{lines}\"}}"), |read| read == 5);
    first.signal(Signal::TERM);
    first.ended();
    writer.count(&lines, 1, 5..10);
    let again = reading(node(&brokers, &[&lines], "impatient", &[("FLOWCAST_KAFKA_START", "latest")]), 1);
    let mut listener = Listener::new(&again, &[&lines]);
    writer.count(&lines, 1, 10..12);
    assert_complete(&listener.take(2), 1, 10..12);
}

#[test]
fn a_topic_that_comes_later_is_read_from_its_first_message() {
    let (brokers, lines) = (broker::shared(), topic::name("lines"));
    let node = node(&brokers, &[&lines], "early", &[]);
    node.logged("Kafka has no such topic yet");
    let mut listener = Listener::new(&node, &[&lines]);
    topic::create(&brokers, &lines, 3);
    Writer::new(&brokers).count(&lines, 3, 0..30);
    assert_complete(&listener.take(30), 3, 0..30);
}

#[test]
fn a_partition_that_is_added_is_read_from_its_first_message() {
    let (brokers, lines) = (broker::shared(), topic::name("lines"));
    topic::create(&brokers, &lines, 1);
    let node = reading(node(&brokers, &[&lines], "grower", &[]), 1);
    let mut listener = Listener::new(&node, &[&lines]);
    topic::grow(&brokers, &lines, 3);
    Writer::new(&brokers).count(&lines, 3, 0..30);
    assert_complete(&listener.take(30), 3, 0..30);
}

#[test]
fn a_topic_that_is_made_anew_is_read_from_its_first_message() {
    let (brokers, lines) = (broker::shared(), topic::name("lines"));
    topic::create(&brokers, &lines, 1);
    let node = reading(node(&brokers, &[&lines], "steady", &[]), 1);
    let mut listener = Listener::new(&node, &[&lines]);
    Writer::new(&brokers).count(&lines, 1, 0..50);
    assert_complete(&listener.take(50), 1, 0..50);
    topic::delete(&brokers, &lines);
    node.logged("Kafka has no such topic yet");
    topic::create(&brokers, &lines, 1);
    Writer::new(&brokers).count(&lines, 1, 100..110);
    assert_complete(&listener.take(10), 1, 100..110);
}

#[test]
fn a_stalled_client_is_dropped_and_the_others_go_on() {
    let (brokers, lines) = (broker::shared(), topic::name("lines"));
    topic::create(&brokers, &lines, 1);
    let settings = [("FLOWCAST_SEND_BUFFER_BYTES", "8192")];
    let node = reading(node(&brokers, &[&lines], "busy", &settings), 1);
    let _stalled = Listener::small(&node, &[&lines]);
    let mut other = Listener::new(&node, &[&lines]);
    let writer = Writer::new(&brokers);
    let text = "x".repeat(500);
    let mut sent = 0;
    eventually("the stalled client is dropped", || {
        for _ in 0..100 {
            let payload = format!(r#"{{"partition":0,"number":{sent},"text":"{text}"}}"#);
            writer.queue(&lines, 0, None, Some(payload.as_bytes()));
            sent += 1;
        }
        assert_eq!(other.take(100).last().unwrap().number, sent - 1);
        (node.closed("lag") == 1).then_some(())
    });
    writer.count(&lines, 1, sent..sent + 10);
    assert_complete(&other.take(10), 1, sent..sent + 10);
}

#[test]
fn a_shared_group_splits_the_messages_between_its_nodes() {
    const PARTITIONS: i32 = 4;
    let (brokers, lines) = (broker::shared(), topic::name("lines"));
    topic::create(&brokers, &lines, PARTITIONS);
    let group = topic::name("replicas");
    let settings = [("FLOWCAST_KAFKA_SHARED_GROUP", "true"), ("WS_KAFKA_GROUP_ID", group.as_str())];
    let nodes = ["left", "right"].map(|id| node(&brokers, &[&lines], id, &settings));
    eventually("both have two partitions", || {
        let partitions = |node: &Server| {
            let log = node.log();
            log.lines()
                .rfind(|line| line.contains("has distributed the partitions"))
                .map(|line| line.contains("partitions=2"))
        };
        nodes.iter().all(|node| partitions(node) == Some(true)).then_some(())
    });
    let mut listeners = [0, 1].map(|at| Listener::new(&nodes[at], &[&lines]));
    Writer::new(&brokers).count(&lines, PARTITIONS, 0..200);
    let heard = [0, 1].map(|at| listeners[at].take(100));
    assert_complete(&heard.concat(), PARTITIONS as u64, 0..200);
}
