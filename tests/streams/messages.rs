//! The JSON streams on `/ws`: what clients ask for and get (`docs/streams.md`).

use crate::common;
use std::collections::BTreeSet;
use std::fs;

use crate::common::dataset::{DATE, Dataset};
use crate::common::server::{Server, refusal, serve};
use crate::common::streams::{Heard, SECRET, StreamClient, publish, publisher, signed};
use serde_json::{Value, json};

/// A server whose trading streams are fed by the test alone.
pub fn fed(more: &[(&str, &str)]) -> Server {
    let own = [
        ("FLOWCAST_REPLAY_TRADING", "false"),
        ("WEBSOCKET_PRICE_UPDATE_INTERVAL", "1"),
        ("WEBSOCKET_PORTFOLIO_UPDATE_INTERVAL", "1"),
        ("WS_AUTH_SECRET", SECRET),
    ];
    Server::with(&Dataset::usual(), &[&own, more].concat())
}

/// A client of a server with the secret.
pub fn client(server: &Server) -> StreamClient {
    let token = signed(&json!({"sub": "test"}), "HS256", SECRET);
    StreamClient::at(server, &format!("/ws?token={token}")).unwrap()
}

pub fn accepted(server: &Server, channel: &str, data: &[Value]) {
    let lines: String = data.iter().map(|data| json!({"channel": channel, "data": data}).to_string() + "\n").collect();
    let answer = publish(server, &publisher(), &lines);
    assert_eq!((answer.status, answer.json()), (200, json!({"accepted": data.len()})));
}

pub fn signal(symbol: &str, quantity: u64) -> Value {
    json!({"signal_type": "BUY", "symbol": symbol, "quantity": quantity})
}

pub fn error_code(answer: &Value) -> &str {
    assert_eq!(answer["type"], "error", "{answer}");
    assert!(answer["error"].is_string() && answer["timestamp"].as_str().unwrap().ends_with('Z'), "{answer}");
    answer["code"].as_str().unwrap()
}

#[test]
fn with_nothing_configured_a_newcomer_sees_every_kind() {
    let dataset = Dataset::usual();
    let streams = dataset.path().join(DATE).join("streams");
    fs::create_dir_all(&streams).unwrap();
    let at = |second: u32| format!("2025-11-28T14:30:{second:02}Z");
    let signals: Vec<String> = (0..60)
        .map(|n| json!({"timestamp": at(n), "signal_type": "SELL", "symbol": "SPX", "quantity": n}).to_string())
        .collect();
    fs::write(streams.join("signals.jsonl"), signals.join("\n")).unwrap();
    fs::write(
        streams.join("trades.jsonl"),
        json!({"timestamp": at(3), "symbol": "SPX", "side": "BUY", "quantity": 1, "price": 2}).to_string(),
    )
    .unwrap();
    fs::write(
        streams.join("portfolio.jsonl"),
        json!({"timestamp": at(1), "positions": {"SPX": {"quantity": 1}}}).to_string() + "\nnonsense\n",
    )
    .unwrap();
    let server = Server::with(
        &dataset,
        &[("WEBSOCKET_PRICE_UPDATE_INTERVAL", "1"), ("WEBSOCKET_PORTFOLIO_UPDATE_INTERVAL", "1")],
    );
    let mut client = StreamClient::open(&server);
    let mut kinds = std::collections::BTreeMap::new();
    while kinds.len() < 4 {
        let message = client.message();
        kinds.insert(message["type"].as_str().unwrap().to_owned(), message);
    }
    let prices = &kinds["price_update"];
    for symbol in ["SPX", "ES_SPX"] {
        let state = &prices["symbols"][symbol];
        let number = |key: &str| state[key].as_f64().unwrap_or_else(|| panic!("{key} in {prices}"));
        assert!(number("low") <= number("price") && number("price") <= number("high"), "{prices}");
        assert_eq!(state["close"], state["price"]);
        assert!(
            (number("change") - (number("price") - number("open"))).abs() < 0.001,
            "against the day's first record"
        );
    }
    assert_eq!((&kinds["signal"]["signal_type"], &kinds["trade_executed"]["side"]), (&json!("SELL"), &json!("BUY")));
    let portfolio = &kinds["portfolio_update"];
    assert_eq!((&portfolio["channel"], &portfolio["data"]["position_count"]), (&json!("portfolio"), &json!(1)));
    assert!(server.log().contains("portfolio.jsonl:2: expected one JSON object"), "{}", server.log());
    let health = server.get("/websocket/status").json()["stream_health"].clone();
    assert_eq!((&health["signals"]["is_healthy"], &health["portfolio"]["error_count"]), (&json!(true), &json!(1)));
}

