//! Who wants which symbol: reference counts, the receivers, and which feed's records count.
//!
//! ```text
//! user ─ receiver ─┐
//! user ─ receiver ─┼─▶ symbol ─▶ wanted at every feed that offers it
//! user ─ demand ───┘      └─ current feed: first configured, another one when it is silent
//! ```
//!
//! Nothing here waits or does IO; `feeds` holds it under one lock.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::quote::MarketData;

/// Why a receiver gives nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiverEnd {
    /// It was too slow: so many records waited, and the next one found no room. Subscribe again, and
    /// read faster or with a larger buffer.
    #[error("dropped: {buffer} records waited and one more came")]
    Lagged {
        /// How many records may wait, as configured.
        buffer: usize,
    },
    /// Its user unsubscribed the last of its symbols.
    #[error("unsubscribed")]
    Unsubscribed,
    /// The feeds are stopped.
    #[error("the feeds are stopped")]
    Stopped,
}

/// Our end of a receiver.
#[derive(Debug)]
pub struct Slot {
    pub(super) id: u64,
    pub(super) user: Arc<str>,
    pub(super) sender: mpsc::Sender<Arc<MarketData>>,
    pub(super) ended: Arc<OnceLock<ReceiverEnd>>,
}

/// One symbol that somebody wants, or wanted lately.
#[derive(Debug, Default)]
struct SymbolDemand {
    /// Users that want it without a receiver.
    holders: BTreeSet<Arc<str>>,
    slots: Vec<Arc<Slot>>,
    /// Since when nobody wants it; `None` while somebody does.
    idle_since: Option<Instant>,
    /// The feed whose records count, and when its last one was received.
    current: Option<(u64, Instant)>,
    /// The last price, for those who subscribe later.
    last: Option<Arc<MarketData>>,
}

impl SymbolDemand {
    fn is_wanted(&self) -> bool {
        !self.holders.is_empty() || !self.slots.is_empty()
    }
}

/// What became of a record.
#[derive(Debug, PartialEq, Eq)]
pub enum Choice {
    /// The record counts: its feed is the one whose records are taken.
    Taken,
    /// It counts from now on: the feed before it was silent.
    FailedOver,
    /// It counts again: its feed is the preferred one.
    FailedBack,
    /// Another feed's records count, or nobody wants it.
    Dropped,
}

/// Every symbol that somebody wants or wanted lately, and the receivers.
#[derive(Debug, Default)]
pub struct Subscriptions {
    symbols: HashMap<Arc<str>, SymbolDemand>,
    receivers: HashMap<u64, (Arc<Slot>, BTreeSet<Arc<str>>)>,
}

impl Subscriptions {
    /// The symbols that are known.
    pub fn symbols(&self) -> impl Iterator<Item = &Arc<str>> {
        self.symbols.keys()
    }

    /// How many symbols are known.
    pub fn count(&self) -> usize {
        self.symbols.len()
    }

    /// How many receivers there are.
    pub fn receivers(&self) -> usize {
        self.receivers.len()
    }

    /// Whether this symbol is known.
    pub fn knows(&self, symbol: &str) -> bool {
        self.symbols.contains_key(symbol)
    }

    /// `user` wants `symbol`. `true`: it is new.
    pub fn hold(&mut self, user: &Arc<str>, symbol: &Arc<str>) -> bool {
        let is_new = !self.symbols.contains_key(symbol);
        let entry = self.symbols.entry(Arc::clone(symbol)).or_default();
        entry.holders.insert(Arc::clone(user));
        entry.idle_since = None;
        is_new
    }

    /// A receiver wants `symbol`. `true`: it is new.
    pub fn join(&mut self, slot: &Arc<Slot>, symbol: &Arc<str>) -> bool {
        let is_new = !self.symbols.contains_key(symbol);
        let entry = self.symbols.entry(Arc::clone(symbol)).or_default();
        entry.idle_since = None;
        let (_, symbols) = self.receivers.entry(slot.id).or_insert_with(|| (Arc::clone(slot), BTreeSet::new()));
        if symbols.insert(Arc::clone(symbol)) {
            entry.slots.push(Arc::clone(slot));
            if let Some(last) = &entry.last {
                // A buffer smaller than this gets what fits: these are no updates that are lost.
                let _ = slot.sender.try_send(Arc::clone(last));
            }
        }
        is_new
    }

