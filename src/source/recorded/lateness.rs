//! How late the last ticks were.

/// Ticks that are looked at.
const TICKS: usize = 512;

/// The last ticks' lateness.
#[derive(Debug, Default)]
pub struct Lateness {
    last: Vec<u32>,
    next: usize,
    since: usize,
    p99_us: u64,
}

impl Lateness {
    /// Adds a tick that was late by `ns`.
    pub fn add(&mut self, ns: u64) {
        let us = u32::try_from(ns / 1000).unwrap_or(u32::MAX);
        if self.last.len() < TICKS {
            self.last.push(us);
        } else {
            self.last[self.next] = us;
            self.next = (self.next + 1) % TICKS;
        }
        self.since += 1;
        // Sorting takes longer than a tick should.
        if self.since >= TICKS / 8 || self.last.len() < 8 {
            self.since = 0;
            let mut sorted = self.last.clone();
            let at = sorted.len() * 99 / 100;
            self.p99_us = u64::from(*sorted.select_nth_unstable(at).1);
        }
    }

    /// Forgets them: another epoch begins.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The 99th percentile, µs; 0 before the first tick.
    pub fn p99_us(&self) -> u64 {
        self.p99_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentile_is_of_the_last_ticks() {
        let mut lateness = Lateness::default();
        (0..1000).for_each(|_| lateness.add(9_000_000));
        (0..(TICKS + TICKS / 8) as u64).for_each(|at| lateness.add(1000 * (at % 100)));
        assert!((97..=99).contains(&lateness.p99_us()), "{}", lateness.p99_us());
        lateness.clear();
        assert_eq!(lateness.p99_us(), 0);
    }
}
