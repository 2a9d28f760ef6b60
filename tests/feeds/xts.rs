//! An XTS feed against a deployment that drops, stalls, sends garbage, refuses and expires tokens.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::brokers::xts::{Act, Xts};
use crate::brokers::{CredentialsFile, block, event, eventually, health, parse, price, start, within};
use flowcast::source::broker::feed_events::FeedEventKind;
use flowcast::source::broker::feed_health::FeedPhase;
use flowcast::source::broker::feed_settings::FeedSettings;
use flowcast::source::broker::feeds::Feeds;
use flowcast::source::broker::instrument::Exchange;
use flowcast::source::broker::quote::QuoteKind;
use flowcast::source::broker::receiver::Receiver;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

const SYMBOLS: &str =
    "symbols = { RELIANCE = { segment = 1, id = 2885 }, NIFTY = { segment = 1, id = 26000, index = true } }";

fn settings(xts: &Xts, credentials: &CredentialsFile, more: &str) -> FeedSettings {
    let urls = format!("base_url = {:?}\nws_url = {:?}\ncalls_per_second = 1000\n", xts.base_url, xts.ws_url);
    let symbols = if more.contains("symbols") { "" } else { SYMBOLS };
    parse(&block("xts", "xts_pro", credentials, &format!("{urls}{symbols}\n{more}")))
}

fn everything(feeds: &Feeds) -> Receiver {
    feeds.subscribe("test", feeds.symbols()).unwrap().receiver
}

async fn subscribed(xts: &Xts, expected: &[(u64, u64)]) {
    eventually(&format!("{expected:?} are subscribed"), || (xts.subscribed() == expected).then_some(())).await;
}

#[tokio::test]
async fn a_captured_session_replays_through_the_client() {
    let (xts, credentials) = (Xts::start().await, CredentialsFile::xts("good"));
    let (feeds, mut events) = start(vec![settings(&xts, &credentials, "mode = \"full\"")]);
    let mut receiver = everything(&feeds);
    event(&mut events, |what| *what == FeedEventKind::Connected).await;
    subscribed(&xts, &[(1502, 2885), (1502, 26_000), (1510, 2885), (1510, 26_000)]).await;
    // The snapshots of the subscriptions' answers come first.
    assert_eq!(price(&mut receiver, "100.5").await.open.unwrap().to_string(), "99.5");
    let queries = xts.state.queries.lock().unwrap().clone();
    assert_eq!(
        queries,
        ["EIO=3&transport=websocket&token=token%2B1&userID=USER%201&publishFormat=JSON&broadcastMode=Full"]
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/xts/captured-session.jsonl");
    let mut expected = 0;
    for line in fs::read_to_string(path).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let frame = line["frame"].as_str().unwrap();
        if line["dir"] == "S>C" && frame.starts_with("42") {
            expected += usize::from(!frame.contains("1105-json") && !frame.contains("joined"));
            xts.send(frame);
        }
    }
    assert_eq!(expected, 180);
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..expected {
        let record = within("a record", async {
            loop {
                let record = receiver.recv().await.unwrap();
                if record.sequence.is_some() || record.exchange_time.is_some() {
                    return record;
                }
            }
        })
        .await;
        if &*record.symbol == "NIFTY" {
            assert_eq!((record.exchange, record.tradable, record.bids.len()), (Exchange::NseIndex, Some(false), 0));
        }
        *counts.entry((record.symbol.to_string(), format!("{:?}", record.kind))).or_insert(0) += 1;
    }
    let total = |kind: QuoteKind| -> i32 {
        counts.iter().filter(|((_, name), _)| *name == format!("{kind:?}")).map(|(_, count)| count).sum()
    };
    assert_eq!(total(QuoteKind::Ltp), 60);
    assert_eq!(total(QuoteKind::Index) + total(QuoteKind::Quote) + total(QuoteKind::Full), 120);
    let health = health(&feeds);
    assert_eq!((health.malformed, health.reconnects, health.subscribed), (0, 0, 2));
    assert_eq!(health.ignored, 12, "the 1105 noise");
    feeds.stop().await;
    eventually("the socket is closed and the session ended", || {
        (xts.state.open.load(std::sync::atomic::Ordering::SeqCst) == 0 && xts.state.token.lock().unwrap().is_none())
            .then_some(())
    })
    .await;
    assert!(xts.state.from_client.lock().unwrap().contains(&"41".to_owned()), "it said goodbye");
}

