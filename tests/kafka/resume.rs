//! A client that changes nodes, or comes back after a restart, misses nothing: its position is one in Kafka's log.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::common::eventually;
use crate::common::server::Server;
use crate::common::socket::{Frame, Socket};
use crate::topic::{self, Writer};
use crate::{broker, node};

/// A client that knows where it is, and goes on from there wherever it connects.
struct Traveller {
    channel: String,
    epoch: Value,
    seqs: BTreeMap<u64, u64>,
    /// The last number of each partition.
    last: BTreeMap<u64, u64>,
    partitions: u64,
}

impl Traveller {
    fn new(channel: &str, partitions: u64) -> Self {
        let (seqs, last) = (BTreeMap::new(), BTreeMap::new());
        Self { channel: channel.to_owned(), epoch: Value::Null, seqs, last, partitions }
    }

    fn since(&self) -> Value {
        let seqs: BTreeMap<String, u64> =
            self.seqs.iter().map(|(partition, seq)| (partition.to_string(), *seq)).collect();
        json!({"epoch": self.epoch, "seq": seqs})
    }

    /// Connects and subscribes; the answer's entry for the channel.
    fn arrive(&mut self, server: &Server) -> (Socket, Value) {
        let mut socket = Socket::open(server.address, "/ws", &[]).expect("an upgrade");
        let mut request = json!({"type": "subscribe", "channel": self.channel});
        if !self.epoch.is_null() {
            request["since"] = self.since();
        }
        socket.send_text(&request.to_string());
        loop {
            let message = hear(&mut socket);
            if message["type"] == "subscribed" {
                let told = message["positions"][&self.channel].clone();
                if self.epoch.is_null() {
                    self.epoch = told["epoch"].clone();
                    match &told["seq"] {
                        Value::Object(seqs) => {
                            self.seqs.extend(
                                seqs.iter().map(|(partition, seq)| (partition.parse().unwrap(), seq.as_u64().unwrap())),
                            );
                        }
                        seq => drop(self.seqs.insert(0, seq.as_u64().unwrap())),
                    }
                }
                return (socket, told);
            }
            assert_ne!(message["type"], "error", "{message}");
        }
    }

    /// Checks the next message: each partition has its numbers without gap.
    fn take(&mut self, socket: &mut Socket) {
        let message = hear(socket);
        assert_eq!((&message["type"], &message["epoch"]), (&json!("message"), &self.epoch), "{message}");
        let partition = message.get("partition").map_or(0, |partition| partition.as_u64().unwrap());
        let (seq, number) = (message["seq"].as_u64().unwrap(), message["payload"]["number"].as_u64().unwrap());
        assert_eq!(message["payload"]["partition"], partition, "{message}");
        if let Some(last) = self.last.insert(partition, number) {
            assert_eq!(number, last + self.partitions, "partition {partition}");
        }
        assert!(self.seqs.insert(partition, seq).is_none_or(|before| seq == before + 1), "{message}");
    }

    fn has_all(&self, last: u64) -> bool {
        self.last.len() as u64 == self.partitions && self.last.values().all(|&number| number + self.partitions > last)
    }
}

/// Waits until the node's numbers are the log's: the epoch is the topic's id, 16 bytes in base64.
fn following(server: Server, channel: &str) -> Server {
    eventually("the channel follows the log", || {
        let told = server.get("/websocket/status").json()["stream_history"][channel].clone();
        (told["epoch"].as_str()?.len() == 22).then_some(())
    });
    server
}

fn hear(socket: &mut Socket) -> Value {
    loop {
        match socket.frame() {
            Frame::Text(text) => return serde_json::from_str(&text).expect("JSON"),
            Frame::Ping(_) => {}
            other => panic!("expected a message, got {other:?}"),
        }
    }
}

#[test]
fn a_client_that_changes_between_two_nodes_under_load_misses_nothing_and_gets_nothing_twice() {
    const PARTITIONS: u64 = 3;
    const MESSAGES: u64 = 9000;
    let (brokers, lines) = (broker::shared(), topic::name("lines"));
    topic::create(&brokers, &lines, PARTITIONS as i32);
    let nodes =
        ["east", "west"].map(|id| following(node(&brokers, &[&lines], id, &[("FLOWCAST_SHARDS", "2")]), &lines));
    let (is_over, clients) = (AtomicBool::new(false), 4);
    let ready = std::sync::Barrier::new(clients + 1);
    std::thread::scope(|scope| {
        let (nodes, lines, is_over, ready) = (&nodes, &lines, &is_over, &ready);
        let travel = |client| {
            scope.spawn(move || {
                let mut traveller = Traveller::new(lines, PARTITIONS);
                // A first visit, for a position to go on from.
                let (socket, _) = traveller.arrive(&nodes[0]);
                drop(socket);
                ready.wait();
                for hop in client.. {
                    let (mut socket, told) = traveller.arrive(&nodes[hop % 2]);
                    assert_eq!(told["recovered"], true, "{told}");
                    for _ in 0..=(hop * 37) % 200 {
                        if is_over.load(Ordering::SeqCst) && traveller.has_all(MESSAGES - 1) {
                            return assert!(hop > 20, "{hop} changes prove nothing");
                        }
                        traveller.take(&mut socket);
                    }
                }
            })
        };
        let travelling: Vec<_> = (0..clients).map(travel).collect();
        ready.wait();
        let writer = Writer::new(&brokers);
        let write = |burst: u64| writer.count(lines, PARTITIONS as i32, 30 * burst..30 * (burst + 1));
        for burst in 0..MESSAGES / 30 {
            write(burst);
        }
        is_over.store(true, Ordering::SeqCst);
        // So that one that waits for its next message gets one, and sees that it is over.
        let mut next = MESSAGES / 30;
        while !travelling.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            write(next);
            next += 1;
        }
    });
}