#[test]
pub fn signals_of_a_replay_come_once_each_and_in_order_and_are_stamped_when_sent() {
    let dataset = Dataset::new(&[("SPX", 1000)]);
    let streams = dataset.path().join(DATE).join("streams");
    fs::create_dir_all(&streams).unwrap();
    let at = |n: u32| format!("2025-11-28T14:{:02}:{:02}Z", 30 + n / 60, n % 60);
    let lines: Vec<String> = (0..900)
        .map(|n| json!({"timestamp": at(n), "signal_type": "HOLD", "symbol": "SPX", "quantity": n}).to_string())
        .collect();
    fs::write(streams.join("signals.jsonl"), lines.join("\n")).unwrap();
    let server = Server::with(&dataset, &[("WS_STREAM_INTERVAL", "5ms")]);
    let mut client = StreamClient::open(&server).subscribed(&["signals"]);
    let mut last = None;
    for _ in 0..100 {
        let signal = client.next("signal");
        let quantity = signal["quantity"].as_u64().unwrap();
        assert!(last.is_none_or(|last| quantity == last + 1), "{quantity} after {last:?}");
        assert!(!signal["timestamp"].as_str().unwrap().starts_with("2025-11-28"), "{signal}");
        last = Some(quantity);
    }
}

#[test]
pub fn signals_at_the_start_of_a_long_day_all_come_at_a_clock_that_passes_them_in_one_look() {
    let dataset = Dataset::new(&[("SPX", 300)]);
    let streams = dataset.path().join(DATE).join("streams");
    fs::create_dir_all(&streams).unwrap();
    let line = |n: u32| json!({"timestamp": format!("2025-11-28T14:30:0{n}Z"), "signal_type": "HOLD", "symbol": "SPX", "quantity": n});
    fs::write(streams.join("signals.jsonl"), (0..5).map(|n| line(n).to_string() + "\n").collect::<String>()).unwrap();
    let server = Server::with(&dataset, &[("WS_STREAM_INTERVAL", "1ms")]);
    let mut client = StreamClient::open(&server).subscribed(&["signals"]);
    let quantities: Vec<u64> = (0..20).map(|_| client.next("signal")["quantity"].as_u64().unwrap()).collect();
    assert!(quantities.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 5), "lap after lap: {quantities:?}");
}

#[test]
fn a_pipe_in_the_place_of_a_stream_is_refused_and_not_waited_for() {
    let dataset = Dataset::new(&[("SPX", 5)]);
    let streams = dataset.path().join(DATE).join("streams");
    fs::create_dir_all(&streams).unwrap();
    let pipe = streams.join("signals.jsonl");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let said = refusal(&mut serve(&dataset, &[]));
    assert!(said.contains(&format!("{}: it is not a regular file", pipe.display())), "{said}");
}

#[test]
fn a_ping_is_answered_with_a_pong() {
    let server = fed(&[]);
    let mut client = client(&server);
    assert_eq!(client.until_pong(), Vec::<Value>::new());
}

