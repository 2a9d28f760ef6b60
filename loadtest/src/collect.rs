//! Adds the workers' seconds up while the run goes on.

use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;

use hdrhistogram::Histogram;

use crate::report::facts::{Second, Window};
use crate::report::judge::SATURATED;
use crate::stats::histogram;
use crate::stats::interval::Interval;

/// Seconds that are kept open for workers that are late with theirs.
const OPEN_SECONDS: u64 = 3;

/// See the module's documentation.
pub struct Collector {
    intervals: Receiver<Interval>,
    workers: u32,
    open: BTreeMap<u64, (u32, Interval)>,
    /// Finished seconds.
    pub seconds: Vec<Second>,
    window: Option<(u64, u64)>,
    /// Sums over the measured time.
    pub totals: Window,
    /// Loop delays of the measured time.
    pub loop_delay: Histogram<u64>,
}

impl Collector {
    /// For so many workers.
    pub fn new(intervals: Receiver<Interval>, workers: u32) -> Self {
        Self {
            intervals,
            workers,
            open: BTreeMap::new(),
            seconds: Vec::new(),
            window: None,
            totals: Window::default(),
            loop_delay: histogram::new(),
        }
    }

    /// Says which seconds are measured; must come before the first of them is over.
    pub fn measure(&mut self, from: u64, until: u64) {
        self.window = Some((from, until));
    }

    /// The measured seconds.
    pub fn window(&self) -> Option<(u64, u64)> {
        self.window
    }

    /// Takes what workers have sent.
    pub fn poll(&mut self) {
        while let Ok(interval) = self.intervals.try_recv() {
            self.take(&interval);
        }
    }

    /// Takes the rest and closes all seconds.
    pub fn finish(&mut self) {
        self.poll();
        while let Some((_, (_, interval))) = self.open.pop_first() {
            self.close(&interval);
        }
    }

    fn take(&mut self, interval: &Interval) {
        if self.is_measured(interval.second) {
            self.totals.worker_seconds += 1;
            let busy = interval.busy_ns as f64 / interval.length_ns.max(1) as f64;
            self.totals.saturated += u64::from(busy > SATURATED);
        }
        let (count, sum) = self.open.entry(interval.second).or_insert_with(|| (0, Interval::new(interval.second)));
        *count += 1;
        sum.add(interval);
        let newest = interval.second;
        while let Some(oldest) = self.open.first_entry() {
            let is_complete = oldest.get().0 >= self.workers || oldest.key() + OPEN_SECONDS < newest;
            if !is_complete {
                return;
            }
            let (_, interval) = oldest.remove();
            self.close(&interval);
        }
    }

    fn is_measured(&self, second: u64) -> bool {
        self.window.is_some_and(|(from, until)| (from..until).contains(&second))
    }

    fn close(&mut self, interval: &Interval) {
        let quantile = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        self.seconds.push(Second {
            second: interval.second,
            up: interval.up,
            frames: interval.frames,
            bytes: interval.bytes,
            p50_us: quantile(&interval.latency, 0.5),
            p99_us: quantile(&interval.latency, 0.99),
            max_us: interval.latency.max() as f64 / 1_000.0,
            loop_p99_us: quantile(&interval.loop_delay, 0.99),
            busy: interval.busy_ns as f64 / interval.length_ns.max(1) as f64,
            faults: interval.faults,
            failures: interval.failures,
        });
        if !self.is_measured(interval.second) {
            return;
        }
        // All histograms of the swarm have the same bounds, so adding cannot fail.
        let _ = self.loop_delay.add(&interval.loop_delay);
        self.totals.frames += interval.frames;
        self.totals.verified += interval.verified;
        self.totals.decoded += interval.decoded;
        self.totals.bytes += interval.bytes;
        self.totals.reads += interval.reads;
        self.totals.cpu_ns += interval.cpu_ns;
        self.totals.busy_ns += interval.busy_ns;
        self.totals.starved_ns += interval.starved_ns;
        self.totals.worker_ns += interval.length_ns;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn interval(second: u64, frames: u64, busy_ns: u64) -> Interval {
        Interval { frames, busy_ns, length_ns: 100, ..Interval::new(second) }
    }

    #[test]
    fn seconds_close_when_all_workers_have_sent_theirs() {
        let (sender, receiver) = channel();
        let mut collector = Collector::new(receiver, 2);
        collector.measure(1, 3);
        for (second, frames) in [(0, 5), (0, 5), (1, 10), (2, 1), (1, 20)] {
            sender.send(interval(second, frames, 10)).unwrap();
        }
        collector.poll();
        assert_eq!(collector.seconds.iter().map(|row| row.frames).collect::<Vec<_>>(), [10, 30]);
        sender.send(interval(2, 2, 99)).unwrap();
        collector.finish();
        assert_eq!(collector.totals.frames, 33);
        assert_eq!((collector.totals.saturated, collector.totals.worker_seconds), (1, 4));
    }

    #[test]
    fn a_worker_that_skips_a_second_does_not_hold_up_the_others() {
        let (sender, receiver) = channel();
        let mut collector = Collector::new(receiver, 2);
        for second in 0..6 {
            sender.send(interval(second, 1, 0)).unwrap();
        }
        collector.poll();
        assert_eq!(collector.seconds.len(), 2);
    }
}
