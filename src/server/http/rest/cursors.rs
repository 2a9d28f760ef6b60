//! Positions of API keys: where each key is in each series, for `--rest-cursor key`.
//!
//! Keys, routes and excerpts advance independently of each other, as in `docs/protocols/gexbot.md`, "The fakers".

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use super::excerpts::Excerpt;
use crate::health::status::Status;
use crate::server::http::auth::KeyDigest;

/// Whose position in what.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CursorName {
    pub key: KeyDigest,
    /// Index in [`RecordedDay::series`](super::series::RecordedDay::series).
    pub series: usize,
    pub excerpt: Excerpt,
}

/// The slots of a series, as far as they are known.
#[derive(Debug, Clone, Copy)]
pub struct KnownSlots {
    pub slots: u64,
    /// Whether these are all of the file.
    pub is_complete: bool,
    /// Whether the first slot follows the last.
    pub wraps: bool,
}

/// Where a cursor goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// To this slot, counted from 0.
    Slot(u64),
    /// Nowhere: all slots have been answered.
    End,
    /// Nowhere yet: the file is still being indexed.
    NotIndexed,
}

/// All positions. A position is the slot that comes next.
pub struct Cursors {
    positions: Mutex<LruCache<CursorName, u64>>,
    held: Arc<AtomicU64>,
    forgotten: Arc<AtomicU64>,
}

impl Cursors {
    /// Remembers at most `limit` positions; beyond that the one unused for longest is forgotten.
    pub fn new(limit: usize, status: &Status) -> Self {
        let limit = NonZeroUsize::new(limit).unwrap_or(NonZeroUsize::MIN);
        let held = status.gauge("rest_cursors", "Positions of API keys that REST remembers", vec![]);
        let forgotten = "Positions of API keys forgotten for others because there were --rest-max-cursors of them";
        // `LruCache::new` would allocate for `limit` positions immediately; `unbounded` does not.
        let mut positions = LruCache::unbounded();
        positions.resize(limit);
        Self {
            positions: Mutex::new(positions),
            held,
            forgotten: status.count("rest_cursors_forgotten", forgotten, vec![]),
        }
    }

    /// The next slot of this cursor; its position moves behind that slot.
    pub fn advance(&self, name: &CursorName, span: KnownSlots) -> Step {
        let mut positions = self.positions();
        let position = positions.get(name).copied().unwrap_or(0);
        let step = span.at(position);
        if let Step::Slot(slot) = step {
            let left = positions.push(*name, slot + 1);
            if left.is_some_and(|(other, _)| other != *name) {
                self.forgotten.fetch_add(1, Ordering::Relaxed);
            }
            self.held.store(positions.len() as u64, Ordering::Relaxed);
        }
        step
    }

    /// Where a cursor stands; it stays there.
    pub fn position(&self, name: &CursorName) -> u64 {
        self.positions().peek(name).copied().unwrap_or(0)
    }

    /// Every position of a key, sorted by series and excerpt.
    pub fn of(&self, key: KeyDigest) -> Vec<(usize, Excerpt, u64)> {
        let positions = self.positions();
        let own = positions.iter().filter(|(name, _)| name.key == key);
        let mut own: Vec<_> = own.map(|(name, &position)| (name.series, name.excerpt, position)).collect();
        drop(positions);
        own.sort_unstable_by_key(|&(series, excerpt, _)| (series, excerpt.name()));
        own
    }

    /// Forgets the positions of a key, or of all; returns how many.
    pub fn reset(&self, key: Option<KeyDigest>) -> usize {
        let mut positions = self.positions();
        let before = positions.len();
        match key {
            None => positions.clear(),
            Some(key) => {
                let own: Vec<_> = positions.iter().filter(|(name, _)| name.key == key).map(|(name, _)| *name).collect();
                for name in own {
                    positions.pop(&name);
                }
            }
        }
        self.held.store(positions.len() as u64, Ordering::Relaxed);
        before - positions.len()
    }

    /// Even after a panic elsewhere: nothing is left half done under this lock.
    fn positions(&self) -> MutexGuard<'_, LruCache<CursorName, u64>> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KnownSlots {
    /// What comes after the last slot that is known.
    pub fn end(self) -> Step {
        if self.is_complete { Step::End } else { Step::NotIndexed }
    }

    /// The slot that a position means.
    fn at(self, position: u64) -> Step {
        if position < self.slots {
            Step::Slot(position)
        } else if self.is_complete && self.wraps && self.slots > 0 {
            Step::Slot(0)
        } else {
            self.end()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(key: &str) -> CursorName {
        CursorName { key: KeyDigest::of(key), series: 0, excerpt: Excerpt::Record }
    }

    fn span(slots: u64, wraps: bool) -> KnownSlots {
        KnownSlots { slots, is_complete: true, wraps }
    }

    fn steps(cursors: &Cursors, span: KnownSlots, count: usize) -> Vec<Step> {
        (0..count).map(|_| cursors.advance(&name("a"), span)).collect()
    }

    #[test]
    fn a_cursor_wraps_or_ends_after_the_last_slot() {
        let cursors = Cursors::new(10, &Status::default());
        assert_eq!(steps(&cursors, span(2, true), 3), [Step::Slot(0), Step::Slot(1), Step::Slot(0)]);
        cursors.reset(None);
        assert_eq!(steps(&cursors, span(2, false), 4), [Step::Slot(0), Step::Slot(1), Step::End, Step::End]);
        assert_eq!(steps(&cursors, span(0, true), 1), [Step::End]);
    }

    #[test]
    fn a_file_that_is_still_being_indexed_has_no_end_yet() {
        let cursors = Cursors::new(10, &Status::default());
        let growing = KnownSlots { slots: 1, is_complete: false, wraps: true };
        assert_eq!(steps(&cursors, growing, 2), [Step::Slot(0), Step::NotIndexed]);
        assert_eq!(steps(&cursors, span(2, true), 1), [Step::Slot(1)]);
    }

    #[test]
    fn the_position_unused_for_longest_is_forgotten_and_counted() {
        let status = Status::default();
        let cursors = Cursors::new(2, &status);
        for key in ["a", "b", "a", "c"] {
            cursors.advance(&name(key), span(9, true));
        }
        assert_eq!(["a", "b", "c"].map(|key| cursors.position(&name(key))), [2, 0, 1]);
        let figures: Vec<_> =
            status.figures().iter().map(|figure| (figure.name, figure.value.load(Ordering::Relaxed))).collect();
        assert_eq!(figures, [("rest_cursors", 2), ("rest_cursors_forgotten", 1)]);
    }

    #[test]
    fn a_reset_forgets_one_key_or_all() {
        let cursors = Cursors::new(9, &Status::default());
        for key in ["a", "b", "c"] {
            cursors.advance(&name(key), span(9, true));
        }
        let [a, b] = ["a", "b"].map(KeyDigest::of);
        assert_eq!((cursors.reset(Some(a)), cursors.reset(Some(a)), cursors.of(b).len()), (1, 0, 1));
        assert_eq!((cursors.reset(None), cursors.of(b).len()), (2, 0));
    }
}
