//! The swarm's only clock: `CLOCK_MONOTONIC`, in nanoseconds.
//!
//! Scheduled and actual publish times in the tick ledger are readings of the same clock on the
//! server's host; [`crate::ledger::offset`] relates the two when the hosts differ.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

/// Nanoseconds in a millisecond.
pub const MILLISECOND: u64 = 1_000_000;

/// The monotonic clock, in nanoseconds.
#[inline]
pub fn now_ns() -> u64 {
    read(ClockId::Monotonic)
}

/// Wall-clock time, in nanoseconds since the Unix epoch.
pub fn unix_ns() -> u64 {
    read(ClockId::Realtime)
}

/// CPU time the calling thread has used so far, in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    read(ClockId::ThreadCPUTime)
}

#[inline]
fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // None of the three clocks is negative on Linux: they count from boot, 1970, or thread start.
    time.tv_sec as u64 * SECOND + time.tv_nsec as u64
}
