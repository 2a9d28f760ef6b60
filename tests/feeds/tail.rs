//! `flowcast feeds tail`: what the feeds give, as an operator sees it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::brokers::kite::{Act, Kite};
use crate::brokers::{CredentialsFile, block, eventually};
use crate::common::server::program;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

const INFY: u32 = 408_065;
const SBIN: u32 = 779_521;

/// A settings file with two feeds of the same broker.
fn settings(kite: &Kite, credentials: &CredentialsFile) -> TempDir {
    let url = format!("ws_url = {:?}\n", kite.url);
    let one = block("one", "zerodha", credentials, &format!("{url}symbols = {{ INFY = {INFY}, SBIN = {SBIN} }}"));
    let two = block("two", "zerodha", credentials, &format!("{url}symbols = {{ OTHER = 1 }}"));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("feeds.toml"), format!("{one}{two}")).unwrap();
    folder
}

fn tail(folder: &TempDir, arguments: &[&str]) -> Child {
    let mut command = program(&["feeds", "tail"]);
    command.arg("--config").arg(folder.path().join("feeds.toml")).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The end of a child: whether it succeeded, and what it wrote to stderr.
async fn ended(mut child: Child) -> (bool, String) {
    tokio::task::spawn_blocking(move || {
        let mut told = String::new();
        child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        (child.wait().unwrap().success(), told)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_printed_as_json_lines_until_a_signal_ends_it_cleanly() {
    let (kite, credentials) = (Kite::start().await, CredentialsFile::kite("hunter2"));
    let folder = settings(&kite, &credentials);
    let mut child = tail(&folder, &["--feed", "one", "--symbols", "INFY,NOWHERE"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    eventually("one symbol is subscribed", || kite.subscribed().keys().eq([&INFY]).then_some(())).await;
    assert_eq!(kite.connections(), 1, "the other feed is not opened");
    kite.act(Act::Tick(INFY, 157_315));
    kite.act(Act::Tick(INFY, 157_300));
    let lines = tokio::task::spawn_blocking(move || [lines.next(), lines.next()].map(|line| line.unwrap().unwrap()));
    let [first, second] = lines.await.unwrap();
    assert!(second.contains(r#""last_price":1573,"#), "exact digits: {second}");
    let mut record: Value = serde_json::from_str(&first).unwrap();
    assert!(record["received"].take().is_i64(), "{first}");
    let expected = json!({
        "broker": "zerodha", "feed": "one", "exchange": "NSE", "instrument_id": INFY, "symbol": "INFY",
        "kind": "ltp", "tradable": true, "last_price": 1573.15, "received": null
    });
    assert_eq!(record, expected);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let (success, told) = ended(child).await;
    assert!(success && !told.contains("hunter2"), "{told}");
    for line in ["NOWHERE: no feed offers this symbol", "one: connected"] {
        assert!(told.lines().any(|there| there == line), "{line} in {told}");
    }
    eventually("the socket is closed", || (kite.connections() == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_offers_and_an_output_that_does_not_keep_up_end_it_with_a_reason() {
    let (kite, credentials) = (Kite::start().await, CredentialsFile::kite("token"));
    let folder = settings(&kite, &credentials);
    let (success, told) = ended(tail(&folder, &["--symbols", "NOWHERE"])).await;
    assert!(!success && told.contains("expected symbols to print"), "{told}");
    let (success, told) = ended(tail(&folder, &["--feed", "three"])).await;
    assert!(!success && told.contains("expected the id of a feed (one, two), got three"), "{told}");
    // Nobody reads its output: the pipe fills, then the buffer of four records.
    let child = tail(&folder, &["--feed", "one", "--feed-client-buffer", "4"]);
    eventually("both symbols are subscribed", || (kite.subscribed().len() == 2).then_some(())).await;
    let flooding = tokio::spawn(async move {
        loop {
            (0..50).for_each(|price| kite.act(Act::Tick(INFY, price)));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    flooding.abort();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("the output did not keep up: dropped: 4 records"), "{told}");
}