#[test]
fn auto_subscription_ends_with_the_first_subscription() {
    let server = fed(&[]);
    let mut client = client(&server);
    client.until_pong();
    accepted(&server, "signals", &[signal("AAPL", 1)]);
    assert_eq!(client.next("signal")["symbol"], "AAPL");
    let answer = client.ask(&json!({"type": "subscribe", "channels": ["lines", "trades"]}));
    assert_eq!(answer["channels"], json!(["trades", "lines"]));
    let keys: Vec<&String> = answer.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["type", "channels", "positions"], "positions are all that was added");
    accepted(&server, "signals", &[signal("AAPL", 2)]);
    accepted(&server, "lines", &[json!(1)]);
    assert_eq!(client.message()["channel"], "lines", "and no signal before it");
}

#[test]
fn without_auto_subscription_nothing_comes_unasked() {
    let server = fed(&[("WEBSOCKET_AUTO_SUBSCRIBE", "false")]);
    let mut client = client(&server);
    client.until_pong();
    accepted(&server, "signals", &[signal("AAPL", 1)]);
    assert_eq!(client.until_pong(), Vec::<Value>::new());
}

#[test]
fn an_unsubscription_before_the_first_subscription_means_everything_but_that() {
    let server = fed(&[]);
    let mut client = client(&server);
    let answer = client.ask(&json!({"type": "unsubscribe", "channels": ["signals"]}));
    assert_eq!(answer["channels"], json!(["price_updates", "trades", "portfolio"]));
    let answer = client.ask(&json!({"type": "subscribe", "channel": "lines"}));
    assert_eq!(answer["channels"], json!(["price_updates", "trades", "portfolio", "lines"]), "from then on it adds");
}

