//! The playhead: what is due in every track, and the publishing of it.
//!
//! It moves one clock's [`Stand`]. It only clones handles of blocks that the window has built, and encodes nothing.

use std::sync::Arc;

use super::block::{Block, SlotRecord};
use super::stand::Stand;
use super::track::Track;
use super::window::wanted;
use crate::engine::frames::{FrameStore, Frames};
use crate::engine::group::{CHANNEL_SLOTS, Group};
use crate::engine::sequencer::Batch;
use crate::wire::gexbot::PayloadKind;

/// Records of one track in one tick. A file in which more have the same time takes several ticks for them.
const AT_ONCE: usize = 16;

/// The positions of one clock.
pub struct Playhead {
    stand: Arc<Stand>,
    /// Of each track of the market, the block that was used last.
    cursors: Vec<Cursor>,
}

/// The block of a track that was used last, with the number of its first slot.
#[derive(Default)]
struct Cursor(Option<(u64, Arc<Block>)>);

/// A slot of a block that is in memory.
struct Found {
    block: Arc<Block>,
    slot: u32,
    record: SlotRecord,
}

/// When something comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// A record, at this time, Unix seconds.
    At(u32),
    /// That is not known yet: a file is not indexed so far.
    NotIndexed,
    /// Nothing more on this date.
    Ended,
}

/// What a tick takes of each track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Portion {
    /// The next slot.
    One,
    /// Everything that is due at this time, Unix seconds, or before.
    Until(u32),
}

/// What a tick came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Played {
    /// Records that were not published because their frames were not built.
    pub missing: u64,
    /// Whether another block was reached.
    pub is_new: bool,
}

/// A moment lies behind what is indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotIndexed {
    /// The last time that is indexed in every file, Unix seconds.
    pub until: u32,
}

impl Playhead {
    /// A playhead before the first record.
    pub fn new(stand: Arc<Stand>) -> Self {
        let cursors = stand.places().iter().map(|_| Cursor::default()).collect();
        Self { stand, cursors }
    }

    /// Where it stands.
    pub fn stand(&self) -> &Arc<Stand> {
        &self.stand
    }

    /// The tracks of the date that is played, by their places in the market.
    fn tracks(&self) -> std::ops::Range<usize> {
        self.stand.market().days[self.stand.day()].tracks.clone()
    }

