//! What a shard reports of its sweeps, for a source that goes as fast as the shards can.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

/// One shard's report. Only the shard writes it; a source polls it.
#[derive(Debug, Default)]
pub struct SweepReport {
    swept: CachePadded<AtomicU64>,
    blocked: AtomicU64,
    members: AtomicU64,
}

/// How far all shards are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Whether every shard has offered everything that is published to every connection.
    pub is_complete: bool,
    /// Connections whose sockets took less than they were offered.
    pub blocked: u64,
}

impl SweepReport {
    /// Everything up to this id was offered to every connection; so many took less. So many clients have joined a
    /// group.
    pub fn report(&self, swept: u64, blocked: u64, members: u64) {
        self.blocked.store(blocked, Ordering::Relaxed);
        self.members.store(members, Ordering::Relaxed);
        // Release: whoever sees the id sees the number, too.
        self.swept.store(swept, Ordering::Release);
    }

    /// The id up to which everything was offered.
    pub fn swept(&self) -> u64 {
        self.swept.load(Ordering::Acquire)
    }

    /// Clients that have joined a group.
    pub fn members(&self) -> u64 {
        self.members.load(Ordering::Relaxed)
    }

    /// Connections that took less than they were offered.
    pub fn blocked(&self) -> u64 {
        self.blocked.load(Ordering::Relaxed)
    }
}
