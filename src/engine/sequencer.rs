//! The one sequence that all publications of a hub pass through.
//!
//! # Locks
//! Publishing takes one mutex (uncontended with one source) once per batch and, inside tokio's `broadcast`, two
//! short ones per publication; nothing of ours is locked per publication or per subscriber.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

use super::audience::Audience;
use super::batch::{Batch, Due, Outgoing, Readers, Sequence};
use super::group::{CHANNEL_SLOTS, Group};
use super::ledger::{Ledger, LedgerOptions, Tick};
use super::system_clock;
use crate::faults::batch_notes::{ClockPlace, NotedHub};
use crate::faults::fault_board::FaultBoard;
use crate::faults::fault_entry::FaultEntry;
use crate::replay::snapshot::Epoch;

/// The sequence of a hub's publications, and who is told of them.
pub struct Sequencer {
    open: Mutex<Sequence>,
    /// No further batch begins below.
    floor: AtomicU64,
    readers: Readers,
}

impl Sequencer {
    /// A sequence whose ids start from the time of day, so they keep rising over a restart.
    pub fn new(ledger: &LedgerOptions) -> Self {
        let last_id = id_of_now();
        let readers = Readers {
            audience: Audience::new(last_id),
            ledger: Ledger::new(ledger.ledger_publications),
            faults: OnceLock::new(),
        };
        Self { open: Mutex::new(Sequence { last_id, batch: Vec::new() }), floor: AtomicU64::new(0), readers }
    }

    /// The shards, and how far they are.
    pub fn audience(&self) -> &Audience {
        &self.readers.audience
    }

    /// What was published when; `GET /ticks` serves it.
    pub fn ledger(&self) -> &Ledger {
        &self.readers.ledger
    }

    /// Every publication up to this id is in the shards' receivers.
    pub fn published(&self) -> u64 {
        self.audience().published()
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
        Batch::begin(&self.readers, open, due)
    }

    /// Publishes `messages` as one batch, if that needs no waiting: nobody else is publishing, and the channels
    /// have room. Otherwise returns them, for [`Sequencer::publish_all`].
    pub fn try_publish_all<M: Outgoing>(&self, messages: Vec<M>) -> Result<(), Vec<M>> {
        // All of them may be for one group. Meanwhile shards only make room, and nobody else takes it.
        let has_room = |group: &Group| group.queued() + messages.len() <= CHANNEL_SLOTS;
        match self.open.try_lock() {
            Ok(open) if messages.iter().flat_map(Outgoing::groups).all(|group| has_room(&group)) => {
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
            message.groups().for_each(|group| batch.wait_for_room(&group));
            message.publish(&mut batch);
            let has_room = |message: &M| message.groups().all(|group| group.queued() < CHANNEL_SLOTS);
            while let Some(message) = messages.next_if(has_room) {
                message.publish(&mut batch);
            }
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

    /// Enters a new epoch of a clock into the ledger, between its ticks.
    pub fn open_epoch(&self, epoch: Epoch, session: Option<Arc<str>>) {
        let _between = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        self.ledger().append(Tick { session, opens: Some(epoch), ..Tick::now(0, epoch.number) });
    }

    /// Sets where its batches are noted while a plan of faults runs. Called once.
    pub fn note_on(&self, board: Arc<FaultBoard>, hub: NotedHub) {
        let first = self.readers.faults.set((board, hub)).is_ok();
        debug_assert!(first, "one board for all");
    }

    /// Enters what a plan of faults has done into the ledger. Returns at once if there is nothing.
    pub fn enter_faults(&self, place: ClockPlace, entries: Vec<FaultEntry>) {
        if !entries.is_empty() {
            self.ledger().append(Tick { faults: entries.into(), ..Tick::now(place.ordinal, place.epoch) });
        }
    }
}

/// The id that a sequence begins with now: Unix microseconds, so that ids go on rising over a restart, have 16 digits and
/// 8 varint bytes (so every reliable frame of a record is equally long), and stay below 2^53 until 2255.
fn id_of_now() -> u64 {
    system_clock::unix_ns() / 1000
}
