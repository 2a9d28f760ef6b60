//! Places for HTTP connections: there are so many, and nobody keeps one by being slow.
//!
//! A connection holds a place until it is upgraded or ends. While the server waits for the client, the place says for
//! what and since when. If all places are taken, a new connection gets that of the client that the server has waited
//! for longest. So slow clients, however many, delay only each other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use slab::Slab;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::engine::system_clock::monotonic_ms;
use crate::health::status::Status;

/// How often a connection without a place looks again whom it could replace.
const LOOK: Duration = Duration::from_millis(50);

/// What the server waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The head of a request.
    Head,
    /// The rest of a body.
    Body,
    /// That the client takes more of an answer.
    Taking,
}

/// What the server waits for, and since when, ms; `None` while it is at work itself. In one atomic: the wait in the
/// lower two bits, and 0 for none.
#[derive(Debug, Default)]
struct Waiting(AtomicU64);

impl Waiting {
    fn set(&self, waiting: Option<(Wait, u64)>) {
        let packed = waiting.map_or(0, |(wait, since_ms)| since_ms << 2 | (wait as u64 + 1));
        self.0.store(packed, Ordering::Relaxed);
    }

    fn get(&self) -> Option<(Wait, u64)> {
        let packed = self.0.load(Ordering::Relaxed);
        let wait = match packed & 3 {
            1 => Wait::Head,
            2 => Wait::Body,
            3 => Wait::Taking,
            _ => return None,
        };
        Some((wait, packed >> 2))
    }
}

/// The place of one connection.
#[derive(Debug, Default)]
pub struct HttpPlace {
    waiting: Waiting,
    ousted: Notify,
}

impl HttpPlace {
    /// The server waits for the client, from this moment.
    pub fn waits(&self, wait: Wait) {
        self.waits_since(wait, monotonic_ms());
    }

    /// The server waits for the client, since an earlier moment.
    pub fn waits_since(&self, wait: Wait, since_ms: u64) {
        self.waiting.set(Some((wait, since_ms)));
    }

    /// The server is at work.
    pub fn works(&self) {
        self.waiting.set(None);
    }

    /// Ends when another connection needs the place.
    pub async fn ousted(&self) {
        self.ousted.notified().await;
    }

    /// Ends when the client has taken nothing of an answer for so long.
    pub async fn stalled(&self, patience: Duration) {
        let patience_ms = patience.as_millis() as u64;
        loop {
            let now_ms = monotonic_ms();
            let since_ms = match self.waiting.get() {
                Some((Wait::Taking, since_ms)) => since_ms,
                _ => now_ms,
            };
            let left_ms = (since_ms + patience_ms).saturating_sub(now_ms);
            if left_ms == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(left_ms)).await;
        }
    }
}

/// All places of a server.
#[derive(Debug)]
pub struct Places {
    free: Arc<Semaphore>,
    taken: Mutex<Slab<Arc<HttpPlace>>>,
    connections: Arc<AtomicU64>,
    dropped_for_place: Arc<AtomicU64>,
    dropped_stalled: Arc<AtomicU64>,
}

/// A place that a connection holds.
#[derive(Debug)]
pub struct TakenPlace {
    place: Arc<HttpPlace>,
    key: usize,
    places: Arc<Places>,
    /// Released after the place is taken off the list.
    _permit: OwnedSemaphorePermit,
}

