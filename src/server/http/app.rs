//! What every HTTP handler shares: the hub, the shards, and whether we serve.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::RETRY_AFTER;
use http::request;
use tokio::sync::Semaphore;

use super::control_access::ControlAccess;
use super::http_options::HttpOptions;
use super::jwt::Authority;
use super::live::live_state::LiveState;
use super::negotiate::api_slots::ApiSlots;
use super::places::Places;
use crate::engine::hub::Hub;
use crate::faults::fault_board::FaultBoard;
use crate::health::status::Status;
use crate::server::http::replay::replay_state::ReplayState;
use crate::server::http::rest::rest_state::RestState;
use crate::server::shard::mailbox::ShardHandle;
use crate::server::shard::session_token::SessionTokens;
use crate::streams::Streams;
use crate::streams::stream_options::StreamOptions;
use crate::wire::byte_budget::ByteBudget;
use crate::wire::gexbot::{GroupName, HubName, HubTopic};
use crate::wire::payload::Profile;

/// The stage of the server between start and end. It only moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// The port is bound, the data is not loaded yet: most routes answer 503.
    Loading,
    /// The data is there and clients are let in.
    Serving,
    /// The server is shutting down: no new client is let in.
    Draining,
}

/// What the HTTP handlers need.
pub struct App {
    /// The hub of `/negotiate` and its WebSocket endpoints.
    pub hub: Arc<Hub>,
    /// The registry of sources, for status and metrics.
    pub status: Arc<Status>,
    /// The threads that serve upgraded connections.
    pub shards: Vec<ShardHandle>,
    /// The channels of `/ws`, and what is published to them.
    pub streams: Arc<Streams>,
    /// Settings of the JSON streams.
    pub stream_options: StreamOptions,
    /// Who may use the JSON streams.
    pub authority: Authority,
    /// The recorded day over REST.
    pub rest: RestState,
    /// The clocks that requests steer.
    pub replay: ReplayState,
    /// Which plan of faults runs, if any.
    pub faults: Arc<FaultBoard>,
    /// Who may steer.
    pub control: ControlAccess,
    /// Settings of the HTTP side.
    pub options: HttpOptions,
    /// First part of every group's name.
    pub prefix: Arc<str>,
    /// If set, the profile of every endpoint; otherwise each endpoint has its own.
    pub pinned: Option<Profile>,
    /// Connections let in that no shard counts yet; they count against the limit.
    pub pending: Arc<AtomicUsize>,
    /// The part of `pending` that is on `/ws`.
    pub pending_streams: Arc<AtomicUsize>,
    /// Reads the reconnection tokens of other nodes; `None` without a key.
    pub session_tokens: Option<Arc<SessionTokens>>,
    /// What clients that negotiated with POST are subscribed to.
    pub slots: ApiSlots,
    /// Groups that one connection may join.
    pub max_groups_per_connection: usize,
    /// The live page.
    pub live: LiveState,
    /// A permit per further client that may follow `/ticks`.
    pub tick_readers: Arc<Semaphore>,
    /// What strangers and slow clients can take.
    pub bounds: HttpBounds,
    /// The stage, and which hubs have data.
    pub state: ServingState,
}

/// What strangers and slow clients can take of the HTTP side.
pub struct HttpBounds {
    /// The places of HTTP connections.
    pub places: Arc<Places>,
    /// For request bodies in memory.
    pub bodies: Arc<ByteBudget>,
    /// For answers in memory.
    pub answers: Arc<ByteBudget>,
    /// How long a client may take nothing of an answer.
    pub answer_timeout: Duration,
}

impl HttpBounds {
    /// As the settings say; the metrics show them.
    pub fn new(options: &HttpOptions, answer_timeout: Duration, status: &Status) -> Self {
        Self {
            places: Places::new(options.max_http_connections, status),
            bodies: shown_budget(options.request_bodies_bytes, "request_bodies", status),
            answers: shown_budget(options.answers_bytes, "answers", status),
            answer_timeout,
        }
    }
}

/// A budget that the metrics show under this name.
pub fn shown_budget(limit: usize, what: &'static str, status: &Status) -> Arc<ByteBudget> {
    let label = || vec![("what", what.into())];
    let held = "Bytes that clients make the server keep: bodies of requests, answers, unfinished WebSocket messages";
    let refused = "How often there was no room to keep more";
    ByteBudget::new(limit, status.gauge("held_bytes", held, label()), status.count("held_refused", refused, label()))
}

