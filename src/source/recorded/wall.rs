//! `--anchor wall`: where a clock stands is a function of the time of day, so that nodes that know nothing of each
//! other play the same record at the same moment, whenever they were started.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::player::{LAP, LOOK_NS, NIGHT, Player, ms};
use crate::engine::system_clock;
use crate::replay::change::{Pace, Speed};

/// A lap: the dates one after the other, with the gaps between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lap {
    /// First and last time of each date, Unix ms.
    pub days: Vec<(i64, i64)>,
    /// Between two dates, ms.
    pub night_ms: i64,
    /// From the last record to the first, ms.
    pub turn_ms: i64,
}

/// Where a clock stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// The date, by its place.
    pub day: usize,
    /// Recorded time, Unix ms; before the first record of the date while the gap before it lasts.
    pub data_ms: i64,
    /// How much of the next millisecond of recorded time has passed, from 0 to 1.
    pub fraction: f64,
}

impl Lap {
    /// Where a clock of this speed stands at a time, Unix ns.
    pub fn at(&self, unix_ns: u64, speed: f64) -> Standing {
        // Whole hundredths are exact; more than the speed has no meaning over fifty years.
        let hundredths = (speed * 100.0).round().max(1.0) as u128;
        let passed_ns = u128::from(unix_ns) * hundredths / 100;
        let mut into_ns = passed_ns % (u128::from(self.length_ms().max(1).unsigned_abs()) * 1_000_000);
        for (day, &(first, last)) in self.days.iter().enumerate() {
            let before = if day == 0 { self.turn_ms } else { self.night_ms };
            let length_ns = u128::from((before + last - first).unsigned_abs()) * 1_000_000;
            if into_ns < length_ns {
                let fraction = (into_ns % 1_000_000) as f64 / 1e6;
                return Standing { day, data_ms: first - before + (into_ns / 1_000_000) as i64, fraction };
            }
            into_ns -= length_ns;
        }
        Standing { day: 0, data_ms: self.days.first().map_or(0, |day| day.0), fraction: 0.0 }
    }

    fn length_ms(&self) -> i64 {
        let days: i64 = self.days.iter().map(|(first, last)| last - first).sum();
        days + self.turn_ms + self.night_ms * (self.days.len() as i64 - 1)
    }
}

impl Player {
    /// Goes to where the time of day says. What that is depends on every file's length: waits until all are indexed.
    pub(super) fn anchor(&mut self, stop: &AtomicBool) {
        let stand = Arc::clone(self.playhead.stand());
        let market = Arc::clone(stand.market());
        while !market.tracks.iter().all(|track| track.slots().1 || track.is_lost()) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(Duration::from_nanos(LOOK_NS));
        }
        self.stand_by_wall();
    }

    /// Goes to where the time of day says, and on from there.
    pub(super) fn stand_by_wall(&mut self) {
        let market = Arc::clone(self.playhead.stand().market());
        let (mono_ns, unix_ns) = (system_clock::monotonic_ns(), system_clock::unix_ns());
        match self.clock.pace() {
            Pace::Interval(interval) => {
                let interval = interval.as_nanos() as u64;
                let ordinal = unix_ns / interval + 1;
                self.playhead.seek_ordinal(ordinal);
                let now = self.playhead.time_in(self.reference()).map_or(self.clock.now_ms(), ms);
                self.clock.set(now);
                self.clock.start_at(mono_ns, 0.0, mono_ns + ordinal * interval - unix_ns);
            }
            Pace::Recorded(speed) => {
                let speed = if let Speed::Times(speed) = speed { speed } else { 1.0 };
                let days =
                    (0..market.days.len()).map(|day| market.span(day)).map(|(first, last)| (ms(first), ms(last)));
                let [night_ms, turn_ms] = [NIGHT, LAP].map(|gap| gap.as_millis() as i64);
                let standing = Lap { days: days.collect(), night_ms, turn_ms }.at(unix_ns, speed);
                // What is due at this very ms still comes.
                let time = u32::try_from((standing.data_ms + 999).div_euclid(1000)).unwrap_or(0);
                // Cannot fail: every file is indexed.
                let _ = self.playhead.seek(standing.day, time);
                self.clock.set(standing.data_ms);
                self.clock.start_at(mono_ns, standing.fraction, mono_ns);
            }
        }
        self.jumped();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn the_time_of_day_says_where_the_clock_stands() {
        let lap = Lap { days: vec![(10_000, 14_000), (90_000, 91_000)], night_ms: 2000, turn_ms: 1000 };
        let at = |ms: u64| {
            let Standing { day, data_ms, .. } = lap.at(ms * MS, 1.0);
            (day, data_ms)
        };
        // A lap has 1 + 4 + 2 + 1 s.
        assert_eq!([0, 1000, 3500, 4999].map(at), [(0, 9000), (0, 10_000), (0, 12_500), (0, 13_999)]);
        assert_eq!([5000, 7000, 7999, 8000].map(at), [(1, 88_000), (1, 90_000), (1, 90_999), (0, 9000)]);
        assert_eq!(at(800_000_003_500), (0, 12_500), "100 million laps later");
    }

    #[test]
    fn a_faster_clock_passes_more_of_it() {
        let lap = Lap { days: vec![(0, 99_000)], night_ms: 2000, turn_ms: 1000 };
        assert_eq!(lap.at(1500 * MS, 10.0).data_ms, 14_000);
        assert_eq!(lap.at(150 * MS, 0.01), Standing { day: 0, data_ms: -999, fraction: 0.5 });
    }
}
