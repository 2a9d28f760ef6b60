//! What each kind of topic feeds, and what is skipped.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::common::client::{CLIENT, Client, Data, JSON_RELIABLE, PROTOBUF, WS};
use crate::common::dataset::{Dataset, Profile, line, payload};
use crate::common::server::{program, run};
use crate::listener::Listener;
use crate::topic::{self, Writer};
use crate::{broker, node, reading};

/// A ticker nobody else has.
fn ticker(what: &str) -> String {
    topic::name(what).replace('-', "_")
}

fn skipped(topic: &str, reason: &str) -> String {
    format!("flowcast_kafka_messages_skipped_total{{topic=\"{topic}\",reason=\"{reason}\"}}")
}

#[test]
fn the_orderflow_topic_reaches_web_pubsub_clients_on_every_wire_and_profile() {
    let brokers = broker::shared();
    topic::create(&brokers, "orderflow", 1);
    let node = reading(node(&brokers, &["orderflow"], "flow", &[]), 1);
    let spx = ticker("SPX");
    // They join before the ticker is known.
    let wires =
        [(CLIENT, PROTOBUF, Profile::V2026), (CLIENT, JSON_RELIABLE, Profile::V2026), (WS, PROTOBUF, Profile::V2025)];
    let mut clients =
        wires.map(|(endpoint, wire, profile)| (Client::open_at(&node, endpoint, wire).joined(&[&spx]), profile));
    let writer = Writer::new(&brokers);
    for n in 0..300 {
        writer.queue("orderflow", 0, Some(&spx), Some(line(&spx, n).as_bytes()));
    }
    writer.flush();
    for (client, profile) in &mut clients {
        for (n, data) in client.take(300).into_iter().enumerate() {
            assert_eq!(data.payload(), payload(&spx, n as u64, *profile));
        }
    }
    let tickers = node.get("/tickers").json();
    assert!(tickers["futures"].as_array().unwrap().contains(&json!(spx)), "{tickers}");
    assert_eq!(node.metric("flowcast_groups_silent"), 0);
    assert_eq!(node.metric("flowcast_shard_overruns_total"), 0);
    let status = node.get("/websocket/status").json();
    assert_eq!(status["stream_health"]["orderflow"]["is_healthy"], true);
}

