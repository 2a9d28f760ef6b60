//! The clock: which recorded time it is, and when the next tick is due.
//!
//! It ties recorded time (ms) to monotonic time (ns) at one point, its anchor. Every change anchors anew; between two
//! changes deadlines are computed from the anchor alone, so that no error adds up.

use std::time::Duration;

use super::tick_schedule::{TickSchedule, first_deadline};
use crate::replay::change::{Pace, Speed};

/// Where recorded time and monotonic time meet.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    data_ms: i64,
    mono_ns: u64,
}

/// When a clock goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// Its next tick comes at once, if it counts slots.
    Now,
    /// With a second of the wall clock, as a feed's does, if it counts slots at an interval of whole seconds.
    Aligned,
    /// An interval after the last tick, if it counts slots: the tick that was due is neither lost nor doubled.
    Retimed,
}

/// When the next tick is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// Monotonic ns.
    pub at_ns: u64,
    /// Whether a gap before it is shortened.
    is_shortened: bool,
}

impl Deadline {
    /// A tick that is due at this moment because somebody asked for it, monotonic ns.
    pub const fn at(at_ns: u64) -> Self {
        Self { at_ns, is_shortened: false }
    }
}

/// A clock of one pace. What it plays is not its business.
#[derive(Debug)]
pub struct Clock {
    pace: Pace,
    max_gap: Option<Duration>,
    anchor: Anchor,
    /// The time that it stands at: of the last tick, or where it was set.
    now_ms: i64,
    schedule: TickSchedule,
    /// When the last tick was due, monotonic ns; 0 before the first.
    last_ns: u64,
    /// Where the speed is measured from.
    measured: Anchor,
    achieved: Option<f64>,
}

/// For how long the achieved speed is measured.
const MEASURED_NS: u64 = 5_000_000_000;

impl Clock {
    /// A clock that stands at a recorded time, Unix ms.
    pub fn new(pace: Pace, max_gap: Option<Duration>, now_ms: i64) -> Self {
        let anchor = Anchor { data_ms: now_ms, mono_ns: 0 };
        let schedule = TickSchedule::starting_at(0, interval(pace));
        Self { pace, max_gap, anchor, now_ms, schedule, last_ns: 0, measured: anchor, achieved: None }
    }

    /// How it goes.
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// Gaps are shortened to this.
    pub fn max_gap(&self) -> Option<Duration> {
        self.max_gap
    }

    /// The recorded time that it stands at, Unix ms.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// Recorded time per real time, as it was in the last seconds; `None` if it was not measured, or has no meaning.
    pub fn achieved(&self) -> Option<f64> {
        self.achieved
    }

    /// From now on longer gaps are shortened to this. Anchor it anew afterwards.
    pub fn set_max_gap(&mut self, max_gap: Option<Duration>) {
        self.max_gap = max_gap;
    }

    /// From now on it goes like this. Anchor it anew afterwards.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
        self.achieved = None;
    }

    /// It stands at this time, Unix ms. Anchor it anew afterwards.
    pub fn set(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
        self.achieved = None;
    }

    /// It goes on from where it stands.
    pub fn start(&mut self, mono_ns: u64, begin: Begin) {
        self.anchor = Anchor { data_ms: self.now_ms, mono_ns };
        self.measured = self.anchor;
        let interval = interval(self.pace);
        let first = match begin {
            Begin::Now => mono_ns,
            Begin::Aligned => first_deadline(interval),
            Begin::Retimed => mono_ns.max(self.last_ns.saturating_add(interval.as_nanos() as u64)),
        };
        self.schedule = TickSchedule::starting_at(first, interval);
    }

    /// It goes on from where it stands, of which it has come further by a part of the next ms; a clock that counts slots
    /// has its first tick at `first_ns`, monotonic.
    pub fn start_at(&mut self, mono_ns: u64, fraction: f64, first_ns: u64) {
        self.start(mono_ns, Begin::Now);
        if let Pace::Recorded(Speed::Times(speed)) = self.pace {
            self.anchor.mono_ns = mono_ns.saturating_sub((fraction * 1e6 / speed) as u64);
        }
        self.schedule = TickSchedule::starting_at(first_ns, interval(self.pace));
    }

    /// It stays where it has come to; the part of a gap that has passed is not lost.
    pub fn stop(&mut self, mono_ns: u64, next_ms: Option<i64>) {
        if let (Pace::Recorded(Speed::Times(speed)), Some(next_ms)) = (self.pace, next_ms) {
            let passed = (mono_ns.saturating_sub(self.anchor.mono_ns) as f64 * speed / 1e6) as i64;
            let last = next_ms.max(self.now_ms);
            self.now_ms = self.anchor.data_ms.saturating_add(passed).clamp(self.now_ms, last);
        }
    }

    /// When a tick is due. `next_ms`: the time of the record that comes next, if it follows the records' times.
    pub fn deadline(&self, next_ms: i64) -> Deadline {
        let speed = match self.pace {
            Pace::Interval(_) => return Deadline::at(self.schedule.deadline_ns),
            Pace::Recorded(Speed::Max) => return Deadline::at(0),
            Pace::Recorded(Speed::Times(speed)) => speed,
        };
        let gap_ms = next_ms.saturating_sub(self.now_ms).max(0);
        let longest_ms = self.max_gap.map_or(i64::MAX, |gap| i64::try_from(gap.as_millis()).unwrap_or(i64::MAX));
        let data_ms = self.now_ms.saturating_add(gap_ms.min(longest_ms));
        let since_anchor = data_ms.saturating_sub(self.anchor.data_ms).max(0) as f64;
        let at_ns = self.anchor.mono_ns.saturating_add((since_anchor * 1e6 / speed) as u64);
        Deadline { at_ns, is_shortened: gap_ms > longest_ms }
    }

    /// A tick that was due at `deadline` has been published: it stands at its time now. Returns how many beats of the
    /// interval were skipped because they were over.
    pub fn pass(&mut self, deadline: Deadline, next_ms: i64, mono_ns: u64) -> u64 {
        // An odd time does not turn it back.
        let next_ms = next_ms.max(self.now_ms);
        self.last_ns = deadline.at_ns;
        match self.pace {
            Pace::Interval(_) => {
                self.now_ms = next_ms;
                return self.schedule.advance(mono_ns);
            }
            Pace::Recorded(Speed::Times(_)) if deadline.is_shortened => {
                self.anchor = Anchor { data_ms: next_ms, mono_ns: deadline.at_ns };
                self.measured = Anchor { data_ms: next_ms, mono_ns };
            }
            Pace::Recorded(_) => {}
        }
        self.now_ms = next_ms;
        self.measure(mono_ns);
        0
    }

    /// The day ends: the first record of the next one, at `next_ms`, comes after a gap that is not recorded.
    pub fn bridge(&mut self, next_ms: i64, gap: Duration, mono_ns: u64) {
        let gap = self.max_gap.map_or(gap, |longest| longest.min(gap));
        let passed_ns = self.deadline(self.now_ms).at_ns;
        self.now_ms = next_ms.saturating_sub(i64::try_from(gap.as_millis()).unwrap_or(0));
        let is_recorded = matches!(self.pace, Pace::Recorded(Speed::Times(_)));
        self.anchor = Anchor { data_ms: self.now_ms, mono_ns: if is_recorded { passed_ns } else { mono_ns } };
        self.measured = Anchor { data_ms: self.now_ms, mono_ns };
    }

    fn measure(&mut self, mono_ns: u64) {
        let (since_ns, data_ms) = (mono_ns.saturating_sub(self.measured.mono_ns), self.now_ms - self.measured.data_ms);
        if since_ns > 0 && data_ms > 0 && (self.achieved.is_none() || since_ns >= MEASURED_NS / 5) {
            self.achieved = Some(data_ms as f64 * 1e6 / since_ns as f64);
        }
        if since_ns >= MEASURED_NS {
            self.measured = Anchor { data_ms: self.now_ms, mono_ns };
        }
    }
}

