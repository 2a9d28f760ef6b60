//! The last snapshot, for all readers of the events; [`super::reader`] makes them and reads them.

use std::sync::{Arc, OnceLock};

use tokio::sync::{Notify, Semaphore, watch};

use super::snapshot_json::SnapshotJson;

/// One moment of the server, ready to be sent.
pub struct LiveBeat {
    /// Counts the beats; a number is left out where a beat has no patch.
    pub number: u64,
    /// What has changed since the beat before.
    pub patch: String,
    snapshot: Arc<SnapshotJson>,
    whole: OnceLock<String>,
}

impl LiveBeat {
    /// A beat with what makes it of the one before.
    pub fn new(number: u64, patch: String, snapshot: Arc<SnapshotJson>) -> Self {
        Self { number, patch, snapshot, whole: OnceLock::new() }
    }

    /// The whole snapshot, written when it is first asked for.
    pub fn whole(&self) -> &str {
        self.whole.get_or_init(|| self.snapshot.whole().to_string())
    }
}

/// The last beat, and who reads.
pub struct LiveFeed {
    limit: usize,
    pub(super) places: Arc<Semaphore>,
    pub(super) beats: watch::Sender<Option<Arc<LiveBeat>>>,
    /// Somebody reads, and there was nobody before.
    pub(super) first_came: Notify,
}

impl LiveFeed {
    /// Nobody reads yet.
    pub fn new(limit: usize) -> Self {
        let (beats, _) = watch::channel(None);
        Self { limit, places: Arc::new(Semaphore::new(limit)), beats, first_came: Notify::new() }
    }

    /// How many read.
    pub fn readers(&self) -> usize {
        self.limit.saturating_sub(self.places.available_permits())
    }
}
