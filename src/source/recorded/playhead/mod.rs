//! The playhead: what is due in every track, and the publishing of it.
//!
//! It moves one clock's [`Stand`]. It only clones handles of blocks that the window has built, and encodes nothing.

mod due;
pub mod jumps;

use std::sync::Arc;

use super::block::{Block, SlotRecord};
use super::stand::Stand;
use super::track::Track;
use super::window::wanted;
use crate::engine::batch::Batch;
use crate::engine::frames::{FrameStore, Frames};
use crate::engine::group::{CHANNEL_SLOTS, Group};
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
