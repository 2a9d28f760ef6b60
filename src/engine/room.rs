//! Where a publisher waits until the shards have made room in a group's channel. Checked by `tests/loom`.

#[cfg(flowcast_loom)]
use loom::sync::atomic::{AtomicBool, Ordering};
#[cfg(flowcast_loom)]
use loom::sync::{Condvar, Mutex};
#[cfg(not(flowcast_loom))]
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(flowcast_loom))]
use std::sync::{Condvar, Mutex};

use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Where one publisher at a time can wait. While none does, a shard pays one load.
#[derive(Debug)]
pub struct RoomWait {
    is_waiting: AtomicBool,
    lock: Mutex<()>,
    freed: Condvar,
}

impl RoomWait {
    /// A room in which no publisher waits.
    pub fn new() -> Self {
        Self { is_waiting: AtomicBool::new(false), lock: Mutex::new(()), freed: Condvar::new() }
    }

    /// Waits until `has_room`, at most `patience`. `ring_shards` must ring the bell of every shard.
    pub fn wait(&self, patience: Duration, ring_shards: impl FnOnce(), has_room: impl Fn() -> bool) {
        if has_room() {
            return;
        }
        // Relaxed is enough: a shard answers its bell after this ring, so it sees the store before it, and
        // looks into `notify` once more. What it took out earlier need not be seen by `has_room` before.
        self.is_waiting.store(true, Ordering::Relaxed);
        ring_shards();
        let until = Instant::now() + patience;
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while !has_room() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            guard = self.freed.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(guard);
        self.is_waiting.store(false, Ordering::Relaxed);
    }

    /// Wakes the publisher that waits, if there is one. Called by a shard that has answered its bell and taken
    /// everything out.
    pub fn notify(&self) {
        if self.is_waiting.load(Ordering::Relaxed) {
            // A publisher that found no room holds the lock until it sleeps: it cannot miss this. And it
            // sees what this shard took out, because it takes the lock after us.
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.freed.notify_one();
        }
    }
}
