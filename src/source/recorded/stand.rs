//! Where a clock stands: its position in every track, and the groups it publishes to.
//!
//! The player writes it; the window reads it to build ahead, REST to answer, and nobody waits for anybody. A session's
//! clock has a stand of its own on the same market, with groups of its own.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use super::market::{Market, MarketDay};
use super::track::Track;
use crate::engine::group::Group;
use crate::engine::hub::Hub;

/// Where one clock stands.
pub struct Stand {
    market: Arc<Market>,
    places: Box<[Place]>,
    /// By date: the groups of which it has no track.
    absent: Box<[Vec<Arc<Group>>]>,
    /// The date that is played.
    day: AtomicUsize,
    /// Slots that the clock passes soon, if it counts slots.
    soon_slots: AtomicU64,
    /// The time that it comes to soon, Unix seconds, if it follows the records' times; otherwise 0.
    soon_time: AtomicU32,
    /// What soon means, ms.
    ahead_ms: AtomicU64,
    /// Whether its clock plays; otherwise it is prepared only.
    plays: AtomicBool,
}

/// Where a clock stands in one track.
pub struct Place {
    /// Where the track's records are published.
    pub group: Arc<Group>,
    /// Where the spot price of its ticker is published.
    pub spot: Arc<Group>,
    /// The slot that comes next.
    next: AtomicU64,
    /// The slot that was published last, plus one; 0 before the first.
    shown: AtomicU64,
    /// The last slot is passed, and the first does not follow.
    has_ended: AtomicBool,
}

impl Stand {
    /// A clock before the first record of the first date. Its groups are those of the tracks, or, for a session,
    /// groups of its own with the same names.
    pub fn new(market: &Arc<Market>, hub: &Hub, session: Option<&str>) -> Self {
        let own = |group: &Arc<Group>, ticker: &str| match session {
            Some(session) => hub.declare_for(session, group.name(), ticker),
            None => Arc::clone(group),
        };
        let place = |track: &Arc<Track>| Place {
            group: own(track.group(), track.ticker()),
            spot: own(track.spot_group(), track.ticker()),
            next: AtomicU64::new(0),
            shown: AtomicU64::new(0),
            has_ended: AtomicBool::new(false),
        };
        let places: Box<[Place]> = market.tracks.iter().map(place).collect();
        let all = groups(&places);
        let absent = |day: &MarketDay| {
            let here = groups(&places[day.tracks.clone()]);
            all.iter().filter(|(name, _)| !here.contains_key(*name)).map(|(_, group)| Arc::clone(group)).collect()
        };
        Self {
            market: Arc::clone(market),
            absent: market.days.iter().map(absent).collect(),
            places,
            day: AtomicUsize::new(0),
            soon_slots: AtomicU64::new(0),
            soon_time: AtomicU32::new(0),
            ahead_ms: AtomicU64::new(0),
            plays: AtomicBool::new(false),
        }
    }

    /// Says which forms of one of its groups are built, a bit for each; of no account before it plays.
    pub fn set_ready(&self, group: &Group, forms: u8) {
        if self.plays.load(Ordering::Acquire) {
            group.set_ready(forms);
        }
    }

    /// The groups that have no track on the date that is played: nothing of them is built.
    pub fn absent(&self) -> &[Arc<Group>] {
        &self.absent[self.day()]
    }

    /// Its groups that another clock's stand has not, which plays in its place.
    pub fn left_out_by(&self, next: &Self) -> Vec<Arc<Group>> {
        let kept = groups(&next.places);
        groups(&self.places).into_iter().filter(|(name, _)| !kept.contains_key(name)).map(|(_, group)| group).collect()
    }

    /// It plays: from now on the groups are ready when their blocks are built; `builder` builds them.
    pub fn take_over(&self, builder: &Waker) {
        for place in &self.places {
            place.group.build_ahead(builder.clone());
            place.spot.build_ahead(builder.clone());
        }
        self.plays.store(true, Ordering::Release);
    }

