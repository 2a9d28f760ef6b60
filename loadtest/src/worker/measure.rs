//! What counts as measured: the copies of every tick that was due in the measured time, whenever they
//! arrive. So each client's count is the same unless it missed something, and late copies at the end
//! are not left out of the latencies.

use hdrhistogram::Histogram;

use super::client::ClientReceipts;
use crate::stats::histogram;
use crate::stats::interval::Interval;

/// See the module's documentation.
#[derive(Debug)]
pub struct Measure {
    window: Option<(u64, u64)>,
    /// Latencies of the measured time.
    pub latency: Histogram<u64>,
}

impl Default for Measure {
    /// Nothing is measured before a window is set.
    fn default() -> Self {
        Self { window: None, latency: histogram::new() }
    }
}

impl Measure {
    /// Sets the window, unless it is set.
    pub fn set_window(&mut self, window: Option<&(u64, u64)>) {
        self.window = self.window.or(window.copied());
    }

    /// Records `count` frames that were due at `due_ns` and were read `latency_ns` later.
    #[inline]
    pub fn record(
        &mut self,
        interval: &mut Interval,
        receipts: &mut ClientReceipts,
        due_ns: u64,
        latency_ns: u64,
        count: u64,
    ) {
        histogram::record(&mut interval.latency, latency_ns, count);
        if self.holds(due_ns) {
            histogram::record(&mut self.latency, latency_ns, count);
            receipts.frames += count;
            receipts.add(latency_ns, count);
        }
    }

    /// Counts a frame that has no latency: its due time is not known, and it counts by the time it was read; or it is
    /// of the first tick after a jump.
    pub fn count(&self, receipts: &mut ClientReceipts, at_ns: u64) {
        receipts.frames += u64::from(self.holds(at_ns));
    }

    fn holds(&self, at_ns: u64) -> bool {
        self.window.is_some_and(|(from_ns, until_ns)| (from_ns..until_ns).contains(&at_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_counts_by_the_time_it_was_due() {
        let (mut measure, mut interval, mut receipts) =
            (Measure::default(), Interval::new(0), ClientReceipts::default());
        measure.record(&mut interval, &mut receipts, 15, 1_000, 1);
        measure.set_window(Some(&(10, 20)));
        measure.set_window(Some(&(0, 99)));
        for (due_ns, latency_ns) in [(9, 5_000), (10, 50_000), (19, 900_000), (20, 5_000)] {
            measure.record(&mut interval, &mut receipts, due_ns, latency_ns, 2);
        }
        assert_eq!((receipts.frames, receipts.timed, receipts.latency_max_ns), (4, 4, 900_000));
        assert_eq!((measure.latency.len(), interval.latency.len()), (4, 9));
        measure.count(&mut receipts, 20);
        measure.count(&mut receipts, 10);
        assert_eq!(receipts.frames, 5);
    }
}
