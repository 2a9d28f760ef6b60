//! A batch: publications that belong together, numbered, sent into their groups, and declared published at once.
//!
//! ```text
//! Batch::publish(group, frames)… ─▶ drop: noted for a plan of faults, declared published, shards rung, ledger
//! ```

use std::sync::{Arc, MutexGuard, OnceLock};
use std::time::Duration;

use super::audience::Audience;
use super::frames::Frames;
use super::group::{CHANNEL_SLOTS, Group, Publication};
use super::ledger::{Ledger, Tick, TickPublication};
use super::system_clock;
use crate::faults::batch_notes::{ClockPlace, NotedBatch, NotedHub};
use crate::faults::fault_board::FaultBoard;

/// What is to be published, and where.
pub trait Outgoing {
    /// The groups that it would be sent to now. All of them must have room for it: what one of them has no room for
    /// is lost to that group's subscribers.
    fn groups(&self) -> impl Iterator<Item = Arc<Group>>;

    /// Its turn has come: nothing else is published before it, and it is published once.
    fn publish(self, batch: &mut Batch<'_>);
}

impl Outgoing for (Arc<Group>, Frames) {
    fn groups(&self) -> impl Iterator<Item = Arc<Group>> {
        std::iter::once(Arc::clone(&self.0))
    }

    fn publish(self, batch: &mut Batch<'_>) {
        batch.publish(&self.0, self.1);
    }
}

/// When a batch was due, and on which clock. A batch that no clock schedules is due when it begins.
#[derive(Debug, Clone, Default)]
pub struct Due {
    /// The source's own count of its batches.
    pub ordinal: u64,
    /// When the batch was due, monotonic ns.
    pub scheduled_ns: u64,
    /// The epoch of the clock; 0 if it has none.
    pub epoch: u64,
    /// The session whose clock it is; `None` for the common one.
    pub session: Option<Arc<str>>,
}

/// A hub's sequence, which one batch at a time continues.
pub(super) struct Sequence {
    /// The id of the last publication.
    pub last_id: u64,
    /// Publications of the open batch, for the ledger.
    pub batch: Vec<TickPublication>,
}

/// Who learns of a hub's batches, beside the groups.
pub(super) struct Readers {
    pub audience: Audience,
    pub ledger: Ledger,
    /// Where batches are noted while a plan of faults runs.
    pub faults: OnceLock<(Arc<FaultBoard>, NotedHub)>,
}

/// Publications that belong together: all groups of one tick.
pub struct Batch<'a> {
    readers: &'a Readers,
    open: MutexGuard<'a, Sequence>,
    /// The id of its first publication, if there is one.
    first_id: u64,
    due: Due,
    /// Whether it is a tick of the clock that all share.
    is_of_clock: bool,
    published_ns: u64,
    published_unix_ns: u64,
}

impl<'a> Batch<'a> {
    /// A batch that begins now. It was due now, too, if no clock has scheduled it.
    pub(super) fn begin(readers: &'a Readers, open: MutexGuard<'a, Sequence>, due: Option<Due>) -> Self {
        let published_ns = system_clock::monotonic_ns();
        let is_of_clock = due.as_ref().is_some_and(|due| due.session.is_none());
        let due = due.unwrap_or_else(|| Due { scheduled_ns: published_ns, ..Due::default() });
        let published_unix_ns = system_clock::unix_ns();
        Self { readers, first_id: open.last_id + 1, open, due, is_of_clock, published_ns, published_unix_ns }
    }
}

impl Batch<'_> {
    /// How late this batch began, ns.
    pub fn drift_ns(&self) -> u64 {
        self.published_ns.saturating_sub(self.due.scheduled_ns)
    }

    /// Waits until every shard has room for one more publication of `group`, at most a second. A clock never
    /// fills a channel; a source that reads as fast as it can may. The batch must be empty: shards take out
    /// only what is declared published.
    ///
    /// Nobody else can publish meanwhile, which is what slows the sources down.
    pub fn wait_for_room(&self, group: &Group) {
        const PATIENCE: Duration = Duration::from_secs(1);
        debug_assert!(self.is_empty(), "what is published is waited for");
        let has_room = || group.queued() < CHANNEL_SLOTS;
        self.readers.audience.wait_for_room(PATIENCE, has_room);
    }

    /// The id of the next record.
    pub fn next_id(&self) -> u64 {
        self.open.last_id + 1
    }

    /// Numbers one record and sends it to `group`.
    pub fn publish(&mut self, group: &Arc<Group>, frames: Frames) {
        self.open.last_id += 1;
        self.send(group, frames);
    }

    /// Numbers one record and sends it to several groups. No subscriber may be in two of them.
    pub fn publish_to<'g>(&mut self, groups: impl IntoIterator<Item = &'g Arc<Group>>, frames: &Frames) {
        self.open.last_id += 1;
        for group in groups {
            self.send(group, frames.clone());
        }
    }

    fn send(&mut self, group: &Arc<Group>, frames: Frames) {
        let (id, record_timestamp) = (self.open.last_id, frames.timestamp());
        if self.readers.ledger.is_kept() {
            self.open.batch.push(TickPublication {
                group: Arc::clone(group.name()),
                id,
                record_timestamp,
                hashes: frames.hashes(),
                subscribers: group.subscribers(),
            });
        }
        group.send(Publication { id, frames }, record_timestamp, self.published_unix_ns / 1_000_000);
    }

    fn is_empty(&self) -> bool {
        self.open.last_id < self.first_id
    }

    /// Notes the batch, if a plan of faults runs: before it is declared published, so that each shard that drains it
    /// knows of it.
    fn note(&self) {
        let Some((board, hub)) = self.readers.faults.get() else { return };
        if board.running() == 0 || (self.is_empty() && !self.is_of_clock) {
            return;
        }
        board.note(
            *hub,
            &NotedBatch {
                first_id: self.first_id,
                last_id: self.open.last_id,
                is_of_clock: self.is_of_clock,
                due_ns: self.due.scheduled_ns,
                place: ClockPlace { ordinal: self.due.ordinal, epoch: self.due.epoch },
            },
        );
        if self.is_empty() {
            self.readers.audience.ring_shards();
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.note();
        if self.is_empty() {
            return;
        }
        self.readers.audience.declare(self.open.last_id);
        // After the doorbells: the ledger is for readers who come later.
        if self.readers.ledger.is_kept() {
            self.readers.ledger.append(Tick {
                ordinal: self.due.ordinal,
                epoch: self.due.epoch,
                session: self.due.session.take(),
                opens: None,
                scheduled_ns: self.due.scheduled_ns,
                published_ns: self.published_ns,
                published_unix_ns: self.published_unix_ns,
                publications: self.open.batch.drain(..).collect(),
                faults: Box::default(),
            });
        }
    }
}
