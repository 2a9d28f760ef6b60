//! One group: a named set of subscribers that all receive the same publications.
//!
//! A group owns one `broadcast::Sender`. Each shard with members holds one receiver; publishing
//! stores one handle, however many subscribers there are. Not here: which groups exist
//! ([`super::hub`]), what a shard keeps ([`super::ring`]), what lag means ([`super::policy`]).

use std::array;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use arc_swap::ArcSwapOption;
use tokio::sync::broadcast;

use super::frames::{Form, Frames};
use super::live_groups::LiveCount;

/// Publications that a group's channel can hold. It only carries them: shards empty it at every doorbell, and
/// at least every 128 sends. An overrun is a bug of a shard, counted and logged; it is not a client's lag.
pub const CHANNEL_SLOTS: usize = 64;

/// One record, numbered and on its way to a group's subscribers.
#[derive(Clone)]
pub struct Publication {
    /// The hub's sequence id: strictly increasing over all groups of the hub.
    pub id: u64,
    /// The record in every form; a handle, not the bytes.
    pub frames: Frames,
}

/// A group's channel and counters.
pub struct Group {
    name: Arc<str>,
    /// Set once a source publishes here; such a group stays when its last subscriber leaves.
    symbol: OnceLock<Arc<str>>,
    /// Its source has ended, so it does not stay any more.
    is_abandoned: AtomicBool,
    sender: broadcast::Sender<Publication>,
    /// Shards with members. Publishing to a group without any costs one load.
    live: LiveCount,
    subscribers: AtomicUsize,
    last_id: AtomicU64,
    publications: AtomicU64,
    /// The time of the newest record, Unix seconds; 0 before the first, and where records have none.
    last_record: AtomicI64,
    /// When it was published, Unix ms.
    published_ms: AtomicU64,
    dropped: AtomicU64,
    /// How many lanes of all shards send each form.
    wanted: [AtomicU32; Form::MAX],
    /// The forms of which the next frames are built, or will be: a bit for each.
    ready: AtomicU8,
    /// Set if frames are built ahead: who builds them.
    builder: ArcSwapOption<Waker>,
}