#[test]
fn topics_named_as_trading_streams_feed_those() {
    let brokers = broker::shared();
    for name in ["signals", "price_updates"] {
        topic::create(&brokers, name, 1);
    }
    let settings = [("WEBSOCKET_PRICE_UPDATE_INTERVAL", "1")];
    let node = reading(node(&brokers, &["signals", "price_updates"], "trade", &settings), 2);
    let mut listener = Listener::new(&node, &["signals", "price_updates"]);
    let writer = Writer::new(&brokers);
    writer.queue("signals", 0, None, Some(br#"{"signal_type":"BUY","symbol":"AAPL","price":1.5}"#));
    let signal = listener.hear();
    assert_eq!((&signal["type"], &signal["symbol"]), (&json!("signal"), &json!("AAPL")));
    for price in 1..=20 {
        let record = format!(r#"{{"symbol":"MSFT","price":{price},"prev_close":10}}"#);
        writer.queue("price_updates", 0, Some("MSFT"), Some(record.as_bytes()));
    }
    writer.flush();
    let mut told = 0;
    while told < 20 {
        let update = listener.hear();
        assert_eq!(update["type"], "price_update");
        let price = update["symbols"]["MSFT"]["price"].as_u64().unwrap();
        assert!(price > told, "conflated, and in order");
        told = price;
    }
}

#[test]
fn poison_is_counted_by_kind_told_once_and_skipped() {
    let (brokers, lines) = (broker::shared(), topic::name("lines"));
    topic::create(&brokers, &lines, 1);
    topic::create(&brokers, "trades", 1);
    let settings = [("FLOWCAST_KAFKA_MAX_MESSAGE_BYTES", "2000")];
    let node = reading(node(&brokers, &[&lines, "trades"], "cautious", &settings), 2);
    let mut listener = Listener::new(&node, &[&lines, "trades"]);
    let writer = Writer::new(&brokers);
    for _ in 0..3 {
        writer.queue(&lines, 0, Some("k"), None);
        writer.queue(&lines, 0, None, Some(&[b'x'; 2001]));
        // Larger than what is fetched at once.
        writer.queue(&lines, 0, None, Some(&vec![b'y'; 6 << 20]));
        writer.queue("trades", 0, None, Some(br#"{"symbol":"AAPL","side":"MAYBE"}"#));
        writer.queue("trades", 0, None, Some(b"{"));
        writer.flush();
    }
    writer.queue(&lines, 0, None, Some(b"1"));
    assert_eq!(listener.hear()["payload"], 1);
    writer.queue("trades", 0, None, Some(br#"{"symbol":"AAPL","side":"BUY","quantity":1,"price":2}"#));
    assert_eq!(listener.hear()["type"], "trade_executed");
    assert_eq!(node.metric(&skipped(&lines, "tombstone")), 3);
    assert_eq!(node.metric(&skipped(&lines, "too_large")), 6);
    assert_eq!(node.metric(&skipped(&lines, "invalid")), 0);
    assert_eq!(node.metric(&skipped("trades", "invalid")), 6);
    let log = node.log();
    assert_eq!(log.matches("skipped a Kafka message").count(), 3, "{log}");
    let health = &node.get("/websocket/status").json()["stream_health"];
    assert_eq!((&health[&lines]["error_count"], &health["trades"]["error_count"]), (&json!(9), &json!(6)));
}

#[test]
fn a_recorded_day_is_published_by_time_and_what_clients_get_is_that_day() {
    let brokers = broker::shared();
    topic::create(&brokers, "orderflow", 1);
    let (one, two) = (ticker("ONE"), ticker("TWO"));
    let dataset = Dataset::new(&[(&one, 30), (&two, 20)]);
    let node = reading(node(&brokers, &["orderflow"], "replayed", &[]), 1);
    let mut client = Client::open(&node, JSON_RELIABLE).joined(&[&one, &two]);
    let data_dir = dataset.path().to_str().unwrap();
    let command = ["publish", "--brokers", &brokers, "--topic", "orderflow", "--data-dir", data_dir, "--speed", "200"];
    let output = run(&mut program(&command));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(said.starts_with("orderflow: 50 messages delivered, "), "{said}");
    let data = client.take(50);
    for (name, records) in [(&one, 30), (&two, 20)] {
        let of: Vec<_> = data.iter().map(Data::payload).filter(|payload| payload.ticker == *name).collect();
        assert_eq!(of, (0..records).map(|n| payload(name, n, Profile::V2026)).collect::<Vec<_>>());
    }
    let times: Vec<i64> = data.iter().map(|data| data.payload().timestamp).collect();
    assert!(times.is_sorted(), "both tickers by time: {times:?}");
}

#[test]
fn a_time_that_cannot_be_meant_is_told_and_not_waited_for() {
    let (brokers, trades) = (broker::shared(), topic::name("trades"));
    topic::create(&brokers, &trades, 1);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trades.jsonl");
    let trade = |at: &str| format!(r#"{{"timestamp":"{at}","symbol":"SPX","side":"BUY","quantity":1,"price":1}}"#);
    let usual = |second: u32| trade(&format!("2025-11-28T14:30:{second:02}Z"));
    let lines = [&trade("0001-01-01T00:00:00Z"), &usual(1), &trade("2099-01-01T00:00:00Z"), &usual(2), &usual(3)];
    std::fs::write(&file, lines.map(String::as_str).join("\n")).unwrap();
    let command = ["publish", "--brokers", &brokers, "--topic", &trades, "--file", file.to_str().unwrap()];
    let output = run(&mut program(&[&command[..], &["--speed", "1000"]].concat()));
    assert!(output.status.success(), "{output:?}");
    let (said, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("5 messages delivered") && said.contains("2 lines with a time far from"), "{said}");
    assert!(warned.contains("trades.jsonl:3: timestamp \"2099-01-01T00:00:00Z\""), "{warned}");
}

#[test]
fn a_file_is_published_line_by_line_with_its_symbols_as_keys() {
    let (brokers, lines) = (broker::shared(), topic::name("lines"));
    topic::create(&brokers, &lines, 1);
    let node = reading(node(&brokers, &[&lines], "file", &[]), 1);
    let mut listener = Listener::new(&node, &[&lines]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "{\"symbol\":\"AAPL\",\"n\":1}\n\n{\"n\":2}\nnonsense\n";
    std::fs::write(file.path(), text).unwrap();
    let path = file.path().to_str().unwrap();
    let command = ["publish", "--brokers", &brokers, "--topic", &lines, "--file", path, "--speed", "max"];
    let output = run(&mut program(&command));
    assert!(output.status.success(), "{output:?}");
    let heard: Vec<Value> = (0..3).map(|_| listener.hear()).collect();
    assert_eq!((&heard[0]["key"], &heard[0]["payload"]["n"]), (&json!("AAPL"), &json!(1)));
    assert_eq!((heard[1].get("key"), &heard[1]["payload"]["n"]), (None, &json!(2)));
    assert_eq!(heard[2]["encoding"], "base64");
}

#[test]
fn a_signal_ends_publishing_when_what_was_sent_is_delivered() {
    let (brokers, lines) = (broker::shared(), topic::name("lines"));
    topic::create(&brokers, &lines, 1);
    let node = reading(node(&brokers, &[&lines], "signalled", &[]), 1);
    let mut listener = Listener::new(&node, &[&lines]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "{\"n\":1}\n{\"n\":2}\n").unwrap();
    let path = file.path().to_str().unwrap();
    let command = ["publish", "--brokers", &brokers, "--topic", &lines, "--file", path, "--interval", "1h"];
    let child = program(&command).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(listener.hear()["payload"]["n"], 1);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 messages delivered") && said.contains("; interrupted"), "{said}");
}

#[test]
fn a_message_that_kafka_refuses_fails_the_command() {
    let brokers = broker::shared();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "1\n2\n").unwrap();
    let path = file.path().to_str().unwrap();
    let missing = topic::name("missing");
    let command = ["publish", "--brokers", &brokers, "--topic", &missing, "--file", path, "--speed", "max"];
    let output = run(program(&command).args(["--message-timeout", "2s"]));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success());
    assert!(said.contains("0 messages delivered, 0 bytes, 2 failed") && said.contains("the first error: "), "{said}");
}
