//! Pauses: those that end early when the process stops, and the growing ones between two tries.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Sleeps for `wait`, but at most some 50 ms beyond the moment at which `stop` is raised.
pub fn sleep(wait: Duration, stop: &AtomicBool) {
    const STEP: Duration = Duration::from_millis(50);
    // Each step may oversleep, so the end is a moment and not a sum of steps.
    let Some(end) = Instant::now().checked_add(wait) else { return };
    while !stop.load(Ordering::Relaxed) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(STEP));
    }
}

/// The pauses between tries of a lost broker: each twice as long as the one before.
pub struct RetryPauses {
    settings: ExponentialBuilder,
    pauses: ExponentialBackoff,
}

impl RetryPauses {
    /// From `first` up to `longest`; a `longest` that is shorter counts as `first`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        let settings = ExponentialBuilder::new()
            .with_factor(2.0)
            .with_min_delay(first)
            .with_max_delay(longest.max(first))
            .without_max_times();
        Self { settings, pauses: settings.build() }
    }

    /// The pause before the next try.
    pub fn next(&mut self) -> Duration {
        self.pauses.next().expect("there is no last pause")
    }

    /// A try succeeded: the next pause is the first again.
    pub fn reset(&mut self) {
        self.pauses = self.settings.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again() {
        let ms = Duration::from_millis;
        let mut pauses = RetryPauses::new(ms(250), ms(1500));
        assert_eq!([(); 5].map(|()| pauses.next()), [250, 500, 1000, 1500, 1500].map(ms));
        pauses.reset();
        assert_eq!(pauses.next(), ms(250));
        let mut pauses = RetryPauses::new(ms(300), ms(100));
        assert_eq!([(); 2].map(|()| pauses.next()), [ms(300); 2]);
    }

    #[test]
    fn a_raised_stop_ends_a_sleep() {
        let began = Instant::now();
        sleep(Duration::from_hours(1), &AtomicBool::new(true));
        assert!(began.elapsed() < Duration::from_mins(1));
    }
}
