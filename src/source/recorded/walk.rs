//! The order in which the clock comes to a track's blocks: from the one it stands at, once around.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::parts::Parts;
use super::track::Track;

/// The block of a track that can be spared first, with its rank: one behind the clock before one ahead of it, and
/// of those the furthest. `soon`: the slots that the clock passes soon; `None` if nobody needs the track.
pub fn spare(track: &Track, resident: &BTreeSet<usize>, soon: Option<u64>) -> Option<((bool, u64), usize)> {
    let (index, position) = (track.index(), track.position().unwrap_or(0));
    let Some(now) = index.find(position) else { return resident.first().map(|&block| ((true, u64::MAX), block)) };
    // The next block stays, however long this one is.
    let soon = soon.map(|soon| soon.max(index.slots_of(now).end - position));
    let is_due = |block: usize| soon.is_some_and(|soon| distance(track, position, block) <= soon);
    let behind = resident.range(..now).copied().find(|&block| !is_due(block));
    let behind = behind.map(|block| ((true, position - index.slots_of(block).start), block));
    behind.or_else(|| {
        let block =
            resident.range(now..).copied().rev().find(|&block| !is_due(block) && (block > now || soon.is_none()))?;
        Some(((false, distance(track, position, block)), block))
    })
}

/// Slots from the clock to the first of a block; a block behind the clock comes again after the last.
pub fn distance(track: &Track, position: u64, block: usize) -> u64 {
    let slots = track.index().slots_of(block);
    if slots.end > position { slots.start.saturating_sub(position) } else { track.slots().0 - position + slots.start }
}

/// Visits the blocks of a track from the one at the clock on, once around, with the slots to each. If it comes to
/// the end of what is indexed, returns how many slots ahead that is.
pub fn walk(track: &Track, visit: impl FnMut(u64, usize) -> ControlFlow<()>) -> Option<u64> {
    walk_from(track, 0, visit)
}

/// The same, leaving out the first blocks.
pub fn walk_from(track: &Track, skip: usize, mut visit: impl FnMut(u64, usize) -> ControlFlow<()>) -> Option<u64> {
    let index = track.index();
    let position = track.position().unwrap_or(0);
    let scanned = index.scanned();
    let (known, is_complete) = track.slots();
    let Some(start) = index.find(position) else { return (!is_complete).then_some(0) };
    let again = if is_complete { start } else { 0 };
    for block in (start..scanned).chain(0..again).skip(skip) {
        if visit(distance(track, position, block), block).is_break() {
            return None;
        }
    }
    (!is_complete).then(|| known - position)
}

/// The first blocks of a walk that are in memory, so that they need not be looked at again.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filled {
    parts: Parts,
    /// The block at the clock.
    start: usize,
    /// How many they are.
    pub blocks: usize,
}

impl Filled {
    /// The clock stands at `start` now, and `parts` are wanted.
    pub fn follow(&mut self, parts: Parts, start: usize) {
        // A block further: one less ahead. The last of a lap joins the walk at its end, and is looked at there.
        let passed = start.checked_sub(self.start).filter(|_| self.parts == parts);
        let blocks = passed.map_or(0, |passed| self.blocks.saturating_sub(passed));
        *self = Self { parts, start, blocks };
    }
}
