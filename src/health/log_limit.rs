//! Keeps the log short: a few lines in a period, or one line per name.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tracing::Level;
use tracing::level_filters::LevelFilter;

use crate::engine::system_clock;

/// Lines about single clients, of all parts of the process: the log is one too.
static CLIENT_LINES: Mutex<LogLimiter> = Mutex::new(LogLimiter::new(50, 1000));

/// Client lines that were left out since the start.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// How many lines about single clients may be written in a second, from now on.
pub fn limit_client_lines(limit: u32) {
    *CLIENT_LINES.lock().unwrap_or_else(PoisonError::into_inner) = LogLimiter::new(limit, 1000);
}

/// Whether a line about a single client may be written now, at this level. Whatever a stranger can cause to be logged
/// asks here, or connecting often enough would fill the disk. The metrics count what the lines tell.
pub fn client_line(level: Level) -> bool {
    // What is not logged at all takes the place of no other line.
    if level > LevelFilter::current() {
        return false;
    }
    let passed = CLIENT_LINES.lock().unwrap_or_else(PoisonError::into_inner).pass(system_clock::monotonic_ms());
    match passed {
        None => {
            LEFT_OUT.fetch_add(1, Ordering::Relaxed);
        }
        Some(0) => {}
        Some(suppressed) => tracing::info!(suppressed, "lines about clients were left out (--client-log-lines)"),
    }
    passed.is_some()
}

/// Client lines that were left out since the start.
pub fn client_lines_left_out() -> u64 {
    LEFT_OUT.load(Ordering::Relaxed)
}

/// Lets so many log lines pass in each period, and counts the others. Each owner has one of its own. A period begins with
/// the first line behind the one before.
#[derive(Debug, Clone)]
pub struct LogLimiter {
    /// Lines that may pass in a period.
    limit: u32,
    period_ms: u64,
    /// When the period began.
    began_ms: u64,
    passed: u32,
    suppressed: u64,
}

impl Default for LogLimiter {
    /// A limiter of five lines a second.
    fn default() -> Self {
        Self::new(5, 1000)
    }
}

impl LogLimiter {
    /// At most `limit` lines in each `period_ms`.
    pub const fn new(limit: u32, period_ms: u64) -> Self {
        Self { limit, period_ms, began_ms: 0, passed: 0, suppressed: 0 }
    }

    /// `Some` if a line may be written now, with the number of lines suppressed since the last one. `now_ms` is of any
    /// clock that does not go back.
    pub fn pass(&mut self, now_ms: u64) -> Option<u64> {
        if self.passed == 0 || now_ms.saturating_sub(self.began_ms) >= self.period_ms {
            (self.began_ms, self.passed) = (now_ms, 0);
        }
        if self.passed >= self.limit {
            self.suppressed += 1;
            return None;
        }
        self.passed += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// How many lines were suppressed, as a field of the next line: `None`, when there are none, is left out.
pub fn any(suppressed: u64) -> Option<u64> {
    Some(suppressed).filter(|&suppressed| suppressed > 0)
}

/// Names that were seen already, so that each is logged once. Bounded: when it is full it is emptied.
#[derive(Debug, Default)]
pub struct SeenNames(Mutex<HashSet<Box<str>>>);

/// Names remembered at most, before all are forgotten.
const NAMES: usize = 4096;

impl SeenNames {
    /// Whether this name is new; remembers it.
    pub fn is_new(&self, name: &str) -> bool {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= NAMES {
            names.clear();
        }
        !names.contains(name) && names.insert(name.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_cut_and_what_was_cut_is_told_later() {
        let mut limiter = LogLimiter::default();
        let passed: Vec<_> = (0..8).map(|_| limiter.pass(1500)).collect();
        assert_eq!(passed, [Some(0), Some(0), Some(0), Some(0), Some(0), None, None, None]);
        assert_eq!(limiter.pass(2499), None, "a period is whole, whenever it began");
        assert_eq!(limiter.pass(2500), Some(4));
        assert_eq!([any(0), any(3)], [None, Some(3)]);
    }

    #[test]
    fn a_name_is_told_once_and_the_memory_is_bounded() {
        let seen = SeenNames::default();
        assert!(seen.is_new("a") && !seen.is_new("a") && seen.is_new("b"));
        for name in 0..2 * NAMES {
            seen.is_new(&name.to_string());
        }
        assert!(seen.0.lock().unwrap().len() <= NAMES);
    }
}
