//! When ticks are due.

use std::time::Duration;

use crate::engine::system_clock;

/// The grid of deadlines. A late tick is late once: the grid does not move.
#[derive(Debug)]
pub struct TickSchedule {
    /// When the next tick is due, monotonic ns.
    pub deadline_ns: u64,
    interval_ns: u64,
}

impl TickSchedule {
    /// A grid that begins at a deadline.
    pub fn starting_at(deadline_ns: u64, interval: Duration) -> Self {
        Self { deadline_ns, interval_ns: interval.as_nanos() as u64 }
    }

    /// Moves to the next deadline; returns how many ticks lie a whole interval or more in the past and are
    /// skipped. A deadline that has just passed is not skipped: its tick runs immediately, late.
    pub fn advance(&mut self, now_ns: u64) -> u64 {
        self.deadline_ns += self.interval_ns;
        let missed = now_ns.saturating_sub(self.deadline_ns) / self.interval_ns;
        self.deadline_ns += missed * self.interval_ns;
        missed
    }
}

/// The next whole second of the wall clock, as with the real feed; now for intervals below a second.
pub fn first_deadline(interval: Duration) -> u64 {
    const SECOND: u64 = 1_000_000_000;
    let now = system_clock::monotonic_ns();
    if interval < Duration::from_secs(1) { now } else { now + SECOND - system_clock::unix_ns() % SECOND }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_tick_is_late_once() {
        let mut schedule = TickSchedule::starting_at(1000, Duration::from_nanos(100));
        assert_eq!((schedule.advance(1010), schedule.deadline_ns), (0, 1100));
        assert_eq!((schedule.advance(1150), schedule.deadline_ns), (0, 1200), "50 late, and the grid stands");
        assert_eq!((schedule.advance(1390), schedule.deadline_ns), (0, 1300), "due meanwhile: runs at once");
        assert_eq!((schedule.advance(1740), schedule.deadline_ns), (3, 1700), "three whole beats are given up");
        assert_eq!((schedule.advance(1741), schedule.deadline_ns), (0, 1800));
    }
}
