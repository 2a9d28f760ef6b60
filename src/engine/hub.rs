//! A hub: groups by name, and the one sequencer their publications pass through.
//!
//! ```text
//! source ─▶ Hub::begin ─▶ Batch::publish(group, frames)… ─▶ drop: published = last id, ring shards
//! ```
//!
//! # Locks
//! Publishing takes the sequencer's mutex (uncontended with one source) once per batch and, inside
//! tokio's `broadcast`, two short ones per publication; nothing of ours is locked per publication
//! or per subscriber. The map is touched on joins and leaves only.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam::utils::CachePadded;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::broadcast;

use super::clock;
use super::frames::{Forms, Frames};
use super::group::{CHANNEL_SLOTS, Group, Publication};
use super::ledger::{Ledger, LedgerOptions, Tick, TickPublication};
use super::room::RoomWait;
use super::watermark::Watermark;

/// Limits of a hub.
#[derive(Debug, Clone, clap::Args)]
pub struct HubOptions {
    /// Largest number of groups without data. A client that joins the group of a ticker that is not loaded
    /// creates one, and waits in it
    #[arg(long, env = "FLOWCAST_MAX_SILENT_GROUPS", default_value_t = 1024, value_name = "GROUPS")]
    pub max_silent_groups: usize,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub ledger: LedgerOptions,
}

/// A join that would exceed [`HubOptions::max_silent_groups`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{limit} groups without data are joined already; --max-silent-groups allows no more")]
pub struct TooManySilentGroups {
    /// The configured [`HubOptions::max_silent_groups`].
    pub limit: usize,
}

/// What is to be published, and where.
pub type Outgoing = (Arc<Group>, Frames);

/// A source that keeps the latest state of its groups, for clients that subscribe later.
pub trait Retain: Send + Sync {
    /// The latest state of `group`; `None` if it carries no state, or none yet. At least as new as the hub's
    /// last publication to the group.
    fn retained(&self, group: &str) -> Option<Frames>;
}

/// A namespace of groups whose publications share one sequence.
pub struct Hub {
    name: &'static str,
    groups: DashMap<Arc<str>, Arc<Group>>,
    silent: AtomicUsize,
    max_silent: usize,
    sequencer: Mutex<Sequencer>,
    /// The last id of the last finished batch. On its own cache line: every shard polls it.
    published: CachePadded<Watermark>,
    /// Where a publisher waits for room. Every shard looks here after its bell, too.
    room: CachePadded<RoomWait>,
    shards: ArcSwap<Vec<Waker>>,
    forms: Forms,
    ledger: Ledger,
    retain: OnceLock<Weak<dyn Retain>>,
}

struct Sequencer {
    last_id: u64,
    /// Publications of the open batch, for the ledger.
    batch: Vec<TickPublication>,
}

/// When a batch was due. A batch that no clock schedules is due when it begins.
#[derive(Debug, Clone, Copy)]
pub struct Due {
    /// The source's own count of its batches.
    pub ordinal: u64,
    /// When the batch was due, monotonic ns.
    pub scheduled_ns: u64,
}

impl Hub {
    /// A hub without groups. Its ids start from the time of day, so they keep rising over a restart.
    pub fn new(name: &'static str, options: &HubOptions) -> Self {
        // Unix microseconds: ids go on rising over a restart, have 16 digits and 8 varint bytes
        // (so every reliable frame of a record is equally long), and stay below 2^53 until 2255.
        let last_id = clock::unix_ns() / 1000;
        Self {
            name,
            groups: DashMap::new(),
            silent: AtomicUsize::new(0),
            max_silent: options.max_silent_groups,
            sequencer: Mutex::new(Sequencer { last_id, batch: Vec::new() }),
            published: CachePadded::new(Watermark::new(last_id)),
            room: CachePadded::new(RoomWait::new()),
            shards: ArcSwap::default(),
            forms: Forms::default(),
            ledger: Ledger::new(options.ledger.ledger_publications),
            retain: OnceLock::new(),
        }
    }

