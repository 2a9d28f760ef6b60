//! What wakes the builders of the window.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::Wake;
use std::time::Duration;

/// How long a builder without a job sleeps, unless it is woken.
const NAP: Duration = Duration::from_millis(50);

/// Wakes builders that have nothing to do.
#[derive(Default)]
pub struct Alarm {
    rings: Mutex<u64>,
    rung: Condvar,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        *self.rings.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.rung.notify_all();
    }
}

impl Alarm {
    /// How often it has rung.
    pub fn rings(&self) -> u64 {
        *self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until it rings, if it did not since `seen`, but not longer than a nap.
    pub fn wait(&self, seen: u64) {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.rung.wait_timeout_while(rings, NAP, |rings| *rings == seen);
    }
}
