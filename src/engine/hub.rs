//! A hub: groups by name, and the one sequence of their publications. The map is touched on joins and leaves
//! only.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::broadcast;

use super::frames::Frames;
use super::group::{Group, Publication};
use super::ledger::LedgerOptions;
use super::sequencer::Sequencer;

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
    /// How many groups without data may be joined at once: [`HubOptions::max_silent_groups`].
    pub limit: usize,
}

/// Between the name of a group on the wire and that of the session whose group it is: no name on the wire has it.
const SESSION: char = '\u{1f}';

/// The key of a session's group.
pub fn session_group(session: &str, name: &str) -> String {
    format!("{name}{SESSION}{session}")
}

/// The name of a group on the wire, and the session whose group it is.
pub fn wire_name(key: &str) -> (&str, Option<&str>) {
    key.split_once(SESSION).map_or((key, None), |(name, session)| (name, Some(session)))
}

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
    sequencer: Sequencer,
    /// Bytes of frames that shards have finished and keep.
    finished: AtomicU64,
    retain: OnceLock<Weak<dyn Retain>>,
}

impl Hub {
    /// A hub without groups.
    pub fn new(name: &'static str, options: &HubOptions) -> Self {
        Self {
            name,
            groups: DashMap::new(),
            silent: AtomicUsize::new(0),
            max_silent: options.max_silent_groups,
            sequencer: Sequencer::new(&options.ledger),
            finished: AtomicU64::new(0),
            retain: OnceLock::new(),
        }
    }

    /// Bytes of frames that shards have finished themselves and keep for recoveries.
    pub fn finished_bytes(&self) -> u64 {
        self.finished.load(Ordering::Relaxed)
    }

