//! `flowcast feeds check` and `[[feeds]]` of the settings file, as an operator meets them.

use std::fs;
use std::process::Output;
use std::time::Duration;

use crate::brokers::kite::{Act, Kite};
use crate::brokers::xts::Xts;
use crate::brokers::{CredentialsFile, block, event, eventually, parse, price, start};
use crate::common::dataset::Dataset;
use crate::common::server::{program, refusal, serve};
use flowcast::source::broker::feed_events::FeedEventKind;

async fn check(settings: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("settings.toml");
    fs::write(&path, settings).unwrap();
    let mut command = program(&["feeds", "check", "--config", path.to_str().unwrap()]);
    command.args(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_works_prints_one_record_per_instrument_and_succeeds() {
    let (kite, xts) = (Kite::start().await, Xts::start().await);
    let (kite_file, xts_file) = (CredentialsFile::kite("token"), CredentialsFile::xts("good"));
    let one = block("k", "zerodha", &kite_file, &format!("ws_url = {:?}\nsymbols = {{ INFY = 408065 }}", kite.url));
    let urls = format!("base_url = {:?}\nws_url = {:?}\n", xts.base_url, xts.ws_url);
    let other =
        block("x", "xts_client", &xts_file, &format!("{urls}symbols = {{ RELIANCE = {{ segment = 1, id = 2885 }} }}"));
    let ticking = tokio::spawn(async move {
        loop {
            kite.act(Act::Tick(408_065, 157_315));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let output = check(&format!("port = 8080\n{one}{other}"), &[]).await;
    ticking.abort();
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    for line in ["k: connected", "k: INFY ltp last 1573.15", "x: connected", "x: RELIANCE quote last 100.5"] {
        assert!(said.lines().any(|there| there == line), "{line} in {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_thing_that_can_be_wrong_has_its_own_words() {
    let (kite, xts) = (Kite::start().await, Xts::start().await);
    kite.good_token("another");
    xts.state.unknown.lock().unwrap().insert(7);
    let (kite_file, xts_file) = (CredentialsFile::kite("hunter2"), CredentialsFile::xts("good"));
    let urls = format!("base_url = {:?}\nws_url = {:?}\n", xts.base_url, xts.ws_url);
    let kite_at =
        |url: &str| block("k", "zerodha", &kite_file, &format!("ws_url = {url:?}\nsymbols = {{ INFY = 408065 }}"));
    let unset = "[[feeds]]\nid = \"k\"\nbroker = \"zerodha\"\napi_key_env = \"FLOWCAST_TEST_UNSET\"\naccess_token_env = \"X\"\n";
    let unknown = block("x", "xts_pro", &xts_file, &format!("{urls}symbols = {{ A = {{ segment = 1, id = 7 }} }}"));
    let quiet = block(
        "x",
        "xts_pro",
        &xts_file,
        &format!("{urls}mode = \"full\"\ncodes = [1510]\nsymbols = {{ A = {{ segment = 1, id = 8 }} }}"),
    );
    xts.script(200, "s-session-0001", "no snapshots", None);
    let cases = [
        (quiet, "x: A: no record within 2s: the market may be closed"),
        (
            kite_at(&kite.url),
            "k: the server refused the socket: HTTP 403, Authentication failed for ***; expected a valid api_key",
        ),
        (kite_at("ws://127.0.0.1:1"), "k: cannot connect to 127.0.0.1:1: Connection refused"),
        (unset.to_owned(), "FLOWCAST_TEST_UNSET, which is not set or empty"),
        (unknown, "x: A: the broker refuses it: 1501: HTTP 400 e-instrument-0001 Instrument not found"),
        (String::new(), "expected [[feeds]] blocks, got none"),
        (
            "[[feeds]]\nid = \"k\"\nbroker = \"upstox\"".to_owned(),
            "feeds[0].broker: expected zerodha, xts_pro or xts_client, got \"upstox\"",
        ),
    ];
    for (settings, words) in cases {
        let output = check(&settings, &["--timeout-seconds", "2"]).await;
        let said = said(&output);
        assert!(!output.status.success() && said.contains(words) && !said.contains("hunter2"), "{words} in {said}");
    }
    let output = check(unset, &["other"]).await;
    assert!(said(&output).contains("expected the id of a feed (k), got other"));
}

#[test]
fn serve_refuses_bad_feeds_before_anything_is_opened() {
    let dataset = Dataset::usual();
    let path = dataset.path().join("settings.toml");
    for (content, words) in [
        ("[[feeds]]\nid = \"k\"\nbroker = \"zerodha\"\nsymbols = {}", "feeds[0].credentials_file: expected either"),
        (
            "[[feeds]]\nid = \"k\"\nbroker = \"zerodha\"\ncredentials_file = \"x\"\nsymbls = {}",
            "feeds[0].symbls: expected the name of a setting; did you mean symbols?",
        ),
        ("[feeds]\nid = 1", "feeds: expected [[feeds]] blocks, got table"),
        ("feed-buffer = 0", "--feed-buffer"),
    ] {
        fs::write(&path, content).unwrap();
        let said = refusal(serve(&dataset, &[]).arg("--config").arg(&path));
        assert!(said.contains(words), "{words} in {said}");
    }
}

#[tokio::test]
async fn one_broker_stands_in_for_the_other_over_real_sockets() {
    let (kite, xts) = (Kite::start().await, Xts::start().await);
    let (kite_file, xts_file) = (CredentialsFile::kite("token"), CredentialsFile::xts("good"));
    let one =
        parse(&block("k", "zerodha", &kite_file, &format!("ws_url = {:?}\nsymbols = {{ A = 408065 }}", kite.url)));
    let urls = format!("base_url = {:?}\nws_url = {:?}\ncalls_per_second = 1000\n", xts.base_url, xts.ws_url);
    let other =
        parse(&block("x", "xts_pro", &xts_file, &format!("{urls}symbols = {{ A = {{ segment = 1, id = 1 }} }}")));
    let (feeds, mut events) = start(vec![one, other]);
    let mut receiver = feeds.subscribe("test", ["A"]).unwrap().receiver;
    eventually("both are subscribed", || (kite.subscribed().len() == 1 && xts.subscribed().len() == 1).then_some(()))
        .await;
    kite.act(Act::Tick(408_065, 100));
    price(&mut receiver, "1").await;
    // The first broker refuses everybody from now on; after the silence the second one's word counts.
    kite.refuse(502, None, usize::MAX);
    kite.act(Act::Drop);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let mut stood_in = false;
    while tokio::time::Instant::now() < deadline && !stood_in {
        xts.send(r#"42["1512-json-full",{"ExchangeSegment":1,"ExchangeInstrumentID":1,"LastTradedPrice":2}]"#);
        tokio::time::sleep(Duration::from_millis(50)).await;
        stood_in = matches!(receiver.try_recv(), Ok(Some(record)) if &*record.feed == "x");
    }
    assert!(stood_in, "the second broker never spoke");
    assert_eq!(event(&mut events, |what| matches!(what, FeedEventKind::FailedOver(_))).await.feed, "x".into());
    kite.refuse(502, None, 0);
    eventually("the first is subscribed again", || (kite.subscribed().len() == 1).then_some(())).await;
    kite.act(Act::Tick(408_065, 300));
    price(&mut receiver, "3").await;
    feeds.stop().await;
}
