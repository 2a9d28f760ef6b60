//! A Kite feed against a ticker that drops, stalls, sends garbage, refuses and expires tokens.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::brokers::kite::{Act, Kite, ltp};
use crate::brokers::{CredentialsFile, block, event, eventually, health, parse, price, start, within};
use flowcast::source::broker::feed_events::FeedEventKind;
use flowcast::source::broker::feed_health::FeedPhase;
use flowcast::source::broker::feed_settings::FeedSettings;
use flowcast::source::broker::feeds::Feeds;
use tokio_tungstenite::tungstenite::Message;

const SYMBOLS: &str = "symbols = { INFY = 408065, TCS = { token = 2953217, mode = \"full\" }, NIFTY = 256265 }";

fn settings(kite: &Kite, credentials: &CredentialsFile, more: &str) -> FeedSettings {
    parse(&block("kite", "zerodha", credentials, &format!("ws_url = {:?}\n{SYMBOLS}\n{more}", kite.url)))
}

async fn all_subscribed(kite: &Kite) {
    eventually("all three are subscribed with their modes", || {
        let there: Vec<_> = kite.subscribed().into_iter().collect();
        let expected = [(256_265, "quote"), (408_065, "quote"), (2_953_217, "full")];
        (there == expected.map(|(token, mode)| (token, mode.to_owned()))).then_some(())
    })
    .await;
}

fn everything(feeds: &Feeds) -> flowcast::source::broker::receiver::Receiver {
    feeds.subscribe("test", feeds.symbols()).unwrap().receiver
}