#[test]
fn symbols_choose_signals_trades_prices_and_positions() {
    let server = fed(&[]);
    let mut client = client(&server);
    let channels = ["price_updates", "signals", "trades", "portfolio"];
    let answer = client.ask(&json!({"type": "subscribe", "channels": channels, "symbols": ["MSFT", "AAPL"]}));
    let both = json!(["AAPL", "MSFT"]);
    let symbols: Value =
        channels.iter().map(|channel| ((*channel).to_owned(), both.clone())).collect::<serde_json::Map<_, _>>().into();
    assert_eq!((&answer["channels"], &answer["symbols"]), (&json!(channels), &symbols));
    accepted(&server, "signals", &[signal("TSLA", 1), signal("MSFT", 2), signal("AAPL", 3)]);
    let trade = |symbol: &str| json!({"symbol": symbol, "side": "SELL", "quantity": 1, "price": 1.5});
    accepted(&server, "trades", &[trade("TSLA"), trade("AAPL")]);
    let price = |symbol: &str| json!({"symbol": symbol, "price": 10, "prev_close": 8});
    accepted(&server, "price_updates", &[price("TSLA"), price("MSFT")]);
    let position = json!({"quantity": 5});
    accepted(&server, "portfolio", &[json!({"positions": {"AAPL": position, "TSLA": position}})]);
    let heard: Vec<Value> = (0..5).map(|_| client.message()).collect();
    let of = |kind: &str| heard.iter().filter(|message| message["type"] == kind).collect::<Vec<_>>();
    assert_eq!(of("signal").iter().map(|signal| signal["quantity"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(of("trade_executed").iter().map(|trade| &trade["symbol"]).collect::<Vec<_>>(), ["AAPL"]);
    let expected = json!({"MSFT": {"price": 10, "change": 2, "change_pct": 25, "close": 10, "prev_close": 8}});
    assert_eq!(of("price_update")[0]["symbols"], expected);
    let positions = of("portfolio_update")[0]["data"]["positions"].clone();
    assert_eq!(positions, json!({"AAPL": {"symbol": "AAPL", "quantity": 5}}));

    let answer = client.ask(&json!({"type": "unsubscribe", "channel": "signals", "symbols": ["MSFT"]}));
    assert_eq!(answer["symbols"]["signals"], json!(["AAPL"]));
    accepted(&server, "signals", &[signal("MSFT", 4), signal("AAPL", 5)]);
    assert_eq!(client.next("signal")["quantity"], 5);
}

#[test]
fn a_late_joiner_gets_the_latest_state_of_its_symbols_at_once() {
    let server = fed(&[("WEBSOCKET_PRICE_UPDATE_INTERVAL", "1"), ("WEBSOCKET_PORTFOLIO_UPDATE_INTERVAL", "1")]);
    let mut early = client(&server);
    let price = |symbol: &str, price: u64| json!({"symbol": symbol, "price": price});
    accepted(&server, "price_updates", &[price("AAPL", 1), price("MSFT", 1), price("AAPL", 2)]);
    accepted(&server, "portfolio", &[json!({"positions": {"AAPL": {"quantity": 1}}, "total_pnl": 1.50})]);
    early.next("price_update");
    early.next("portfolio_update");
    let mut late = client(&server);
    let (portfolio, prices) = (late.message(), late.message());
    assert_eq!(prices["symbols"], json!({"AAPL": {"price": 2, "close": 2}, "MSFT": {"price": 1, "close": 1}}));
    assert_eq!(portfolio["data"]["total_pnl"], json!(1.50));
    let answer = late.ask(&json!({"type": "subscribe", "channel": "price_updates", "symbols": ["MSFT"]}));
    assert_eq!(answer["type"], "subscribed");
    assert_eq!(late.message()["symbols"], json!({"MSFT": {"price": 1, "close": 1}}));
}

/// Fills the latest state: a portfolio of 8,000 positions (more than a megabyte), and as many prices.
pub fn with_a_large_state(more: &[(&str, &str)]) -> Server {
    let server = fed(&[&[("WEBSOCKET_AUTO_SUBSCRIBE", "false")], more].concat());
    let position = json!({"quantity": 10, "average_price": 101.25, "market_price": 102.5, "unrealized_pnl": 12.5});
    let name = |number: u32| format!("S{number:05}");
    let positions: Value =
        (0..8000).map(|number| (name(number), position.clone())).collect::<serde_json::Map<_, _>>().into();
    accepted(&server, "portfolio", &[json!({"positions": positions})]);
    let price = |number| json!({"symbol": name(number), "price": 101.5, "volume": 1_000_000, "prev_close": 100});
    accepted(&server, "price_updates", &(0..4000).map(price).collect::<Vec<_>>());
    server
}

/// Waits for the portfolio and all the prices, in any order. An update of prices may fall into the middle of what was
/// published.
fn hear_large_states(client: &mut StreamClient) {
    let (mut portfolio, mut prices) = (0, BTreeSet::new());
    while portfolio < 600_000 || prices.len() < 4000 {
        let message = client.message();
        match message["type"].as_str() {
            Some("portfolio_update") => portfolio = message.to_string().len(),
            Some("price_update") => prices.extend(message["symbols"].as_object().unwrap().keys().cloned()),
            _ => {}
        }
    }
}

#[test]
fn a_client_that_reads_everything_is_kept_however_large_its_first_state_is() {
    let server = with_a_large_state(&[]);
    // What late joiners are told is what was published.
    let mut first = client(&server);
    first.send(&json!({"type": "subscribe", "channels": ["portfolio", "price_updates"]}));
    hear_large_states(&mut first);

    let mut both = client(&server);
    both.send(&json!({"type": "subscribe", "channels": ["portfolio", "price_updates"]}));
    hear_large_states(&mut both);
    let mut one_by_one = client(&server);
    for channel in ["price_updates", "portfolio"] {
        one_by_one.send(&json!({"type": "subscribe", "channel": channel}));
    }
    hear_large_states(&mut one_by_one);
    for client in [&mut first, &mut both, &mut one_by_one] {
        client.until_pong();
    }

    let token = signed(&json!({"sub": "small"}), "HS256", SECRET);
    let path = format!("/ws?token={token}");
    let socket = common::socket::Socket::open_buffered(server.address, &path, &[], 16_384).unwrap();
    let mut small = StreamClient { socket };
    for _ in 0..3 {
        small.send(&json!({"type": "subscribe", "channel": "portfolio"}));
        small.send(&json!({"type": "unsubscribe", "channel": "portfolio"}));
    }
    small.send(&json!({"type": "subscribe", "channel": "portfolio"}));
    for channels in [&["portfolio"][..], &[]].repeat(3) {
        assert_eq!(small.next("subscribed")["channels"], json!(channels));
    }
    assert!(small.next("portfolio_update").to_string().len() > 600_000);
    small.until_pong();
    assert_eq!(server.metric("flowcast_connections"), 4);
    assert_eq!(server.closed("replies"), 0);
}

#[test]
fn the_first_state_comes_whole_after_its_answer_and_before_what_is_published_next() {
    let server = with_a_large_state(&[("FLOWCAST_SEND_BUFFER_BYTES", "32768")]);
    client(&server).subscribed(&["portfolio"]).next("portfolio_update");
    let token = signed(&json!({"sub": "small"}), "HS256", SECRET);
    let path = format!("/ws?token={token}");
    let socket = common::socket::Socket::open_buffered(server.address, &path, &[], 16_384).unwrap();
    let mut small = StreamClient { socket };
    small.send(&json!({"type": "subscribe", "channels": ["portfolio", "lines"]}));
    server.metric_until("flowcast_subscribers", |subscribers| subscribers == 2);
    accepted(&server, "lines", &[json!("behind the state")]);
    small.send(&json!({"type": "ping"}));
    let kinds: Vec<Value> = (0..4).map(|_| small.message()["type"].clone()).collect();
    assert_eq!(kinds[0], "subscribed");
    let at = |kind: &str| kinds.iter().position(|other| other == kind).unwrap_or_else(|| panic!("{kind} in {kinds:?}"));
    assert!(at("portfolio_update") < at("message"), "{kinds:?}");
    assert!(at("pong") > 0);
}

#[test]
fn a_passthrough_message_arrives_to_the_byte_with_its_key() {
    let server = fed(&[]);
    let mut client = client(&server).subscribed(&["lines"]);
    let body = r#"{"channel":"lines","key":"k1","data":{"n":1.50,  "deep":[null,"\u00e9"]}}"#;
    assert_eq!(publish(&server, &publisher(), body).status, 200);
    let common::socket::Frame::Text(text) = client.socket.frame() else { panic!("expected text") };
    let expected =
        r#"{"type":"message","channel":"lines","payload":{"n":1.50,  "deep":[null,"\u00e9"]},"key":"k1","timestamp":""#;
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn one_message_is_encoded_once_whatever_the_number_of_clients() {
    let server = fed(&[("FLOWCAST_SHARDS", "2")]);
    let mut clients: Vec<StreamClient> = (0..20).map(|_| client(&server).subscribed(&["lines"])).collect();
    let numbers: Vec<Value> = (0..200).map(|n| json!({ "n": n })).collect();
    accepted(&server, "lines", &numbers);
    for client in &mut clients {
        let heard: Vec<Value> = (0..200).map(|_| client.next("message")["payload"].clone()).collect();
        assert_eq!(heard, numbers, "all of them, in order, also in a burst");
    }
    assert_eq!(server.metric("flowcast_stream_messages_encoded_total{channel=\"lines\"}"), 200);
    assert_eq!(server.metric("flowcast_shard_overruns_total"), 0);
}

#[test]
fn messages_that_everybody_has_are_not_kept() {
    let server = fed(&[]);
    let mut client = client(&server).subscribed(&["lines"]);
    let before = server.resident();
    let data = json!("x".repeat(900_000));
    for _ in 0..200 {
        accepted(&server, "lines", std::slice::from_ref(&data));
        client.next("message");
    }
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 60_000_000, "200 messages of 0.9 MB were delivered, and {grown} bytes are held");
}

#[test]
fn bad_requests_are_answered_with_an_error_and_change_nothing() {
    let server = fed(&[("FLOWCAST_MAX_REQUEST_BYTES", "300"), ("FLOWCAST_MAX_SYMBOLS_PER_CHANNEL", "3")]);
    let mut client = client(&server).subscribed(&["lines"]);
    let subscribe = |channels: Value, more: Value| {
        let mut request = json!({"type": "subscribe", "channels": channels});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    for (request, code) in [
        (json!({"type": "shout"}), "unknown_type"),
        (json!(["ping"]), "invalid_message"),
        (json!({"type": "subscribe"}), "invalid_message"),
        (subscribe(json!(["signals", "nope"]), json!({})), "unknown_channel"),
        (subscribe(json!(["lines"]), json!({"symbols": ["A"]})), "invalid_message"),
        (subscribe(json!(["signals"]), json!({"symbols": ["A", "B", "C", "D"]})), "limit_exceeded"),
        (json!({"type": "ping", "padding": "x".repeat(300)}), "too_large"),
    ] {
        assert_eq!(error_code(&client.ask(&request)), code, "{request}");
    }
    client.socket.send_text("not json");
    assert_eq!(error_code(&client.message()), "invalid_message");
    client.socket.send_binary(b"{\"type\":\"ping\"}");
    assert_eq!(error_code(&client.message()), "invalid_message");
    let answer = client.ask(&json!({"type": "subscribe", "channel": "order_book", "unknown_key": {"is": "ignored"}}));
    assert_eq!(answer["channels"], json!(["lines", "order_book"]));
    assert_eq!(server.metric("flowcast_request_errors_total"), 9);
}

#[test]
fn a_client_that_floods_errors_is_closed() {
    let server = fed(&[("FLOWCAST_MAX_REQUEST_ERRORS", "5")]);
    let mut client = client(&server);
    for _ in 0..7 {
        client.socket.send_text("nonsense");
    }
    let rest = client.rest();
    let errors = rest.iter().filter(|heard| matches!(heard, Heard::Message(_))).count();
    assert_eq!(errors, 6);
    assert!(rest.contains(&Heard::Closed(Some((1008, "policy violation: too many errors".to_owned())))), "{rest:?}");
    server.closed_until("errors", 1);
}

#[test]
fn filters_are_bounded_over_all_clients_and_given_back() {
    let server = fed(&[("FLOWCAST_MAX_FILTERS", "2")]);
    let with = |client: &mut StreamClient, symbols: &[&str]| {
        client.ask(&json!({"type": "subscribe", "channel": "signals", "symbols": symbols}))
    };
    let (mut one, mut two) = (client(&server).subscribed(&["lines"]), client(&server));
    assert_eq!(with(&mut two, &["A", "B"])["type"], "subscribed");
    assert_eq!(error_code(&with(&mut one, &["C"])), "limit_exceeded");
    assert_eq!(with(&mut one, &["B"])["channels"], json!(["signals", "lines"]), "another's filter costs nothing");
    assert_eq!(error_code(&with(&mut one, &["A", "C"])), "limit_exceeded");
    accepted(&server, "signals", &[signal("A", 1), signal("B", 2)]);
    assert_eq!(one.next("signal")["quantity"], 2, "the refused request joined nothing");
    drop(two);
    server.closed_until("gone", 1);
    assert_eq!(with(&mut one, &["C"])["symbols"]["signals"], json!(["B", "C"]));
}

#[test]
fn a_stalled_client_is_closed_as_a_slow_consumer_and_the_others_lose_nothing() {
    let server = Server::with(
        &Dataset::new(&[("SPX", 100)]),
        &[
            ("WS_AUTH_SECRET", SECRET),
            ("WS_CLIENT_BUFFER", "64"),
            ("FLOWCAST_SEND_BUFFER_BYTES", "4096"),
            ("WS_STREAM_INTERVAL", "10s"),
        ],
    );
    let token = signed(&json!({"sub": "stalled"}), "HS256", SECRET);
    let path = format!("/ws?token={token}");
    let mut stalled = StreamClient { socket: common::socket::Socket::open_small(server.address, &path, &[]).unwrap() };
    let mut healthy = client(&server).subscribed(&["lines"]);
    stalled.send(&json!({"type": "subscribe", "channels": ["lines"]}));
    server.metric_until("flowcast_subscribers", |subscribers| subscribers == 2);
    let mut expected = 0;
    let padding = "x".repeat(1000);
    while server.closed("lag") == 0 {
        let numbers: Vec<Value> = (expected..expected + 50).map(|n| json!({"n": n, "padding": padding})).collect();
        accepted(&server, "lines", &numbers);
        for _ in 0..50 {
            assert_eq!(healthy.next("message")["payload"]["n"], expected);
            expected += 1;
        }
        if server.log().contains("too slow") {
            break;
        }
        assert!(expected < 100_000, "the stalled one is never dropped");
    }
    let rest = stalled.rest();
    assert!(
        rest.contains(&Heard::Closed(Some((1008, "policy violation: slow consumer".to_owned())))),
        "{:?}",
        rest.last()
    );
    drop(stalled);
    server.closed_until("lag", 1);
}

#[test]
fn the_server_pings_and_a_client_that_never_answers_is_closed() {
    let server = fed(&[("WEBSOCKET_PING_INTERVAL", "1")]);
    let mut client = client(&server);
    assert_eq!(client.socket.frame(), common::socket::Frame::Ping(Vec::new()));
    server.closed_until("pong_timeout", 1);
}

#[test]
fn when_the_server_stops_streams_are_closed_with_1001() {
    let mut server = fed(&[]);
    let mut client = client(&server);
    client.until_pong();
    server.signal(rustix::process::Signal::TERM);
    let Heard::Closed(Some((1001, _))) = client.heard() else { panic!("expected close 1001") };
    drop(client);
    assert!(server.ended().success());
}

#[test]
fn the_streams_can_be_switched_off_and_the_status_says_so() {
    let server = Server::with(&Dataset::usual(), &[("WEBSOCKET_ENABLED", "false")]);
    assert_eq!(StreamClient::at(&server, "/ws").err().unwrap().status, 404);
    assert_eq!(server.get("/websocket/status").json()["enabled"], false);
}

#[test]
fn the_status_counts_connections_of_the_streams_alone() {
    let server = fed(&[]);
    let _streams: Vec<StreamClient> = (0..2).map(|_| client(&server)).collect();
    let _other = common::client::Client::open(&server, common::client::JSON);
    server.metric_until("flowcast_connections", |connections| connections == 3);
    let status = server.get("/websocket/status").json();
    assert_eq!((&status["active_connections"], &status["gexbot"]["connections"]), (&json!(2), &json!(1)));
}

#[test]
fn a_flood_of_one_symbol_reaches_who_asked_for_that_symbol_alone() {
    let server = fed(&[("FLOWCAST_SHARDS", "2")]);
    let ask = json!({"type": "subscribe", "channel": "signals", "symbols": ["A"]});
    // On both shards; nobody takes the whole channel.
    let mut clients: Vec<StreamClient> = (0..4).map(|_| client(&server)).collect();
    for client in &mut clients {
        assert_eq!(client.ask(&ask)["type"], "subscribed");
    }
    accepted(&server, "signals", &(1..=200).map(|n| signal("A", n)).collect::<Vec<_>>());
    for client in &mut clients {
        let heard: Vec<u64> = (0..200).map(|_| client.next("signal")["quantity"].as_u64().unwrap()).collect();
        assert_eq!(heard, (1..=200).collect::<Vec<_>>());
    }
    assert_eq!(server.metric("flowcast_shard_overruns_total"), 0);
}
