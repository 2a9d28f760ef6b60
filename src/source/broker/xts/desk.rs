//! What the two halves of an XTS connection share: which instruments count, and what is known of
//! them.
//!
//! ```text
//! socket ─ events ─┐
//!                  ├─▶ desk ─▶ records
//! REST ─ snapshots ┘
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::events::{self, EventFault, Said};
use super::fields::{Code, Fields, Key};
use super::partial::{self, Store};
use crate::source::broker::feed::Line;
use crate::source::broker::quote::{Broker, MarketData, Received};
use crate::source::broker::symbols::Mapped;

/// The instruments that are wanted, by XTS's name.
pub type Routes = HashMap<Key, Arc<Mapped>>;

/// Shared by the socket's half and the subscriptions' half of one connection, which run in one task.
pub struct Desk {
    broker: Broker,
    line: Line,
    /// Whether partial events are asked for.
    partial: bool,
    inner: Mutex<Inner>,
}

struct Inner {
    routes: Arc<Routes>,
    store: Store,
}

/// What came of an event.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Records for the merged stream.
    pub records: Vec<MarketData>,
    /// What the exchange says.
    pub notices: Vec<String>,
    /// What could not be read. The rest was.
    pub fault: Option<EventFault>,
}

impl Desk {
    /// An empty desk that keeps the state of at most `limit` pairs of instrument and code.
    pub fn new(broker: Broker, line: Line, partial: bool, limit: usize) -> Self {
        let inner = Inner { routes: Arc::default(), store: Store::new(limit) };
        Self { broker, line, partial, inner: Mutex::new(inner) }
    }

    /// These instruments count from now on.
    pub fn route(&self, routes: Arc<Routes>) {
        self.inner().routes = routes;
    }

    /// What is known of an instrument is of no use any more.
    pub fn forget(&self, code: Code, key: Key) {
        self.inner().store.forget(code, key);
    }

    /// Reads an event of the socket. Its name tells how.
    pub fn event(&self, name: &str, payload: &str, received: Received) -> Outcome {
        let mut outcome = Outcome::default();
        let Some((code, form)) = name.split_once("-json-") else {
            self.line.health().ignored();
            return outcome;
        };
        let code = code.parse().ok().and_then(Code::from_number);
        match (code, form) {
            (Some(code), "full") => {
                let mut inner = self.inner();
                let read = events::full(code, payload, received.unix_ms, |said| match said {
                    Said::Market(text) => outcome.notices.push(text),
                    Said::Data(key, code, fields) => {
                        // A full message tells all; partial ones that follow change it.
                        if inner.routes.contains_key(&key) && self.partial {
                            inner.store.seed(code, key, &fields);
                        }
                        outcome.records.extend(self.record(&inner.routes, key, code, &fields, received));
                    }
                });
                outcome.fault = read.err();
            }
            (Some(code), "partial") if code != Code::MarketStatus => {
                let partial = match partial::split(payload) {
                    Ok(partial) => partial,
                    Err(fault) => return Outcome { fault: Some(fault), ..outcome },
                };
                let mut inner = self.inner();
                if !inner.routes.contains_key(&partial.key) {
                    self.line.health().ignored();
                    return outcome;
                }
                let fields = inner.store.merge(code, &partial, received.unix_ms);
                outcome.records.extend(self.record(&inner.routes, partial.key, code, &fields, received));
            }
            _ => self.line.health().ignored(),
        }
        outcome
    }

    /// Reads a snapshot of a subscription's answer, and seeds the store with it.
    pub fn snapshot(&self, json: &str, received: Received) -> Result<Option<MarketData>, EventFault> {
        match events::snapshot(json, received.unix_ms)? {
            Said::Market(_) => Ok(None),
            Said::Data(key, code, fields) => {
                let mut inner = self.inner();
                if inner.routes.contains_key(&key) {
                    inner.store.seed(code, key, &fields);
                }
                Ok(self.record(&inner.routes, key, code, &fields, received))
            }
        }
    }

    /// `None` for instruments that nobody wants: they may still be on their way.
    fn record(&self, routes: &Routes, key: Key, code: Code, fields: &Fields, received: Received) -> Option<MarketData> {
        let Some(mapped) = routes.get(&key) else {
            self.line.health().ignored();
            return None;
        };
        Some(fields.market_data(code, self.broker, self.line.id(), &mapped.instrument, received))
    }

    /// Nothing is left half done under this lock, and no await follows while it is held.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