    fn playing(&self) -> impl Iterator<Item = usize> + '_ {
        self.tracks().filter(|&at| self.stand.places()[at].is_playing())
    }

    /// When the next record of any track is due.
    pub fn next(&self) -> Next {
        let mut next = Next::Ended;
        for at in self.playing() {
            match self.due(at) {
                Next::At(time) => {
                    next = match next {
                        Next::At(first) => Next::At(first.min(time)),
                        _ => Next::At(time),
                    }
                }
                Next::NotIndexed => return Next::NotIndexed,
                Next::Ended => {}
            }
        }
        next
    }

    /// When the next record of a track is due.
    fn due(&self, at: usize) -> Next {
        let (track, slot) = (&self.stand.market().tracks[at], self.stand.places()[at].next());
        match track.index().time_of(slot) {
            // Times rise within a block. If the last of one is odd, the record behind it says so.
            Some(time) => Next::At(track.index().time_of(slot + 1).map_or(time, |next| next.min(time))),
            None if track.slots().1 || track.is_lost() => Next::Ended,
            None => Next::NotIndexed,
        }
    }

    /// Whether any track has records to come.
    pub fn is_playing(&self) -> bool {
        self.playing().next().is_some()
    }

    /// Whether everything that a tick takes is built in every form that is wanted.
    pub fn is_built(&mut self, portion: Portion) -> bool {
        let stand = Arc::clone(&self.stand);
        stand.tickers(stand.day()).all(|tracks| {
            let lead = stand.lead(tracks.clone());
            tracks.into_iter().all(|at| {
                let place = &stand.places()[at];
                let track = &stand.market().tracks[at];
                let spot = if lead == Some(at) { wanted(&place.spot) } else { 0 };
                let record = wanted(&place.group);
                if (record | spot) == 0 || !stand.can_lead(at) || !self.takes(at, portion) {
                    return true;
                }
                let Some(found) = self.cursors[at].find(track, place.next(), &mut false) else { return false };
                let built = found.block.built();
                record & !built.forms(track.kind()) == 0 && spot & !built.forms(PayloadKind::Spot) == 0
            })
        })
    }

    /// Whether a tick takes a track's next slot.
    fn takes(&self, at: usize, portion: Portion) -> bool {
        self.stand.places()[at].is_playing()
            && match (portion, self.due(at)) {
                (_, Next::NotIndexed | Next::Ended) => false,
                (Portion::One, Next::At(_)) => true,
                (Portion::Until(limit), Next::At(time)) => time <= limit,
            }
    }

    /// Publishes what is due, and moves on.
    pub fn play(&mut self, batch: &mut Batch<'_>, portion: Portion) -> Played {
        let stand = Arc::clone(&self.stand);
        let mut played = Played::default();
        for tracks in stand.tickers(stand.day()) {
            let lead = stand.lead(tracks.clone());
            for at in tracks {
                for _ in 0..if portion == Portion::One { 1 } else { AT_ONCE } {
                    if !self.takes(at, portion) {
                        break;
                    }
                    self.publish(at, lead == Some(at), batch, &mut played);
                    stand.places()[at].pass();
                }
            }
        }
        played
    }

    /// Publishes the next slot of a track, if anybody listens.
    fn publish(&mut self, at: usize, leads: bool, batch: &mut Batch<'_>, played: &mut Played) {
        let (track, place) = (&self.stand.market().tracks[at], &self.stand.places()[at]);
        let (group, spot) = (place.group.is_live(), leads && place.spot.is_live());
        if !(group || spot) {
            self.cursors[at].0 = None;
            return;
        }
        let served = |group: &Group| if track.is_lost() { 0 } else { group.served() };
        let Some(found) = self.cursors[at].find(track, place.next(), &mut played.is_new) else {
            played.missing += u64::from(group && served(&place.group) != 0);
            return;
        };
        if !found.record.is_record {
            return;
        }
        let Found { block, slot, .. } = found;
        // Without a form that lanes send, the first subscribers are still waiting for their acks: forms that nobody
        // takes would put a record into the ledger that nobody gets.
        let has = |group: &Group, kind| wanted(group) & block.built().forms(kind) != 0;
        if group {
            played.missing += u64::from(served(&place.group) & !block.built().forms(track.kind()) != 0);
            if has(&place.group, track.kind()) {
                batch.publish(&place.group, Frames::new(Arc::clone(&block) as Arc<dyn FrameStore>, slot));
            }
        }
        if spot && has(&place.spot, PayloadKind::Spot) {
            batch.publish(&place.spot, Frames::new(block, Block::spot_of(slot)));
        }
    }

    /// Whether the shards have taken enough out of every group's channel for a tick more.
    pub fn has_room(&self) -> bool {
        let fits = |group: &Group| group.queued() + 2 * AT_ONCE <= CHANNEL_SLOTS;
        self.tracks().all(|at| fits(&self.stand.places()[at].group) && fits(&self.stand.places()[at].spot))
    }

    /// Ends the tracks that are over, or turns each of them back to its first record. Returns whether the track that
    /// tells the time was turned back.
    pub fn turn(&mut self, is_loop: bool, reference: usize) -> bool {
        let mut has_turned = false;
        for at in self.tracks() {
            let (place, (slots, is_complete)) = (&self.stand.places()[at], self.stand.market().tracks[at].slots());
            if !place.is_playing() || !is_complete || place.next() < slots {
                continue;
            }
            if is_loop {
                place.set_next(0);
                has_turned |= at == reference;
            } else {
                place.end();
            }
        }
        has_turned
    }

    /// Ends every track: nothing comes on this date.
    pub fn end(&mut self) {
        self.tracks().for_each(|at| self.stand.places()[at].end());
    }

    /// Goes to the first record at or after a time, Unix seconds, in every track of a date. Returns when the first of
    /// them is due.
    pub fn seek(&mut self, day: usize, time: u32) -> Result<Option<u32>, NotIndexed> {
        let market = Arc::clone(self.stand.market());
        let tracks = market.days[day].tracks.clone();
        let find = |at: usize| {
            let track = &market.tracks[at];
            let known = track.index().slots();
            let lost = || track.is_lost().then_some(known);
            track
                .index()
                .slot_at(time)
                .or_else(lost)
                .ok_or_else(|| NotIndexed { until: track.index().time_of(known.saturating_sub(1)).unwrap_or(0) })
        };
        let slots = tracks.clone().map(find).collect::<Result<Vec<u64>, NotIndexed>>()?;
        self.go(day, tracks.zip(slots));
        Ok(match self.next() {
            Next::At(time) => Some(time),
            _ => None,
        })
    }

    /// Goes to where a clock that counts slots is after so many ticks, if it began with the first and all files are
    /// indexed: each file of a single date begins anew by itself, several dates follow each other.
    pub fn seek_ordinal(&mut self, ordinal: u64) {
        let market = Arc::clone(self.stand.market());
        let length = |at: usize| market.tracks[at].slots().0.max(1);
        let longest = |day: usize| market.days[day].tracks.clone().map(length).max().unwrap_or(1);
        if market.days.len() == 1 {
            return self.go(0, market.days[0].tracks.clone().map(|at| (at, ordinal % length(at))));
        }
        let mut slot = ordinal % (0..market.days.len()).map(longest).sum::<u64>();
        let mut day = 0;
        while slot >= longest(day) {
            slot -= longest(day);
            day += 1;
        }
        self.go(day, market.days[day].tracks.clone().map(|at| (at, slot.min(market.tracks[at].slots().0))));
    }

    /// Goes so many slots back in every track. `is_played`: counted from the slot that was published last, otherwise
    /// from the one that comes next.
    pub fn back(&mut self, slots: u64, is_played: bool) {
        let slots = slots.saturating_add(u64::from(is_played));
        let places: Vec<(usize, u64)> =
            self.tracks().map(|at| (at, self.stand.places()[at].next().saturating_sub(slots))).collect();
        self.go(self.stand.day(), places.into_iter());
    }

    fn go(&mut self, day: usize, slots: impl Iterator<Item = (usize, u64)>) {
        if day != self.stand.day() {
            self.stand.set_day(day);
        }
        for (at, slot) in slots {
            self.stand.places()[at].set_next(slot);
            self.cursors[at].0 = None;
        }
    }

    /// The latest time before this one at which any track of the date has a record, Unix seconds.
    pub fn before(&self, time: u32) -> Option<u32> {
        let latest = |at: usize| {
            let index = self.stand.market().tracks[at].index();
            index.time_of(index.slot_at(time).unwrap_or_else(|| index.slots()).checked_sub(1)?)
        };
        self.tracks().filter_map(latest).filter(|&before| before < time).max()
    }

    /// When the next record of one track is due, Unix seconds.
    pub fn time_in(&self, at: usize) -> Option<u32> {
        self.stand.market().tracks[at].index().time_of(self.stand.places()[at].next())
    }
}

impl Cursor {
    /// A slot, if its block is in memory. `is_new` is set if it is another block than the last time.
    fn find(&mut self, track: &Track, slot: u64, is_new: &mut bool) -> Option<Found> {
        let in_block = |first: u64, block: &Block| {
            let slot = u32::try_from(slot.checked_sub(first)?).ok()?;
            Some((slot, block.slot(slot)?))
        };
        let there = self.0.as_ref().and_then(|(first, block)| in_block(*first, block));
        let (slot, record) = match there {
            Some(there) => there,
            None => {
                *is_new = true;
                self.0 = track.block_of(slot);
                let (first, block) = self.0.as_ref()?;
                in_block(*first, block)?
            }
        };
        Some(Found { block: Arc::clone(&self.0.as_ref()?.1), slot, record })
    }
}
