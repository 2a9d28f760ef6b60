//! How fast a backlog is passed on.
//!
//! A fresh message goes out at once. Those that waited while the broker or this node was away would come
//! as one burst, and clients that usually keep up would be dropped as slow. So a backlog is passed on in
//! the rhythm of its own timestamps, `speed` times as fast.

use std::time::{Duration, Instant};

/// Messages younger than this did not wait.
const FRESH_MS: i64 = 2_000;

/// A backlog is passed on within this time, however old it is.
const LONGEST_MS: i64 = 60_000;

/// Longer pauses in the data are cut to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

const DAY_MS: i64 = 86_400_000;

/// The rhythm while catching up.
#[derive(Debug)]
pub struct CatchUpPace {
    speed: i64,
    under_way: Option<CatchUp>,
}

#[derive(Debug)]
struct CatchUp {
    /// Times as fast as the messages were made, over all partitions.
    speed: i64,
    /// The timestamp of a message, Unix ms, and when flowcast passed that message on.
    anchor: (i64, Instant),
    /// The timestamp of the previous message, Unix ms.
    last_ms: i64,
}

impl CatchUpPace {
    /// At most `speed` times as fast as the messages of a partition were made; 0: at once.
    pub fn new(speed: u32) -> Self {
        Self { speed: i64::from(speed), under_way: None }
    }

    /// How long to wait before a message of `timestamp_ms` is passed on.
    ///
    /// Partitions come one after the other, each with messages of the same stretch of time, so the
    /// speed counts once for each of `partitions`.
    pub fn delay(&mut self, timestamp_ms: i64, now_ms: i64, now: Instant, partitions: usize) -> Duration {
        let age_ms = now_ms.saturating_sub(timestamp_ms);
        if self.speed == 0 || age_ms < FRESH_MS {
            self.under_way = None;
            return Duration::ZERO;
        }
        let wanted = self.speed.max(age_ms / LONGEST_MS).saturating_mul(partitions.max(1) as i64);
        let begun = CatchUp { speed: wanted, anchor: (timestamp_ms, now), last_ms: timestamp_ms };
        let CatchUp { speed, anchor, last_ms } = self.under_way.get_or_insert(begun);
        let goes_back = timestamp_ms < std::mem::replace(last_ms, timestamp_ms);
        if goes_back {
            // The messages of another partition begin.
            *anchor = (timestamp_ms, now);
        }
        // Timestamps come from producers: a nonsensical one must not overflow the clock.
        let elapsed_ms = timestamp_ms.saturating_sub(anchor.0).clamp(0, DAY_MS);
        let due = anchor.1 + Duration::from_micros((elapsed_ms.saturating_mul(1000) / *speed).unsigned_abs());
        let delay = due.saturating_duration_since(now);
        if delay > LONGEST_PAUSE {
            *anchor = (timestamp_ms, now + LONGEST_PAUSE);
            return LONGEST_PAUSE;
        }
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_764_340_202_000;

    /// The delays of messages made at these ms before now.
    fn delays(pace: &mut CatchUpPace, partitions: usize, ages_ms: &[i64]) -> Vec<u128> {
        let mut now = Instant::now();
        let mut delay = |&age: &i64| {
            let delay = pace.delay(NOW_MS - age, NOW_MS, now, partitions);
            now += delay;
            delay.as_millis()
        };
        ages_ms.iter().map(&mut delay).collect()
    }

    #[test]
    fn a_fresh_message_goes_out_at_once() {
        assert_eq!(delays(&mut CatchUpPace::new(10), 1, &[1999, 1000, 0, -5000]), [0; 4]);
    }

    #[test]
    fn what_waited_comes_in_its_own_rhythm_but_faster() {
        let ages = [10_000, 9_500, 9_500, 9_000, 8_990, 1_000];
        assert_eq!(delays(&mut CatchUpPace::new(10), 1, &ages), [0, 50, 0, 50, 1, 0]);
        assert_eq!(delays(&mut CatchUpPace::new(10), 5, &ages), [0, 10, 0, 10, 0, 0]);
    }

    #[test]
    fn a_pause_in_the_data_is_not_waited_for() {
        assert_eq!(delays(&mut CatchUpPace::new(10), 1, &[60_000, 30_000, 29_900]), [0, 100, 10]);
    }

    #[test]
    fn a_long_absence_is_caught_up_within_a_minute() {
        let hour = 3_600_000;
        let ages: Vec<i64> = (0..=1000).map(|at| hour - at * hour / 1000).collect();
        let total: u128 = delays(&mut CatchUpPace::new(10), 1, &ages).iter().sum();
        assert!((50_000..=60_000).contains(&total), "{total}");
    }

    #[test]
    fn the_next_partition_begins_anew() {
        assert_eq!(delays(&mut CatchUpPace::new(10), 1, &[10_000, 9_500, 10_000, 9_500]), [0, 50, 0, 50]);
    }

    #[test]
    fn a_speed_of_zero_never_waits() {
        assert_eq!(delays(&mut CatchUpPace::new(0), 1, &[10_000, 5_000]), [0, 0]);
    }
}
