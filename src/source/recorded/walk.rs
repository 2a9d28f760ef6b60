//! The order in which a clock comes to a track's blocks: from the one it stands at, once around.

use std::ops::ControlFlow;

use super::parts::Parts;
use super::track::Track;

/// Where a clock stands in a track, and how far it needs it.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    /// The slot that comes next.
    pub next: u64,
    /// Slots that the clock passes soon; `None` if nobody needs the track.
    pub soon: Option<u64>,
}

/// How well a block can be spared: one behind the clock before one ahead of it, and of those the furthest. `None` if
/// the clock needs it soon.
pub fn rank(track: &Track, Position { next, soon }: Position, block: usize) -> Option<(bool, u64)> {
    let index = track.index();
    let Some(now) = index.find(next) else { return Some((true, u64::MAX)) };
    let far = distance(track, next, block);
    if let Some(soon) = soon {
        // The next block stays, however long this one is.
        let soon = soon.max(index.slots_of(now).end - next);
        if far <= soon {
            return None;
        }
    }
    let slots = index.slots_of(block);
    Some(if slots.end <= next { (true, next - slots.start) } else { (false, far) })
}

/// Slots from the clock to the first of a block; a block behind the clock comes again after the last.
pub fn distance(track: &Track, next: u64, block: usize) -> u64 {
    let slots = track.index().slots_of(block);
    if slots.end > next { slots.start.saturating_sub(next) } else { track.slots().0.saturating_sub(next) + slots.start }
}

/// Visits the blocks of a track from the one at the clock on, once around, with the slots to each. If it comes to
/// the end of what is indexed, returns how many slots ahead that is.
pub fn walk(track: &Track, next: u64, visit: impl FnMut(u64, usize) -> ControlFlow<()>) -> Option<u64> {
    walk_from(track, next, 0, visit)
}

/// The same, leaving out the first blocks.
pub fn walk_from(
    track: &Track,
    next: u64,
    skip: usize,
    mut visit: impl FnMut(u64, usize) -> ControlFlow<()>,
) -> Option<u64> {
    let index = track.index();
    let scanned = index.scanned();
    let (known, is_complete) = track.slots();
    // Behind the last slot it comes to the first.
    let next = if is_complete && next >= known { 0 } else { next };
    let Some(start) = index.find(next) else { return (!is_complete).then_some(0) };
    let again = if is_complete { start } else { 0 };
    for block in (start..scanned).chain(0..again).skip(skip) {
        if visit(distance(track, next, block), block).is_break() {
            return None;
        }
    }
    (!is_complete).then(|| known.saturating_sub(next))
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
