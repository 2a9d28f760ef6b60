//! What the two halves of an XTS connection share: which instruments count, and what is known of
//! them.
//!
//! ```text
//! socket ─ events ─┐
//!                  ├─▶ decoder ─▶ records
//! REST ─ snapshots ┘
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::event_fields::{Code, Fields, Key};
use super::partial::{self, Store};
use super::xts_events::{self, EventFault, XtsUpdate};
use crate::source::broker::feed::FeedContext;
use crate::source::broker::instrument::Broker;
use crate::source::broker::quote::{MarketData, ReceivedAt};
use crate::source::broker::symbols::MappedInstrument;

/// The instruments that are wanted, by XTS's name.
pub type Routes = HashMap<Key, Arc<MappedInstrument>>;

/// Shared by the socket's half and the subscriptions' half of one connection, which run in one task.
pub struct EventDecoder {
    broker: Broker,
    context: FeedContext,
    /// Whether partial events are asked for.
    partial: bool,
    state: Mutex<DecoderState>,
}

struct DecoderState {
    routes: Arc<Routes>,
    store: Store,
}

/// What one event contained.
#[derive(Debug, Default)]
pub struct DecodedEvent {
    /// Records for the merged stream.
    pub records: Vec<MarketData>,
    /// Messages of the exchange, for people to read.
    pub notices: Vec<String>,
    /// Why a part could not be read; the rest was.
    pub fault: Option<EventFault>,
}

impl EventDecoder {
    /// An empty desk that keeps the state of at most `limit` pairs of instrument and code.
    pub fn new(broker: Broker, context: FeedContext, partial: bool, limit: usize) -> Self {
        let state = DecoderState { routes: Arc::default(), store: Store::new(limit) };
        Self { broker, context, partial, state: Mutex::new(state) }
    }

    /// These instruments count from now on.
    pub fn route(&self, routes: Arc<Routes>) {
        self.state().routes = routes;
    }

    /// Forgets what is known of an instrument: it is out of date.
    pub fn forget(&self, code: Code, key: Key) {
        self.state().store.forget(code, key);
    }

    /// Reads an event of the socket. Its name tells how.
    pub fn event(&self, name: &str, payload: &str, received: ReceivedAt) -> DecodedEvent {
        let mut decoded = DecodedEvent::default();
        let Some((code, form)) = name.split_once("-json-") else {
            self.context.health().ignored();
            return decoded;
        };
        let code = code.parse().ok().and_then(Code::from_number);
        match (code, form) {
            (Some(code), "full") => {
                let mut state = self.state();
                let read = xts_events::full(code, payload, received.unix_ms, |said| match said {
                    XtsUpdate::Market(text) => decoded.notices.push(text),
                    XtsUpdate::Data(key, code, fields) => {
                        // A full message tells all; partial ones that follow change it.
                        if state.routes.contains_key(&key) && self.partial {
                            state.store.seed(code, key, &fields);
                        }
                        decoded.records.extend(self.record(&state.routes, key, code, &fields, received));
                    }
                });
                decoded.fault = read.err();
            }
            (Some(code), "partial") if code != Code::MarketStatus => {
                let partial = match partial::split(payload) {
                    Ok(partial) => partial,
                    Err(fault) => return DecodedEvent { fault: Some(fault), ..decoded },
                };
                let mut state = self.state();
                if !state.routes.contains_key(&partial.key) {
                    self.context.health().ignored();
                    return decoded;
                }
                let fields = state.store.merge(code, &partial, received.unix_ms);
                decoded.records.extend(self.record(&state.routes, partial.key, code, &fields, received));
            }
            _ => self.context.health().ignored(),
        }
        decoded
    }

    /// Reads a snapshot of a subscription's answer, and seeds the store with it.
    pub fn snapshot(&self, json: &str, received: ReceivedAt) -> Result<Option<MarketData>, EventFault> {
        match xts_events::snapshot(json, received.unix_ms)? {
            XtsUpdate::Market(_) => Ok(None),
            XtsUpdate::Data(key, code, fields) => {
                let mut state = self.state();
                if state.routes.contains_key(&key) {
                    state.store.seed(code, key, &fields);
                }
                Ok(self.record(&state.routes, key, code, &fields, received))
            }
        }
    }

    /// `None` for instruments that nobody wants: they may still be on their way.
    fn record(
        &self,
        routes: &Routes,
        key: Key,
        code: Code,
        fields: &Fields,
        received: ReceivedAt,
    ) -> Option<MarketData> {
        let Some(mapped) = routes.get(&key) else {
            self.context.health().ignored();
            return None;
        };
        Some(fields.market_data(code, self.broker, self.context.id(), &mapped.instrument, received))
    }

    /// Nothing is left half done under this lock, and no await follows while it is held.
    fn state(&self) -> MutexGuard<'_, DecoderState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
