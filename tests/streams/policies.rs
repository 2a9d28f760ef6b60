//! What becomes of clients of `/ws` that read too slowly (`docs/streams.md`, "Slow clients").

use serde_json::{Value, json};

use crate::common::server::Server;
use crate::common::socket::Socket;
use crate::common::streams::{SECRET, StreamClient, signed};
use crate::messages::{accepted, client, error_code, fed, signal, with_a_large_state};

/// A client whose socket holds little.
fn small(server: &Server) -> StreamClient {
    let token = signed(&json!({"sub": "small"}), "HS256", SECRET);
    StreamClient { socket: Socket::open_small(server.address, &format!("/ws?token={token}"), &[]).unwrap() }
}

/// A server whose sockets hold little, and that lets a client fall 20 messages behind.
fn strict(more: &[(&str, &str)]) -> Server {
    fed(&[&[("WS_CLIENT_BUFFER", "20"), ("FLOWCAST_SEND_BUFFER_BYTES", "4096")], more].concat())
}

fn padded(from: u64, to: u64) -> Vec<Value> {
    let padding = "x".repeat(20_000);
    (from..=to).map(|n| json!({"n": n, "padding": padding})).collect()
}

/// Publishes in pieces that a client which reads can follow.
fn publish_all(server: &Server, channel: &str, messages: &[Value]) {
    messages.chunks(10).for_each(|messages| accepted(server, channel, messages));
}

#[test]
fn with_skip_a_slow_client_stays_and_is_told_exactly_what_is_left_out() {
    let server = strict(&[("FLOWCAST_CHANNEL_POLICY", "lines=skip")]);
    let mut slow = small(&server);
    let answer = slow.ask(&json!({"type": "subscribe", "channel": "lines"}));
    assert_eq!(answer["positions"]["lines"]["policy"], "skip", "{answer}");
    publish_all(&server, "lines", &padded(1, 2000));
    let (mut last, mut skipped) = (0, 0);
    while last < 2000 {
        let message = slow.message();
        if message["type"] == "skipped" {
            assert_eq!((&message["channel"], message["from"].as_u64()), (&json!("lines"), Some(last + 1)), "{message}");
            let to = message["to"].as_u64().unwrap();
            assert_eq!(message["count"].as_u64(), Some(to - last), "{message}");
            skipped += to - last;
            last = to;
            continue;
        }
        assert_eq!((message["seq"].as_u64(), message["payload"]["n"].as_u64()), (Some(last + 1), Some(last + 1)));
        last += 1;
    }
    assert!(skipped > 500, "{skipped}");
    assert_eq!(server.metric("flowcast_stream_messages_skipped_total"), skipped);
    assert_eq!(server.closed("lag"), 0);
}

#[test]
fn with_latest_a_slow_client_gets_the_newest_of_each_symbol() {
    let server = strict(&[]);
    let mut slow = small(&server);
    let answer = slow.ask(&json!({"type": "subscribe", "channel": "trades", "policy": "latest"}));
    assert_eq!(answer["positions"]["trades"]["policy"], "latest", "{answer}");
    let symbol = |n: u64| format!("{}{}", ["A", "B", "C"][(n % 3) as usize], "-".repeat(50));
    let trade = |n: u64| json!({"symbol": symbol(n), "side": "BUY", "quantity": n, "price": 1});
    publish_all(&server, "trades", &(1..=30_000).map(trade).collect::<Vec<_>>());
    let mut newest = std::collections::BTreeMap::new();
    let mut messages = 0;
    while newest.len() < 3 || newest.values().min() < Some(&29_998) {
        let message = slow.next("trade_executed");
        messages += 1;
        let quantity = message["quantity"].as_u64().unwrap();
        let before = newest.insert(message["symbol"].as_str().unwrap().to_owned(), quantity);
        assert!(before < Some(quantity), "{message}");
    }
    assert!(messages < 20_000, "{messages}");
    assert_eq!(slow.until_pong(), Vec::<Value>::new());
    assert_eq!(server.closed("lag"), 0);
}

#[test]
fn a_limited_rate_leaves_out_what_comes_between_and_never_the_last() {
    let server = fed(&[]);
    let mut limited = client(&server);
    let request = json!({"type": "subscribe", "channel": "signals", "symbols": ["A", "B"], "max_rate": 4});
    let answer = limited.ask(&request);
    let told = &answer["positions"]["signals"];
    assert_eq!((&told["policy"], &told["max_rate"]), (&json!("latest"), &json!(4.0)), "{answer}");
    let mut everything = client(&server).subscribed(&["signals"]);
    for n in 1..=300 {
        accepted(&server, "signals", &[signal(["A", "B", "C"][n % 3], n as u64)]);
        everything.next("signal");
    }
    let mut heard = Vec::new();
    while !(heard.contains(&298) && heard.contains(&300)) {
        heard.push(limited.next("signal")["quantity"].as_u64().unwrap());
    }
    assert!(heard.len() < 150, "{heard:?}");
    assert!(heard.iter().all(|n| n % 3 != 2), "the filter holds: {heard:?}");
}

#[test]
fn a_large_state_is_shared_by_all_slow_clients_that_get_it() {
    let server = with_a_large_state(&[("FLOWCAST_SEND_BUFFER_BYTES", "4096")]);
    let request = json!({"type": "subscribe", "channel": "portfolio", "policy": "latest"});
    let subscribed = |server: &Server| {
        let mut client = small(server);
        client.send(&request);
        assert_eq!(client.next("subscribed")["positions"]["portfolio"]["policy"], "latest");
        client
    };
    assert!(subscribed(&server).next("portfolio_update").to_string().len() > 600_000);
    let before = server.resident();
    let slow: Vec<StreamClient> = (0..100).map(|_| subscribed(&server)).collect();
    assert!(subscribed(&server).next("portfolio_update").to_string().len() > 600_000, "it comes after the others'");
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 40 << 20, "{grown} bytes for {} clients that do not read", slow.len());
}

