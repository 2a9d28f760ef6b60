//! Clients of `/ws` that were away get what they missed (`docs/streams.md`, "Going on after a reconnect").

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::common::server::Server;
use crate::common::streams::{Heard, StreamClient};
use crate::messages::{accepted, client, error_code, fed, signal};

/// Subscribes to one channel from a position on; the answer's entry for the channel.
fn resume(client: &mut StreamClient, channel: &str, since: &Value) -> Value {
    let answer = client.ask(&json!({"type": "subscribe", "channel": channel, "since": since}));
    assert_eq!(answer["type"], "subscribed", "{answer}");
    answer["positions"][channel].clone()
}

/// The position after a message.
fn after(message: &Value) -> Value {
    json!({"epoch": message["epoch"], "seq": message["seq"]})
}

fn numbers(from: u64, to: u64) -> Vec<Value> {
    (from..=to).map(|n| json!({ "n": n })).collect()
}

fn seqs(client: &mut StreamClient, count: usize) -> Vec<u64> {
    (0..count).map(|_| client.message()["seq"].as_u64().unwrap()).collect()
}

#[test]
fn every_message_is_numbered_from_1_and_the_answer_tells_where_the_channel_stands() {
    let server = fed(&[]);
    accepted(&server, "lines", &numbers(1, 2));
    let mut client = client(&server);
    let answer = client.ask(&json!({"type": "subscribe", "channels": ["signals", "lines"]}));
    let lines = &answer["positions"]["lines"];
    assert_eq!((&lines["seq"], lines.get("recovered")), (&json!(2), None), "{answer}");
    assert_eq!(answer["positions"]["signals"]["seq"], 0, "{answer}");
    accepted(&server, "lines", &numbers(3, 4));
    accepted(&server, "signals", &[signal("AAPL", 1)]);
    let heard: Vec<Value> = (0..3).map(|_| client.message()).collect();
    assert_eq!(heard.iter().map(|message| message["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [3, 4, 1]);
    assert!(heard.iter().all(|message| message["epoch"] == lines["epoch"]), "{heard:?}");
    let told = server.get("/websocket/status").json()["stream_history"]["lines"].clone();
    assert_eq!((&told["seq"], &told["messages"], &told["epoch"]), (&json!(4), &json!(4), &lines["epoch"]));
    assert_eq!(server.metric("flowcast_stream_history_messages{channel=\"lines\"}"), 4);
}

#[test]
fn who_comes_back_gets_what_it_missed_and_then_what_comes() {
    let server = fed(&[]);
    let mut first = client(&server).subscribed(&["lines"]);
    accepted(&server, "lines", &numbers(1, 3));
    let last = first.next("message");
    drop(first);
    let mut again = client(&server);
    let told = resume(&mut again, "lines", &after(&last));
    assert_eq!((&told["recovered"], &told["seq"], told.get("reason")), (&json!(true), &json!(3), None));
    accepted(&server, "lines", &numbers(4, 5));
    assert_eq!(seqs(&mut again, 4), [2, 3, 4, 5]);
    let told = resume(&mut again, "lines", &json!({"epoch": last["epoch"], "seq": 4}));
    assert_eq!(told["recovered"], true, "also while it is subscribed");
    accepted(&server, "lines", &numbers(6, 6));
    assert_eq!(seqs(&mut again, 2), [5, 6]);
    assert_eq!(again.until_pong(), Vec::<Value>::new());
    assert_eq!(server.metric("flowcast_stream_resumes_total"), 2);
}

#[test]
fn what_cannot_be_sent_again_is_refused_with_the_reason_and_what_comes_now_is_sent() {
    let server = fed(&[("FLOWCAST_HISTORY_MESSAGES", "4")]);
    accepted(&server, "lines", &numbers(1, 20));
    let epoch = server.get("/websocket/status").json()["stream_history"]["lines"]["epoch"].clone();
    for ((since, reason), next) in [
        (json!({"epoch": epoch, "seq": 15}), "too_old"),
        (json!({"epoch": epoch, "seq": 0}), "too_old"),
        (json!({"epoch": epoch, "seq": 1000}), "ahead"),
        (json!({"epoch": epoch, "seq": {"0": 20, "7": 1}}), "ahead"),
        (json!({"epoch": "another", "seq": 20}), "unknown_epoch"),
    ]
    .into_iter()
    .zip(21..)
    {
        let mut client = client(&server);
        let told = resume(&mut client, "lines", &since);
        assert_eq!((&told["recovered"], &told["reason"]), (&json!(false), &json!(reason)), "{since}: {told}");
        accepted(&server, "lines", &numbers(next, next));
        assert_eq!(seqs(&mut client, 1), [next], "{since}");
    }
    let mut client = client(&server);
    assert_eq!(resume(&mut client, "lines", &json!({"epoch": epoch, "seq": 21}))["recovered"], true);
    assert_eq!(seqs(&mut client, 4), [22, 23, 24, 25]);
    assert_eq!(server.metric("flowcast_stream_resumes_refused_total"), 5);
}

#[test]
fn without_a_history_only_who_missed_nothing_goes_on() {
    let server = fed(&[("FLOWCAST_HISTORY_MESSAGES", "0")]);
    accepted(&server, "lines", &numbers(1, 2));
    let mut client = client(&server);
    let epoch = client.ask(&json!({"type": "subscribe", "channel": "lines"}))["positions"]["lines"]["epoch"].clone();
    assert_eq!(resume(&mut client, "lines", &json!({"epoch": epoch, "seq": 1}))["reason"], "too_old");
    assert_eq!(resume(&mut client, "lines", &json!({"epoch": epoch, "seq": 2}))["recovered"], true);
    accepted(&server, "lines", &numbers(3, 3));
    assert_eq!(seqs(&mut client, 1), [3]);
}

#[test]
fn what_was_missed_is_sent_whole_also_where_only_the_latest_is_asked_for() {
    let server = fed(&[]);
    accepted(&server, "lines", &numbers(1, 100));
    let epoch = server.get("/websocket/status").json()["stream_history"]["lines"]["epoch"].clone();
    for limit in [json!({}), json!({"max_rate": 1})] {
        let mut client = client(&server);
        let mut request = json!({"type": "subscribe", "channel": "lines", "policy": "latest"});
        request["since"] = json!({"epoch": epoch, "seq": 1});
        request.as_object_mut().unwrap().extend(limit.as_object().unwrap().clone());
        let answer = client.ask(&request);
        assert_eq!(answer["positions"]["lines"]["recovered"], true, "{answer}");
        assert_eq!(seqs(&mut client, 99), (2..=100).collect::<Vec<_>>());
    }
}

#[test]
fn what_is_sent_again_passes_the_filter() {
    let server = fed(&[]);
    let symbols = ["A", "B", "C", "A", "B"];
    let signals: Vec<Value> = symbols.iter().zip(1..).map(|(symbol, n)| signal(symbol, n)).collect();
    accepted(&server, "signals", &signals);
    let epoch = server.get("/websocket/status").json()["stream_history"]["signals"]["epoch"].clone();
    let mut client = client(&server);
    let since = json!({"signals": {"epoch": epoch, "seq": 1}});
    let request = json!({"type": "subscribe", "channels": ["signals", "lines"], "since": since});
    let answer = client.ask(&json!({"type": "subscribe", "channel": "signals", "symbols": ["A", "B"], "since": since}));
    assert_eq!(answer["positions"]["signals"]["recovered"], true, "{answer}");
    accepted(&server, "signals", &[signal("C", 6), signal("A", 7)]);
    assert_eq!(seqs(&mut client, 4), [2, 4, 5, 7]);
    let answer = client.ask(&request);
    assert_eq!(answer["positions"]["signals"]["recovered"], true, "{answer}");
    assert_eq!(answer["positions"]["lines"].get("recovered"), None, "nothing was asked of it");
    assert_eq!(seqs(&mut client, 6), [2, 3, 4, 5, 6, 7]);
}

#[test]
fn prices_and_the_portfolio_are_answered_with_their_state_and_say_so() {
    let server = fed(&[]);
    accepted(&server, "price_updates", &[json!({"symbol": "A", "price": 1}), json!({"symbol": "B", "price": 2})]);
    let mut client = client(&server).subscribed(&["price_updates"]);
    let update = client.next("price_update");
    assert!(update["seq"].as_u64() >= Some(1) && update["epoch"].is_string(), "{update}");
    let told = resume(&mut client, "price_updates", &after(&update));
    assert_eq!((&told["recovered"], &told["reason"]), (&json!(false), &json!("conflated")));
    let state = client.message();
    assert_eq!(state["symbols"].as_object().unwrap().len(), 2, "{state}");
}

#[test]
fn a_position_that_is_none_is_an_error_and_changes_nothing() {
    let server = fed(&[]);
    let mut client = client(&server).subscribed(&["lines"]);
    for since in [
        json!(-1),
        json!("NaN"),
        json!([]),
        json!({"epoch": "e", "seq": -1}),
        json!({"epoch": "e", "seq": 1e300}),
        json!({"epoch": "e", "seq": "1"}),
        json!({"epoch": 1, "seq": 1}),
        json!({"signals": {"epoch": "e", "seq": 1}}),
    ] {
        let answer = client.ask(&json!({"type": "subscribe", "channel": "order_book", "since": since}));
        assert_eq!(error_code(&answer), "invalid_message", "{since}");
    }
    client.socket.send_text(r#"{"type":"subscribe","channel":"lines","since":{"epoch":"e","seq":NaN}}"#);
    assert_eq!(error_code(&client.message()), "invalid_message");
    let many: Vec<String> = (0..10_000).map(|n| n.to_string()).collect();
    client.socket.send_text(&json!({"type": "subscribe", "channels": many}).to_string());
    assert_eq!(error_code(&client.message()), "too_large");
    accepted(&server, "lines", &numbers(1, 1));
    assert_eq!(seqs(&mut client, 1), [1]);
}

#[test]
fn errors_are_answered_in_their_turn_while_a_request_waits_for_a_log() {
    // No broker is there: what a position means does not become known.
    let kafka = [("WS_KAFKA_BROKERS", "127.0.0.1:1"), ("WS_KAFKA_TOPICS", "lines"), ("FLOWCAST_RESUME_WAIT", "2s")];
    let server = fed(&kafka);
    let mut client = client(&server);
    client.send(&json!({"type": "subscribe", "channel": "lines", "since": {"epoch": "e", "seq": 1}}));
    client.socket.send_text("no JSON");
    client.socket.send_text(&"x".repeat(100_000));
    client.send(&json!({"type": "subscribe", "channel": "nope"}));
    // 16 may wait.
    (0..15).for_each(|_| client.send(&json!({"type": "subscribe", "channel": "signals"})));
    client.send(&json!({"type": "ping"}));
    assert_eq!(client.message()["type"], "pong", "at once");
    let answer = client.message();
    assert_eq!(answer["positions"]["lines"]["reason"], "unavailable", "{answer}");
    for code in ["invalid_message", "too_large", "unknown_channel"] {
        assert_eq!(error_code(&client.message()), code);
    }
    (0..14).for_each(|_| assert_eq!(client.message()["type"], "subscribed"));
    assert_eq!(error_code(&client.message()), "limit_exceeded");
    client.socket.send_text("no JSON");
    assert_eq!(error_code(&client.message()), "invalid_message", "nothing waits any more");
    assert_eq!(server.metric("flowcast_request_errors_total"), 5);
}

#[test]
fn a_client_that_does_not_read_what_it_missed_is_closed_once_it_is_gone() {
    let server = fed(&[
        ("FLOWCAST_HISTORY_MESSAGES", "100"),
        ("FLOWCAST_SEND_BUFFER_BYTES", "4096"),
        ("WS_CLIENT_BUFFER", "10000"),
    ]);
    let padding = "x".repeat(30_000);
    let fill = |count: u64| {
        (0..count / 10).for_each(|_| accepted(&server, "lines", &vec![json!({"padding": padding}); 10]));
    };
    fill(100);
    let epoch = server.get("/websocket/status").json()["stream_history"]["lines"]["epoch"].clone();
    let token = crate::common::streams::signed(&json!({"sub": "slow"}), "HS256", crate::common::streams::SECRET);
    let path = format!("/ws?token={token}");
    let socket = crate::common::socket::Socket::open_small(server.address, &path, &[]).unwrap();
    let mut slow = StreamClient { socket };
    assert_eq!(resume(&mut slow, "lines", &json!({"epoch": epoch, "seq": 0}))["recovered"], true);
    fill(300);
    let heard = slow.rest();
    let got: Vec<u64> = heard
        .iter()
        .filter_map(|heard| if let Heard::Message(message) = heard { message["seq"].as_u64() } else { None })
        .collect();
    assert!(got.iter().copied().eq(1..=got.len() as u64), "no gap before the end: {got:?}");
    let slow_consumer = Heard::Closed(Some((1008, "policy violation: slow consumer".to_owned())));
    assert!(heard.contains(&slow_consumer), "{:?}", heard.last());
}

/// A client that comes back again and again; what it has of each channel is checked message by message.
fn come_and_go(server: &Server, seed: u64, published: &AtomicU64, is_over: &AtomicBool) -> u64 {
    let mut positions: HashMap<String, Value> = HashMap::new();
    let mut random = seed;
    let mut dice = |sides: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % sides
    };
    let symbols: Option<Vec<&str>> = if seed.is_multiple_of(2) { Some(vec!["A", "C"]) } else { None };
    let mut last: HashMap<String, u64> = HashMap::new();
    let mut resumes = 0;
    loop {
        let ends = is_over.load(Ordering::SeqCst);
        let mut client = client(server);
        for channel in ["lines", "signals"] {
            let mut request = json!({"type": "subscribe", "channel": channel});
            if let Some(since) = positions.get(channel) {
                request["since"] = since.clone();
            }
            if let Some(symbols) = symbols.as_ref().filter(|_| channel == "signals") {
                request["symbols"] = json!(symbols);
            }
            client.send(&request);
        }
        let most = if ends { u64::MAX } else { 1 + dice(150) };
        let (mut heard, mut answers) = (0, 0);
        while heard < most {
            if ends
                && answers == 2
                && ["lines", "signals"]
                    .iter()
                    .all(|channel| last.get(*channel) >= Some(&published.load(Ordering::SeqCst)))
            {
                return resumes;
            }
            let message = client.message();
            let channel = match message["type"].as_str().unwrap() {
                "subscribed" => {
                    answers += 1;
                    for (channel, told) in message["positions"].as_object().unwrap() {
                        if positions.contains_key(channel) && told.get("recovered").is_some() {
                            assert_eq!(told["recovered"], true, "{message}");
                            resumes += 1;
                        } else {
                            positions
                                .entry(channel.clone())
                                .or_insert_with(|| json!({"epoch": told["epoch"], "seq": told["seq"]}));
                        }
                    }
                    continue;
                }
                "message" => "lines",
                "signal" => "signals",
                other => panic!("{other}: {message}"),
            };
            heard += 1;
            // What a filter leaves out lies between: only every second signal is for A or C.
            let n = if channel == "lines" { &message["payload"]["n"] } else { &message["quantity"] }.as_u64().unwrap();
            let step = if channel == "signals" && symbols.is_some() { 2 } else { 1 };
            if let Some(last) = last.get(channel) {
                assert_eq!(n, last + step, "{channel} of client {seed}: {message}");
            }
            last.insert(channel.to_owned(), n);
            positions.insert(channel.to_owned(), after(&message));
        }
    }
}

#[test]
fn clients_that_come_and_go_under_load_miss_nothing_and_get_nothing_twice() {
    let server = fed(&[
        ("FLOWCAST_SHARDS", "2"),
        ("FLOWCAST_HISTORY_MESSAGES", "100000"),
        ("WS_CLIENT_BUFFER", "100000"),
        // What it sends before the first request comes once more in its turn.
        ("WEBSOCKET_AUTO_SUBSCRIBE", "false"),
    ]);
    let (published, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let resumes: u64 = thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|seed| {
                let (server, published, is_over) = (&server, &published, &is_over);
                scope.spawn(move || come_and_go(server, seed, published, is_over))
            })
            .collect();
        let publish = |from: u64, to: u64| {
            accepted(&server, "lines", &numbers(from, to));
            let symbol = |n: u64| ["A", "B", "C", "D"][(n as usize - 1) % 4];
            accepted(&server, "signals", &(from..=to).map(|n| signal(symbol(n), n)).collect::<Vec<_>>());
        };
        let mut next = 1;
        for size in [2, 8, 60, 4, 130, 6].into_iter().cycle() {
            publish(next, next + size - 1);
            next += size;
            if next > 20_000 {
                break;
            }
        }
        published.store(next - 2, Ordering::SeqCst);
        is_over.store(true, Ordering::SeqCst);
        // So that a client which waits for its next message gets one, and sees that it is over.
        while !clients.iter().all(thread::ScopedJoinHandle::is_finished) {
            publish(next, next + 1);
            next += 2;
        }
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert!(resumes > 200, "{resumes} resumes are too few to prove anything");
    assert_eq!(server.metric("flowcast_stream_resumes_refused_total"), 0);
    assert_eq!(server.metric("flowcast_shard_overruns_total"), 0);
}
