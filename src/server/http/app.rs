//! What every HTTP handler shares: the hub, the shards, and whether we serve.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use axum::Json;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request;
use ipnet::IpNet;
use tokio::sync::Semaphore;

use super::jwt::Authority;
use crate::engine::hub::Hub;
use crate::health::status::Status;
use crate::server::shard::ShardHandle;
use crate::streams::Streams;
use crate::streams::stream_options::StreamOptions;
use crate::wire::payload::Profile;

/// Where the server is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// The port is bound, the data is not there yet.
    Loading,
    /// Clients are served.
    Serving,
    /// The server stops: nobody new is let in.
    Draining,
}

/// What handlers need to know.
pub struct App {
    /// The orderflow hub.
    pub hub: Arc<Hub>,
    /// How the sources are.
    pub status: Arc<Status>,
    /// Whom to give upgraded connections to.
    pub shards: Vec<ShardHandle>,
    /// The JSON streams.
    pub streams: Arc<Streams>,
    /// Settings of the JSON streams.
    pub stream_options: StreamOptions,
    /// Who may use the JSON streams.
    pub authority: Authority,
    /// Settings of the HTTP side.
    pub options: HttpOptions,
    /// First part of every group's name.
    pub prefix: Arc<str>,
    /// Speak this profile on every endpoint.
    pub pinned: Option<Profile>,
    /// Upgrades under way.
    pub pending: Arc<AtomicUsize>,
    /// Those of them on `/ws`.
    pub pending_streams: Arc<AtomicUsize>,
    /// Readers of the tick ledger there may be besides.
    pub tick_readers: Arc<Semaphore>,
    stage: AtomicU8,
    turn: AtomicUsize,
}

/// What an [`App`] is made of; the fields are its own.
#[expect(missing_docs, reason = "see App")]
pub struct AppParts {
    pub hub: Arc<Hub>,
    pub status: Arc<Status>,
    pub shards: Vec<ShardHandle>,
    pub streams: Arc<Streams>,
    pub stream_options: StreamOptions,
    pub authority: Authority,
    pub options: HttpOptions,
    pub prefix: Arc<str>,
    pub pinned: Option<Profile>,
}

/// Settings of the HTTP side.
#[derive(Debug, Clone, clap::Args)]
pub struct HttpOptions {
    /// Serve the orderflow hub: negotiate and its WebSocket endpoints
    #[arg(long, env = "WS_ENABLED", default_value_t = true, value_parser = clap::value_parser!(bool))]
    #[arg(action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub ws_enabled: bool,
    /// WebSocket connections there may be at a time; more get 503
    #[arg(long, env = "FLOWCAST_MAX_CONNECTIONS", default_value_t = 100_000, value_name = "CONNECTIONS")]
    pub max_connections: usize,
    /// HTTP connections there may be at a time, upgrades under way included; more wait
    #[arg(long, env = "FLOWCAST_MAX_HTTP_CONNECTIONS", default_value_t = 4096, value_name = "CONNECTIONS")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub max_http_connections: usize,
    /// Seconds an HTTP client has to send a request's head, and may be idle between two
    #[arg(long, env = "FLOWCAST_HTTP_TIMEOUT_SECONDS", default_value_t = 30, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub http_timeout_seconds: u64,
    /// Readers of the tick ledger there may be at a time; more get 503
    #[arg(long, env = "FLOWCAST_MAX_TICK_READERS", default_value_t = 64, value_name = "READERS")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(0..=65_536))]
    pub max_tick_readers: usize,
    /// Largest body of POST /api/publish, bytes
    #[arg(long, env = "FLOWCAST_MAX_BODY_BYTES", default_value_t = 8 << 20, value_name = "BYTES")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=64 << 20))]
    pub max_body_bytes: usize,
    /// Addresses of proxies whose X-Forwarded-Proto and X-Forwarded-Host are believed: comma-separated
    /// networks such as 10.0.0.0/8
    #[arg(long, env = "FLOWCAST_TRUSTED_PROXIES", value_delimiter = ',', value_name = "NETWORKS", value_parser = network)]
    pub trusted_proxies: Vec<IpNet>,
}

fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| "expected an address or a network such as 10.0.0.0/8".to_owned())
}

impl App {
    /// Nobody is served before [`App::set_stage`].
    pub fn new(parts: AppParts) -> Self {
        let AppParts { hub, status, shards, streams, stream_options, authority, options, prefix, pinned } = parts;
        Self {
            tick_readers: Arc::new(Semaphore::new(options.max_tick_readers)),
            hub,
            status,
            shards,
            streams,
            stream_options,
            authority,
            options,
            prefix,
            pinned,
            pending: Arc::default(),
            pending_streams: Arc::default(),
            stage: AtomicU8::new(Stage::Loading as u8),
            turn: AtomicUsize::new(0),
        }
    }

    /// Where the server is in its life.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Loading,
            1 => Stage::Serving,
            _ => Stage::Draining,
        }
    }

    /// Moves on. A server that drains never serves again, whatever finishes loading meanwhile.
    pub fn set_stage(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::Relaxed);
    }

    /// The answer while nobody is served.
    pub fn unavailable(&self) -> Option<Response> {
        let reason = match self.stage() {
            Stage::Serving => return None,
            Stage::Loading => "the data is still being loaded",
            Stage::Draining => "the server is shutting down",
        };
        Some(([(http::header::RETRY_AFTER, "1")], error(StatusCode::SERVICE_UNAVAILABLE, reason)).into_response())
    }

    /// Open WebSocket connections.
    pub fn connections(&self) -> u64 {
        self.shards.iter().map(|shard| shard.stats().connections.get()).sum()
    }

    /// Open connections of the JSON streams.
    pub fn stream_connections(&self) -> u64 {
        self.shards.iter().map(|shard| shard.stats().stream_connections.get()).sum()
    }

    /// The shard for the next connection: each in turn.
    pub fn next_shard(&self) -> &ShardHandle {
        &self.shards[self.turn.fetch_add(1, Ordering::Relaxed) % self.shards.len()]
    }
}

/// Who is at the other end of the TCP connection: the client, or a proxy before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut request::Parts, _: &S) -> Result<Self, Infallible> {
        let unknown = Self(SocketAddr::from(([0, 0, 0, 0], 0)));
        Ok(parts.extensions.get::<Self>().copied().unwrap_or(unknown))
    }
}

/// Every error over HTTP has this shape.
pub fn error(status: StatusCode, reason: &str) -> Response {
    (status, Json(serde_json::json!({ "error": reason }))).into_response()
}
