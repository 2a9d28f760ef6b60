//! The shards that take out what a hub publishes: how they are told of it, and how far they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam::utils::CachePadded;

use super::room::RoomWait;
use super::sweep_report::{SweepReport, Swept};
use super::watermark::Watermark;

/// All shards, as those see them who publish; and the publishers, as a shard sees them.
pub struct Audience {
    /// The last id of the last finished batch. On its own cache line: every shard polls it.
    published: CachePadded<Watermark>,
    /// Where a publisher waits for room. Every shard looks here after its bell, too.
    room: CachePadded<RoomWait>,
    /// When the common clock's next tick is due, monotonic ns: a hint for shards on the clock's core.
    next_tick_ns: CachePadded<AtomicU64>,
    shards: ArcSwap<Vec<(Waker, Arc<SweepReport>)>>,
}

impl Audience {
    /// Nobody yet, and nothing published after `last_id`.
    pub(super) fn new(last_id: u64) -> Self {
        Self {
            published: CachePadded::new(Watermark::new(last_id)),
            room: CachePadded::new(RoomWait::new()),
            next_tick_ns: CachePadded::new(AtomicU64::new(u64::MAX)),
            shards: ArcSwap::default(),
        }
    }

    /// Every publication up to this id is in the shards' receivers.
    pub fn published(&self) -> u64 {
        self.published.id()
    }

    /// Declares everything up to `last_id` published, and rings the shards.
    pub(super) fn declare(&self, last_id: u64) {
        self.published.raise(last_id);
        self.ring_shards();
    }

    /// Registers a shard: its bell is rung after every batch, and it reports what it has swept.
    pub fn attach(&self, shard: &Waker, report: &Arc<SweepReport>) {
        // Nothing that was published before is its business.
        report.report(self.published(), 0, 0);
        let shard = (shard.clone(), Arc::clone(report));
        self.shards.rcu(|shards| shards.iter().chain([&shard]).cloned().collect::<Vec<_>>());
    }

    /// Wakes the shards, also where nothing was published: a plan of faults has begun or ended, or its tick had no
    /// publications.
    pub fn ring_shards(&self) {
        self.shards.load().iter().for_each(|(shard, _)| shard.wake_by_ref());
    }

    /// A shard reports that it has taken out everything up to [`Audience::published`]. Call this after every
    /// ring, even if there was nothing: a publisher may be waiting for room in a channel.
    pub fn taken_out(&self) {
        self.room.notify();
    }

    /// Waits until `has_room`, at most `patience`. Only one publisher at a time may wait.
    pub(super) fn wait_for_room(&self, patience: Duration, has_room: impl Fn() -> bool) {
        self.room.wait(patience, || self.ring_shards(), has_room);
    }

    /// How far the shards are with sending what is published: for a source that goes as fast as they can.
    pub fn swept(&self) -> Swept {
        let published = self.published();
        let shards = self.shards.load();
        Swept {
            is_complete: shards.iter().all(|(_, report)| report.swept() >= published),
            blocked: shards.iter().map(|(_, report)| report.blocked()).sum(),
        }
    }

    /// Clients on all shards that have joined a group.
    pub fn members(&self) -> u64 {
        self.shards.load().iter().map(|(_, report)| report.members()).sum()
    }

    /// The common clock says when its next tick is due, monotonic ns; `u64::MAX`: it stands still.
    pub fn expect_tick(&self, due_ns: u64) {
        self.next_tick_ns.store(due_ns, Ordering::Relaxed);
    }

    /// When the common clock's next tick is due, monotonic ns; `u64::MAX` if there is no clock, or it stands still.
    pub fn next_tick_ns(&self) -> u64 {
        self.next_tick_ns.load(Ordering::Relaxed)
    }
}