impl Group {
    /// A silent group: nobody publishes to it before [`Group::declare`].
    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            symbol: OnceLock::new(),
            is_abandoned: AtomicBool::new(false),
            sender: broadcast::Sender::new(CHANNEL_SLOTS),
            live: LiveCount::new(),
            subscribers: AtomicUsize::new(0),
            last_id: AtomicU64::new(0),
            publications: AtomicU64::new(0),
            last_record: AtomicI64::new(0),
            published_ms: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            wanted: array::from_fn(|_| AtomicU32::new(0)),
            ready: AtomicU8::new(u8::MAX),
            builder: ArcSwapOption::empty(),
        }
    }

    /// The full name, as clients join it.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What the group's data is about, if a source declared it.
    pub fn symbol(&self) -> Option<&Arc<str>> {
        self.symbol.get()
    }

    /// Whether a source publishes here.
    pub fn is_declared(&self) -> bool {
        self.symbol.get().is_some() && !self.is_abandoned.load(Ordering::Relaxed)
    }

    /// Its source publishes no more. The caller takes it out of the map, or leaves that to its last subscriber.
    pub(super) fn undeclare(&self) {
        self.is_abandoned.store(true, Ordering::Relaxed);
    }

    /// Marks the group as one that a source publishes to; true if it was none before. The caller holds the
    /// map's entry guard, see `Hub::declare`.
    pub(super) fn declare(&self, symbol: &str) -> bool {
        let is_new = self.symbol.set(symbol.into()).is_ok();
        self.is_abandoned.swap(false, Ordering::Relaxed) || is_new
    }

    /// Whether any shard has members. May miss a join that happens at this moment; that client is served from
    /// the next tick on.
    pub fn is_live(&self) -> bool {
        self.live.is_live()
    }

    /// Subscribers on all shards, detached sessions included.
    pub fn subscribers(&self) -> usize {
        self.subscribers.load(Ordering::Relaxed)
    }

    /// How many publications it has had since the start; none while it has no subscriber.
    pub fn publications(&self) -> u64 {
        self.publications.load(Ordering::Relaxed)
    }

    /// The newest publication: the time of its record in Unix seconds (0 where records have none), and when it was
    /// published in Unix ms. `None` before the first.
    pub fn newest(&self) -> Option<(i64, u64)> {
        let published_ms = self.published_ms.load(Ordering::Relaxed);
        (published_ms > 0).then(|| (self.last_record.load(Ordering::Relaxed), published_ms))
    }

    /// Frames that were not sent any more to clients that were dropped for lag.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Counts frames that a dropped client did not get.
    pub fn count_dropped(&self, frames: u64) {
        self.dropped.fetch_add(frames, Ordering::Relaxed);
    }

    /// The id of the newest publication. Read after the hub's `published`, whose Release/Acquire
    /// pair makes Relaxed enough.
    pub fn last_id(&self) -> u64 {
        self.last_id.load(Ordering::Relaxed)
    }

    /// Publications that some shard has not taken yet, at most [`CHANNEL_SLOTS`].
    pub fn queued(&self) -> usize {
        self.sender.len()
    }

    /// Adds one to [`Group::subscribers`].
    pub fn joined(&self) {
        self.subscribers.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one from [`Group::subscribers`].
    pub fn left(&self) {
        self.subscribers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Says that frames of this group are built ahead, and who builds them: from now on a form is ready when
    /// [`Group::set_ready`] says so. A group without such a source is always ready.
    pub fn build_ahead(&self, builder: Waker) {
        self.ready.store(0, Ordering::SeqCst);
        self.builder.store(Some(Arc::new(builder)));
    }

    /// A lane that sends `form` was opened. Wakes the builder if the form is not ready.
    pub fn want(&self, form: Form) {
        self.wanted[form.index()].fetch_add(1, Ordering::SeqCst);
        if !self.is_ready(form)
            && let Some(builder) = &*self.builder.load()
        {
            builder.wake_by_ref();
        }
    }

    /// A lane that sends `form` was closed.
    pub fn unwant(&self, form: Form) {
        self.wanted[form.index()].fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether a lane sends `form`.
    pub fn is_wanted(&self, form: Form) -> bool {
        self.wanted[form.index()].load(Ordering::SeqCst) > 0
    }

    /// Whether the frames of the next publications exist in `form`.
    pub fn is_ready(&self, form: Form) -> bool {
        self.ready.load(Ordering::SeqCst) & form.bit() != 0
    }

    /// Sets the forms whose next frames are built, a bit for each.
    pub fn set_ready(&self, forms: u8) {
        self.ready.store(forms, Ordering::SeqCst);
    }

    /// Whether every form that lanes send is ready.
    pub fn is_served(&self) -> bool {
        (0..Form::MAX).map(Form::new).all(|form| !self.is_wanted(form) || self.is_ready(form))
    }

    /// The forms that lanes send and that are ready, a bit for each.
    pub fn served(&self) -> u8 {
        let wanted = (0..Form::MAX).map(Form::new).filter(|&form| self.is_wanted(form));
        self.ready.load(Ordering::SeqCst) & wanted.fold(0, |forms, form| forms | form.bit())
    }

    /// Sends to all shards a record of this time (Unix seconds), at this one (Unix ms). Only the sequencer calls this,
    /// so publications are sent in the order of their ids.
    pub(super) fn send(&self, publication: Publication, record: i64, published_ms: u64) {
        self.last_id.store(publication.id, Ordering::Relaxed);
        self.last_record.store(record, Ordering::Relaxed);
        self.published_ms.store(published_ms, Ordering::Relaxed);
        self.publications.fetch_add(1, Ordering::Relaxed);
        // An error means no receiver: the last shard left between `is_live` and here.
        let _ = self.sender.send(publication);
    }

    /// A shard's receiver. The caller holds the map's entry guard, see `Hub::subscribe`.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Publication> {
        self.live.enter();
        self.sender.subscribe()
    }

    /// Counts out a shard without members; true if it was the last shard.
    pub(super) fn unsubscribe(&self) -> bool {
        self.live.leave()
    }
}
