//! What `Feeds` gives to a subscriber, and what it refuses.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use tokio::sync::mpsc;

use super::quote::MarketData;
use super::subscriptions::ReceiverEnd;

/// Why a feed was not added.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// Another feed has the same id.
    #[error("expected feeds with different ids, got {0} twice")]
    Duplicate(Arc<str>),
    /// `Feeds::stop` was called; no feed can be added any more.
    #[error("the feeds are stopped")]
    Stopped,
}

/// Why a user was not subscribed at all.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The limit of subscribers in this process is reached; dropping a receiver makes room.
    #[error("expected at most {0} subscribers in this process")]
    TooManyReceivers(usize),
    /// `Feeds::stop` was called.
    #[error("the feeds are stopped")]
    Stopped,
}

/// Why a symbol was not subscribed; nothing is tried for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SymbolRefusal {
    /// No feed is configured for it.
    #[error("no feed offers this symbol")]
    Unknown,
    /// `--feed-max-symbols` are subscribed already.
    #[error("too many symbols are subscribed (--feed-max-symbols)")]
    Limit,
}

/// A receiver, and what it will not get.
#[derive(Debug)]
pub struct Subscribed {
    /// Records of the symbols, the last known price of each first.
    pub receiver: Receiver,
    /// The symbols that were refused, each with the reason.
    pub refused: Vec<(String, SymbolRefusal)>,
}

/// Where a receiver says that it is gone.
pub(super) trait ReleaseReceiver: Send + Sync {
    /// The receiver `id` is dropped: its subscriptions end.
    fn release(&self, id: u64);
}

/// Records of some symbols. Dropped, its subscriptions end.
pub struct Receiver {
    id: u64,
    records: mpsc::Receiver<Arc<MarketData>>,
    ended: Arc<OnceLock<ReceiverEnd>>,
    /// A receiver that outlives the feeds is no reason to keep them.
    registry: Weak<dyn ReleaseReceiver>,
}

impl Receiver {
    pub(super) fn new(
        id: u64,
        records: mpsc::Receiver<Arc<MarketData>>,
        ended: Arc<OnceLock<ReceiverEnd>>,
        registry: Weak<dyn ReleaseReceiver>,
    ) -> Self {
        Self { id, records, ended, registry }
    }

    /// The next record; at the end, why it ended. Cancel-safe.
    pub async fn recv(&mut self) -> Result<Arc<MarketData>, ReceiverEnd> {
        self.records.recv().await.ok_or_else(|| self.why())
    }

    /// The next record, if one waits.
    pub fn try_recv(&mut self) -> Result<Option<Arc<MarketData>>, ReceiverEnd> {
        match self.records.try_recv() {
            Ok(record) => Ok(Some(record)),
            Err(mpsc::error::TryRecvError::Empty) => Ok(None),
            Err(mpsc::error::TryRecvError::Disconnected) => Err(self.why()),
        }
    }

    fn why(&self) -> ReceiverEnd {
        self.ended.get().copied().unwrap_or(ReceiverEnd::Stopped)
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Receiver").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(registry) = self.registry.upgrade() {
            registry.release(self.id);
        }
    }
}
