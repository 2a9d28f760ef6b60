//! The published watermark: how far a hub's publications are in the shards' receivers.
//!
//! One writer at a time, under the sequencer's lock; every shard reads. Checked by `tests/loom`.

#[cfg(flowcast_loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(flowcast_loom))]
use std::sync::atomic::{AtomicU64, Ordering};

/// An id that only rises.
#[derive(Debug)]
pub struct Watermark(AtomicU64);

impl Watermark {
    /// A watermark at `id`: nothing newer is published yet.
    pub fn new(id: u64) -> Self {
        Self(AtomicU64::new(id))
    }

    /// Declares that everything up to `id` is sent.
    pub fn raise(&self, id: u64) {
        // Release: whoever reads this id also sees what was done before, sends and relaxed stores alike.
        self.0.store(id, Ordering::Release);
    }

    /// Everything up to this id is sent, and the caller sees its effects.
    pub fn id(&self) -> u64 {
        // Pairs with the Release above.
        self.0.load(Ordering::Acquire)
    }
}