    /// `user` does not want `symbol` any more, by whatever receiver.
    pub fn leave(&mut self, user: &str, symbol: &str, now: Instant) {
        let Some(entry) = self.symbols.get_mut(symbol) else { return };
        entry.holders.remove(user);
        let mut left = Vec::new();
        entry.slots.retain(|slot| {
            let stays = &*slot.user != user;
            if !stays {
                left.push(slot.id);
            }
            stays
        });
        if !entry.is_wanted() && entry.idle_since.is_none() {
            entry.idle_since = Some(now);
        }
        for id in left {
            let Some((slot, symbols)) = self.receivers.get_mut(&id) else { continue };
            symbols.remove(symbol);
            if symbols.is_empty() {
                let _ = slot.ended.set(ReceiverEnd::Unsubscribed);
                self.receivers.remove(&id);
            }
        }
    }

    /// The symbols that a user wants, with or without a receiver.
    pub fn of(&self, user: &str) -> Vec<Arc<str>> {
        let wants =
            |entry: &SymbolDemand| entry.holders.contains(user) || entry.slots.iter().any(|slot| &*slot.user == user);
        self.symbols.iter().filter(|(_, entry)| wants(entry)).map(|(symbol, _)| Arc::clone(symbol)).collect()
    }

    /// Ends the subscriptions of a receiver that was dropped.
    pub fn release(&mut self, id: u64, now: Instant) {
        let Some((_, symbols)) = self.receivers.remove(&id) else { return };
        for symbol in symbols {
            let Some(entry) = self.symbols.get_mut(&symbol) else { continue };
            entry.slots.retain(|slot| slot.id != id);
            if !entry.is_wanted() && entry.idle_since.is_none() {
                entry.idle_since = Some(now);
            }
        }
    }

    /// Forgets what nobody has wanted for `grace`. Gives those symbols, and when to ask again.
    pub fn expire(&mut self, grace: Duration, now: Instant) -> (Vec<Arc<str>>, Option<Instant>) {
        let due = |entry: &SymbolDemand| entry.idle_since.map(|since| since + grace);
        let gone: Vec<Arc<str>> = self
            .symbols
            .iter()
            .filter(|(_, entry)| due(entry).is_some_and(|due| due <= now))
            .map(|(symbol, _)| Arc::clone(symbol))
            .collect();
        for symbol in &gone {
            self.symbols.remove(symbol);
        }
        (gone, self.symbols.values().filter_map(due).min())
    }

    /// A feed is gone: others may speak at once.
    pub fn forget_feed(&mut self, rank: u64) {
        for entry in self.symbols.values_mut() {
            entry.current = entry.current.filter(|(current, _)| *current != rank);
        }
    }

