//! Brokers of our own, over real sockets on port 0, that do what the real ones do and what they should
//! not: drop, stall, send garbage, refuse, expire tokens.
#![allow(dead_code, reason = "every test binary uses its own part")]

pub mod kite;
pub mod local;
pub mod xts;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flowcast::health::status::Status;
use flowcast::source::broker::feed_events::{FeedEvent, FeedEventKind};
use flowcast::source::broker::feed_health::FeedHealth;
use flowcast::source::broker::feed_options::BrokerOptions;
use flowcast::source::broker::feed_settings::{self, FeedSettings};
use flowcast::source::broker::feeds::Feeds;
use flowcast::source::broker::quote::MarketData;
use flowcast::source::broker::receiver::Receiver;
use flowcast::source::broker::{self};
use tempfile::TempDir;
use tokio::sync::broadcast;

/// How long anything may take before a test counts as hanging. Nothing is measured against it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something, and says what when it does not come.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Asks again and again until there is an answer.
pub async fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
}

/// Credentials in a file that a test may replace.
pub struct CredentialsFile {
    folder: TempDir,
    names: (&'static str, &'static str),
}

impl CredentialsFile {
    pub fn kite(token: &str) -> Self {
        Self::new(("api_key", "access_token"), "the-key", token)
    }

    pub fn xts(secret: &str) -> Self {
        Self::new(("app_key", "secret_key"), "the-key", secret)
    }

    fn new(names: (&'static str, &'static str), key: &str, secret: &str) -> Self {
        let file = Self { folder: tempfile::tempdir().unwrap(), names };
        file.replace(key, secret);
        file
    }

    pub fn replace(&self, key: &str, secret: &str) {
        let (key_name, secret_name) = self.names;
        // Whole or not at all, as an operator's script should do it.
        let next = self.folder.path().join("next");
        fs::write(&next, format!("{key_name} = {key:?}\n{secret_name} = {secret:?}\n")).unwrap();
        fs::rename(next, self.path()).unwrap();
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("credentials.toml")
    }
}

/// Small delays, so that no test sleeps long.
const QUICK: &str = "backoff_base = \"2ms\"\nbackoff_cap = \"20ms\"\nstable_after = \"200ms\"\ncredentials_poll = \"5ms\"\n\
                     silence = \"10s\"\ntimeout = \"10s\"\nconnects_per_second = 1000\n";

/// A `[[feeds]]` block; lines of `more` replace the quick settings of the same name.
pub fn block(id: &str, broker: &str, credentials: &CredentialsFile, more: &str) -> String {
    let names: Vec<&str> = more.lines().filter_map(|line| line.split_once('=').map(|(name, _)| name.trim())).collect();
    let quick = QUICK.lines().filter(|line| !names.contains(&line.split_once('=').unwrap().0.trim()));
    let quick: Vec<&str> = quick.collect();
    format!(
        "[[feeds]]\nid = {id:?}\nbroker = {broker:?}\ncredentials_file = '{}'\n{}\n{more}\n",
        credentials.path().display(),
        quick.join("\n")
    )
}

pub fn parse(text: &str) -> FeedSettings {
    let mut table: toml::Table = toml::from_str(text).unwrap();
    feed_settings::feeds(table.remove("feeds").unwrap()).unwrap_or_else(|error| panic!("{error}")).remove(0)
}

/// Feeds with the given ones, and their events from the start.
pub fn start(feeds: Vec<FeedSettings>) -> (Feeds, broadcast::Receiver<FeedEvent>) {
    let failover = Duration::from_millis(300);
    let options =
        BrokerOptions { feed_event_buffer: 65_536, feed_failover_silence: failover, ..BrokerOptions::default() };
    let all = Feeds::new(options, Arc::new(Status::default()));
    let events = all.events();
    for feed in feeds {
        all.add(broker::build(feed).unwrap()).unwrap();
    }
    (all, events)
}

/// The next event that is one of these.
pub async fn event(events: &mut broadcast::Receiver<FeedEvent>, wanted: impl Fn(&FeedEventKind) -> bool) -> FeedEvent {
    within("an event", async {
        loop {
            let event = events.recv().await.unwrap();
            if wanted(&event.kind) {
                return event;
            }
        }
    })
    .await
}

/// The next record of this price, whatever comes before.
pub async fn price(receiver: &mut Receiver, text: &str) -> Arc<MarketData> {
    within(&format!("a record of {text}"), async {
        loop {
            let record = receiver.recv().await.unwrap();
            if record.last_price.is_some_and(|price| price.normalize().to_string() == text) {
                return record;
            }
        }
    })
    .await
}

pub fn health(feeds: &Feeds) -> FeedHealth {
    feeds.health().remove(0)
}
