//! So many calls a second, and no more: what the brokers document.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Spaces calls. Whoever waits is served in the order of asking.
///
/// `governor` knows no `Retry-After` pause, keeps a clock and a timer thread of its own (tests here pause
/// tokio's clock), and adds five crates: what would have to be wrapped around it is as long as this.
#[derive(Debug)]
pub struct CallRate {
    gap: Duration,
    /// How far ahead of its schedule a burst may run.
    burst: Duration,
    /// When the next call is due by the schedule.
    due: Mutex<Option<Instant>>,
}

impl CallRate {
    /// `per_second` calls, above 0; up to `burst` of them at once after a pause.
    pub fn new(per_second: f64, burst: u32) -> Self {
        let gap = Duration::from_secs_f64(1.0 / per_second.clamp(1e-3, 1e6));
        Self { gap, burst: gap * burst.saturating_sub(1), due: Mutex::default() }
    }

    /// Waits until a call may be made. Cancelled, its moment is lost, which errs on the safe side.
    pub async fn acquire(&self) {
        sleep_until(self.reserve()).await;
    }

    /// When the next call may be made, by whoever asked: for loops that do other things meanwhile.
    pub fn reserve(&self) -> Instant {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let scheduled = due.unwrap_or(now).max(now);
        *due = Some(scheduled + self.gap);
        scheduled - self.burst.min(scheduled - now)
    }

    /// Nobody calls before `pause` has passed: what `Retry-After` asks for.
    pub fn pause(&self, pause: Duration) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let until = Instant::now() + pause + self.burst;
        *due = Some(due.map_or(until, |due| due.max(until)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_calls_are_spaced() {
        let limiter = CallRate::new(10.0, 3);
        let start = Instant::now();
        let mut at = Vec::new();
        for _ in 0..6 {
            limiter.acquire().await;
            at.push(start.elapsed().as_millis() / 100);
        }
        assert_eq!(at, [0, 0, 0, 1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_everybody() {
        let limiter = CallRate::new(10.0, 3);
        let start = Instant::now();
        limiter.pause(Duration::from_secs(5));
        limiter.acquire().await;
        assert_eq!(start.elapsed().as_secs(), 5);
    }
}
