//! How many shards have members in a group. Checked by `tests/loom`.

#[cfg(flowcast_loom)]
use loom::sync::atomic::{AtomicUsize, Ordering};
#[cfg(not(flowcast_loom))]
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of shards with members in a group.
#[derive(Debug)]
pub struct LiveCount(AtomicUsize);

impl LiveCount {
    /// No shard has members.
    pub fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Counts a shard in.
    pub fn enter(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a shard out; true for exactly one of those that leave together: the last.
    pub fn leave(&self) -> bool {
        self.0.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// Whether there is any. Relaxed: one that enters or leaves just now may be missed, which whoever
    /// must know rules out with a lock of its own.
    pub fn is_live(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}
