//! The subscriptions' half of an XTS connection: REST calls that turn what is subscribed into what
//! is wanted.
//!
//! A call that fails is tried again with backoff, for its instruments only. A refusal of several is
//! split until it is known whom it means; that one is told, and not tried again on this connection.
//! Source: `docs/protocols/xts.md`, "Subscription".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use super::event_decoder::{EventDecoder, Routes};
use super::event_fields::{Code, Key};
use super::rest::{Login, Rest, RestError};
use crate::source::broker::credentials::Credentials;
use crate::source::broker::feed::FeedContext;
use crate::source::broker::feed_events::FeedEventKind;
use crate::source::broker::feed_settings::FeedSettings;
use crate::source::broker::net::backoff::Backoff;
use crate::source::broker::quote::ReceivedAt;
use crate::source::broker::symbols::{Address, MappedInstrument, Mode, SymbolMap};

/// What is subscribed at the broker: an instrument, by one code.
type Item = (Code, Key);

/// The half itself. It ends only when the session does.
pub struct Subscriber<'a> {
    pub(super) context: FeedContext,
    pub(super) settings: &'a FeedSettings,
    pub(super) symbols: &'a SymbolMap,
    pub(super) rest: &'a Rest,
    pub(super) login: &'a Login,
    pub(super) credentials: &'a Credentials,
    pub(super) decoder: &'a EventDecoder,
    pub(super) wanted: BTreeMap<Item, Arc<MappedInstrument>>,
    pub(super) have: BTreeSet<Item>,
    pub(super) refused: BTreeSet<Item>,
    /// Instruments beyond the limit that were told.
    pub(super) no_room: BTreeSet<Address>,
    pub(super) calls: Vec<SubscriptionCall>,
    /// Instruments that the feed's figures count for this connection.
    pub(super) counted: usize,
}

/// A call that is due at a moment.
pub struct SubscriptionCall {
    code: Code,
    keys: Vec<Key>,
    kind: CallKind,
    due: Instant,
    backoff: Backoff,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CallKind {
    Subscribe,
    /// The session has it from before: taking it back first brings a snapshot.
    Renew,
    Unsubscribe,
}

/// The figures are right even when the connection is cut off.
impl Drop for Subscriber<'_> {
    fn drop(&mut self) {
        self.context.health().subscribed(0, self.counted);
    }
}