#[test]
fn prices_of_a_slow_client_are_the_current_ones() {
    let server = fed(&[]);
    accepted(&server, "price_updates", &[json!({"symbol": "A", "price": 1}), json!({"symbol": "B", "price": 1})]);
    let mut client = client(&server);
    client.send(&json!({"type": "subscribe", "channel": "price_updates", "policy": "latest"}));
    let both = client.next("price_update");
    assert_eq!(both["symbols"].as_object().unwrap().len(), 2, "{both}");
    accepted(&server, "price_updates", &[json!({"symbol": "A", "price": 2})]);
    let next = client.next("price_update");
    assert_eq!((&next["symbols"]["A"]["price"], &next["symbols"]["B"]["price"]), (&json!(2), &json!(1)));
    assert!(next["seq"].as_u64() > both["seq"].as_u64());
}

#[test]
fn a_policy_that_does_not_exist_or_lets_more_through_is_refused() {
    let server = fed(&[("FLOWCAST_CHANNEL_POLICY", "lines=latest@2")]);
    let mut client = client(&server);
    for more in [
        json!({"policy": "lossy"}),
        json!({"policy": 7}),
        json!({"policy": "skip", "max_rate": 1}),
        json!({"max_rate": 0}),
        json!({"max_rate": -1}),
        json!({"max_rate": "2"}),
        json!({"policy": "skip"}),
        json!({"policy": "drop"}),
        json!({"max_rate": 3}),
    ] {
        let mut request = json!({"type": "subscribe", "channel": "lines"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(error_code(&client.ask(&request)), "invalid_message", "{more}");
    }
    let answer = client.ask(&json!({"type": "subscribe", "channel": "lines", "max_rate": 1}));
    assert_eq!(answer["positions"]["lines"]["max_rate"], 1.0, "{answer}");
}

#[test]
fn a_policy_may_change_while_messages_come_and_nothing_is_lost() {
    let server = fed(&[]);
    let mut client = client(&server).subscribed(&["lines"]);
    let mut last = 0;
    for round in 0..50 {
        let numbers: Vec<Value> = (0..7).map(|at| json!({"n": 7 * round + at + 1})).collect();
        accepted(&server, "lines", &numbers);
        let policy = ["skip", "drop"][round as usize % 2];
        client.send(&json!({"type": "subscribe", "channel": "lines", "policy": policy}));
    }
    while last < 350 {
        let message = client.next("message");
        assert_eq!(message["payload"]["n"], last + 1);
        last += 1;
    }
}

#[test]
fn asking_again_and_again_does_not_raise_a_limited_rate() {
    let server = fed(&[]);
    let mut client = client(&server);
    let request = json!({"type": "subscribe", "channel": "signals", "max_rate": 0.0003});
    client.ask(&request);
    accepted(&server, "signals", &[signal("A", 1)]);
    assert_eq!(client.next("signal")["quantity"], 1);
    accepted(&server, "signals", &[signal("A", 2)]);
    for _ in 0..20 {
        client.send(&request);
        let heard = [client.until_pong(), client.until_pong()].concat();
        assert!(heard.iter().all(|message| message["type"] == "subscribed"), "{heard:?}");
    }
}

#[test]
fn a_client_of_one_symbol_is_not_behind_because_of_others() {
    let server = fed(&[]);
    let mut client = client(&server);
    let request = json!({"type": "subscribe", "channel": "signals", "symbols": ["A"], "policy": "skip"});
    assert_eq!(client.ask(&request)["positions"]["signals"]["policy"], "skip");
    let others: Vec<Value> = (1..=400).map(|n| signal("B", n)).collect();
    accepted(&server, "signals", &[&[signal("A", 1)], &others[..]].concat());
    assert_eq!(client.message()["quantity"], 1);
    // More than the history holds.
    for _ in 0..40 {
        accepted(&server, "signals", &others);
    }
    accepted(&server, "signals", &[signal("A", 2)]);
    let message = client.message();
    assert_eq!((&message["type"], &message["quantity"]), (&json!("signal"), &json!(2)), "{message}");
    assert_eq!(server.metric("flowcast_stream_messages_skipped_total"), 0);
}

#[test]
fn prices_that_a_limited_rate_held_back_come_when_it_ends() {
    let server = fed(&[]);
    let price = |price: u64| json!({"symbol": "A", "price": price});
    accepted(&server, "price_updates", &[price(1)]);
    let mut slow = client(&server);
    slow.send(&json!({"type": "subscribe", "channel": "price_updates", "max_rate": 0.0003}));
    assert_eq!(slow.next("price_update")["symbols"]["A"]["price"], 1);
    let mut fast = client(&server).subscribed(&["price_updates"]);
    accepted(&server, "price_updates", &[price(2)]);
    while fast.next("price_update")["symbols"]["A"]["price"] != 2 {}
    assert!(slow.until_pong().iter().all(|message| message["symbols"]["A"]["price"] != 2));
    slow.send(&json!({"type": "subscribe", "channel": "price_updates", "policy": "drop"}));
    assert_eq!(slow.next("price_update")["symbols"]["A"]["price"], 2);
}
