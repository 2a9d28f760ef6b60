//! Symphony XTS: Pro and Client deployments, which are presets of one client.
//!
//! ```text
//! wanted symbols ─▶ subscriber ─▶ rest ─▶ snapshots ─┐
//!                          socket ─▶ socketio ───────┴─▶ decoder ─▶ {events, partial} ─▶ fields ─▶ records
//! ```

pub mod event_decoder;
pub mod event_fields;
pub mod partial;
pub mod rest;
pub mod socketio;
pub mod subscriber;
pub mod time;
pub mod xts_client;
pub mod xts_events;

use std::sync::Arc;

use tokio_rustls::rustls::ClientConfig;

use super::feed::{Feed, FeedContext, Running};
use super::feed_settings::FeedSettings;
use super::instrument::Broker;
use super::symbols::{SymbolMap, unmapped_xts};
use crate::source::broker::net::http_client::HttpClient;
use crate::source::broker::net::rate::CallRate;
use crate::source::broker::net::recovery;
use crate::source::broker::net::tls::{TlsError, client_config};
use rest::Rest;
use xts_client::XtsConnection;

/// A feed of one XTS key.
pub struct XtsFeed {
    settings: Arc<FeedSettings>,
    symbols: Arc<SymbolMap>,
    tls: Arc<ClientConfig>,
}

impl XtsFeed {
    /// A feed that connects when it runs.
    pub fn new(settings: FeedSettings) -> Result<Self, TlsError> {
        let tls = client_config(settings.ca_file.as_deref())?;
        let symbols = SymbolMap::new(&settings.instruments, settings.unmapped.then_some(unmapped_xts));
        Ok(Self { settings: Arc::new(settings), symbols: Arc::new(symbols), tls })
    }

    async fn keep(self: Arc<Self>, context: FeedContext) {
        let limits = &self.settings.limits;
        let connects = CallRate::new(limits.connects_per_second, 1);
        let http = HttpClient {
            tls: Arc::clone(&self.tls),
            timeout: limits.timeout,
            max_answer_bytes: limits.max_message_bytes,
        };
        // Login and first subscriptions may follow one another at once.
        let calls = Arc::new(CallRate::new(limits.calls_per_second, 3));
        let mut connection = XtsConnection {
            context: context.clone(),
            settings: Arc::clone(&self.settings),
            symbols: Arc::clone(&self.symbols),
            tls: Arc::clone(&self.tls),
            rest: Rest { http, settings: Arc::clone(&self.settings), calls },
            tried: None,
            session: None,
        };
        recovery::keep(context, &self.settings.recovery, &connects, &mut connection).await;
    }
}

impl Feed for XtsFeed {
    fn id(&self) -> Arc<str> {
        Arc::clone(&self.settings.id)
    }

    fn broker(&self) -> Broker {
        self.settings.broker
    }

    fn offers(&self, symbol: &str) -> bool {
        self.symbols.find(symbol).is_some()
    }

    fn symbols(&self) -> Vec<Arc<str>> {
        self.symbols.symbols()
    }

    fn run(self: Arc<Self>, context: FeedContext) -> Running {
        Box::pin(self.keep(context))
    }
}
