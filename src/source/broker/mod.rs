//! Broker feeds: Zerodha Kite and Symphony XTS in, one normalized market-data stream out.
//!
//! ```text
//! kite ────┐
//! xts ─────┼─▶ feeds ─┬─▶ merged stream of `Arc<MarketData>` (bounded, back-pressured)
//! xts ─────┘          ├─▶ receivers of in-process subscribers (bounded, dropped when slow)
//!                     └─▶ events, health, `health::status`
//! ```
//!
//! - [`quote`] is the record of an [`instrument`], [`price`] its exact decimals.
//! - [`kite`], [`xts`] speak to one broker each; [`feed`] is the trait they implement.
//! - [`net`] opens and keeps a connection, with its [`credentials`].
//! - [`feeds`] starts, supervises and stops them; `feed_registry` is what they share; [`subscriptions`]
//!   counts who wants what; [`receiver`] is what a subscriber holds.
//! - [`prices`] takes the merged stream to the JSON streams.
//! - [`feed_settings`], [`symbols`], [`setting_values`] read `[[feeds]]`; [`feed_options`] are the settings of all.
//!
//! [`start`] puts it all together.

pub mod credentials;
pub mod feed;
pub mod feed_events;
pub mod feed_health;
pub mod feed_options;
mod feed_registry;
pub mod feed_settings;
pub mod feeds;
pub mod instrument;
pub mod kite;
pub mod net;
pub mod price;
pub mod prices;
pub mod quote;
pub mod receiver;
pub mod setting_values;
pub mod subscriptions;
pub mod symbols;
pub mod xts;

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::health::status::Status;
use feed::Feed;
use feed_options::BrokerOptions;
use feed_settings::FeedSettings;
use feeds::Feeds;
use instrument::Broker;
use net::tls::TlsError;
use receiver::AddError;

/// Why the feeds did not start. The operator must fix it; nothing is connected.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The certificates of a `ca_file` cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Two feeds have the same id.
    #[error(transparent)]
    Add(#[from] AddError),
    /// The process cannot listen for SIGHUP.
    #[error("cannot listen for SIGHUP: {0}")]
    Signal(std::io::Error),
}

/// Starts the configured feeds on the current tokio runtime. SIGHUP makes those that wait try again.
pub fn start(options: BrokerOptions, status: &Arc<Status>) -> Result<Feeds, StartError> {
    let built: Vec<Arc<dyn Feed>> = options.feeds.iter().cloned().map(build).collect::<Result<_, _>>()?;
    let mut hangups = signal(SignalKind::hangup()).map_err(StartError::Signal)?;
    let feeds = Feeds::new(options, Arc::clone(status));
    for feed in built {
        feeds.add(feed)?;
    }
    let reload = feeds.reloader();
    feeds.keep(tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            tracing::info!("SIGHUP: feeds that are waiting try again now");
            reload.send_modify(|count| *count += 1);
        }
    }));
    Ok(feeds)
}

/// The feed of a `[[feeds]]` block. It connects when it is added.
pub fn build(settings: FeedSettings) -> Result<Arc<dyn Feed>, TlsError> {
    Ok(match settings.broker {
        Broker::Zerodha => Arc::new(kite::KiteFeed::new(settings)?),
        Broker::XtsPro | Broker::XtsClient | Broker::InProcess => Arc::new(xts::XtsFeed::new(settings)?),
    })
}
