//! The priority of the clock's thread.
//!
//! A shard that sends to thousands of clients needs its processor for as long as it can have it. If the clock has no other,
//! the kernel divides: a clock that is due waits for the shard's slice to end, which takes milliseconds.

#![expect(unsafe_code, reason = "no crate that is here already sets a scheduling policy")]

use std::io;

/// Gives the calling thread the lowest real-time priority: it runs as soon as it is due. For a thread that sleeps nearly
/// always. The kernel refuses it to a process without `CAP_SYS_NICE` or a limit `RLIMIT_RTPRIO`.
pub fn become_real_time() -> io::Result<()> {
    let lowest = libc::sched_param { sched_priority: 1 };
    // Threads that this one may start are as others.
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: 0 is the calling thread; the kernel reads the parameter, which lives until it returns, and keeps no
    // pointer to it.
    let answer = unsafe { libc::sched_setscheduler(0, policy, &raw const lowest) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
