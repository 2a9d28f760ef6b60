//! Zerodha's Kite ticker.
//!
//! ```text
//! wanted symbols ─▶ assign (3 connections of 3,000) ─▶ client ─▶ command ─▶ socket
//!                                              records ◀─ packet ◀──────────┘
//! ```

pub mod assign;
pub mod command;
pub mod kite_client;
pub mod packet;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::rustls::ClientConfig;

use super::feed::{Feed, FeedContext, Running, Symbols};
use super::feed_events::FeedEventKind;
use super::feed_settings::FeedSettings;
use super::instrument::Broker;
use super::symbols::{Address, SymbolMap, unmapped_kite};
use crate::source::broker::net::rate::CallRate;
use crate::source::broker::net::recovery;
use crate::source::broker::net::tls::{TlsError, client_config};
use assign::{Assignment, WantedInstrument, WantedInstruments};
use kite_client::KiteConnection;

/// A feed of one Kite key.
pub struct KiteFeed {
    settings: Arc<FeedSettings>,
    symbols: SymbolMap,
    tls: Arc<ClientConfig>,
}

impl KiteFeed {
    /// A feed that connects when it runs.
    pub fn new(settings: FeedSettings) -> Result<Self, TlsError> {
        let tls = client_config(settings.ca_file.as_deref())?;
        let symbols = SymbolMap::new(&settings.instruments, settings.unmapped.then_some(unmapped_kite));
        Ok(Self { settings: Arc::new(settings), symbols, tls })
    }

    fn instruments_of(&self, symbols: &Symbols) -> WantedInstruments {
        let entry = |symbol: &Arc<str>| {
            let mapped = self.symbols.find(symbol)?;
            let Address::Kite(token) = mapped.address else { return None };
            let mode = mapped.mode.unwrap_or(self.settings.mode);
            Some((token, Arc::new(WantedInstrument { instrument: mapped.instrument.clone(), mode })))
        };
        symbols.iter().filter_map(entry).collect()
    }

    /// Spreads what is wanted over as many connections as it needs; the first is always there, so
    /// that health tells whether the credentials are good.
    async fn supervise(self: Arc<Self>, mut context: FeedContext) {
        let limits = &self.settings.limits;
        let connects = Arc::new(CallRate::new(limits.connects_per_second, 1));
        let calls = Arc::new(CallRate::new(limits.calls_per_second, 1));
        let mut assignment = Assignment::new(limits.connections, limits.instruments);
        let mut carried: Vec<watch::Sender<Arc<WantedInstruments>>> = Vec::new();
        // Dropped with this future, and with it every connection.
        let mut connections = JoinSet::new();
        loop {
            let wanted = self.instruments_of(&context.wanted());
            for token in assignment.update(&wanted) {
                let Some(entry) = wanted.get(&token) else { continue };
                let symbol = Arc::clone(&entry.instrument.symbol);
                let reason =
                    format!("{} connections of {} instruments are full", limits.connections, limits.instruments);
                context.tell(FeedEventKind::InstrumentRefused(symbol), reason);
            }
            for (at, assigned) in assignment.connections().iter().enumerate() {
                match carried.get(at) {
                    Some(there) if **there.borrow() == *assigned => {}
                    Some(there) => drop(there.send_replace(Arc::new(assigned.clone()))),
                    None if at > 0 && assigned.is_empty() => {}
                    None => {
                        let (sender, receiver) = watch::channel(Arc::new(assigned.clone()));
                        carried.push(sender);
                        context.health().needs(carried.len());
                        let mut connection = KiteConnection {
                            context: context.clone(),
                            settings: Arc::clone(&self.settings),
                            tls: Arc::clone(&self.tls),
                            calls: Arc::clone(&calls),
                            assigned: receiver,
                            tried: None,
                        };
                        let (context, connects) = (context.clone(), Arc::clone(&connects));
                        let recovery = self.settings.recovery;
                        connections.spawn(async move {
                            recovery::keep(context, &recovery, &connects, &mut connection).await;
                        });
                    }
                }
            }
            let stopping = context.clone();
            tokio::select! {
                () = context.wanted_changed() => {}
                () = stopping.stopped() => break,
            }
        }
        // They see the stop too, and say goodbye.
        while connections.join_next().await.is_some() {}
    }
}

impl Feed for KiteFeed {
    fn id(&self) -> Arc<str> {
        Arc::clone(&self.settings.id)
    }

    fn broker(&self) -> Broker {
        Broker::Zerodha
    }

    fn offers(&self, symbol: &str) -> bool {
        self.symbols.find(symbol).is_some()
    }

    fn symbols(&self) -> Vec<Arc<str>> {
        self.symbols.symbols()
    }

    fn run(self: Arc<Self>, context: FeedContext) -> Running {
        Box::pin(self.supervise(context))
    }
}
