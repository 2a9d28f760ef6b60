//! Processor time and memory as Linux tells them, of ourselves and of the server.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};

use crate::clock::SECOND;

/// How long the calling thread has waited for a processor, in ns; `None` where the kernel does not say.
pub fn thread_starved_ns() -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().nth(1)?.parse().ok()
}

/// Processor time and memory of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time so far, to the kernel's clock tick (usually 10 ms).
    pub cpu_ns: u64,
    /// Resident memory.
    pub resident_bytes: u64,
}

/// Reads the usage of a process; `None` when there is no such process.
pub fn usage(pid: &str) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the name in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let field = |number: usize| fields.split_whitespace().nth(number - 3)?.parse::<u64>().ok();
    let (user, system, resident_pages) = (field(14)?, field(15)?, field(24)?);
    Some(Usage {
        cpu_ns: (user + system) * (SECOND / clock_ticks_per_second()),
        resident_bytes: resident_pages * page_size() as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_usage_is_readable() {
        let usage = usage("self").unwrap();
        assert!(usage.resident_bytes > 100_000, "{usage:?}");
        assert_eq!(super::usage("0"), None);
    }
}