fn interval(pace: Pace) -> Duration {
    match pace {
        Pace::Interval(interval) => interval,
        Pace::Recorded(_) => Duration::from_secs(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn clock(speed: f64, max_gap: Option<u64>) -> Clock {
        let mut clock = Clock::new(Pace::Recorded(Speed::Times(speed)), max_gap.map(Duration::from_secs), 10_000);
        clock.start(1000 * MS, Begin::Now);
        clock
    }

    #[test]
    fn deadlines_are_counted_from_the_anchor_so_that_no_error_adds_up() {
        let mut clock = clock(3.0, None);
        for second in 11..1000 {
            let deadline = clock.deadline(second * 1000);
            let due = 1000.0 + (second * 1000 - 10_000) as f64 / 3.0;
            assert!((deadline.at_ns as f64 / 1e6 - due).abs() < 1e-3, "{second}");
            // Each tick is late; the next deadline does not know.
            clock.pass(deadline, second * 1000, deadline.at_ns + 7 * MS);
        }
        assert!((clock.achieved().unwrap() - 3.0).abs() < 0.1);
    }

    #[test]
    fn a_long_gap_is_shortened_once_and_time_goes_on_behind_it() {
        let mut clock = clock(2.0, Some(2));
        let deadline = clock.deadline(60_000);
        assert_eq!(deadline, Deadline { at_ns: 2000 * MS, is_shortened: true });
        clock.pass(deadline, 60_000, deadline.at_ns);
        assert_eq!(clock.deadline(61_000), Deadline { at_ns: 2500 * MS, is_shortened: false });
    }

    #[test]
    fn a_pause_within_a_gap_loses_no_part_of_it() {
        let mut clock = clock(1.0, None);
        clock.stop(1400 * MS, Some(11_000));
        assert_eq!(clock.now_ms(), 10_400);
        clock.start(9000 * MS, Begin::Now);
        assert_eq!(clock.deadline(11_000).at_ns, 9600 * MS);
        clock.stop(99_000 * MS, Some(11_000));
        assert_eq!(clock.now_ms(), 11_000, "but it does not pass a record that was not published");
    }

    #[test]
    fn a_record_that_is_older_is_due_at_once_and_turns_nothing_back() {
        let mut clock = clock(1.0, None);
        let deadline = clock.deadline(5000);
        assert_eq!(deadline.at_ns, 1000 * MS);
        clock.pass(deadline, 5000, 1000 * MS);
        assert_eq!(clock.now_ms(), 10_000);
    }

    #[test]
    fn a_night_is_as_long_as_it_is_told() {
        let mut clock = clock(1.0, None);
        let last = clock.deadline(12_000);
        clock.pass(last, 12_000, last.at_ns + MS);
        clock.bridge(90_000_000, Duration::from_secs(2), last.at_ns + MS);
        assert_eq!(clock.deadline(90_000_000).at_ns, last.at_ns + 2000 * MS);
    }
}