impl Subscriber<'_> {
    /// Subscribes what is wanted, for as long as the token lives. Gives why it died.
    pub async fn run(mut self) -> String {
        loop {
            self.plan();
            let next = self.calls.iter().enumerate().min_by_key(|(_, call)| call.due).map(|(at, call)| (at, call.due));
            let Some((at, due)) = next else {
                self.context.wanted_changed().await;
                continue;
            };
            let is_due = tokio::select! {
                () = sleep_until(due) => true,
                () = self.context.wanted_changed() => false,
            };
            if is_due {
                let call = self.calls.swap_remove(at);
                if let Err(dead) = self.work(call).await {
                    return dead;
                }
                self.count();
            }
        }
    }

    /// Compares what is wanted with what there is, and makes jobs of the difference.
    fn plan(&mut self) {
        let symbols = self.context.wanted();
        let mapped: Vec<Arc<MappedInstrument>> =
            symbols.iter().filter_map(|symbol| self.symbols.find(symbol)).collect();
        let mut routes = Routes::new();
        let mut wanted = BTreeMap::new();
        let room = self.settings.limits.instruments;
        for one in mapped.iter().skip(room).filter(|one| self.no_room.insert(one.address)) {
            let symbol = Arc::clone(&one.instrument.symbol);
            self.context.tell(
                FeedEventKind::InstrumentRefused(symbol),
                format!("the connection's {room} instruments are taken"),
            );
        }
        for one in mapped.into_iter().take(room) {
            let Address::Xts(key) = one.address else { continue };
            for code in codes(self.settings, one.mode.unwrap_or(self.settings.mode)) {
                wanted.insert((code, key), Arc::clone(&one));
            }
            routes.insert(key, one);
        }
        self.decoder.route(Arc::new(routes));
        // A refused instrument that is wanted again is tried again.
        self.refused.retain(|item| wanted.contains_key(item));
        for call in &mut self.calls {
            let keep_wanted = call.kind != CallKind::Unsubscribe;
            call.keys.retain(|key| wanted.contains_key(&(call.code, *key)) == keep_wanted);
        }
        self.calls.retain(|call| !call.keys.is_empty());
        let busy: BTreeSet<Item> =
            self.calls.iter().flat_map(|call| call.keys.iter().map(|key| (call.code, *key))).collect();
        let gone = self.have.iter().filter(|item| !wanted.contains_key(item) && !busy.contains(item));
        let gone: Vec<Item> = gone.copied().collect();
        let new = wanted
            .keys()
            .filter(|&item| !self.have.contains(item) && !self.refused.contains(item) && !busy.contains(item));
        let new: Vec<Item> = new.copied().collect();
        self.wanted = wanted;
        self.add(&gone, CallKind::Unsubscribe);
        self.add(&new, CallKind::Subscribe);
    }

    /// Jobs for these, by code, in batches.
    fn add(&mut self, items: &[Item], kind: CallKind) {
        for same in items.chunk_by(|one, other| one.0 == other.0) {
            for batch in same.chunks(self.settings.limits.batch) {
                let keys = batch.iter().map(|(_, key)| *key).collect();
                let backoff = Backoff::new(self.settings.recovery.backoff);
                self.calls.push(SubscriptionCall { code: batch[0].0, keys, kind, due: Instant::now(), backoff });
            }
        }
    }

    /// Does one job. `Err`: the token is dead.
    async fn work(&mut self, mut call: SubscriptionCall) -> Result<(), String> {
        let (code, login, credentials) = (call.code, self.login, self.credentials);
        let result = match call.kind {
            CallKind::Unsubscribe => {
                let result = self.rest.unsubscribe(login, code, &call.keys, credentials).await;
                result.map(|()| self.left(&call))
            }
            CallKind::Renew | CallKind::Subscribe => {
                if call.kind == CallKind::Renew {
                    // Whether this works or not, subscribing tells.
                    let _ = self.rest.unsubscribe(login, code, &call.keys, credentials).await;
                }
                let result = self.rest.subscribe(login, code, &call.keys, credentials).await;
                match result {
                    Ok(snapshots) => {
                        self.have.extend(call.keys.iter().map(|key| (code, *key)));
                        self.tell_snapshots(&snapshots.quotes).await;
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
        };
        match result {
            Ok(()) => {}
            Err(RestError::Auth(reason)) => return Err(reason),
            // A server that will not take it back: nothing more can be done.
            Err(RestError::Already(_) | RestError::Refused(_)) if call.kind == CallKind::Unsubscribe => {
                self.left(&call);
            }
            Err(RestError::Already(_)) if call.kind == CallKind::Subscribe => {
                (call.kind, call.due) = (CallKind::Renew, Instant::now());
                self.calls.push(call);
            }
            Err(RestError::Already(_) | RestError::Refused(_)) if call.keys.len() > 1 => self.split(&call),
            Err(RestError::Already(_)) => self.have.extend(call.keys.iter().map(|key| (code, *key))),
            Err(RestError::Refused(reason)) => self.refuse(&call, &reason),
            Err(RestError::Busy { retry_after, reason }) => {
                let pause = retry_after.unwrap_or(self.settings.recovery.backoff.cap);
                self.again(call, Some(pause), &reason);
            }
            Err(RestError::Trouble(reason)) => self.again(call, None, &reason),
        }
        Ok(())
    }

    /// Nobody wants these any more.
    fn left(&mut self, call: &SubscriptionCall) {
        for key in &call.keys {
            self.have.remove(&(call.code, *key));
            self.decoder.forget(call.code, *key);
        }
    }

    /// Half the job each, to learn whom a refusal means.
    fn split(&mut self, call: &SubscriptionCall) {
        let (first, second) = call.keys.split_at(call.keys.len() / 2);
        for keys in [first, second] {
            let backoff = Backoff::new(self.settings.recovery.backoff);
            let keys = keys.to_vec();
            self.calls.push(SubscriptionCall { code: call.code, keys, kind: call.kind, due: Instant::now(), backoff });
        }
    }

    /// Later, unless its tries are used up.
    fn again(&mut self, mut call: SubscriptionCall, pause: Option<std::time::Duration>, reason: &str) {
        let Some(wait) = call.backoff.next_wait() else {
            let reason = format!("{reason}; {} tries failed", call.backoff.tries());
            match call.kind {
                CallKind::Unsubscribe => self.left(&call),
                _ => self.refuse(&call, &reason),
            }
            return;
        };
        let count = call.keys.len();
        self.context
            .tell(FeedEventKind::Error, format!("{count} instruments of {} wait: {reason}", call.code.number()));
        call.due = Instant::now() + pause.unwrap_or(wait);
        self.calls.push(call);
    }

    fn refuse(&mut self, call: &SubscriptionCall, reason: &str) {
        for key in &call.keys {
            let item = (call.code, *key);
            if let Some(mapped) = self.wanted.get(&item) {
                let symbol = Arc::clone(&mapped.instrument.symbol);
                self.context
                    .tell(FeedEventKind::InstrumentRefused(symbol), format!("{}: {reason}", call.code.number()));
            }
            self.refused.insert(item);
        }
    }

    async fn tell_snapshots(&self, quotes: &[String]) {
        let received = ReceivedAt::now();
        for quote in quotes {
            match self.decoder.snapshot(quote, received) {
                Ok(Some(record)) => {
                    // `false`: everything stops anyway.
                    self.context.send(record).await;
                }
                Ok(None) => {}
                Err(fault) => self.context.health().malformed(&fault),
            }
        }
    }

    /// Tells the figures how many instruments are subscribed, by whatever codes.
    fn count(&mut self) {
        let now = self.have.iter().map(|(_, key)| key).collect::<BTreeSet<_>>().len();
        self.context.health().subscribed(now, self.counted);
        self.counted = now;
    }
}

/// The codes that are subscribed for a mode, unless the settings name others.
pub fn codes(settings: &FeedSettings, mode: Mode) -> Vec<Code> {
    if let Some(codes) = &settings.xts.codes {
        return codes.clone();
    }
    match mode {
        Mode::Ltp => vec![Code::Ltp],
        Mode::Quote => vec![Code::Touchline],
        Mode::Full => vec![Code::Depth, Code::OpenInterest],
    }
}
