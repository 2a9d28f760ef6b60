//! The doorbell: wakes a shard that sleeps in `epoll`. Checked by `tests/loom`.

#[cfg(flowcast_loom)]
use loom::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(flowcast_loom))]
use std::sync::atomic::{AtomicBool, Ordering};

/// What the sleeper waits for; an eventfd in a server.
pub trait Signal {
    /// Ends the sleep, or the next one.
    fn raise(&self);
    /// Takes back what was raised.
    fn lower(&self);
}

/// Rings a signal. Ringing twice before it is answered costs one system call.
#[derive(Debug)]
pub struct Bell<S> {
    rung: AtomicBool,
    signal: S,
}

impl<S: Signal> Bell<S> {
    /// A bell that nobody has rung.
    pub fn new(signal: S) -> Self {
        Self { rung: AtomicBool::new(false), signal }
    }

    /// What the sleeper waits for.
    pub fn signal(&self) -> &S {
        &self.signal
    }

    /// Wakes the sleeper: it sees what was done before.
    pub fn ring(&self) {
        // AcqRel, with the swap in `answer`: either the sleeper's swap sees this one, and then also
        // everything stored before it, or this one sees the sleeper's and raises.
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.signal.raise();
        }
    }

    /// The sleeper is awake, and looks after this at everything it may have been rung for.
    pub fn answer(&self) {
        // In this order: lowered afterwards, the signal of one who rings in between would be lost.
        self.signal.lower();
        self.rung.swap(false, Ordering::AcqRel);
    }
}
