//! `flowcast feeds check`: do the feeds of a settings file work?
//!
//! Each feed is tried alone, the way `serve` would use it: its credentials, its connection, and one
//! record of every configured instrument. What is wrong is said, and makes the command fail.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout_at};

use crate::health::status::Status;
use crate::source::broker::build;
use crate::source::broker::feed_events::{FeedEvent, FeedEventKind};
use crate::source::broker::feed_options::BrokerOptions;
use crate::source::broker::feed_settings::FeedSettings;
use crate::source::broker::feeds::Feeds;
use crate::source::broker::net::tls::TlsError;
use crate::source::broker::quote::MarketData;
use crate::source::broker::receiver::{AddError, SubscribeError};

/// `flowcast feeds …`.
#[derive(Debug, Clone, clap::Args)]
pub struct FeedsOptions {
    #[command(subcommand)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub command: FeedsCommand,
}

/// What can be done with feeds.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum FeedsCommand {
    /// Try credentials and connections, and print one record per instrument
    Check(CheckOptions),
}

/// Which feeds to try, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckOptions {
    /// TOML file with [[feeds]] blocks
    #[arg(long, env = "FLOWCAST_CONFIG", value_name = "FILE")]
    pub config: PathBuf,
    /// Ids of the feeds to try; all by default
    #[arg(value_name = "FEED")]
    pub ids: Vec<String>,
    /// Seconds each feed has for its connection and the records
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout_seconds: u64,
}

/// Why the check failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The file has none.
    #[error("{0}: expected [[feeds]] blocks, got none; docs/brokers.md shows some")]
    NoFeeds(PathBuf),
    /// The file has none of this id.
    #[error("expected the id of a feed ({known}), got {id}")]
    UnknownFeed {
        /// What was asked for.
        id: String,
        /// What there is.
        known: String,
    },
    /// Certificates of one's own.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Not reached: every feed is alone.
    #[error(transparent)]
    Add(#[from] AddError),
    /// Not reached: there is one subscriber.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// The runtime does not start, or the output is closed.
    #[error("cannot check: {0}")]
    Io(#[from] io::Error),
    /// They were said above.
    #[error("{0} problems")]
    Problems(usize),
}

/// Tries the feeds one after the other.
pub fn check(options: &CheckOptions, mut feeds: Vec<FeedSettings>) -> Result<(), CheckError> {
    if feeds.is_empty() {
        return Err(CheckError::NoFeeds(options.config.clone()));
    }
    let known: Vec<String> = feeds.iter().map(|feed| feed.id.to_string()).collect();
    if let Some(id) = options.ids.iter().find(|id| !known.contains(id)) {
        return Err(CheckError::UnknownFeed { id: id.clone(), known: known.join(", ") });
    }
    feeds.retain(|feed| options.ids.is_empty() || options.ids.iter().any(|id| **id == *feed.id));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let problems = runtime.block_on(async {
        let mut problems = 0;
        for feed in feeds {
            problems += try_feed(feed, Duration::from_secs(options.timeout_seconds)).await?;
        }
        Ok::<_, CheckError>(problems)
    })?;
    if problems > 0 { Err(CheckError::Problems(problems)) } else { Ok(()) }
}

/// Tries one feed. Gives how many problems it told.
async fn try_feed(settings: FeedSettings, patience: Duration) -> Result<usize, CheckError> {
    let id = Arc::clone(&settings.id);
    let mut missing: BTreeSet<Arc<str>> =
        settings.instruments.iter().map(|mapped| Arc::clone(&mapped.instrument.symbol)).collect();
    say(&format!("{id}: {} at {}, {} instruments", settings.broker, settings.ws_url, missing.len()))?;
    let feeds = Feeds::new(BrokerOptions::default(), Arc::new(Status::default()));
    let (mut events, mut records) = (feeds.events(), feeds.stream());
    feeds.add(build(settings)?)?;
    feeds.demand("check", &missing)?;
    let mut only_connect = missing.is_empty();
    let deadline = Instant::now() + patience;
    let mut problems = 0;
    let mut last_error = None;
    while only_connect || !missing.is_empty() {
        let next = async {
            tokio::select! {
                // Events first: what they say explains what follows.
                biased;
                event = events.recv() => Next::Event(event),
                Some(record) = records.recv() => Next::Record(record),
            }
        };
        match timeout_at(deadline, next).await {
            Ok(Next::Record(record)) => {
                if missing.remove(&record.symbol) {
                    say(&format!("{id}: {}", shown(&record)))?;
                }
            }
            Ok(Next::Event(Ok(FeedEvent { what, reason, .. }))) => match what {
                FeedEventKind::Connected => {
                    say(&format!("{id}: connected"))?;
                    only_connect = false;
                }
                FeedEventKind::AuthFailed | FeedEventKind::GaveUp => {
                    say(&format!("{id}: {reason}"))?;
                    feeds.stop().await;
                    return Ok(problems + 1);
                }
                FeedEventKind::InstrumentRefused(symbol) => {
                    missing.remove(&symbol);
                    problems += 1;
                    say(&format!("{id}: {symbol}: the broker refuses it: {reason}"))?;
                }
                FeedEventKind::Error if last_error.as_ref() != Some(&reason) => {
                    say(&format!("{id}: {reason}; trying again"))?;
                    last_error = Some(reason);
                }
                FeedEventKind::Notice => say(&format!("{id}: the broker says: {reason}"))?,
                _ => {}
            },
            Ok(Next::Event(Err(RecvError::Lagged(_)))) => {}
            Ok(Next::Event(Err(RecvError::Closed))) | Err(_) => break,
        }
    }
    if only_connect {
        problems += 1;
        say(&format!("{id}: no connection within {patience:?}"))?;
    }
    for symbol in &missing {
        problems += 1;
        let open = feeds.health().iter().any(crate::source::broker::feed_health::FeedHealth::is_connected);
        let why = if open { "the market may be closed, or the instrument's number wrong" } else { "not connected" };
        say(&format!("{id}: {symbol}: no record within {patience:?}: {why}"))?;
    }
    feeds.stop().await;
    Ok(problems)
}

enum Next {
    Event(Result<FeedEvent, RecvError>),
    Record(Arc<MarketData>),
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush())
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
    add("last", record.last_price.map(|price| price.to_string()));
    add("change %", record.change_pct().map(|change| change.to_string()));
    add("volume", record.volume.map(|volume| volume.to_string()));
    add("oi", record.oi.map(|oi| oi.to_string()));
    add("bid", record.bids.first().map(|level| level.price.to_string()));
    add("ask", record.asks.first().map(|level| level.price.to_string()));
    text
}