#[tokio::test]
async fn partial_events_are_merged_over_the_snapshot_and_begin_anew_after_a_reconnect() {
    let (xts, credentials) = (Xts::start().await, CredentialsFile::xts("good"));
    let (feeds, mut events) = start(vec![settings(&xts, &credentials, "broadcast_mode = \"Partial\"")]);
    let mut receiver = everything(&feeds);
    subscribed(&xts, &[(1501, 2885), (1501, 26_000)]).await;
    price(&mut receiver, "100.5").await;
    price(&mut receiver, "100.5").await;
    xts.send(r#"42["1501-json-partial","t:1_2885,ltp:101.5,bi:0|62|101.45|3"]"#);
    let record = price(&mut receiver, "101.5").await;
    assert_eq!(
        (record.open.unwrap().to_string(), record.bids[0].quantity),
        ("99.5".to_owned(), 62),
        "from the snapshot"
    );
    xts.send(r#"42["1501-json-partial","t:1_2885,v:5"]"#);
    assert_eq!(price(&mut receiver, "101.5").await.volume, Some(5), "merged");
    xts.act(Act::Drop);
    event(&mut events, |what| *what == FeedEventKind::Reconnected).await;
    // The session has its subscriptions: they are taken back and made again, for the snapshot's sake.
    price(&mut receiver, "100.5").await;
    price(&mut receiver, "100.5").await;
    xts.send(r#"42["1501-json-partial","t:1_2885,ltq:7"]"#);
    let record = price(&mut receiver, "100.5").await;
    assert_eq!((record.last_quantity, record.volume), (Some(7), None), "5 was of the connection before");
    assert_eq!((xts.logins(), xts.sockets()), (1, 2), "the token was still good");
    feeds.stop().await;
}

#[tokio::test]
async fn a_dead_token_brings_one_login_and_everything_is_subscribed_anew() {
    let (xts, credentials) = (Xts::start().await, CredentialsFile::xts("good"));
    let (feeds, mut events) = start(vec![settings(&xts, &credentials, "")]);
    let mut receiver = everything(&feeds);
    subscribed(&xts, &[(1501, 2885), (1501, 26_000)]).await;
    xts.expire();
    let lost = event(&mut events, |what| *what == FeedEventKind::Error).await;
    assert!(!lost.to_string().contains("token+"), "{lost}");
    event(&mut events, |what| *what == FeedEventKind::Reconnected).await;
    assert_eq!(xts.logins(), 2);
    subscribed(&xts, &[(1501, 2885), (1501, 26_000)]).await;
    // In the namespace, as Socket.IO servers tell it.
    *xts.state.refuse_in_namespace.lock().unwrap() = true;
    xts.expire();
    event(&mut events, |what| *what == FeedEventKind::Reconnected).await;
    assert_eq!(xts.logins(), 3);
    // And by a call.
    *xts.state.token.lock().unwrap() = Some("another's".to_owned());
    feeds.unsubscribe("test", ["NIFTY"]);
    feeds.subscribe("test", ["NIFTY"]).unwrap();
    xts.send(r#"42["logout","another login"]"#);
    event(&mut events, |what| *what == FeedEventKind::Reconnected).await;
    assert_eq!(xts.logins(), 4);
    xts.send(r#"42["1512-json-full",{"ExchangeSegment":1,"ExchangeInstrumentID":2885,"LastTradedPrice":7.25}]"#);
    price(&mut receiver, "7.25").await;
    feeds.stop().await;
}

#[tokio::test]
async fn refused_credentials_are_tried_once_and_again_when_the_file_changes() {
    let (xts, credentials) = (Xts::start().await, CredentialsFile::xts("hunter2"));
    let (feeds, mut events) = start(vec![settings(&xts, &credentials, "")]);
    let refused = event(&mut events, |what| *what == FeedEventKind::AuthFailed).await;
    assert!(refused.reason.contains("login: HTTP 400 e-response-0001 Invalid credentials"), "{refused}");
    assert!(!refused.to_string().contains("hunter2"), "the server echoed it: {refused}");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((xts.logins(), health(&feeds).phase), (1, FeedPhase::AuthFailed));
    credentials.replace("the-key", "good");
    event(&mut events, |what| *what == FeedEventKind::Connected).await;
    feeds.stop().await;
}

#[tokio::test]
async fn a_token_that_is_refused_right_after_its_login_is_not_fetched_again() {
    let (xts, credentials) = (Xts::start().await, CredentialsFile::xts("good"));
    let mut settings = settings(&xts, &credentials, "");
    // Another deployment's socket: it knows nothing of this one's tokens.
    let other = Xts::start().await;
    settings.ws_url.clone_from(&other.ws_url);
    let (feeds, mut events) = start(vec![settings]);
    let refused = event(&mut events, |what| *what == FeedEventKind::AuthFailed).await;
    assert!(refused.reason.contains("a new session's token is refused"), "{refused}");
    assert!(!refused.to_string().contains("token+1") && !refused.to_string().contains("token%2B1"), "{refused}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(xts.logins(), 1);
    feeds.stop().await;
}

#[tokio::test]
async fn an_unknown_instrument_is_told_alone_and_not_tried_again() {
    let (xts, credentials) = (Xts::start().await, CredentialsFile::xts("good"));
    xts.state.unknown.lock().unwrap().insert(4);
    let symbols: Vec<String> = (1..=7).map(|id| format!("S{id} = {{ segment = 1, id = {id} }}")).collect();
    let more = format!("symbols = {{ {} }}", symbols.join(", "));
    let (feeds, mut events) = start(vec![settings(&xts, &credentials, &more)]);
    let mut receiver = everything(&feeds);
    let refused = event(&mut events, |what| matches!(what, FeedEventKind::InstrumentRefused(_))).await;
    assert_eq!(refused.kind, FeedEventKind::InstrumentRefused("S4".into()));
    assert!(refused.reason.contains("Instrument not found"), "{refused}");
    subscribed(&xts, &[(1501, 1), (1501, 2), (1501, 3), (1501, 5), (1501, 6), (1501, 7)]).await;
    let calls = xts.calls().len();
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(xts.calls().len(), calls, "nothing is tried again");
    price(&mut receiver, "100.5").await;
    assert_eq!((health(&feeds).refused, health(&feeds).subscribed), (1, 6));
    feeds.stop().await;
}

#[tokio::test]
async fn a_failed_call_is_tried_again_for_its_instruments_only() {
    let (xts, credentials) = (Xts::start().await, CredentialsFile::xts("good"));
    let (feeds, mut events) = start(vec![settings(&xts, &credentials, "batch = 1")]);
    event(&mut events, |what| *what == FeedEventKind::Connected).await;
    // The first call of two fails twice; the other one is made once.
    for _ in 0..2 {
        xts.script(500, "e-x", "out of order", None);
    }
    let _receiver = feeds.subscribe("test", ["RELIANCE"]).unwrap().receiver;
    let failed = event(&mut events, |what| *what == FeedEventKind::Error).await;
    assert!(failed.reason.contains("HTTP 500") && failed.reason.contains("1 instruments of 1501 wait"), "{failed}");
    event(&mut events, |what| *what == FeedEventKind::Error).await;
    let _other = feeds.subscribe("test", ["NIFTY"]).unwrap().receiver;
    subscribed(&xts, &[(1501, 2885), (1501, 26_000)]).await;
    let calls_of =
        |id: u64| xts.calls().iter().filter(|(_, body)| body["instruments"][0]["exchangeInstrumentID"] == id).count();
    assert_eq!((calls_of(2885), calls_of(26_000)), (3, 1));
    assert_eq!(health(&feeds).phase, FeedPhase::Open, "the socket stayed");
    feeds.stop().await;
}

#[tokio::test]
async fn too_many_calls_wait_as_long_as_the_server_says() {
    let (xts, credentials) = (Xts::start().await, CredentialsFile::xts("good"));
    xts.script(429, "RATE_LIMIT_EXCEEDED", "slower", Some(1));
    let (feeds, mut events) = start(vec![settings(&xts, &credentials, "")]);
    let _receiver = everything(&feeds);
    let busy = event(&mut events, |what| *what == FeedEventKind::Error).await;
    assert!(
        busy.reason.contains("too many calls: HTTP 429 RATE_LIMIT_EXCEEDED slower") || busy.reason.contains("HTTP 429"),
        "{busy}"
    );
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(xts.calls().len(), 1, "the backoff's cap is 20 ms");
    subscribed(&xts, &[(1501, 2885), (1501, 26_000)]).await;
    feeds.stop().await;
}

#[tokio::test]
async fn garbage_and_binary_frames_do_not_stop_it() {
    let (xts, credentials) = (Xts::start().await, CredentialsFile::xts("good"));
    let (feeds, mut events) = start(vec![settings(&xts, &credentials, "")]);
    let mut receiver = everything(&feeds);
    subscribed(&xts, &[(1501, 2885), (1501, 26_000)]).await;
    for text in [
        "",
        "9",
        "42",
        "42[",
        r#"42["1501-json-full"]"#,
        r#"42["1501-json-full","{"]"#,
        r#"42["1501-json-full",5]"#,
        r#"42["1501-json-partial","ltp:1"]"#,
        r#"42["9999-json-full","{}"]"#,
        r#"42["odd",{}]"#,
        "451-[\"x\"]",
        "5",
        "6",
        "42[\"1105-json-partial\",\"t:1_1,24:\\u0000\\u0000\"]",
        r#"42["1501-json-full","{\"ExchangeSegment\":1,\"ExchangeInstrumentID\":999,\"LastTradedPrice\":1}"]"#,
    ] {
        xts.send(text);
    }
    xts.act(Act::Send(Message::binary(vec![4, 0, 1])));
    xts.send(r#"42["error","watch out"]"#);
    assert_eq!(event(&mut events, |what| *what == FeedEventKind::Error).await.reason, "the server reports: watch out");
    xts.send(r#"42["1507-json-full","{\"ExchangeSegment\":1,\"ExchangeInstrumentID\":0,\"message\":\"PREOPENED\"}"]"#);
    assert_eq!(event(&mut events, |what| *what == FeedEventKind::Notice).await.reason, "PREOPENED");
    xts.send(
        r#"42["1501-json-full",[{"ExchangeSegment":1,"ExchangeInstrumentID":2885,"LastTradedPrice":8.05},{"x":1}]]"#,
    );
    price(&mut receiver, "8.05").await;
    let before = health(&feeds);
    assert_eq!((before.reconnects, before.malformed), (0, 9));
    feeds.stop().await;
}

#[tokio::test]
async fn a_silent_server_is_left_and_an_answered_ping_is_no_silence() {
    let (xts, credentials) = (Xts::start().await, CredentialsFile::xts("good"));
    let (feeds, mut events) = start(vec![settings(&xts, &credentials, "silence = \"400ms\"")]);
    event(&mut events, |what| *what == FeedEventKind::Connected).await;
    eventually("pings go out", || (xts.state.from_client.lock().unwrap().len() > 10).then_some(())).await;
    xts.act(Act::Stall);
    let silent = event(&mut events, |what| *what == FeedEventKind::Error).await;
    assert!(silent.reason.contains("silent for 400ms"), "{silent}");
    event(&mut events, |what| *what == FeedEventKind::Reconnected).await;
    feeds.stop().await;
}

#[tokio::test]
async fn both_versions_of_the_transport_are_spoken_and_the_wrong_one_is_named() {
    let (xts, credentials) = (Xts::start().await, CredentialsFile::xts("good"));
    xts.state.eio.store(4, std::sync::atomic::Ordering::SeqCst);
    let (feeds, mut events) = start(vec![settings(&xts, &credentials, "eio = 4")]);
    let mut receiver = everything(&feeds);
    event(&mut events, |what| *what == FeedEventKind::Connected).await;
    price(&mut receiver, "100.5").await;
    eventually("pings are answered", || {
        (xts.state.from_client.lock().unwrap().iter().filter(|text| *text == "3").count() > 3).then_some(())
    })
    .await;
    feeds.stop().await;
    let (feeds, mut events) = start(vec![settings(&xts, &credentials, "eio = 3\ntimeout = \"100ms\"")]);
    let wrong = event(&mut events, |what| *what == FeedEventKind::Error).await;
    assert!(wrong.reason.contains("does it speak EIO=3?"), "{wrong}");
    feeds.stop().await;
}
