//! When sessions whose rate is limited read from histories again: one timer for each at most, however often its
//! client subscribes.

use std::collections::{BTreeSet, HashMap};

/// The timers, by session key.
#[derive(Debug, Default)]
pub struct PullTimers {
    by_time: BTreeSet<(u64, u32)>,
    by_key: HashMap<u32, u64>,
}

impl PullTimers {
    /// Wakes the session at this time, ms, unless it is woken earlier: then it looks again.
    pub fn set(&mut self, key: u32, due_ms: u64) {
        if self.by_key.get(&key).is_some_and(|&set_ms| set_ms <= due_ms) {
            return;
        }
        self.remove(key);
        self.by_key.insert(key, due_ms);
        self.by_time.insert((due_ms, key));
    }

    /// The session has ended: another one may get its key.
    pub fn remove(&mut self, key: u32) {
        if let Some(due_ms) = self.by_key.remove(&key) {
            self.by_time.remove(&(due_ms, key));
        }
    }

    /// The next session that is due.
    pub fn pop(&mut self, now_ms: u64) -> Option<u32> {
        let &(_, key) = self.by_time.first().filter(|(due_ms, _)| *due_ms <= now_ms)?;
        self.remove(key);
        Some(key)
    }

    /// When the next one is due, ms.
    pub fn next_ms(&self) -> Option<u64> {
        self.by_time.first().map(|(due_ms, _)| *due_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_one_timer_however_often_it_is_set() {
        let mut timers = PullTimers::default();
        (0..1000).for_each(|at| timers.set(1, 3_600_000 + at));
        timers.set(2, 50);
        assert_eq!((timers.by_time.len(), timers.by_key.len(), timers.next_ms()), (2, 2, Some(50)));
        timers.set(1, 40);
        assert_eq!([timers.pop(39), timers.pop(45), timers.pop(45)], [None, Some(1), None], "the earliest holds");
    }

    #[test]
    fn a_session_that_ends_leaves_no_timer() {
        let mut timers = PullTimers::default();
        timers.set(1, 10);
        timers.remove(1);
        assert_eq!((timers.next_ms(), timers.pop(u64::MAX)), (None, None));
        assert!(timers.by_key.is_empty());
    }
}
