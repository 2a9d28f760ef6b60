//! How late ticks began, as the tick ledger has it.

use std::collections::VecDeque;

use super::live_snapshot::ScheduleError;
use crate::engine::ledger::Ledger;

/// Ticks that are looked at: the last ones.
const TICKS: usize = 512;

/// How late the last ticks began, us.
#[derive(Debug, Default)]
pub struct TickDelays {
    delays_us: VecDeque<u64>,
    /// The position of the last tick that was read.
    after: u64,
}

impl TickDelays {
    /// Reads the ticks that are new, and says how late the last ones were; `None` if there are none.
    pub fn read(&mut self, ledger: &Ledger) -> Option<ScheduleError> {
        let newest = ledger.span().1;
        // A fast clock has more of them in a second than are of interest.
        let from = self.after.max(newest.saturating_sub(TICKS as u64));
        for (position, tick) in ledger.after(from, TICKS) {
            self.after = position;
            // Only ticks of a clock have an ordinal, and a time at which they were due.
            if tick.ordinal > 0 && tick.opens.is_none() {
                self.delays_us.push_back(tick.published_ns.saturating_sub(tick.scheduled_ns) / 1000);
            }
        }
        let surplus = self.delays_us.len().saturating_sub(TICKS);
        self.delays_us.drain(..surplus);
        let mut sorted: Vec<u64> = self.delays_us.iter().copied().collect();
        sorted.sort_unstable();
        let at = |percent: usize| sorted.get(sorted.len() * percent / 100).copied();
        Some(ScheduleError { p50_us: at(50)?, p99_us: at(99)?, max_us: *sorted.last()?, ticks: sorted.len() })
    }
}
