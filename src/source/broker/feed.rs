//! The trait of a feed, and the context through which it talks to `Feeds`.
//!
//! ```text
//!            wanted symbols (watch, always the latest) ─▶
//!   Feeds                                                 Feed ◀─▶ broker
//!            ◀─ records (bounded, awaited), events, health
//! ```

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::feed_events::{EventSender, FeedEvent, FeedEventKind};
use super::feed_health::{FeedFigures, FeedPhase};
use super::instrument::Broker;
use super::quote::{MarketData, ReceivedAt};

/// Symbols that at least one user wants.
pub type Symbols = BTreeSet<Arc<str>>;

/// A future that a feed runs as.
pub type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Something that gives market data for symbols.
pub trait Feed: Send + Sync + 'static {
    /// Its id, unique among the feeds.
    fn id(&self) -> Arc<str>;

    /// The broker it connects to.
    fn broker(&self) -> Broker;

    /// Whether it offers this symbol.
    fn offers(&self, symbol: &str) -> bool;

    /// The symbols that are configured for it.
    fn symbols(&self) -> Vec<Arc<str>>;

    /// Works until [`FeedContext::stopped`]. What it opened is closed when the future ends or is dropped.
    fn run(self: Arc<Self>, context: FeedContext) -> Running;
}

/// What a feed is given by `Feeds`: what is wanted of it, and where its records, events and figures go.
/// Clones speak for the same feed.
#[derive(Clone)]
pub struct FeedContext {
    pub(super) id: Arc<str>,
    /// Its number: a feed with a smaller one was configured earlier and is preferred.
    pub(super) rank: u64,
    pub(super) wanted: watch::Receiver<Arc<Symbols>>,
    pub(super) records: mpsc::Sender<(u64, Arc<MarketData>)>,
    pub(super) events: EventSender,
    pub(super) health: Arc<FeedFigures>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) reload: watch::Receiver<u64>,
}

impl FeedContext {
    /// The `id` of its `[[feeds]]` block.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// All symbols that are wanted of the feed now.
    pub fn wanted(&mut self) -> Arc<Symbols> {
        Arc::clone(&self.wanted.borrow_and_update())
    }

    /// Waits until something else is wanted than [`wanted`](Self::wanted) told last. Cancel-safe.
    pub async fn wanted_changed(&mut self) {
        if self.wanted.changed().await.is_err() {
            // The other end is gone, so `stopped` returns.
            std::future::pending::<()>().await;
        }
    }

    /// Hands over a record; waits while the merged stream is full. `false`: nobody takes it any more.
    pub async fn send(&self, record: MarketData) -> bool {
        self.health.records(1);
        self.records.send((self.rank, Arc::new(record))).await.is_ok()
    }

    /// Waits until the feed has to stop. Cancel-safe.
    pub async fn stopped(&self) {
        let mut stop = self.stop.clone();
        // An error: the other end is gone, which stops too.
        let _ = stop.wait_for(|&stop| stop).await;
    }

    /// Waits until the operator asks to try again at once (SIGHUP). Cancel-safe.
    pub async fn reloaded(&mut self) {
        if self.reload.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Forgets a request to try again that came while nothing failed.
    pub fn forget_reload(&mut self) {
        self.reload.mark_unchanged();
    }

    /// Tells an event; what a server can cause at will is logged at a bounded rate.
    pub fn tell(&self, what: FeedEventKind, reason: impl Into<String>) {
        match what {
            FeedEventKind::Error => self.health.error(),
            FeedEventKind::InstrumentRefused(_) => self.health.refused(),
            _ => {}
        }
        let bounded =
            matches!(what, FeedEventKind::Error | FeedEventKind::InstrumentRefused(_) | FeedEventKind::Notice);
        let event = FeedEvent { feed: Arc::clone(&self.id), kind: what, reason: reason.into() };
        if !bounded || self.health.may_log().is_some() {
            event.log();
        }
        self.events.send(event);
    }

    /// Notes when a frame was received, whatever it holds.
    pub fn message(&self, received: ReceivedAt) {
        self.health.message(received);
    }

    /// The figures that status and metrics show of this feed.
    pub fn health(&self) -> &FeedFigures {
        &self.health
    }

    /// What the feed does from now on, and why.
    pub fn set_phase(&self, phase: FeedPhase, reason: impl Into<String>) {
        self.health.set_phase(phase, reason);
    }
}
