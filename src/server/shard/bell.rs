//! The doorbell: wakes a shard that sleeps in `epoll`. Checked by `tests/loom`.

#[cfg(flowcast_loom)]
use loom::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(flowcast_loom))]
use std::sync::atomic::{AtomicBool, Ordering};

/// What the sleeper waits for; an eventfd in a server.
pub trait Notifier {
    /// Ends the sleep, or the next one if nobody sleeps.
    fn raise(&self);
    /// Clears what [`Notifier::raise`] has set.
    fn lower(&self);
}

/// Rings for the sleeper. Ringing twice before it is answered costs one system call.
#[derive(Debug)]
pub struct Bell<S> {
    rung: AtomicBool,
    notifier: S,
}

impl<S: Notifier> Bell<S> {
    /// A bell that nobody has rung.
    pub fn new(notifier: S) -> Self {
        Self { rung: AtomicBool::new(false), notifier }
    }

    /// What the sleeper waits for.
    pub fn notifier(&self) -> &S {
        &self.notifier
    }

    /// Wakes the sleeper: it sees what was done before.
    pub fn ring(&self) {
        // AcqRel, with the swap in `answer`: either the sleeper's swap sees this one, and then also
        // everything stored before it, or this one sees the sleeper's and raises.
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.notifier.raise();
        }
    }

    /// The sleeper is awake, and looks after this at everything it may have been rung for.
    pub fn answer(&self) {
        // In this order: lowered afterwards, the notice of one who rings in between would be lost.
        self.notifier.lower();
        self.rung.swap(false, Ordering::AcqRel);
    }
}
