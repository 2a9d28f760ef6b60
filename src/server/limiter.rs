//! At most so many log lines a second about bad input; the rest is counted.

/// Lets a few lines a second pass.
#[derive(Debug, Default)]
pub struct Limiter {
    second: u64,
    passed: u32,
    suppressed: u64,
}

/// Lines per second.
const LIMIT: u32 = 5;

impl Limiter {
    /// Whether a line may be written now, and how many were suppressed since the last one.
    pub fn pass(&mut self, now_ms: u64) -> Option<u64> {
        let second = now_ms / 1000;
        if second != self.second {
            (self.second, self.passed) = (second, 0);
        }
        if self.passed == LIMIT {
            self.suppressed += 1;
            return None;
        }
        self.passed += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_cut_and_what_was_cut_is_told_later() {
        let mut limiter = Limiter::default();
        let passed: Vec<_> = (0..8).map(|_| limiter.pass(1500)).collect();
        assert_eq!(passed, [Some(0), Some(0), Some(0), Some(0), Some(0), None, None, None]);
        assert_eq!(limiter.pass(2000), Some(3));
    }
}