    /// The market that it is on.
    pub fn market(&self) -> &Arc<Market> {
        &self.market
    }

    /// Its places, in the order of the market's tracks.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The date that is played, by its place in the market.
    pub fn day(&self) -> usize {
        self.day.load(Ordering::Relaxed)
    }

    /// The date whose first blocks are needed when this one ends.
    pub fn next_day(&self) -> Option<usize> {
        let days = self.market.days.len();
        (days > 1).then(|| (self.day() + 1) % days)
    }

    /// Goes to another date; only the player calls this.
    pub fn set_day(&self, day: usize) {
        for place in &self.places[self.market.days[self.day()].tracks.clone()] {
            place.set_next(0);
        }
        self.day.store(day, Ordering::Relaxed);
    }

    /// What soon means: how far ahead of the clock blocks must be there.
    pub fn set_ahead(&self, ahead: Duration) {
        self.ahead_ms.store(ahead.as_millis() as u64, Ordering::Relaxed);
    }

    /// The clock counts slots, and passes so many soon.
    pub fn set_soon_slots(&self, slots: u64) {
        self.soon_slots.store(slots, Ordering::Relaxed);
        self.soon_time.store(0, Ordering::Relaxed);
    }

    /// The clock follows the records' times, and comes to this one soon, Unix seconds.
    pub fn set_soon_time(&self, time: u32) {
        self.soon_time.store(time.max(1), Ordering::Relaxed);
    }

    /// Slots of a track of its date that the clock passes soon.
    pub fn soon(&self, at: usize) -> u64 {
        match self.soon_time.load(Ordering::Relaxed) {
            0 => self.soon_slots.load(Ordering::Relaxed),
            time => {
                let index = self.market.tracks[at].index();
                index.slot_at(time).unwrap_or_else(|| index.slots()).saturating_sub(self.places[at].next())
            }
        }
    }

    /// How long it takes the clock to pass so many slots of a track, whole seconds.
    pub fn seconds(&self, at: usize, slots: u64) -> u64 {
        let (soon, ahead) = (self.soon(at).max(1), self.ahead_ms.load(Ordering::Relaxed));
        slots.saturating_mul(ahead) / soon / 1000
    }

    /// Each ticker's tracks of a date, by their places in the market.
    pub fn tickers(&self, day: usize) -> impl Iterator<Item = Range<usize>> {
        self.market.tickers(day)
    }

    /// The track from which the spot price of a ticker is taken: the first that has not ended.
    pub fn lead(&self, mut tracks: Range<usize>) -> Option<usize> {
        tracks.find(|&at| self.can_lead(at))
    }

    /// Whether a track has records to come, and its file can be read.
    pub fn can_lead(&self, at: usize) -> bool {
        self.places[at].is_playing() && !self.market.tracks[at].is_lost()
    }
}

/// The groups of places, by name.
fn groups(places: &[Place]) -> HashMap<Arc<str>, Arc<Group>> {
    let of_place =
        |place: &Place| [&place.group, &place.spot].map(|group| (Arc::clone(group.name()), Arc::clone(group)));
    places.iter().flat_map(of_place).collect()
}

impl Place {
    /// The slot that comes next.
    pub fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// The slot that was published last; `None` before the first.
    pub fn shown(&self) -> Option<u64> {
        self.shown.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Whether the clock has not passed its last record.
    pub fn is_playing(&self) -> bool {
        !self.has_ended.load(Ordering::Relaxed)
    }

    /// Goes to a slot; only the player calls this.
    pub fn set_next(&self, slot: u64) {
        self.next.store(slot, Ordering::Relaxed);
        self.has_ended.store(false, Ordering::Relaxed);
    }

    /// The slot that comes next has been published; only the player calls this.
    pub fn pass(&self) {
        let next = self.next() + 1;
        self.shown.store(next, Ordering::Relaxed);
        self.next.store(next, Ordering::Relaxed);
    }

    /// Nothing more comes from this track; only the player calls this.
    pub fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }
}
