//! How many shards have members in a group. Checked by `tests/loom`.

#[cfg(flowcast_loom)]
use loom::sync::atomic::{AtomicUsize, Ordering};
#[cfg(not(flowcast_loom))]
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of shards with members in a group.
#[derive(Debug)]
pub struct LiveCount(AtomicUsize);

impl LiveCount {
    /// A count of 0.
    pub fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Counts a shard that got its first member.
    pub fn enter(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts out a shard that lost its last member. True for exactly one of several that leave at once: the
    /// last.
    pub fn leave(&self) -> bool {
        self.0.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// Whether any shard has members. Relaxed: a shard that enters or leaves at this moment may be missed; a
    /// caller that must not miss it holds a lock.
    pub fn is_live(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}
