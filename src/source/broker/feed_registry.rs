//! What the feeds of a process share: the table of feeds, who wants which symbols, and the distributor that
//! gives the records to those subscribers.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::feed::{Feed, Symbols};
use super::feed_events::{EventSender, FeedEvent, FeedEventKind};
use super::feed_health::FeedFigures;
use super::feed_options::BrokerOptions;
use super::quote::MarketData;
use super::receiver::{ReleaseReceiver, SubscribeError, SymbolRefusal};
use super::subscriptions::{Choice, Subscriptions};
use crate::health::status::Status;

/// How long a feed may take to stop before it is cut off.
const STOPPING: Duration = Duration::from_secs(3);

/// Records the distributor takes at once.
const BATCH: usize = 64;

/// The feeds of a process and what they share. Its lock is short: taken per batch of up to [`BATCH`] records
/// and per call of a subscriber.
pub(super) struct FeedRegistry {
    pub(super) options: BrokerOptions,
    pub(super) status: Arc<Status>,
    pub(super) state: Mutex<FeedTable>,
    pub(super) records: mpsc::Sender<(u64, Arc<MarketData>)>,
    pub(super) events: EventSender,
    pub(super) reload: watch::Sender<u64>,
    /// Notified when a symbol must be unsubscribed later.
    pub(super) idle: Notify,
    pub(super) stop: watch::Sender<bool>,
    pub(super) next: AtomicU64,
}

/// Which feeds run, and what is wanted of them.
#[derive(Default)]
pub(super) struct FeedTable {
    pub(super) feeds: Vec<RunningFeed>,
    pub(super) subscriptions: Subscriptions,
    pub(super) merged: Option<mpsc::Sender<Arc<MarketData>>>,
    pub(super) stopped: bool,
}

/// One feed, from `add` to its end.
pub(super) struct RunningFeed {
    pub(super) rank: u64,
    pub(super) feed: Arc<dyn Feed>,
    pub(super) wanted: watch::Sender<Arc<Symbols>>,
    pub(super) stop: watch::Sender<bool>,
    pub(super) health: Arc<FeedFigures>,
    pub(super) task: JoinHandle<()>,
}

impl FeedTable {
    /// Symbols that somebody wants: `take` puts them into the table, and the feeds learn of new ones.
    pub(super) fn want<S: AsRef<str>>(
        &mut self,
        options: &BrokerOptions,
        symbols: impl IntoIterator<Item = S>,
        mut take: impl FnMut(&mut Subscriptions, &Arc<str>) -> bool,
    ) -> Result<Vec<(String, SymbolRefusal)>, SubscribeError> {
        if self.stopped {
            return Err(SubscribeError::Stopped);
        }
        let (mut refused, mut new) = (Vec::new(), Vec::new());
        for symbol in symbols {
            let symbol = symbol.as_ref();
            if !self.subscriptions.knows(symbol) {
                if !self.feeds.iter().any(|entry| entry.feed.offers(symbol)) {
                    refused.push((symbol.to_owned(), SymbolRefusal::Unknown));
                    continue;
                }
                if self.subscriptions.count() >= options.feed_max_symbols {
                    refused.push((symbol.to_owned(), SymbolRefusal::Limit));
                    continue;
                }
            }
            let symbol: Arc<str> = symbol.into();
            if take(&mut self.subscriptions, &symbol) {
                new.push(symbol);
            }
        }
        self.tell_wanted(&new, true);
        Ok(refused)
    }

    /// Every feed that offers these symbols learns that they are wanted, or not any more.
    fn tell_wanted(&self, symbols: &[Arc<str>], wanted: bool) {
        for entry in &self.feeds {
            let offered: Vec<&Arc<str>> = symbols.iter().filter(|symbol| entry.feed.offers(symbol)).collect();
            if offered.is_empty() {
                continue;
            }
            entry.wanted.send_modify(|there| {
                let there = Arc::make_mut(there);
                for symbol in offered {
                    if wanted {
                        there.insert(Arc::clone(symbol))
                    } else {
                        there.remove(symbol)
                    };
                }
            });
        }
    }
}