#[test]
fn after_a_restart_and_on_a_node_that_never_read_the_messages_come_from_the_log() {
    let (brokers, lines) = (broker::shared(), topic::name("lines"));
    topic::create(&brokers, &lines, 2);
    let writer = Writer::new(&brokers);
    let first = following(node(&brokers, &[&lines], "mayfly", &[]), &lines);
    let mut traveller = Traveller::new(&lines, 2);
    let (mut socket, _) = traveller.arrive(&first);
    writer.count(&lines, 2, 0..20);
    (0..20).for_each(|_| traveller.take(&mut socket));
    drop((socket, first));
    writer.count(&lines, 2, 20..100);
    for id in ["mayfly", "newcomer"] {
        let again = node(&brokers, &[&lines], id, &[]);
        let mut again_there = Traveller {
            seqs: traveller.seqs.clone(),
            last: traveller.last.clone(),
            epoch: traveller.epoch.clone(),
            ..Traveller::new(&lines, 2)
        };
        // Right away: the answer waits until the log is read.
        let (mut socket, told) = again_there.arrive(&again);
        assert_eq!(told["recovered"], true, "{told}");
        (20..100).for_each(|_| again_there.take(&mut socket));
        assert!(again_there.has_all(99));
    }
}

#[test]
fn a_topic_that_was_made_anew_is_another_epoch_and_a_position_of_the_future_is_refused() {
    let (brokers, lines) = (broker::shared(), topic::name("lines"));
    topic::create(&brokers, &lines, 1);
    let writer = Writer::new(&brokers);
    let wait = [("FLOWCAST_RESUME_WAIT", "300ms")];
    let server = following(node(&brokers, &[&lines], "watcher", &wait), &lines);
    let mut traveller = Traveller::new(&lines, 1);
    let (mut socket, _) = traveller.arrive(&server);
    writer.count(&lines, 1, 0..5);
    (0..5).for_each(|_| traveller.take(&mut socket));
    traveller.seqs.insert(0, 1000);
    let (_, told) = traveller.arrive(&server);
    assert_eq!((&told["recovered"], &told["reason"]), (&json!(false), &json!("ahead")));
    traveller.seqs.insert(0, 5);
    drop(server);
    topic::delete(&brokers, &lines);
    topic::create(&brokers, &lines, 1);
    let server = following(node(&brokers, &[&lines], "watcher", &wait), &lines);
    let (_, told) = traveller.arrive(&server);
    assert_eq!((&told["recovered"], &told["reason"]), (&json!(false), &json!("unknown_epoch")));
}

#[test]
fn what_a_node_reads_of_a_topic_made_anew_has_its_epoch_and_its_numbers_from_the_first_message_on() {
    let (brokers, lines) = (broker::shared(), topic::name("lines"));
    topic::create(&brokers, &lines, 1);
    let server = following(node(&brokers, &[&lines], "watcher", &[]), &lines);
    let mut traveller = Traveller::new(&lines, 1);
    let (mut socket, _) = traveller.arrive(&server);
    Writer::new(&brokers).count(&lines, 1, 0..20);
    (0..20).for_each(|_| traveller.take(&mut socket));
    topic::make_anew(&brokers, &lines, 1);
    Writer::new(&brokers).count(&lines, 1, 1000..1030);
    let heard: Vec<Value> = (0..30).map(|_| hear(&mut socket)).collect();
    let epoch = &heard[0]["epoch"];
    assert_ne!(epoch, &traveller.epoch, "a client that has 20 messages of the old one must not take these for known");
    for (message, seq) in heard.iter().zip(1..) {
        assert_eq!((&message["epoch"], &message["seq"]), (epoch, &json!(seq)), "{message}");
    }
    let told = server.get("/websocket/status").json()["stream_history"][&lines].clone();
    assert_eq!(&told["epoch"], epoch);
}