    /// Sets the source that publishes to groups which clients create by joining them, and that keeps their
    /// latest state. Called once per hub.
    pub fn fill(&self, source: Weak<dyn Retain>) {
        let first = self.retain.set(source).is_ok();
        debug_assert!(first, "one source fills a hub");
    }

    /// Whether a group that a client creates by joining it gets data.
    pub fn is_filled(&self) -> bool {
        self.retain.get().is_some()
    }

    /// The latest state of a group, for a subscriber that joins now.
    pub fn retained(&self, group: &str) -> Option<Frames> {
        self.retain.get()?.upgrade()?.retained(group)
    }

    /// The hub's name on the wire.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Which forms clients use, and which are ready.
    pub fn forms(&self) -> &Forms {
        &self.forms
    }

    /// What was published when; `GET /ticks` serves it.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Every publication up to this id is in the shards' receivers.
    pub fn published(&self) -> u64 {
        self.published.id()
    }

    /// Registers a shard: its bell is rung after every batch.
    pub fn attach(&self, shard: &Waker) {
        self.shards.rcu(|shards| shards.iter().cloned().chain([shard.clone()]).collect::<Vec<_>>());
    }

    /// A shard reports that it has taken out everything up to [`Hub::published`]. Call this after every ring,
    /// even if there was nothing: a publisher may be waiting for room in a channel.
    pub fn taken_out(&self) {
        self.room.notify();
    }

    fn ring_shards(&self) {
        self.shards.load().iter().for_each(Waker::wake_by_ref);
    }

    /// Declares that a source publishes to this group from now on; the group stays as long as the hub.
    ///
    /// If clients have joined it already, the silent group that they wait in becomes this one.
    pub fn declare(&self, name: &str, symbol: &str) -> Arc<Group> {
        // The entry guard is held until the symbol is set, so that `unsubscribe`, which looks for it
        // under the same guard, cannot remove a group that was just declared.
        match self.groups.entry(name.into()) {
            Entry::Occupied(entry) => {
                if entry.get().declare(symbol) {
                    self.silent.fetch_sub(1, Ordering::Relaxed);
                }
                Arc::clone(entry.get())
            }
            Entry::Vacant(entry) => {
                let group = Arc::new(Group::new(Arc::clone(entry.key())));
                group.declare(symbol);
                entry.insert(Arc::clone(&group));
                group
            }
        }
    }

    /// Subscribes a shard that gets its first member in `name`; the group is created if it does not exist.
    pub fn subscribe(&self, name: &str) -> Result<(Arc<Group>, broadcast::Receiver<Publication>), TooManySilentGroups> {
        // The entry guard is held across the subscription, so that `unsubscribe` on another shard
        // cannot remove the group in between. Nothing below takes a lock of the map.
        match self.groups.entry(name.into()) {
            Entry::Occupied(entry) => Ok((Arc::clone(entry.get()), entry.get().subscribe())),
            Entry::Vacant(entry) => {
                let room = |silent| (silent < self.max_silent).then_some(silent + 1);
                self.silent
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
                    .map_err(|_| TooManySilentGroups { limit: self.max_silent })?;
                let group = Arc::new(Group::new(Arc::clone(entry.key())));
                entry.insert(Arc::clone(&group));
                let receiver = group.subscribe();
                Ok((group, receiver))
            }
        }
    }