impl ReleaseReceiver for FeedRegistry {
    fn release(&self, id: u64) {
        self.state().subscriptions.release(id, Instant::now());
        self.idle.notify_one();
    }
}

impl FeedRegistry {
    /// Nothing is left half done under this lock, and no await follows while it is held.
    pub(super) fn state(&self) -> MutexGuard<'_, FeedTable> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops a feed that is taken out already.
    pub(super) async fn end(&self, mut entry: RunningFeed) {
        entry.stop.send_replace(true);
        if timeout(STOPPING, &mut entry.task).await.is_err() {
            entry.task.abort();
            let _ = entry.task.await;
        }
        entry.health.unregister(&self.status);
        let event = FeedEvent { feed: entry.feed.id(), kind: FeedEventKind::Stopped, reason: String::new() };
        event.log();
        self.events.send(event);
    }

    /// Gives a batch to the subscribers of its symbols; what remains is for the merged stream.
    fn spread(&self, batch: &mut Vec<(u64, Arc<MarketData>)>) -> Option<mpsc::Sender<Arc<MarketData>>> {
        let silence = self.options.feed_failover_silence;
        let now = Instant::now();
        let mut events = Vec::new();
        let mut state = self.state();
        let FeedTable { feeds, subscriptions, merged, .. } = &mut *state;
        let receivers = subscriptions.receivers();
        batch.retain(|(rank, record)| {
            // A feed that was taken out may have left records on their way.
            let Some(entry) = feeds.iter().find(|entry| entry.rank == *rank) else { return false };
            let what = match subscriptions.distribute(*rank, record, silence, now) {
                Choice::Taken => return true,
                Choice::Dropped => {
                    entry.health.ignored();
                    return false;
                }
                Choice::FailedOver => FeedEventKind::FailedOver(Arc::clone(&record.symbol)),
                Choice::FailedBack => FeedEventKind::FailedBack(Arc::clone(&record.symbol)),
            };
            let log = entry.health.may_log().is_some();
            events.push((log, FeedEvent { feed: entry.feed.id(), kind: what, reason: String::new() }));
            true
        });
        let merged = merged.clone();
        let some_left = subscriptions.receivers() < receivers;
        drop(state);
        if some_left {
            // Nobody may want their symbols any more.
            self.idle.notify_one();
        }
        for (log, event) in events {
            if log {
                event.log();
            }
            self.events.send(event);
        }
        merged
    }

    /// Unsubscribes what nobody has wanted for long enough. Returns when to ask again.
    fn expire(&self) -> Option<Instant> {
        let grace = self.options.feed_unsubscribe_grace.0?;
        let mut state = self.state();
        let (gone, next) = state.subscriptions.expire(grace, Instant::now());
        state.tell_wanted(&gone, false);
        next
    }
}

/// Takes records from the feeds and gives them to their subscribers, until it is cut off.
pub(super) async fn distribute(registry: Arc<FeedRegistry>, mut records: mpsc::Receiver<(u64, Arc<MarketData>)>) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut expiry = None;
    loop {
        let due = expiry.unwrap_or_else(Instant::now);
        // Cancel-safe: `recv_many` takes nothing unless it returns.
        tokio::select! {
            _ = records.recv_many(&mut batch, BATCH) => {
                let merged = registry.spread(&mut batch);
                for (_, record) in batch.drain(..) {
                    let Some(merged) = &merged else { continue };
                    if merged.send(record).await.is_err() {
                        // Nobody reads it any more; another one may be asked for.
                        let mut state = registry.state();
                        state.merged = state.merged.take().filter(|merged| !merged.is_closed());
                        break;
                    }
                }
                batch.clear();
            }
            () = sleep_until(due), if expiry.is_some() => expiry = registry.expire(),
            () = registry.idle.notified() => expiry = registry.expire(),
        }
    }
}