    /// A shard keeps `now` bytes of such frames where it kept `before`.
    pub fn count_finished(&self, before: u64, now: u64) {
        // Wraps around and back: the sum of all changes is never negative.
        self.finished.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Where its sources publish.
    pub fn sequencer(&self) -> &Sequencer {
        &self.sequencer
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

    /// Declares a group of a session: other publications under the same name on the wire.
    pub fn declare_for(&self, session: &str, name: &str, symbol: &str) -> Arc<Group> {
        self.declare(&session_group(session, name), symbol)
    }

    /// A session has ended: its groups stay only as long as they have members.
    pub fn undeclare(&self, group: &Group) {
        group.undeclare();
        if self.groups.remove_if(group.name(), |_, group| !group.is_live()).is_none() {
            self.silent.fetch_add(1, Ordering::Relaxed);
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::batch::Due;
    use crate::engine::frames::{Form, FrameStore};
    use crate::engine::group::CHANNEL_SLOTS;
    use bytes::Bytes;
    use std::time::Duration;

    struct NoFrames;

    impl FrameStore for NoFrames {
        fn frame(&self, _: u32, _: Form) -> Bytes {
            Bytes::new()
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
        let before = hub.sequencer().published();
        let mut batch = hub.sequencer().begin(None);
        batch.publish(&one, frames(0));
        batch.publish(&two, frames(1));
        assert_eq!(hub.sequencer().published(), before, "not before the batch is over");
        drop(batch);
        assert_eq!(hub.sequencer().published(), before + 2);
        assert_eq!((first.try_recv().unwrap().id, second.try_recv().unwrap().id), (before + 1, before + 2));
        assert!((1..1 << 53).contains(&hub.sequencer().published()));
    }

    #[test]
    fn ids_are_raised_above_those_of_nodes_that_began_later_and_never_fall() {
        let hub = hub(0);
        let group = hub.declare("one", "1");
        let before = hub.sequencer().published();
        let mut open = hub.sequencer().begin(None);
        open.publish(&group, frames(0));
        std::thread::sleep(Duration::from_millis(1));
        let later = Sequencer::new(&LedgerOptions { ledger_publications: 0 }).published();
        let floor = hub.sequencer().raise();
        assert!(floor >= later && !hub.sequencer().is_raised(floor), "a batch is open");
        drop(open);
        assert!(hub.sequencer().is_raised(floor));
        assert_eq!(hub.sequencer().published(), before + 1);
        for more in 1..=3 {
            hub.sequencer().begin(None).publish(&group, frames(more));
            assert_eq!(hub.sequencer().published(), floor + u64::from(more));
        }
        assert!(hub.sequencer().is_raised(floor));
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
        hub.sequencer().begin(None).publish(&declared, frames(1));
        assert_eq!(receiver.try_recv().unwrap().id, hub.sequencer().published());

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
            hub.sequencer().begin(None).publish(&group, frames(record));
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
        let (before, records) = (hub.sequencer().published(), 3 * CHANNEL_SLOTS as u64);
        let taken = std::thread::scope(|scope| {
            // A shard: it takes what is declared published, and nothing else.
            let shard = scope.spawn(|| {
                let mut ids = Vec::new();
                while ids.len() < records as usize {
                    while before + (ids.len() as u64) < hub.sequencer().published() {
                        ids.push(receiver.try_recv().expect("nothing was overrun").id);
                    }
                    hub.sequencer().audience().taken_out();
                    std::thread::yield_now();
                }
                ids
            });
            hub.sequencer().publish_all((0..records).map(|record| (Arc::clone(&group), frames(record as u32))));
            shard.join().unwrap()
        });
        assert!(taken.into_iter().eq(before + 1..=before + records));
    }

    #[test]
    fn a_publisher_that_waits_for_room_is_woken_as_soon_as_there_is_some() {
        let hub = hub(0);
        let group = hub.declare("one", "1");
        let (_, mut receiver) = hub.subscribe("one").unwrap();
        hub.sequencer().publish_all((0..CHANNEL_SLOTS).map(|record| (Arc::clone(&group), frames(record as u32))));
        let waited = std::thread::scope(|scope| {
            let publishing = scope.spawn(|| {
                let began = std::time::Instant::now();
                hub.sequencer().publish_all([(Arc::clone(&group), frames(0))]);
                began.elapsed()
            });
            std::thread::sleep(Duration::from_millis(100));
            receiver.try_recv().unwrap();
            hub.sequencer().audience().taken_out();
            publishing.join().unwrap()
        });
        assert!((80..900).contains(&waited.as_millis()), "{waited:?}: not at once, and not after a second");
    }

    #[test]
    fn what_would_have_to_wait_is_given_back_whole() {
        let hub = hub(0);
        let group = hub.declare("one", "1");
        let (_, mut receiver) = hub.subscribe("one").unwrap();
        let before = hub.sequencer().published();
        let messages = |count: usize| (0..count).map(|at| (Arc::clone(&group), frames(at as u32))).collect::<Vec<_>>();
        assert!(hub.sequencer().try_publish_all(messages(CHANNEL_SLOTS - 1)).is_ok());
        assert_eq!(hub.sequencer().try_publish_all(messages(2)).unwrap_err().len(), 2, "there is room for one");
        let other = hub.sequencer().begin(None);
        assert_eq!(hub.sequencer().try_publish_all(messages(1)).unwrap_err().len(), 1, "somebody else publishes");
        drop(other);
        assert!(hub.sequencer().try_publish_all(messages(1)).is_ok());
        assert_eq!(hub.sequencer().published(), before + CHANNEL_SLOTS as u64);
        assert!((0..CHANNEL_SLOTS).all(|_| receiver.try_recv().is_ok()), "nothing was overrun");
    }

    #[test]
    fn every_batch_enters_the_ledger_once() {
        let hub = hub(0);
        let group = hub.declare("one", "1");
        drop(hub.sequencer().begin(None));
        let mut batch = hub.sequencer().begin(Some(Due { ordinal: 7, scheduled_ns: 1, ..Due::default() }));
        assert!(batch.drift_ns() > 0);
        batch.publish(&group, frames(3));
        drop(batch);
        let ticks = hub.sequencer().ledger().after(0, 10);
        assert_eq!(ticks.len(), 1, "an empty batch is no tick");
        assert_eq!((ticks[0].1.ordinal, ticks[0].1.publications[0].record_timestamp), (7, 3));
    }
}
