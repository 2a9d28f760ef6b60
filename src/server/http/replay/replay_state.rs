//! What the replay routes keep between requests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Mutex;

use crate::replay::replays::{LoadJob, Replays};

/// What the replay routes keep between requests.
#[derive(Default)]
pub struct ReplayState {
    clocks: OnceLock<Arc<dyn Replays>>,
    /// Number of the last load that was accepted; 0 before the first.
    last_job: AtomicU64,
    /// Held while the data folder is listed: it takes a look into every file, and anybody may ask.
    pub(super) listing: Mutex<()>,
}

impl ReplayState {
    /// Sets the clocks. A server without any, whose source is live, refuses whatever would steer them. The first ones
    /// stay.
    pub fn set_clocks(&self, clocks: Arc<dyn Replays>) {
        let _ = self.clocks.set(clocks);
    }

    /// The clocks; `None` if nothing is replayed.
    pub fn clocks(&self) -> Option<&Arc<dyn Replays>> {
        self.clocks.get()
    }

    pub(super) fn remember(&self, job: &LoadJob) {
        self.last_job.fetch_max(job.id, Ordering::Relaxed);
    }

    /// The last load that was accepted.
    pub fn last_job(&self) -> Option<LoadJob> {
        self.clocks()?.job(self.last_job.load(Ordering::Relaxed))
    }
}