#[tokio::test]
async fn records_come_normalized_and_every_fixture_passes_through_the_socket() {
    let (kite, credentials) = (Kite::start().await, CredentialsFile::kite("today's token"));
    kite.good_token("today%27s%20token");
    let (feeds, mut events) = start(vec![settings(&kite, &credentials, "")]);
    let mut receiver = everything(&feeds);
    event(&mut events, |what| *what == FeedEventKind::Connected).await;
    all_subscribed(&kite).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kite");
    let frame = fs::read(folder.join("msg_full_infy.bin")).unwrap();
    kite.act(Act::Send(Message::binary(frame)));
    let record = price(&mut receiver, "1573.7").await;
    assert_eq!(
        (&*record.symbol, &*record.feed, record.volume, record.bids.len()),
        ("INFY", "kite", Some(1_192_471), 5)
    );
    assert_eq!(record.exchange_time, Some(1_625_461_887_000));
    let json = record.to_json();
    for (key, text) in [
        ("symbol", r#""INFY""#),
        ("last_price", "1573.7"),
        ("volume", "1192471"),
        ("high", "1575"),
        ("low", "1561.05"),
        ("open", "1569.15"),
        ("prev_close", "1567.8"),
    ] {
        assert!(json.contains(&format!(r#""{key}":{text},"#)), "{key} in {json}");
    }
    let update = record.price_update().unwrap();
    assert_eq!(&*update.symbol, "INFY");
    assert_eq!((update.price.to_string(), update.high.unwrap().to_string()), ("1573.7".into(), "1575".into()));
    // Bad frames and odd texts end nothing: what comes behind them arrives on the same connection.
    for name in [
        "bad_count_too_big",
        "bad_length_too_big",
        "bad_trailing_bytes",
        "bad_truncated_full",
        "bad_unknown_length",
        "bad_zero_packets",
    ] {
        kite.act(Act::Send(Message::binary(fs::read(folder.join(format!("{name}.bin"))).unwrap())));
    }
    for text in ["[]", "", "{", "null", r#"{"type":"order","data":{}}"#, r#"{"type":5}"#] {
        kite.act(Act::Send(Message::text(text)));
    }
    kite.act(Act::Send(Message::text(r#"{"type":"error","data":"no such token today's token"}"#)));
    kite.act(Act::Send(Message::text(r#"{"type":"message","data":"good morning"}"#)));
    let reported = event(&mut events, |what| *what == FeedEventKind::Error).await;
    assert_eq!(reported.reason, "the server reports: no such token ***");
    assert_eq!(event(&mut events, |what| *what == FeedEventKind::Notice).await.reason, "good morning");
    kite.act(Act::Tick(408_065, 123_456));
    price(&mut receiver, "1234.56").await;
    // Tokens nobody asked for are dropped silently.
    kite.act(Act::Send(Message::binary(ltp(&[(1, 1), (408_065, 123_457)]))));
    price(&mut receiver, "1234.57").await;
    let health = health(&feeds);
    assert_eq!((kite.upgrades(), health.phase, health.reconnects), (1, FeedPhase::Open, 0));
    assert_eq!((health.malformed, health.subscribed), (5 + 5, 3), "five bad frames, five odd texts");
    feeds.stop().await;
    eventually("the socket is closed", || (kite.connections() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_101_whose_connection_is_a_list_opens_the_feed() {
    for connection in ["keep-alive, Upgrade", "upgrade, keep-alive"] {
        let (kite, credentials) = (Kite::start().await, CredentialsFile::kite("token"));
        *kite.state.connection.lock().unwrap() = Some(connection);
        let (feeds, _events) = start(vec![settings(&kite, &credentials, "")]);
        let mut receiver = everything(&feeds);
        all_subscribed(&kite).await;
        kite.act(Act::Tick(408_065, 156_780));
        price(&mut receiver, "1567.8").await;
        assert_eq!(kite.attempts(), 1, "{connection}");
        feeds.stop().await;
    }
}

#[tokio::test]
async fn a_dropped_or_silent_connection_is_opened_again_with_everything_subscribed() {
    let (kite, credentials) = (Kite::start().await, CredentialsFile::kite("token"));
    let (feeds, mut events) = start(vec![settings(&kite, &credentials, "silence = \"400ms\"")]);
    let mut receiver = everything(&feeds);
    all_subscribed(&kite).await;
    kite.act(Act::Drop);
    let lost = event(&mut events, |what| *what == FeedEventKind::Error).await;
    assert!(lost.reason.contains("the connection ended"), "{lost}");
    event(&mut events, |what| *what == FeedEventKind::Reconnected).await;
    all_subscribed(&kite).await;
    // What changes while it is down is right when it is up again.
    kite.act(Act::Stall);
    eventually("it stalls", || (kite.connections() == 0).then_some(())).await;
    feeds.subscribe("other", ["INFY"]).unwrap();
    let silent = event(&mut events, |what| *what == FeedEventKind::Error).await;
    assert!(silent.reason.contains("silent for 400ms"), "{silent}");
    event(&mut events, |what| *what == FeedEventKind::Reconnected).await;
    all_subscribed(&kite).await;
    kite.act(Act::Tick(408_065, 100));
    price(&mut receiver, "1").await;
    assert!(health(&feeds).reconnects >= 2);
    feeds.stop().await;
}

#[tokio::test]
async fn garbage_that_breaks_the_websocket_is_survived() {
    let (kite, credentials) = (Kite::start().await, CredentialsFile::kite("token"));
    let (feeds, mut events) = start(vec![settings(&kite, &credentials, "max_message_bytes = 4096")]);
    let mut receiver = everything(&feeds);
    all_subscribed(&kite).await;
    kite.act(Act::Send(Message::binary(vec![0; 100_000])));
    let huge = event(&mut events, |what| *what == FeedEventKind::Error).await;
    assert!(huge.reason.contains("larger than max_message_bytes"), "{huge}");
    event(&mut events, |what| *what == FeedEventKind::Reconnected).await;
    all_subscribed(&kite).await;
    kite.act(Act::Tick(408_065, 200));
    price(&mut receiver, "2").await;
    assert_eq!(health(&feeds).malformed, 1);
    feeds.stop().await;
}

#[tokio::test]
async fn a_dead_token_is_not_tried_again_until_the_file_has_another_one() {
    let (kite, credentials) = (Kite::start().await, CredentialsFile::kite("yesterday's"));
    kite.good_token("fresh");
    let (feeds, mut events) = start(vec![settings(&kite, &credentials, "")]);
    let mut receiver = everything(&feeds);
    let refused = event(&mut events, |what| *what == FeedEventKind::AuthFailed).await;
    assert!(refused.reason.contains("HTTP 403") && refused.reason.contains("today's access_token"), "{refused}");
    assert!(!refused.to_string().contains("yesterday"), "{refused}");
    assert_eq!(health(&feeds).phase, FeedPhase::AuthFailed);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(kite.attempts(), 1, "forty polls later");
    credentials.replace("the-key", "fresh");
    event(&mut events, |what| *what == FeedEventKind::Connected).await;
    all_subscribed(&kite).await;
    // The token dies while the connection lives: the next try tells.
    kite.good_token("tomorrow");
    kite.act(Act::Drop);
    event(&mut events, |what| *what == FeedEventKind::AuthFailed).await;
    let attempts = kite.attempts();
    // SIGHUP tries at once.
    feeds.reload();
    event(&mut events, |what| *what == FeedEventKind::AuthFailed).await;
    assert_eq!(kite.attempts(), attempts + 1);
    credentials.replace("the-key", "tomorrow");
    event(&mut events, |what| *what == FeedEventKind::Reconnected).await;
    all_subscribed(&kite).await;
    kite.act(Act::Tick(408_065, 300));
    price(&mut receiver, "3").await;
    feeds.stop().await;
}

#[tokio::test]
async fn missing_credentials_are_named_and_waited_for() {
    let (kite, credentials) = (Kite::start().await, CredentialsFile::kite("token"));
    let settings = settings(&kite, &credentials, "");
    fs::remove_file(credentials.path()).unwrap();
    let (feeds, mut events) = start(vec![settings]);
    let refused = event(&mut events, |what| *what == FeedEventKind::AuthFailed).await;
    assert!(refused.reason.contains("expected a readable credentials file"), "{refused}");
    assert_eq!(kite.attempts(), 0);
    credentials.replace("the-key", "token");
    event(&mut events, |what| *what == FeedEventKind::Connected).await;
    feeds.stop().await;
}

#[tokio::test]
async fn a_server_that_refuses_for_other_reasons_is_tried_until_the_limit() {
    let (kite, credentials) = (Kite::start().await, CredentialsFile::kite("token"));
    kite.refuse(502, None, usize::MAX);
    let (feeds, mut events) = start(vec![settings(&kite, &credentials, "backoff_limit = 4")]);
    let gave_up = event(&mut events, |what| *what == FeedEventKind::GaveUp).await;
    assert!(gave_up.reason.contains("HTTP 502") && gave_up.reason.contains("4 tries failed"), "{gave_up}");
    assert_eq!((kite.attempts(), health(&feeds).phase), (5, FeedPhase::GaveUp));
    kite.refuse(502, None, 0);
    feeds.reload();
    event(&mut events, |what| *what == FeedEventKind::Connected).await;
    feeds.stop().await;
}

#[tokio::test]
async fn too_many_requests_are_answered_with_the_wait_that_is_asked_for() {
    let (kite, credentials) = (Kite::start().await, CredentialsFile::kite("token"));
    kite.refuse(429, Some(3600), 1);
    let (feeds, mut events) = start(vec![settings(&kite, &credentials, "")]);
    let busy = event(&mut events, |what| *what == FeedEventKind::Error).await;
    assert!(busy.reason.contains("HTTP 429"), "{busy}");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(kite.attempts(), 1, "the backoff's cap is 20 ms");
    assert_eq!(health(&feeds).phase, FeedPhase::Backoff);
    feeds.reload();
    event(&mut events, |what| *what == FeedEventKind::Connected).await;
    feeds.stop().await;
}

#[tokio::test]
async fn instruments_spread_over_connections_and_what_has_no_room_is_told() {
    let (kite, credentials) = (Kite::start().await, CredentialsFile::kite("token"));
    let symbols: Vec<String> = (1..=8).map(|at| format!("S{at} = {}", at * 256 + 1)).collect();
    let text = format!(
        "ws_url = {:?}\nsymbols = {{ {} }}\nconnections = 3\ninstruments_per_connection = 2\n",
        kite.url,
        symbols.join(", ")
    );
    let (feeds, mut events) = start(vec![parse(&block("kite", "zerodha", &credentials, &text))]);
    let receiver = feeds.subscribe("test", feeds.symbols()).unwrap().receiver;
    let mut refused = Vec::new();
    while refused.len() < 2 {
        let event = event(&mut events, |what| matches!(what, FeedEventKind::InstrumentRefused(_))).await;
        assert!(event.reason.contains("3 connections of 2 instruments are full"), "{event}");
        let FeedEventKind::InstrumentRefused(symbol) = event.kind else { unreachable!() };
        refused.push(symbol.to_string());
    }
    assert_eq!(refused, ["S7", "S8"]);
    eventually("three connections carry two each", || {
        let sizes: Vec<usize> =
            kite.state.subscribed.lock().unwrap().values().map(std::collections::BTreeMap::len).collect();
        (sizes == [2, 2, 2]).then_some(())
    })
    .await;
    eventually("all of them are open", || health(&feeds).is_connected().then_some(())).await;
    assert_eq!(health(&feeds).connections, 3);
    // One of them drops: the feed is not whole until it is back.
    kite.act(Act::Drop);
    eventually("all are back", || (kite.upgrades() == 6 && kite.subscribed().len() == 6).then_some(())).await;
    drop(receiver);
    feeds.stop().await;
    eventually("every socket is closed", || (kite.connections() == 0).then_some(())).await;
}

#[tokio::test]
async fn changes_while_connected_are_said_in_batches_and_unsubscribed_in_the_end() {
    let (kite, credentials) = (Kite::start().await, CredentialsFile::kite("token"));
    let (feeds, _events) = start(vec![settings(&kite, &credentials, "batch = 2")]);
    let receiver = everything(&feeds);
    all_subscribed(&kite).await;
    let commands = kite.state.commands.lock().unwrap().clone();
    assert_eq!(commands[0].1, r#"{"a":"subscribe","v":[256265,408065]}"#);
    assert_eq!(commands[1].1, r#"{"a":"subscribe","v":[2953217]}"#);
    feeds.remove("kite").await;
    drop(receiver);
    eventually("nothing is subscribed", || kite.subscribed().is_empty().then_some(())).await;
    within("stopped", feeds.stop()).await;
}