    /// Unsubscribes a shard whose last member has left `group`. A silent group is removed with its last shard.
    pub fn unsubscribe(&self, group: &Group) {
        if group.unsubscribe()
            && !group.is_declared()
            && self.groups.remove_if(group.name(), |_, group| !group.is_live() && !group.is_declared()).is_some()
        {
            self.silent.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The group of this name, if it exists.
    pub fn find(&self, name: &str) -> Option<Arc<Group>> {
        self.groups.get(name).map(|entry| Arc::clone(&entry))
    }

    /// Calls `visit` for every group, in no particular order. Each call holds a shard guard of the map.
    pub fn for_each_group(&self, mut visit: impl FnMut(&Arc<Group>)) {
        self.groups.iter().for_each(|entry| visit(&entry));
    }

    /// Starts a batch: everything published in it becomes visible to the shards at once.
    ///
    /// One batch at a time: a second publisher waits.
    pub fn begin(&self, due: Option<Due>) -> Batch<'_> {
        // A publisher that panicked left only whole numbers behind, so the sequence can continue.
        self.batch(self.sequencer.lock().unwrap_or_else(PoisonError::into_inner), due)
    }

    fn batch<'a>(&'a self, sequencer: MutexGuard<'a, Sequencer>, due: Option<Due>) -> Batch<'a> {
        let published_ns = clock::monotonic_ns();
        let due = due.unwrap_or(Due { ordinal: 0, scheduled_ns: published_ns });
        Batch { hub: self, sequencer, due, published_ns, published_unix_ns: clock::unix_ns() }
    }

    /// Publishes `messages` as one batch, if that needs no waiting: nobody else is publishing, and the channels
    /// have room. Otherwise returns them, for [`Hub::publish_all`].
    pub fn try_publish_all(&self, messages: Vec<Outgoing>) -> Result<(), Vec<Outgoing>> {
        // All of them may be for one group. Meanwhile shards only make room, and nobody else takes it.
        let has_room = |group: &Group| group.queued() + messages.len() <= CHANNEL_SLOTS;
        match self.sequencer.try_lock() {
            Ok(sequencer) if messages.iter().all(|(group, _)| has_room(group)) => {
                let mut batch = self.batch(sequencer, None);
                for (group, frames) in messages {
                    batch.publish(&group, frames);
                }
                Ok(())
            }
            _ => Err(messages),
        }
    }

    /// Publishes `messages` in order, as one batch while the channels have room. When one is full the batch
    /// ends, other publishers get their turn, and the next batch waits for room.
    pub fn publish_all(&self, messages: impl IntoIterator<Item = Outgoing>) {
        let mut messages = messages.into_iter().peekable();
        while let Some((group, frames)) = messages.next() {
            let mut batch = self.begin(None);
            batch.wait_for_room(&group);
            batch.publish(&group, frames);
            while let Some((group, frames)) = messages.next_if(|(group, _)| group.queued() < CHANNEL_SLOTS) {
                batch.publish(&group, frames);
            }
        }
    }
}

/// Publications that belong together: all groups of one tick.
pub struct Batch<'a> {
    hub: &'a Hub,
    sequencer: MutexGuard<'a, Sequencer>,
    due: Due,
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
        debug_assert!(self.sequencer.batch.is_empty(), "what is published is waited for");
        let has_room = || group.queued() < CHANNEL_SLOTS;
        self.hub.room.wait(PATIENCE, || self.hub.ring_shards(), has_room);
    }

    /// Numbers one record and sends it to `group`.
    pub fn publish(&mut self, group: &Arc<Group>, frames: Frames) {
        self.sequencer.last_id += 1;
        let id = self.sequencer.last_id;
        group.send(Publication { id, frames: frames.clone() });
        let subscribers = group.subscribers();
        self.sequencer.batch.push(TickPublication { group: Arc::clone(group.name()), id, frames, subscribers });
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if self.sequencer.batch.is_empty() {
            return;
        }
        self.hub.published.raise(self.sequencer.last_id);
        self.hub.ring_shards();
        // After the doorbells: the ledger is for readers who come later.
        let publications = self.sequencer.batch.drain(..).collect();
        self.hub.ledger.append(Tick {
            ordinal: self.due.ordinal,
            scheduled_ns: self.due.scheduled_ns,
            published_ns: self.published_ns,
            published_unix_ns: self.published_unix_ns,
            publications,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::frames::{Form, FrameStore};
    use bytes::Bytes;

    struct NoFrames;

    impl FrameStore for NoFrames {
        fn frame(&self, _: u32, _: Form) -> Bytes {
            Bytes::new()
        }

        fn payload(&self, _: u32, _: Form) -> Option<Bytes> {
            None
        }

        fn timestamp(&self, record: u32) -> i64 {
            i64::from(record)
        }
    }

    fn hub(max_silent_groups: usize) -> Hub {
        Hub::new("test", &HubOptions { max_silent_groups, ledger: LedgerOptions { ledger_publications: 100 } })
    }

    fn frames(record: u32) -> Frames {
        Frames::new(Arc::new(NoFrames), record)
    }

    #[test]
    fn ids_rise_over_all_groups_and_become_visible_with_the_batch() {
        let hub = hub(0);
        let (one, two) = (hub.declare("one", "1"), hub.declare("two", "2"));
        let (_, mut first) = hub.subscribe("one").unwrap();
        let (_, mut second) = hub.subscribe("two").unwrap();
        let before = hub.published();
        let mut batch = hub.begin(None);
        batch.publish(&one, frames(0));
        batch.publish(&two, frames(1));
        assert_eq!(hub.published(), before, "not before the batch is over");
        drop(batch);
        assert_eq!(hub.published(), before + 2);
        assert_eq!((first.try_recv().unwrap().id, second.try_recv().unwrap().id), (before + 1, before + 2));
        assert!((1..1 << 53).contains(&hub.published()));
    }

    #[test]
    fn a_silent_group_lives_as_long_as_it_has_members_and_their_number_is_bounded() {
        let hub = hub(1);
        let (silent, _receiver) = hub.subscribe("silent").unwrap();
        let (again, _other) = hub.subscribe("silent").unwrap();
        assert!(Arc::ptr_eq(&silent, &again));
        assert_eq!(hub.subscribe("another").err(), Some(TooManySilentGroups { limit: 1 }));
        hub.unsubscribe(&silent);
        assert_eq!(hub.subscribe("another").err(), Some(TooManySilentGroups { limit: 1 }), "one shard is left");
        hub.unsubscribe(&silent);
        assert!(hub.subscribe("another").is_ok());
    }

    #[test]
    fn a_declared_group_outlives_its_members() {
        let hub = hub(0);
        let declared = hub.declare("one", "1");
        let (group, _receiver) = hub.subscribe("one").unwrap();
        hub.unsubscribe(&group);
        let (group, _receiver) = hub.subscribe("one").unwrap();
        assert!(Arc::ptr_eq(&group, &declared));
    }

    #[test]
    fn a_silent_group_that_is_declared_keeps_its_members_and_counts_as_silent_no_more() {
        let hub = hub(1);
        let (silent, mut receiver) = hub.subscribe("late").unwrap();
        assert_eq!((silent.is_declared(), silent.symbol()), (false, None));
        let declared = hub.declare("late", "L");
        assert!(Arc::ptr_eq(&silent, &declared));
        assert_eq!(silent.symbol().map(|symbol| &**symbol), Some("L"));
        assert!(hub.subscribe("another").is_ok(), "there is room for a silent group again");
        hub.begin(None).publish(&declared, frames(1));
        assert_eq!(receiver.try_recv().unwrap().id, hub.published());

        hub.unsubscribe(&silent);
        let (again, _receiver) = hub.subscribe("late").unwrap();
        assert!(Arc::ptr_eq(&again, &declared), "it outlives its members from now on");
        assert_eq!(hub.silent.load(Ordering::Relaxed), 1, "which leaves the count of silent groups alone");
    }

    #[test]
    fn declaring_a_group_twice_changes_nothing() {
        let hub = hub(0);
        let group = hub.declare("one", "1");
        assert!(Arc::ptr_eq(&group, &hub.declare("one", "2")));
        assert_eq!(group.symbol().map(|symbol| &**symbol), Some("1"));
        assert_eq!(hub.silent.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_group_that_is_declared_while_its_last_member_leaves_is_never_lost() {
        for _ in 0..200 {
            let hub = hub(1);
            let (silent, _receiver) = hub.subscribe("race").unwrap();
            let declared = std::thread::scope(|scope| {
                scope.spawn(|| hub.unsubscribe(&silent));
                scope.spawn(|| hub.declare("race", "R")).join().unwrap()
            });
            let (joined, _receiver) = hub.subscribe("race").unwrap();
            assert!(Arc::ptr_eq(&joined, &declared));
            assert_eq!(hub.silent.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn a_source_can_tell_how_far_behind_the_shards_are() {
        let hub = hub(0);
        let group = hub.declare("one", "1");
        let (_, mut receiver) = hub.subscribe("one").unwrap();
        for record in 0..3 {
            hub.begin(None).publish(&group, frames(record));
        }
        assert_eq!(group.queued(), 3);
        receiver.try_recv().unwrap();
        assert_eq!(group.queued(), 2);
    }

    #[test]
    fn what_belongs_together_and_fills_a_channel_waits_for_the_shards_and_loses_nothing() {
        let hub = hub(0);
        let group = hub.declare("one", "1");
        let (_, mut receiver) = hub.subscribe("one").unwrap();
        let (before, records) = (hub.published(), 3 * CHANNEL_SLOTS as u64);
        let taken = std::thread::scope(|scope| {
            // A shard: it takes what is declared published, and nothing else.
            let shard = scope.spawn(|| {
                let mut ids = Vec::new();
                while ids.len() < records as usize {
                    while before + (ids.len() as u64) < hub.published() {
                        ids.push(receiver.try_recv().expect("nothing was overrun").id);
                    }
                    hub.taken_out();
                    std::thread::yield_now();
                }
                ids
            });
            hub.publish_all((0..records).map(|record| (Arc::clone(&group), frames(record as u32))));
            shard.join().unwrap()
        });
        assert!(taken.into_iter().eq(before + 1..=before + records));
    }

    #[test]
    fn a_publisher_that_waits_for_room_is_woken_as_soon_as_there_is_some() {
        let hub = hub(0);
        let group = hub.declare("one", "1");
        let (_, mut receiver) = hub.subscribe("one").unwrap();
        hub.publish_all((0..CHANNEL_SLOTS).map(|record| (Arc::clone(&group), frames(record as u32))));
        let waited = std::thread::scope(|scope| {
            let publishing = scope.spawn(|| {
                let began = std::time::Instant::now();
                hub.publish_all([(Arc::clone(&group), frames(0))]);
                began.elapsed()
            });
            std::thread::sleep(Duration::from_millis(100));
            receiver.try_recv().unwrap();
            hub.taken_out();
            publishing.join().unwrap()
        });
        assert!((80..900).contains(&waited.as_millis()), "{waited:?}: not at once, and not after a second");
    }

    #[test]
    fn what_would_have_to_wait_is_given_back_whole() {
        let hub = hub(0);
        let group = hub.declare("one", "1");
        let (_, mut receiver) = hub.subscribe("one").unwrap();
        let before = hub.published();
        let messages = |count: usize| (0..count).map(|at| (Arc::clone(&group), frames(at as u32))).collect::<Vec<_>>();
        assert!(hub.try_publish_all(messages(CHANNEL_SLOTS - 1)).is_ok());
        assert_eq!(hub.try_publish_all(messages(2)).unwrap_err().len(), 2, "there is room for one");
        let other = hub.begin(None);
        assert_eq!(hub.try_publish_all(messages(1)).unwrap_err().len(), 1, "somebody else publishes");
        drop(other);
        assert!(hub.try_publish_all(messages(1)).is_ok());
        assert_eq!(hub.published(), before + CHANNEL_SLOTS as u64);
        assert!((0..CHANNEL_SLOTS).all(|_| receiver.try_recv().is_ok()), "nothing was overrun");
    }

    #[test]
    fn every_batch_enters_the_ledger_once() {
        let hub = hub(0);
        let group = hub.declare("one", "1");
        drop(hub.begin(None));
        let mut batch = hub.begin(Some(Due { ordinal: 7, scheduled_ns: 1 }));
        assert!(batch.drift_ns() > 0);
        batch.publish(&group, frames(3));
        drop(batch);
        let ticks = hub.ledger().after(0, 10);
        assert_eq!(ticks.len(), 1, "an empty batch is no tick");
        assert_eq!((ticks[0].1.ordinal, ticks[0].1.publications[0].frames.timestamp()), (7, 3));
    }
}
