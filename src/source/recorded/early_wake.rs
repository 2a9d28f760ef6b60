//! Waking early: the kernel wakes a thread late, on an idle virtual machine by 100 µs and more. So the clock has itself
//! woken that much before a tick, and stays awake until the tick is due.

use std::hint;

use crate::engine::system_clock;

/// The longest time awake before a tick, ns.
const MOST_NS: u64 = 250_000;

/// At most one part in so many of the time until a tick is spent awake.
const SHARE: u64 = 100;

/// How late this thread is woken, as a rule.
#[derive(Debug, Default)]
pub struct EarlyWake {
    late_ns: u64,
}

impl EarlyWake {
    /// When to wake for what is due at `due`.
    pub fn for_tick(&self, due: u64, now: u64) -> u64 {
        due.saturating_sub(self.late_ns.min(due.saturating_sub(now) / SHARE))
    }

    /// Learns from a sleep that should have ended at `until`: the latest of the last few counts.
    pub fn woken(&mut self, until: u64, now: u64) {
        let late_ns = now.saturating_sub(until).min(MOST_NS);
        self.late_ns = late_ns.max(self.late_ns - self.late_ns / 8);
    }

    /// Stays awake until `due`, if that is soon.
    pub fn stay_awake(due: u64) {
        if due.saturating_sub(system_clock::monotonic_ns()) > MOST_NS {
            return;
        }
        while system_clock::monotonic_ns() < due {
            hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_wakes_before_a_tick_by_as_much_as_it_was_late_lately() {
        let mut early = EarlyWake::default();
        assert_eq!(early.for_tick(1_000_000_000, 0), 1_000_000_000);
        early.woken(500, 120_500);
        assert_eq!(early.for_tick(1_000_000_000, 0), 999_880_000);
        // A sleep that was in time makes it forget, but not at once.
        early.woken(500, 500);
        assert_eq!(early.for_tick(1_000_000_000, 0), 999_895_000);
    }

    #[test]
    fn it_is_awake_for_no_more_than_a_hundredth_of_the_time_and_a_quarter_of_a_millisecond() {
        let mut early = EarlyWake::default();
        early.woken(0, 5_000_000);
        assert_eq!(early.for_tick(1_000_000_000, 0), 999_750_000);
        assert_eq!(early.for_tick(3_000_000, 1_000_000), 2_980_000);
        assert_eq!(early.for_tick(1_000, 2_000), 1_000, "what is overdue is due");
    }
}
