//! `flowcast feeds`: try the broker feeds of a settings file, or print what they give.

pub mod check_feeds;
pub mod tail_feeds;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use self::check_feeds::CheckOptions;
use self::tail_feeds::TailFeedsOptions;
use crate::config::{self, ConfigError};
use crate::source::broker::StartError;
use crate::source::broker::feed_settings::FeedSettings;
use crate::source::broker::net::tls::TlsError;
use crate::source::broker::receiver::{AddError, SubscribeError};
use crate::source::broker::subscriptions::ReceiverEnd;

/// Which of the commands about broker feeds: check or tail.
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
    /// Print normalized records as JSON lines until Ctrl-C
    ///
    /// Connections, errors and other events of the feeds go to stderr.
    Tail(TailFeedsOptions),
}

/// Why `flowcast feeds` failed.
#[derive(Debug, thiserror::Error)]
pub enum FeedsError {
    /// The settings file is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file has no feeds.
    #[error("{0}: expected [[feeds]] blocks, got none; docs/brokers.md shows some")]
    NoFeeds(PathBuf),
    /// The file has no feed of this id.
    #[error("expected the id of a feed ({known}), got {id}")]
    UnknownFeed {
        /// What was asked for.
        id: String,
        /// The ids in the file, separated by commas.
        known: String,
    },
    /// The certificates of `ca_file` cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The feeds do not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Not reached: the file was checked for feeds with the same id.
    #[error(transparent)]
    Add(#[from] AddError),
    /// Not reached: there is one subscriber.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// Nothing is left to print.
    #[error("expected symbols to print: name some with --symbols, or in the feed's `symbols`")]
    NoSymbols,
    /// Records came faster than they were printed.
    #[error("the output did not keep up: {0}; --feed-client-buffer lets more records wait")]
    Ended(#[from] ReceiverEnd),
    /// The runtime does not start, or the output is closed.
    #[error("cannot print: {0}")]
    Io(#[from] io::Error),
    /// Each problem was printed above.
    #[error("{0} problem{plural}", plural = if *.0 == 1 { "" } else { "s" })]
    Problems(usize),
}

/// Does what was asked for.
pub fn run(options: &FeedsOptions) -> Result<(), FeedsError> {
    match &options.command {
        FeedsCommand::Check(options) => check_feeds::check(options, chosen(&options.config, &options.ids)?),
        FeedsCommand::Tail(options) => tail_feeds::tail(options, chosen(&options.config, &options.feeds)?),
    }
}

/// The feeds of a settings file with these ids; all of them if there are no ids.
fn chosen(config: &Path, ids: &[String]) -> Result<Vec<FeedSettings>, FeedsError> {
    let mut feeds = config::read(config)?.feeds;
    if feeds.is_empty() {
        return Err(FeedsError::NoFeeds(config.to_owned()));
    }
    let known: Vec<String> = feeds.iter().map(|feed| feed.id.to_string()).collect();
    if let Some(id) = ids.iter().find(|id| !known.contains(id)) {
        return Err(FeedsError::UnknownFeed { id: id.clone(), known: known.join(", ") });
    }
    feeds.retain(|feed| ids.is_empty() || ids.iter().any(|id| **id == *feed.id));
    Ok(feeds)
}

/// Prints a line at once.
fn print_line(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush())
}
