//! All feeds together: started, supervised and stopped by id; one merged stream out.
//!
//! ```text
//! feed ─┐                        ┌─▶ receivers (bounded, the slow one is dropped)
//! feed ─┼─▶ records ─▶ distributor
//! feed ─┘   (bounded)            └─▶ merged stream (bounded, awaited: a slow one slows the feeds)
//! ```

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use futures_util::FutureExt;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::feed::{Feed, FeedContext, Symbols};
use super::feed_events::{EventSender, FeedEvent, FeedEventKind};
use super::feed_health::{FeedFigures, FeedHealth, FeedPhase};
use super::feed_options::BrokerOptions;
use super::feed_registry::{FeedRegistry, RunningFeed, distribute};
use super::quote::MarketData;
use super::receiver::{AddError, Receiver, ReleaseReceiver, SubscribeError, Subscribed, SymbolRefusal};
use super::subscriptions::{ReceiverEnd, Slot};
use crate::health::status::Status;

/// The feeds of a process. Clones are the same feeds; when the last one is dropped, they are cut off.
#[derive(Clone)]
pub struct Feeds(Arc<FeedsGuard>);

struct FeedsGuard {
    registry: Arc<FeedRegistry>,
    /// The distributor, and what listens for signals.
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Feeds {
    /// No feeds yet. Must be called within a tokio runtime; the feeds will run on it.
    pub fn new(options: BrokerOptions, status: Arc<Status>) -> Self {
        let (records, from_feeds) = mpsc::channel(options.feed_buffer);
        let events = EventSender::new(options.feed_event_buffer);
        let registry = Arc::new(FeedRegistry {
            options,
            status,
            state: Mutex::default(),
            records,
            events,
            reload: watch::Sender::new(0),
            idle: Notify::new(),
            stop: watch::Sender::new(false),
            next: AtomicU64::new(0),
        });
        let distributor = tokio::spawn(distribute(Arc::clone(&registry), from_feeds));
        Self(Arc::new(FeedsGuard { registry, tasks: Mutex::new(vec![distributor]) }))
    }

    /// Adds a feed and starts it. Feeds that were added earlier are preferred to it.
    pub fn add(&self, feed: Arc<dyn Feed>) -> Result<(), AddError> {
        let registry = &self.0.registry;
        let mut state = registry.state();
        let id = feed.id();
        if state.stopped {
            return Err(AddError::Stopped);
        }
        if state.feeds.iter().any(|entry| entry.feed.id() == id) {
            return Err(AddError::Duplicate(id));
        }
        let rank = registry.next.fetch_add(1, Ordering::Relaxed);
        let offered: Symbols = state.subscriptions.symbols().filter(|symbol| feed.offers(symbol)).cloned().collect();
        let wanted = watch::Sender::new(Arc::new(offered));
        let stop = watch::Sender::new(false);
        let health = FeedFigures::register(&registry.status, &id, feed.broker());
        let context = FeedContext {
            id,
            rank,
            wanted: wanted.subscribe(),
            records: registry.records.clone(),
            events: registry.events.clone(),
            health: Arc::clone(&health),
            stop: stop.subscribe(),
            reload: registry.reload.subscribe(),
        };
        let running = Arc::clone(&feed).run(context.clone());
        let task = tokio::spawn(async move {
            if AssertUnwindSafe(running).catch_unwind().await.is_err() {
                context.set_phase(FeedPhase::GaveUp, "a bug: it panicked");
                context.tell(FeedEventKind::GaveUp, "a bug: it panicked");
            }
        });
        state.feeds.push(RunningFeed { rank, feed, wanted, stop, health, task });
        Ok(())
    }

    /// Stops a feed and takes it out. `false`: there was none of this id.
    pub async fn remove(&self, id: &str) -> bool {
        let entry = {
            let mut state = self.0.registry.state();
            let Some(at) = state.feeds.iter().position(|entry| &*entry.feed.id() == id) else { return false };
            let entry = state.feeds.remove(at);
            state.subscriptions.forget_feed(entry.rank);
            entry
        };
        self.0.registry.end(entry).await;
        true
    }

    /// Subscribes `user` to symbols: one receiver for all of them. What no feed offers is refused by
    /// name, the others are subscribed.
    pub fn subscribe<S: AsRef<str>>(
        &self,
        user: &str,
        symbols: impl IntoIterator<Item = S>,
    ) -> Result<Subscribed, SubscribeError> {
        let registry = &self.0.registry;
        let id = registry.next.fetch_add(1, Ordering::Relaxed);
        let (sender, records) = mpsc::channel(registry.options.feed_client_buffer);
        let ended = Arc::new(OnceLock::new());
        let slot = Arc::new(Slot { id, user: user.into(), sender, ended: Arc::clone(&ended) });
        let mut state = registry.state();
        let limit = registry.options.feed_max_subscribers;
        if state.subscriptions.receivers() >= limit {
            return Err(SubscribeError::TooManyReceivers(limit));
        }
        let refused = state.want(&registry.options, symbols, |table, symbol| table.join(&slot, symbol))?;
        if slot.ended.get().is_none() && Arc::strong_count(&slot) == 1 {
            // Nothing was joined, so nothing will ever come.
            let _ = slot.ended.set(ReceiverEnd::Unsubscribed);
        }
        let released_at: Weak<dyn ReleaseReceiver> = Arc::<FeedRegistry>::downgrade(registry);
        let receiver = Receiver::new(id, records, ended, released_at);
        Ok(Subscribed { receiver, refused })
    }

    /// `user` wants symbols on the merged stream, without a receiver of its own. Gives the refused
    /// ones.
    pub fn demand<S: AsRef<str>>(
        &self,
        user: &str,
        symbols: impl IntoIterator<Item = S>,
    ) -> Result<Vec<(String, SymbolRefusal)>, SubscribeError> {
        let registry = &self.0.registry;
        let user: Arc<str> = user.into();
        registry.state().want(&registry.options, symbols, |table, symbol| table.hold(&user, symbol))
    }

    /// `user` does not want these symbols any more. Other users keep theirs.
    pub fn unsubscribe<S: AsRef<str>>(&self, user: &str, symbols: impl IntoIterator<Item = S>) {
        let registry = &self.0.registry;
        let mut state = registry.state();
        let now = Instant::now();
        for symbol in symbols {
            state.subscriptions.leave(user, symbol.as_ref(), now);
        }
        drop(state);
        registry.idle.notify_one();
    }

    /// `user` wants nothing any more.
    pub fn unsubscribe_all(&self, user: &str) {
        let symbols = self.0.registry.state().subscriptions.of(user);
        self.unsubscribe(user, symbols);
    }

    /// The merged stream: every record that counts, of every symbol somebody wants. It is bounded
    /// (`--feed-buffer`) and awaited: who reads slowly slows the feeds down to the brokers' sockets.
    /// There is one; asking again ends the one before.
    pub fn stream(&self) -> mpsc::Receiver<Arc<MarketData>> {
        let (sender, receiver) = mpsc::channel(self.0.registry.options.feed_buffer);
        let mut state = self.0.registry.state();
        if !state.stopped {
            state.merged = Some(sender);
        }
        receiver
    }

    /// Events from now on. A receiver that reads too slowly learns how many it lost.
    pub fn events(&self) -> broadcast::Receiver<FeedEvent> {
        self.0.registry.events.listen()
    }

    /// The state of every feed, in the order of preference.
    pub fn health(&self) -> Vec<FeedHealth> {
        self.0.registry.state().feeds.iter().map(|entry| entry.health.snapshot()).collect()
    }

    /// The configured symbols of all feeds, each once.
    pub fn symbols(&self) -> Vec<Arc<str>> {
        let symbols: Symbols = self.0.registry.state().feeds.iter().flat_map(|entry| entry.feed.symbols()).collect();
        symbols.into_iter().collect()
    }

    /// Makes the feeds that wait try again now, as SIGHUP does.
    pub fn reload(&self) {
        self.0.registry.reload.send_modify(|count| *count += 1);
    }

    /// Stops every feed and ends every stream. No task and no socket remains.
    pub async fn stop(&self) {
        let registry = &self.0.registry;
        let feeds = {
            let mut state = registry.state();
            state.stopped = true;
            std::mem::take(&mut state.feeds)
        };
        // Tell all feeds to stop before waiting for the first.
        for entry in &feeds {
            entry.stop.send_replace(true);
        }
        for entry in feeds {
            registry.end(entry).await;
        }
        registry.stop.send_replace(true);
        {
            let mut state = registry.state();
            state.merged = None;
            state.subscriptions.stop();
        }
        let tasks = std::mem::take(&mut *self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
    }

    /// A task that lives as long as the feeds.
    pub(super) fn keep(&self, task: JoinHandle<()>) {
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    /// For tasks that must not keep the feeds alive.
    pub(super) fn reloader(&self) -> watch::Sender<u64> {
        self.0.registry.reload.clone()
    }
}

impl Drop for FeedsGuard {
    fn drop(&mut self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(JoinHandle::abort);
        let mut state = self.registry.state();
        state.feeds.iter().for_each(|entry| entry.task.abort());
        state.merged = None;
        state.subscriptions.stop();
    }
}
