//! Publishing: the one sequence that all publications of a hub pass through.
//!
//! ```text
//! source ─▶ begin ─▶ Batch::publish(group, frames)… ─▶ drop: published = last id, ring shards, ledger
//! ```
//!
//! # Locks
//! Publishing takes one mutex (uncontended with one source) once per batch and, inside tokio's `broadcast`, two
//! short ones per publication; nothing of ours is locked per publication or per subscriber.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::task::Waker;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam::utils::CachePadded;

use super::frames::Frames;
use super::group::{CHANNEL_SLOTS, Group, Publication};
use super::ledger::{Ledger, LedgerOptions, Tick, TickPublication};
use super::room::RoomWait;
use super::sweep_report::{SweepReport, Swept};
use super::system_clock;
use super::watermark::Watermark;
use crate::faults::fault_board::{ClockPlace, FaultBoard, NotedBatch, NotedHub};
use crate::faults::fault_entry::FaultEntry;
use crate::replay::snapshot::Epoch;

/// What is to be published, and where.
pub trait Outgoing {
    /// The groups that may carry it.
    fn groups(&self) -> impl Iterator<Item = &Arc<Group>>;

    /// Its turn has come: nothing else is published before it, and it is published once.
    fn publish(self, batch: &mut Batch<'_>);
}

impl Outgoing for (Arc<Group>, Frames) {
    fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        std::iter::once(&self.0)
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

/// The sequence of a hub's publications, and who is told of them.
pub struct Sequencer {
    open: Mutex<Sequence>,
    /// No further batch begins below.
    floor: AtomicU64,
    /// The last id of the last finished batch. On its own cache line: every shard polls it.
    published: CachePadded<Watermark>,
    /// Where a publisher waits for room. Every shard looks here after its bell, too.
    room: CachePadded<RoomWait>,
    /// When the common clock's next tick is due, monotonic ns: a hint for shards on the clock's core.
    next_tick_ns: CachePadded<AtomicU64>,
    shards: ArcSwap<Vec<(Waker, Arc<SweepReport>)>>,
    ledger: Ledger,
    /// Where batches are noted while a plan of faults runs.
    faults: OnceLock<(Arc<FaultBoard>, NotedHub)>,
}

struct Sequence {
    last_id: u64,
    /// Publications of the open batch, for the ledger.
    batch: Vec<TickPublication>,
}

impl Sequencer {
    /// A sequence whose ids start from the time of day, so they keep rising over a restart.
    pub fn new(ledger: &LedgerOptions) -> Self {
        let last_id = id_of_now();
        Self {
            open: Mutex::new(Sequence { last_id, batch: Vec::new() }),
            floor: AtomicU64::new(0),
            published: CachePadded::new(Watermark::new(last_id)),
            room: CachePadded::new(RoomWait::new()),
            next_tick_ns: CachePadded::new(AtomicU64::new(u64::MAX)),
            shards: ArcSwap::default(),
            ledger: Ledger::new(ledger.ledger_publications),
            faults: OnceLock::new(),
        }
    }

    /// Raises the ids of all further batches above the time of day, which is returned as an id, and so above the ids of every
    /// other node: they begin with the time of its start and rise more slowly than the clock.
    pub fn raise(&self) -> u64 {
        let floor = id_of_now();
        self.floor.fetch_max(floor, Ordering::SeqCst);
        floor
    }

