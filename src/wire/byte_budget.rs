//! A limit for the bytes that many clients together may make the server keep.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number of bytes that all holders share.
#[derive(Debug, Default)]
pub struct ByteBudget {
    limit: u64,
    /// Bytes held now.
    held: Arc<AtomicU64>,
    /// How often there was no room.
    refused: Arc<AtomicU64>,
}

/// Bytes taken from a [`ByteBudget`]; given back when it is dropped.
#[derive(Debug)]
pub struct HeldBytes {
    budget: Arc<ByteBudget>,
    bytes: u64,
}

impl ByteBudget {
    /// A budget of `limit` bytes. `held` and `refused` are figures that it writes, for the metrics.
    pub fn new(limit: usize, held: Arc<AtomicU64>, refused: Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self { limit: limit as u64, held, refused })
    }

    /// Takes bytes; `None` if there are not so many left.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Option<HeldBytes> {
        let mut held = self.nothing();
        held.set(bytes).then_some(held)
    }

    /// Takes no bytes yet.
    pub fn nothing(self: &Arc<Self>) -> HeldBytes {
        HeldBytes { budget: Arc::clone(self), bytes: 0 }
    }
}

impl HeldBytes {
    /// Holds so many bytes from now on. Asking for less always succeeds; if there is no room for more, nothing
    /// changes and it returns false.
    pub fn set(&mut self, bytes: usize) -> bool {
        let budget = &self.budget;
        let more = (bytes as u64).saturating_sub(self.bytes);
        // Relaxed: the count guards no other memory. Added first and taken back, so that two threads cannot both
        // take the last bytes.
        if more > 0 && budget.held.fetch_add(more, Ordering::Relaxed) + more > budget.limit {
            budget.held.fetch_sub(more, Ordering::Relaxed);
            budget.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.shrink(bytes as u64);
        self.bytes = bytes as u64;
        true
    }

    /// The same, over the limit if it must be: for the little that everybody may have.
    pub fn set_anyway(&mut self, bytes: usize) {
        let more = (bytes as u64).saturating_sub(self.bytes);
        self.budget.held.fetch_add(more, Ordering::Relaxed);
        self.shrink(bytes as u64);
        self.bytes = bytes as u64;
    }

    fn shrink(&self, bytes: u64) {
        self.budget.held.fetch_sub(self.bytes.saturating_sub(bytes), Ordering::Relaxed);
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_never_exceeds_the_limit_and_is_given_back() {
        let (held, refused) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let figures = || (held.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
        let budget = ByteBudget::new(100, Arc::clone(&held), Arc::clone(&refused));
        let mut first = budget.take(60).unwrap();
        assert!(budget.take(41).is_none());
        assert_eq!(figures(), (60, 1));
        assert!(first.set(100) && !first.set(101) && first.set(10));
        let mut second = budget.take(90).unwrap();
        second.set_anyway(95);
        assert_eq!(figures(), (105, 2));
        drop((first, second));
        assert_eq!(figures(), (0, 2));
    }
}