impl Places {
    /// So many places.
    pub fn new(limit: usize, status: &Status) -> Arc<Self> {
        let dropped = |reason: &'static str| {
            let help = "HTTP connections dropped because the client was slow";
            status.count("http_connections_dropped", help, vec![("reason", reason.into())])
        };
        let help = "Open HTTP connections, unfinished upgrades included";
        Arc::new(Self {
            free: Arc::new(Semaphore::new(limit)),
            taken: Mutex::default(),
            connections: status.gauge("http_connections", help, Vec::new()),
            dropped_for_place: dropped("place"),
            dropped_stalled: dropped("stalled"),
        })
    }

    /// Open connections.
    pub fn open(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Takes a place, that of a slow client if there is no other. Waits while the server is at work for all who have
    /// one.
    pub async fn take(self: &Arc<Self>) -> TakenPlace {
        loop {
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
                return self.taken(permit);
            }
            self.oust(|_| true, Duration::ZERO);
            // Never closed, so an error is the timeout.
            if let Ok(Ok(permit)) = tokio::time::timeout(LOOK, Arc::clone(&self.free).acquire_owned()).await {
                return self.taken(permit);
            }
        }
    }

    fn taken(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> TakenPlace {
        let place = Arc::new(HttpPlace::default());
        place.waits(Wait::Head);
        let key = self.list().insert(Arc::clone(&place));
        self.connections.fetch_add(1, Ordering::Relaxed);
        TakenPlace { place, key, places: Arc::clone(self), _permit: permit }
    }

    /// Drops the connection that the server has waited for longest, and at least so long, of those that wait for this.
    /// Returns whether there was one.
    pub fn oust(&self, which: impl Fn(Wait) -> bool, least: Duration) -> bool {
        let latest_ms = monotonic_ms().saturating_sub(least.as_millis() as u64);
        let list = self.list();
        let waiting = list.iter().filter_map(|(_, place)| {
            let (wait, since_ms) = place.waiting.get()?;
            (which(wait) && since_ms <= latest_ms).then_some((since_ms, place))
        });
        let Some((_, longest)) = waiting.min_by_key(|(since_ms, _)| *since_ms) else { return false };
        // So that the next who looks finds another.
        longest.works();
        longest.ousted.notify_one();
        self.dropped_for_place.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Counts a connection that was dropped because it had [`stalled`](HttpPlace::stalled).
    pub fn count_stalled(&self) {
        self.dropped_stalled.fetch_add(1, Ordering::Relaxed);
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Slab<Arc<HttpPlace>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TakenPlace {
    /// The place, for the parts that serve the connection.
    pub fn place(&self) -> &Arc<HttpPlace> {
        &self.place
    }
}

impl Drop for TakenPlace {
    fn drop(&mut self) {
        self.places.list().remove(self.key);
        self.places.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_ousted(taken: &TakenPlace) -> bool {
        let ousted = std::pin::pin!(taken.place.ousted());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        ousted.poll(&mut context).is_ready()
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_was_waited_for_longest_gives_its_place_up() {
        let places = Places::new(3, &Status::default());
        let [first, second, third] = [places.take().await, places.take().await, places.take().await];
        first.place().works();
        second.place().waits_since(Wait::Body, 1);
        third.place().waits_since(Wait::Head, 2);
        let (taker, ()) = tokio::join!(places.take(), async {
            second.place().ousted().await;
            drop(second);
        });
        drop(taker);
        assert!(!is_ousted(&first) && !is_ousted(&third));
    }

    #[tokio::test]
    async fn only_those_who_wait_for_this_and_long_enough_are_ousted() {
        let places = Places::new(2, &Status::default());
        let [fresh, old] = [places.take().await, places.take().await];
        fresh.place().waits(Wait::Taking);
        old.place().waits_since(Wait::Head, 1);
        let minute = Duration::from_mins(1);
        assert!(!places.oust(|wait| wait == Wait::Taking, minute));
        assert!(places.oust(|wait| wait == Wait::Taking, Duration::ZERO));
        assert!(is_ousted(&fresh) && !is_ousted(&old));
        assert!(!places.oust(|wait| wait == Wait::Taking, Duration::ZERO), "it is ousted already");
    }

    #[tokio::test]
    async fn only_an_answer_stalls() {
        let place = HttpPlace::default();
        let stalled = async |patience| tokio::time::timeout(Duration::from_millis(20), place.stalled(patience)).await;
        place.waits_since(Wait::Head, 1);
        assert!(stalled(Duration::from_millis(1)).await.is_err());
        place.waits_since(Wait::Taking, 1);
        assert!(stalled(Duration::from_millis(1)).await.is_ok());
    }
}