/// How far the server is, and whose turn it is: changed while it serves, only through [`App`].
pub struct ServingState {
    stage: AtomicU8,
    /// The topics of hubs that have data, a bit each, in the order of [`HubTopic::ALL`].
    topics: AtomicU8,
    turn: AtomicUsize,
}

impl Default for ServingState {
    /// [`Stage::Loading`], with data for orderflow alone.
    fn default() -> Self {
        Self {
            stage: AtomicU8::new(Stage::Loading as u8),
            topics: AtomicU8::new(bit(HubTopic::Orderflow)),
            turn: AtomicUsize::new(0),
        }
    }
}

impl App {
    /// The stage that the server is in.
    pub fn stage(&self) -> Stage {
        match self.state.stage.load(Ordering::Relaxed) {
            0 => Stage::Loading,
            1 => Stage::Serving,
            _ => Stage::Draining,
        }
    }

    /// Moves to a later stage. A server that drains never serves again, even if loading finishes later.
    pub fn set_stage(&self, stage: Stage) {
        self.state.stage.fetch_max(stage as u8, Ordering::Relaxed);
    }

    /// The 503 of a server that loads or drains; `None` while it serves.
    pub fn unavailable(&self) -> Option<Response> {
        let reason = match self.stage() {
            Stage::Serving => return None,
            Stage::Loading => "the data is still being loaded",
            Stage::Draining => "the server is shutting down",
        };
        Some(error(StatusCode::SERVICE_UNAVAILABLE, reason))
    }

    /// Sets which hubs have data: `GET /negotiate` lists these. Before it is called it lists orderflow alone. Clients
    /// may connect to the other hubs, and receive nothing there.
    pub fn set_topics(&self, topics: impl IntoIterator<Item = HubTopic>) {
        self.state.topics.store(topics.into_iter().fold(0, |bits, topic| bits | bit(topic)), Ordering::Relaxed);
    }

    /// The topics of the hubs that have data, in the order in which negotiate lists them.
    pub fn topics(&self) -> impl Iterator<Item = HubTopic> {
        let bits = self.state.topics.load(Ordering::Relaxed);
        HubTopic::ALL.into_iter().filter(move |&topic| bits & bit(topic) != 0)
    }

    /// Open WebSocket connections on all shards.
    pub fn connections(&self) -> u64 {
        self.shards.iter().map(|shard| shard.stats().connections.get()).sum()
    }

    /// Open connections and groups of each of GexBot's hubs. A group that several hubs carry counts on each of them.
    pub fn gexbot_hubs(&self) -> impl Iterator<Item = (HubName, HubFigures)> {
        let mut groups = [0; HubName::COUNT];
        self.hub.for_each_group(|group| {
            if let Ok((_, name)) = GroupName::parse(group.name()) {
                HubName::all().filter(|hub| hub.carries(&name.series)).for_each(|hub| groups[hub.index()] += 1);
            }
        });
        HubName::all().map(move |hub| {
            let connections = self.shards.iter().map(|shard| shard.stats().hub(hub.index()).connections.get()).sum();
            (hub, HubFigures { connections, groups: groups[hub.index()] })
        })
    }

    /// Open connections of the JSON streams.
    pub fn stream_connections(&self) -> u64 {
        self.shards.iter().map(|shard| shard.stats().stream_connections()).sum()
    }

    /// The shard for the next connection: each in turn.
    pub fn next_shard(&self) -> &ShardHandle {
        &self.shards[self.state.turn.fetch_add(1, Ordering::Relaxed) % self.shards.len()]
    }
}

/// How much a hub is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubFigures {
    /// Open WebSocket connections, of plain and reliable clients.
    pub connections: u64,
    /// Groups that can be joined there, those without data included if somebody has joined them.
    pub groups: u64,
}

fn bit(topic: HubTopic) -> u8 {
    1 << topic as u8
}

/// The other end of the TCP connection: the client, or a proxy in front of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut request::Parts, _: &S) -> Result<Self, Infallible> {
        let unknown = Self(SocketAddr::from(([0, 0, 0, 0], 0)));
        Ok(parts.extensions.get::<Self>().copied().unwrap_or(unknown))
    }
}

/// Every error over HTTP has this shape. What is not available now may be in a second.
pub fn error(status: StatusCode, reason: &str) -> Response {
    let answer = (status, Json(serde_json::json!({ "error": reason })));
    match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            ([(RETRY_AFTER, "1")], answer).into_response()
        }
        _ => answer.into_response(),
    }
}
