//! `flowcast feeds tail`: what the broker feeds give, one JSON line per normalized record.
//!
//! It is an in-process subscriber, as an embedder would be one: if the output does not keep up, it is dropped.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Notify, broadcast};

use super::{FeedsError, print_line};
use crate::commands::shutdown::{self, Signals};
use crate::health::status::Status;
use crate::source::broker;
use crate::source::broker::feed_events::FeedEvent;
use crate::source::broker::feed_options::{BrokerOptions, SUBSCRIBER_BUFFER};
use crate::source::broker::feed_settings::FeedSettings;
use crate::source::broker::feeds::Feeds;
use crate::source::broker::receiver::{Receiver, Subscribed};

/// Which feeds and symbols to print.
#[derive(Debug, Clone, clap::Args)]
pub struct TailFeedsOptions {
    /// TOML file with `[[feeds]]` blocks
    #[arg(long, env = "FLOWCAST_CONFIG", value_name = "FILE")]
    pub config: PathBuf,
    /// Id of a feed to print; may be given several times; all by default
    #[arg(long = "feed", value_name = "ID")]
    pub feeds: Vec<String>,
    /// Symbols to print, separated by commas; all configured ones by default
    #[arg(long, value_name = "SYMBOLS", value_delimiter = ',')]
    pub symbols: Vec<String>,
    /// Records that may wait for the output; with one more the command ends
    #[arg(long, env = "FLOWCAST_FEED_CLIENT_BUFFER", default_value_t = SUBSCRIBER_BUFFER as u64, value_name = "RECORDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub feed_client_buffer: u64,
}

/// Prints the records of these feeds until a signal, or until nobody reads the output.
pub fn tail(options: &TailFeedsOptions, feeds: Vec<FeedSettings>) -> Result<(), FeedsError> {
    // Records are printed on this thread, which may block; the feeds go on beside it.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(options, feeds))
}

async fn run(options: &TailFeedsOptions, feeds: Vec<FeedSettings>) -> Result<(), FeedsError> {
    let stop = stop_at_signal()?;
    let buffer = options.feed_client_buffer as usize;
    let settings = BrokerOptions { feeds, feed_client_buffer: buffer, ..BrokerOptions::default() };
    let feeds = broker::start(settings, &Arc::new(Status::default()))?;
    let events = tokio::spawn(tell_events(feeds.events()));
    let printed = match subscribe(&feeds, &options.symbols) {
        Ok(mut receiver) => tokio::select! {
            ended = print(&mut receiver) => ended,
            () = stop.notified() => Ok(()),
        },
        Err(error) => Err(error),
    };
    feeds.stop().await;
    events.abort();
    printed
}

/// Notified by the first SIGINT or SIGTERM; the second ends the process at once.
fn stop_at_signal() -> io::Result<Arc<Notify>> {
    let mut signals = Signals::new()?;
    let stop = Arc::new(Notify::new());
    let stopping = Arc::clone(&stop);
    tokio::spawn(async move {
        signals.next().await;
        stopping.notify_one();
        shutdown::end_at_next(signals);
    });
    Ok(stop)
}

/// One subscriber to the symbols that were asked for, or to all configured ones.
fn subscribe(feeds: &Feeds, symbols: &[String]) -> Result<Receiver, FeedsError> {
    let Subscribed { receiver, refused } = match symbols {
        [] => feeds.subscribe("tail", feeds.symbols())?,
        symbols => feeds.subscribe("tail", symbols)?,
    };
    for (symbol, reason) in &refused {
        eprintln!("{symbol}: {reason}");
    }
    let asked = if symbols.is_empty() { feeds.symbols().len() } else { symbols.len() };
    if refused.len() >= asked { Err(FeedsError::NoSymbols) } else { Ok(receiver) }
}

async fn print(receiver: &mut Receiver) -> Result<(), FeedsError> {
    loop {
        match print_line(&receiver.recv().await?.to_json()) {
            // `feeds tail | head` ends quietly.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            printed => printed?,
        }
    }
}

async fn tell_events(mut events: broadcast::Receiver<FeedEvent>) {
    loop {
        match events.recv().await {
            Ok(event) => eprintln!("{event}"),
            Err(broadcast::error::RecvError::Lagged(lost)) => eprintln!("{lost} events were not printed"),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}