    /// Gives a record of the feed `rank` to its symbol's receivers, if that feed counts. A smaller
    /// rank is preferred; `silence` lets others speak. How long a feed was silent is measured between the
    /// moments at which records were received: a record may have waited for room since then.
    pub fn distribute(&mut self, rank: u64, record: &Arc<MarketData>, silence: Duration, now: Instant) -> Choice {
        let Some(entry) = self.symbols.get_mut(&record.symbol) else { return Choice::Dropped };
        let choice = match entry.current {
            Some((current, last)) if rank > current && record.received.at - last <= silence => return Choice::Dropped,
            Some((current, _)) if rank > current => Choice::FailedOver,
            Some((current, _)) if rank < current => Choice::FailedBack,
            _ => Choice::Taken,
        };
        entry.current = Some((rank, record.received.at));
        if record.is_price() {
            entry.last = Some(Arc::clone(record));
        }
        let wanted = entry.is_wanted();
        let mut dropped = Vec::new();
        for slot in &entry.slots {
            match slot.sender.try_send(Arc::clone(record)) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(_)) => {
                    let _ = slot.ended.set(ReceiverEnd::Lagged { buffer: slot.sender.max_capacity() });
                    dropped.push(slot.id);
                }
                Err(mpsc::error::TrySendError::Closed(_)) => dropped.push(slot.id),
            }
        }
        for id in dropped {
            self.release(id, now);
        }
        if wanted { choice } else { Choice::Dropped }
    }

    /// Ends every receiver with [`ReceiverEnd::Stopped`] and forgets all symbols.
    pub fn stop(&mut self) {
        for (slot, _) in self.receivers.values() {
            let _ = slot.ended.set(ReceiverEnd::Stopped);
        }
        self.receivers.clear();
        self.symbols.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::broker::instrument::{Broker, Exchange, Instrument};
    use crate::source::broker::quote::{QuoteKind, ReceivedAt};
    use rust_decimal::Decimal;

    fn slot(id: u64, user: &str, buffer: usize) -> (Arc<Slot>, mpsc::Receiver<Arc<MarketData>>) {
        let (sender, receiver) = mpsc::channel(buffer);
        (Arc::new(Slot { id, user: user.into(), sender, ended: Arc::default() }), receiver)
    }

    fn record(symbol: &str, price: i64) -> Arc<MarketData> {
        let instrument = Instrument { symbol: symbol.into(), exchange: Exchange::Nse, id: 1 };
        let mut record =
            MarketData::new(Broker::InProcess, &"test".into(), &instrument, QuoteKind::Ltp, ReceivedAt::now());
        record.last_price = Some(Decimal::new(price, 0));
        Arc::new(record)
    }

    const SILENCE: Duration = Duration::from_secs(10);

    #[test]
    fn one_users_leaving_never_ends_anothers() {
        let (mut table, now) = (Subscriptions::default(), Instant::now());
        let (one, _first) = slot(1, "one", 4);
        let (other, mut second) = slot(2, "other", 4);
        assert!(table.join(&one, &"A".into()));
        assert!(!table.join(&other, &"A".into()));
        table.leave("one", "A", now);
        table.leave("one", "A", now);
        assert_eq!(one.ended.get(), Some(&ReceiverEnd::Unsubscribed));
        assert_eq!(table.distribute(0, &record("A", 1), SILENCE, now), Choice::Taken);
        assert!(second.try_recv().is_ok());
        assert_eq!(table.expire(Duration::ZERO, now).0.len(), 0, "still wanted");
        table.release(2, now);
        assert_eq!(table.expire(SILENCE, now), (vec![], Some(now + SILENCE)));
        assert_eq!(table.expire(SILENCE, now + SILENCE).0, ["A".into()]);
        assert_eq!((table.count(), table.receivers()), (0, 0));
    }

    #[test]
    fn a_symbol_wanted_again_within_its_grace_stays() {
        let (mut table, now) = (Subscriptions::default(), Instant::now());
        table.hold(&"user".into(), &"A".into());
        table.leave("user", "A", now);
        assert!(!table.hold(&"user".into(), &"A".into()), "it was still there");
        assert_eq!(table.expire(Duration::ZERO, now + SILENCE), (vec![], None));
    }

    #[test]
    fn a_slow_receiver_is_told_and_dropped_alone() {
        let (mut table, now) = (Subscriptions::default(), Instant::now());
        let (slow, mut behind) = slot(1, "slow", 2);
        let (quick, mut ahead) = slot(2, "quick", 3);
        for slot in [&slow, &quick] {
            table.join(slot, &"A".into());
            table.join(slot, &"B".into());
        }
        for price in 1..=3 {
            table.distribute(0, &record("A", price), SILENCE, now);
        }
        assert_eq!(slow.ended.get(), Some(&ReceiverEnd::Lagged { buffer: 2 }));
        assert_eq!((behind.try_recv().is_ok(), behind.try_recv().is_ok()), (true, true));
        assert_eq!(quick.ended.get(), None);
        assert!((0..3).all(|_| ahead.try_recv().is_ok()));
        assert_eq!(table.receivers(), 1);
    }

    #[test]
    fn the_first_feed_counts_and_another_one_while_it_is_silent() {
        let (mut table, now) = (Subscriptions::default(), Instant::now());
        table.hold(&"user".into(), &"A".into());
        let mut at = |rank: u64, seconds: u64| {
            let mut record = (*record("A", 1)).clone();
            record.received.at = now + Duration::from_secs(seconds);
            // They are looked at much later, all at once.
            table.distribute(rank, &Arc::new(record), SILENCE, now + Duration::from_mins(5))
        };
        assert_eq!(at(1, 0), Choice::Taken, "nobody else spoke yet");
        assert_eq!(at(0, 1), Choice::FailedBack);
        assert_eq!(at(1, 11), Choice::Dropped, "just silent enough");
        assert_eq!(at(1, 12), Choice::FailedOver);
        assert_eq!(at(1, 13), Choice::Taken);
        assert_eq!(at(0, 14), Choice::FailedBack);
    }

    #[test]
    fn who_comes_late_gets_the_last_price_at_once() {
        let (mut table, now) = (Subscriptions::default(), Instant::now());
        table.hold(&"user".into(), &"A".into());
        table.distribute(0, &record("A", 7), SILENCE, now);
        let (late, mut receiver) = slot(1, "late", 1);
        table.join(&late, &"A".into());
        assert_eq!(receiver.try_recv().unwrap().last_price, Some(Decimal::new(7, 0)));
    }
}
