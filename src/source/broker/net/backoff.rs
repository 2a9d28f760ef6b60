//! How long to wait before the next try: exponential, with full jitter.
//!
//! A wait is drawn evenly from 0 to `min(cap, base × 2^tries)`, so that clients that lost one server
//! together do not come back together. (`backon` adds its jitter on top of the delay, so it cannot draw from 0
//! and exceeds the cap.)

use std::time::Duration;

/// How long to wait between two tries, and how often to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffSettings {
    /// The longest wait before the first try; it doubles with each.
    pub base: Duration,
    /// The longest wait of all.
    pub cap: Duration,
    /// Tries before giving up; `None`: for ever.
    pub limit: Option<u32>,
}

/// The waits of one thing that is tried again and again.
#[derive(Debug)]
pub struct Backoff {
    settings: BackoffSettings,
    tries: u32,
}

impl Backoff {
    /// The first wait is the shortest.
    pub const fn new(settings: BackoffSettings) -> Self {
        Self { settings, tries: 0 }
    }

    /// The next wait; `None` when the limit is reached.
    pub fn next_wait(&mut self) -> Option<Duration> {
        let longest = self.longest()?;
        self.tries = self.tries.saturating_add(1);
        Some(longest.mul_f64(fastrand::f64()))
    }

    /// The next wait without its jitter.
    fn longest(&self) -> Option<Duration> {
        if self.settings.limit.is_some_and(|limit| self.tries >= limit) {
            return None;
        }
        let doubled = 2u32.checked_pow(self.tries).and_then(|factor| self.settings.base.checked_mul(factor));
        Some(doubled.unwrap_or(self.settings.cap).min(self.settings.cap))
    }

    /// The connection was stable: start again with the shortest wait.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// Tries since the last reset.
    pub const fn tries(&self) -> u32 {
        self.tries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: BackoffSettings =
        BackoffSettings { base: Duration::from_secs(1), cap: Duration::from_mins(1), limit: Some(8) };

    #[test]
    fn waits_double_up_to_the_cap_and_end_at_the_limit() {
        let mut backoff = Backoff::new(SETTINGS);
        let mut longest = Vec::new();
        while let Some(wait) = backoff.longest() {
            longest.push(wait.as_secs());
            assert!(backoff.next_wait().unwrap() <= wait);
        }
        assert_eq!(longest, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.next_wait(), None);
        backoff.reset();
        assert_eq!(backoff.longest(), Some(Duration::from_secs(1)));
    }

    #[test]
    fn without_a_limit_it_never_ends_nor_overflows() {
        let mut backoff = Backoff::new(BackoffSettings { limit: None, ..SETTINGS });
        assert!((0..10_000).all(|_| backoff.next_wait().is_some_and(|wait| wait <= SETTINGS.cap)));
    }

    #[test]
    fn jitter_is_full() {
        let waits: Vec<_> = (0..1000).map(|_| Backoff::new(SETTINGS).next_wait().unwrap().as_secs_f64()).collect();
        assert!(waits.iter().any(|&wait| wait < 0.1) && waits.iter().any(|&wait| wait > 0.9));
    }
}
