//! The clients on a session's clock, counted wherever they are: a session without any ends after a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many clients are on a clock.
#[derive(Debug, Clone, Default)]
pub struct Seats(Arc<AtomicUsize>);

/// A client on the clock of a session, from its upgrade until its own session with the hub ends.
#[derive(Debug)]
pub struct Seat {
    name: Box<str>,
    seats: Seats,
}

impl Seats {
    /// One client more, on the session of this name.
    pub fn take(&self, name: &str) -> Seat {
        self.0.fetch_add(1, Ordering::Relaxed);
        Seat { name: name.into(), seats: self.clone() }
    }

    /// Clients at this moment.
    pub fn taken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Seat {
    /// The session's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.0.fetch_sub(1, Ordering::Relaxed);
    }
}
