//! A shard's counters. Each has one writer, its shard; anybody may read.

use std::sync::atomic::{AtomicU64, Ordering};

use super::close::{Close, CloseRow, ROWS, TABLE};
use crate::wire::Wire;
use crate::wire::gexbot::HubName;

/// A counter or gauge with a single writer: plain loads and stores, no locked instruction.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds. Only the owning shard may call this.
    pub fn add(&self, amount: u64) {
        // Relaxed, and not one atomic step: there is no other writer.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// Subtracts. Only the owning shard may call this.
    pub fn subtract(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(amount), Ordering::Relaxed);
    }

    /// The value now, or a moment ago.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one shard counts for a hub, or for the JSON streams.
#[derive(Debug, Default)]
pub struct HubCounts {
    /// Open connections (gauge).
    pub connections: Count,
    /// Data frames handed to the kernel; one that went in part counts, its rest is bound to follow.
    pub frames: Count,
    /// Bytes handed to the kernel.
    pub bytes: Count,
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What one shard counts: aligned, so that no two shards write to one cache line or to neighbours that
        /// the processor fetches together.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct ShardStats {
            $($(#[$doc])* pub $name: Count,)*
            /// By [`hub_index`].
            hubs: [HubCounts; HubName::COUNT + 1],
            /// Connections that ended, by row of the table.
            closes: [Count; ROWS],
        }
    };
}

counts! {
    /// Open connections (gauge).
    connections,
    /// Reliable sessions without a socket (gauge).
    detached,
    /// Connections opened since the start.
    opened,
    /// Subscribers (gauge).
    subscribers,
    /// Calls of `send`.
    sends,
    /// Reliable frames finished.
    finished,
    /// Publications a shard lost because it was overloaded. Never, or there is a bug.
    overruns,
    /// Sessions recovered.
    recoveries,
    /// Sessions taken back by their tokens alone.
    restored,
    /// Frames that recovered sessions skipped.
    recovery_gap_frames,
    /// Requests refused with a negative ack.
    refused,
    /// Requests on the JSON streams answered with an error.
    request_errors,
    /// Subscriptions that got everything they had missed.
    resumes,
    /// Subscriptions that asked for what they had missed and did not get it.
    resumes_refused,
    /// Messages left out for clients of the JSON streams that read too slowly.
    skipped,
    /// Joins of groups without data.
    silent_joins,
}

/// The place of the JSON streams behind GexBot's hubs.
pub const STREAMS: usize = HubName::COUNT;

/// Where a connection counts: the place of its hub, or [`STREAMS`].
pub fn hub_index(wire: Wire, hub: HubName) -> usize {
    match wire {
        Wire::WebPubSub(_) => hub.index(),
        Wire::Streams => STREAMS,
    }
}

impl ShardStats {
    /// What is counted for the hub at this place: [`HubName::index`] or [`STREAMS`].
    pub fn hub(&self, index: usize) -> &HubCounts {
        &self.hubs[index]
    }

    /// Data frames handed to the kernel, for all hubs.
    pub fn frames(&self) -> u64 {
        self.hubs.iter().map(|hub| hub.frames.get()).sum()
    }

    /// Bytes handed to the kernel, for all hubs.
    pub fn bytes(&self) -> u64 {
        self.hubs.iter().map(|hub| hub.bytes.get()).sum()
    }

    /// Open connections of the JSON streams, counted in `connections` too.
    pub fn stream_connections(&self) -> u64 {
        self.hub(STREAMS).connections.get()
    }

    /// Counts a connection out. Only the owning shard may call this.
    pub fn closed(&self, close: Close) {
        self.connections.subtract(1);
        self.closes[close as usize].add(1);
    }

    /// Connections that ended, of all rows with this counter.
    pub fn closes(&self, counter: &str) -> u64 {
        let of_counter = |(row, _): &(&CloseRow, &Count)| row.counter == counter;
        TABLE.iter().zip(&self.closes).filter(of_counter).map(|(_, count)| count.get()).sum()
    }
}
