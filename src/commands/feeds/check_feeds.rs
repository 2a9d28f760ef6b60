//! `flowcast feeds check`: do the feeds of a settings file work?
//!
//! Each feed is tried alone, the way `serve` would use it: its credentials, its connection, and one
//! record of every configured instrument. What is wrong is said, and makes the command fail.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout_at};

use super::{FeedsError, print_line};
use crate::health::status::Status;
use crate::source::broker::build;
use crate::source::broker::feed_events::{FeedEvent, FeedEventKind};
use crate::source::broker::feed_health::FeedHealth;
use crate::source::broker::feed_options::BrokerOptions;
use crate::source::broker::feed_settings::FeedSettings;
use crate::source::broker::feeds::Feeds;
use crate::source::broker::quote::MarketData;

/// Which feeds to try, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckOptions {
    /// TOML file with `[[feeds]]` blocks
    #[arg(long, env = "FLOWCAST_CONFIG", value_name = "FILE")]
    pub config: PathBuf,
    /// Ids of the feeds to try; all by default
    #[arg(value_name = "FEED")]
    pub ids: Vec<String>,
    /// Seconds that each feed has to connect and to send its first records
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout_seconds: u64,
}

/// Tries the feeds one after the other.
pub fn check(options: &CheckOptions, feeds: Vec<FeedSettings>) -> Result<(), FeedsError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let problems = runtime.block_on(async {
        let mut problems = 0;
        for feed in feeds {
            problems += try_feed(feed, Duration::from_secs(options.timeout_seconds)).await?;
        }
        Ok::<_, FeedsError>(problems)
    })?;
    if problems > 0 { Err(FeedsError::Problems(problems)) } else { Ok(()) }
}

/// Tries one feed. Gives how many problems were printed.
async fn try_feed(settings: FeedSettings, patience: Duration) -> Result<usize, FeedsError> {
    let id = Arc::clone(&settings.id);
    let missing: BTreeSet<Arc<str>> =
        settings.instruments.iter().map(|mapped| Arc::clone(&mapped.instrument.symbol)).collect();
    print_line(&format!("{id}: {} at {}, {} instruments", settings.broker, settings.ws_url, missing.len()))?;
    let feeds = Feeds::new(BrokerOptions::default(), Arc::new(Status::default()));
    let (mut events, mut records) = (feeds.events(), feeds.stream());
    feeds.add(build(settings)?)?;
    feeds.demand("check", &missing)?;
    let mut trial = Trial { id, missing, connected: false, refused: false, problems: 0, last_error: None };
    let deadline = Instant::now() + patience;
    while !trial.is_over() {
        let next = async {
            tokio::select! {
                // Events first: what they say explains what follows.
                biased;
                event = events.recv() => FeedNews::Event(event),
                Some(record) = records.recv() => FeedNews::Record(record),
            }
        };
        match timeout_at(deadline, next).await {
            Ok(FeedNews::Record(record)) => trial.record(&record)?,
            Ok(FeedNews::Event(Ok(event))) => trial.event(event)?,
            Ok(FeedNews::Event(Err(RecvError::Lagged(_)))) => {}
            Ok(FeedNews::Event(Err(RecvError::Closed))) | Err(_) => break,
        }
    }
    let is_open = feeds.health().iter().any(FeedHealth::is_connected);
    feeds.stop().await;
    trial.finish(is_open, patience)
}

enum FeedNews {
    Event(Result<FeedEvent, RecvError>),
    Record(Arc<MarketData>),
}

/// How far the trial of one feed is.
struct Trial {
    id: Arc<str>,
    /// Instruments of which no record came yet.
    missing: BTreeSet<Arc<str>>,
    connected: bool,
    /// The feed gave up, or its credentials are refused: nothing more will come.
    refused: bool,
    problems: usize,
    last_error: Option<String>,
}

impl Trial {
    /// Without instruments the connection is all there is to see.
    fn is_over(&self) -> bool {
        self.refused || (self.connected && self.missing.is_empty())
    }

    fn tell(&self, text: &str) -> io::Result<()> {
        print_line(&format!("{}: {text}", self.id))
    }

    fn record(&mut self, record: &MarketData) -> io::Result<()> {
        if self.missing.remove(&record.symbol) { self.tell(&shown(record)) } else { Ok(()) }
    }

    fn event(&mut self, FeedEvent { kind, reason, .. }: FeedEvent) -> io::Result<()> {
        match kind {
            FeedEventKind::Connected => {
                self.connected = true;
                self.tell("connected")
            }
            FeedEventKind::AuthFailed | FeedEventKind::GaveUp => {
                self.refused = true;
                self.problems += 1;
                self.tell(&reason)
            }
            FeedEventKind::InstrumentRefused(symbol) => {
                self.missing.remove(&symbol);
                self.problems += 1;
                self.tell(&format!("{symbol}: the broker refuses it: {reason}"))
            }
            FeedEventKind::Error if self.last_error.as_ref() != Some(&reason) => {
                self.tell(&format!("{reason}; trying again"))?;
                self.last_error = Some(reason);
                Ok(())
            }
            FeedEventKind::Notice => self.tell(&format!("the broker says: {reason}")),
            _ => Ok(()),
        }
    }

    /// Prints what did not come. Gives how many problems there were.
    fn finish(mut self, is_open: bool, patience: Duration) -> Result<usize, FeedsError> {
        if self.refused {
            return Ok(self.problems);
        }
        if !self.connected && self.missing.is_empty() {
            self.problems += 1;
            self.tell(&format!("no connection within {patience:?}"))?;
        }
        let why = if is_open { "the market may be closed, or the instrument's number wrong" } else { "not connected" };
        for symbol in &self.missing {
            self.tell(&format!("{symbol}: no record within {patience:?}: {why}"))?;
        }
        Ok(self.problems + self.missing.len())
    }
}

/// A record in one line.
fn shown(record: &MarketData) -> String {
    let mut text = format!("{} {}", record.symbol, format!("{:?}", record.kind).to_lowercase());
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            let _ = write!(text, " {name} {value}");
        }
    };
    add("last", record.last_price.map(|price| price.normalize().to_string()));
    add("change %", record.change_pct().map(|change| change.normalize().to_string()));
    add("volume", record.volume.map(|volume| volume.to_string()));
    add("oi", record.oi.map(|oi| oi.to_string()));
    add("bid", record.bids.first().map(|level| level.price.normalize().to_string()));
    add("ask", record.asks.first().map(|level| level.price.normalize().to_string()));
    text
}
