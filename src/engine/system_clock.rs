//! The two clocks, as nanoseconds.
//!
//! `std::time::Instant` hides its value; the ledger must tell it, so that a client on the same host
//! can compare its own `CLOCK_MONOTONIC` readings with the server's.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// `CLOCK_MONOTONIC`, ns since some moment before the boot: the clock of the ledger, comparable between the processes
/// of a host.
pub fn monotonic_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// `CLOCK_MONOTONIC`, ms: the clock of timers.
pub fn monotonic_ms() -> u64 {
    monotonic_ns() / 1_000_000
}

/// `CLOCK_REALTIME`, ns since 1970.
pub fn unix_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Realtime))
}

fn nanoseconds(time: Timespec) -> u64 {
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Such a time as a `timespec`, for sleeping until an absolute deadline.
pub fn timespec(nanoseconds: u64) -> Timespec {
    Timespec { tv_sec: (nanoseconds / 1_000_000_000) as i64, tv_nsec: (nanoseconds % 1_000_000_000) as i64 }
}
