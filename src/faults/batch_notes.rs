//! The batches that are published while a plan runs, as the shards take them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::schedule::InForce;

/// Batches that are remembered for the shards. One that looks later than that has missed ticks, and says so.
const NOTES: usize = 1024;

/// The hubs whose batches are noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotedHub {
    /// That of the groups that Web PubSub clients join.
    Groups,
    /// That of the channels of `/ws`.
    Streams,
}

/// A tick of the clock, as the ledger numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClockPlace {
    /// The clock's count of its ticks.
    pub ordinal: u64,
    /// Its epoch.
    pub epoch: u64,
}

/// A batch as its publisher notes it.
#[derive(Debug, Clone, Copy)]
pub struct NotedBatch {
    /// The id of its first publication. Above `last_id` if it has none.
    pub first_id: u64,
    /// The id of its last publication.
    pub last_id: u64,
    /// Whether it is a tick of the clock that all share.
    pub is_of_clock: bool,
    /// When it was due, ns.
    pub due_ns: u64,
    /// Where the entries of the ledger belong.
    pub place: ClockPlace,
}

/// A batch as the shards take it.
#[derive(Debug, Clone)]
pub struct PlannedBatch {
    /// The ids of its publications.
    pub first_id: u64,
    /// Likewise; smaller than the first if there are none.
    pub last_id: u64,
    /// The plan's tick.
    pub tick: u64,
    /// Whether the tick is new with it.
    pub is_tick: bool,
    /// Where the entries of the ledger belong.
    pub place: ClockPlace,
    /// The faults that are in force.
    pub in_force: Arc<[InForce]>,
}

/// The batches of one hub, oldest first.
#[derive(Debug, Default)]
pub struct BatchNotes {
    /// How many are gone.
    gone: u64,
    batches: VecDeque<PlannedBatch>,
}

impl BatchNotes {
    /// Remembers a batch, and forgets the oldest if there are too many.
    pub fn push(&mut self, batch: PlannedBatch) {
        if self.batches.len() == NOTES {
            self.batches.pop_front();
            self.gone += 1;
        }
        self.batches.push_back(batch);
    }

    /// Appends those from a position on, as far as everything up to `drained` has been taken out; returns the next
    /// position, and how many were gone already.
    pub fn take(&self, position: u64, drained: u64, batches: &mut Vec<PlannedBatch>) -> (u64, u64) {
        let missed = self.gone.saturating_sub(position);
        let position = position.max(self.gone);
        let skipped = usize::try_from(position - self.gone).unwrap_or(usize::MAX);
        let before = batches.len();
        batches.extend(self.batches.iter().skip(skipped).take_while(|batch| batch.last_id <= drained).cloned());
        (position + (batches.len() - before) as u64, missed)
    }

    /// How many were noted so far.
    pub fn noted(&self) -> u64 {
        self.gone + self.batches.len() as u64
    }
}