    /// Whether every batch is published that began before the ids were raised to `floor`.
    pub fn is_raised(&self, floor: u64) -> bool {
        self.published() > floor || !matches!(self.open.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Sets where its batches are noted while a plan of faults runs. Called once.
    pub fn note_on(&self, board: Arc<FaultBoard>, hub: NotedHub) {
        let first = self.faults.set((board, hub)).is_ok();
        debug_assert!(first, "one board for all");
    }

    /// Enters what a plan of faults has done into the ledger. Returns at once if there is nothing.
    pub fn enter_faults(&self, place: ClockPlace, entries: Vec<FaultEntry>) {
        if entries.is_empty() {
            return;
        }
        let (published_ns, published_unix_ns) = (system_clock::monotonic_ns(), system_clock::unix_ns());
        self.ledger.append(Tick {
            ordinal: place.ordinal,
            epoch: place.epoch,
            session: None,
            opens: None,
            scheduled_ns: published_ns,
            published_ns,
            published_unix_ns,
            publications: Box::default(),
            faults: entries.into(),
        });
    }

    /// What was published when; `GET /ticks` serves it.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Every publication up to this id is in the shards' receivers.
    pub fn published(&self) -> u64 {
        self.published.id()
    }

    /// The common clock says when its next tick is due, monotonic ns; `u64::MAX`: it stands still.
    pub fn expect_tick(&self, due_ns: u64) {
        self.next_tick_ns.store(due_ns, Ordering::Relaxed);
    }

    /// When the common clock's next tick is due, monotonic ns; `u64::MAX` if there is no clock, or it stands still.
    pub fn next_tick_ns(&self) -> u64 {
        self.next_tick_ns.load(Ordering::Relaxed)
    }

    /// Registers a shard: its bell is rung after every batch, and it reports what it has swept.
    pub fn attach(&self, shard: &Waker, report: &Arc<SweepReport>) {
        // Nothing that was published before is its business.
        report.report(self.published(), 0, 0);
        let shard = (shard.clone(), Arc::clone(report));
        self.shards.rcu(|shards| shards.iter().chain([&shard]).cloned().collect::<Vec<_>>());
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

    /// Enters a new epoch of a clock into the ledger, between its ticks.
    pub fn open_epoch(&self, epoch: Epoch, session: Option<Arc<str>>) {
        let _between = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (published_ns, published_unix_ns) = (system_clock::monotonic_ns(), system_clock::unix_ns());
        self.ledger.append(Tick {
            ordinal: 0,
            epoch: epoch.number,
            session,
            opens: Some(epoch),
            scheduled_ns: published_ns,
            published_ns,
            published_unix_ns,
            publications: Box::default(),
            faults: Box::default(),
        });
    }

    /// A shard reports that it has taken out everything up to [`Sequencer::published`]. Call this after every
    /// ring, even if there was nothing: a publisher may be waiting for room in a channel.
    pub fn taken_out(&self) {
        self.room.notify();
    }

    /// Wakes the shards, though nothing was published: a plan of faults has begun or ended, or its tick had no
    /// publications.
    pub fn ring_shards(&self) {
        self.shards.load().iter().for_each(|(shard, _)| shard.wake_by_ref());
    }

    /// Starts a batch: everything published in it becomes visible to the shards at once.
    ///
    /// One batch at a time: a second publisher waits.
    pub fn begin(&self, due: Option<Due>) -> Batch<'_> {
        // A publisher that panicked left only whole numbers behind, so the sequence can continue.
        self.batch(self.open.lock().unwrap_or_else(PoisonError::into_inner), due)
    }

    fn batch<'a>(&'a self, mut open: MutexGuard<'a, Sequence>, due: Option<Due>) -> Batch<'a> {
        open.last_id = open.last_id.max(self.floor.load(Ordering::SeqCst));
        let published_ns = system_clock::monotonic_ns();
        let is_of_clock = due.as_ref().is_some_and(|due| due.session.is_none());
        let due = due.unwrap_or_else(|| Due { scheduled_ns: published_ns, ..Due::default() });
        Batch {
            sequencer: self,
            first_id: open.last_id + 1,
            open,
            due,
            is_of_clock,
            published_ns,
            published_unix_ns: system_clock::unix_ns(),
        }
    }

    /// Publishes `messages` as one batch, if that needs no waiting: nobody else is publishing, and the channels
    /// have room. Otherwise returns them, for [`Sequencer::publish_all`].
    pub fn try_publish_all<M: Outgoing>(&self, messages: Vec<M>) -> Result<(), Vec<M>> {
        // All of them may be for one group. Meanwhile shards only make room, and nobody else takes it.
        let has_room = |group: &Group| group.queued() + messages.len() <= CHANNEL_SLOTS;
        match self.open.try_lock() {
            Ok(open) if messages.iter().flat_map(Outgoing::groups).all(|group| has_room(group)) => {
                let mut batch = self.batch(open, None);
                for message in messages {
                    message.publish(&mut batch);
                }
                Ok(())
            }
            _ => Err(messages),
        }
    }

    /// Publishes `messages` in order, as one batch while the channels have room. When one is full the batch
    /// ends, other publishers get their turn, and the next batch waits for room.
    pub fn publish_all<M: Outgoing>(&self, messages: impl IntoIterator<Item = M>) {
        let mut messages = messages.into_iter().peekable();
        while let Some(message) = messages.next() {
            let mut batch = self.begin(None);
            message.groups().for_each(|group| batch.wait_for_room(group));
            message.publish(&mut batch);
            let has_room = |message: &M| message.groups().all(|group| group.queued() < CHANNEL_SLOTS);
            while let Some(message) = messages.next_if(has_room) {
                message.publish(&mut batch);
            }
        }
    }
}

/// The id that a sequence begins with now: Unix microseconds, so that ids go on rising over a restart, have 16 digits and
/// 8 varint bytes (so every reliable frame of a record is equally long), and stay below 2^53 until 2255.
fn id_of_now() -> u64 {
    system_clock::unix_ns() / 1000
}

/// Publications that belong together: all groups of one tick.
pub struct Batch<'a> {
    sequencer: &'a Sequencer,
    open: MutexGuard<'a, Sequence>,
    /// The id of its first publication, if there is one.
    first_id: u64,
    due: Due,
    /// Whether it is a tick of the clock that all share.
    is_of_clock: bool,
    published_ns: u64,
    published_unix_ns: u64,
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
        self.sequencer.room.wait(PATIENCE, || self.sequencer.ring_shards(), has_room);
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
        if self.sequencer.ledger.is_kept() {
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
        let Some((board, hub)) = self.sequencer.faults.get() else { return };
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
            self.sequencer.ring_shards();
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.note();
        if self.is_empty() {
            return;
        }
        self.sequencer.published.raise(self.open.last_id);
        self.sequencer.ring_shards();
        // After the doorbells: the ledger is for readers who come later.
        if self.sequencer.ledger.is_kept() {
            self.sequencer.ledger.append(Tick {
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
