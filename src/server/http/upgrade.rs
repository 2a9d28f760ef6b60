//! The upgrade: from an HTTP request to a session on a shard.
//!
//! Everything that can be refused is refused here, before the `101`, but for a recovery that cannot be granted: only
//! close 1008 tells a client to give it up, and only a pinned Python client never learns a close code
//! (`docs/protocols/webpubsub.md`, "Refused recoveries").

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONNECTION, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::server::create_response;

use super::app::{App, error};
use super::auth;
use super::faults::request_faults::{has_expired, refused_upgrade};
use super::http_socket::HttpSocket;
use super::negotiate::api_slots::SlotRefusal;
use super::readiness::build_ahead;
use super::replay::replay_refusal::ReplayRefusal;
use super::replay::session_choice::{self, SessionChoice};
use super::replay::session_options::SessionPolicy;
use super::session_recovery::{Recovered, Recovery, recover, shard_for};
use crate::engine::frames::Form;
use crate::engine::hub::session_group;
use crate::engine::system_clock::monotonic_ms;
use crate::engine::wanted_form::WantedForm;
use crate::health::log_limit;
use crate::replay::seat::Seat;
use crate::server::shard::assignment::Assignment;
use crate::server::shard::mailbox::{
    Admitted, Arrival, ClientProtocol, MailboxFull, NewSocket, RestoredSession, ShardHandle, ShardMessage,
    UpgradedSocket,
};
use crate::server::shard::session_token::SessionTicket;
use crate::server::shard::user_agents::AgentId;
use crate::wire::gexbot::HubName;
use crate::wire::payload::Profile;
use crate::wire::webpubsub::{PubSubWire, SUBPROTOCOLS, Syntax};

/// `GET /ws/{hub}`: for clients of 2025, which ask for no subprotocol and mean protobuf.
pub async fn ws(State(app): State<Arc<App>>, Path(hub): Path<String>, request: Request) -> Response {
    let unasked = Some((Syntax::Protobuf, false));
    upgrade(&app, &hub, request, Profile::V2025_11, unasked).await.unwrap_or_else(IntoResponse::into_response)
}

/// `GET /client/hubs/{hub}`: for clients of 2026.
pub async fn client(State(app): State<Arc<App>>, Path(hub): Path<String>, request: Request) -> Response {
    upgrade(&app, &hub, request, Profile::V2026_04, None).await.unwrap_or_else(IntoResponse::into_response)
}

/// `GET /client?hub={hub}`: the same under Azure's other address.
pub async fn client_query(State(app): State<Arc<App>>, request: Request) -> Response {
    let hub = auth::parameter(request.uri().query(), "hub").unwrap_or_default();
    upgrade(&app, &hub, request, Profile::V2026_04, None).await.unwrap_or_else(IntoResponse::into_response)
}

/// A valid WebSocket handshake, not answered yet.
pub(super) struct PendingUpgrade {
    /// The client's request, with its path and headers.
    pub(super) request: http::Request<()>,
    /// The `101` that will be sent.
    pub(super) response: http::Response<()>,
    /// The socket, once the answer is sent.
    pub(super) on_upgrade: OnUpgrade,
}

impl PendingUpgrade {
    /// Checks a request; anything but a WebSocket upgrade is refused.
    pub(super) fn of(mut request: Request) -> Result<Self, UpgradeError> {
        if !request.headers().contains_key(UPGRADE) {
            return Err(UpgradeError::NotAnUpgrade);
        }
        let on_upgrade = hyper::upgrade::on(&mut request);
        let (mut parts, _) = request.into_parts();
        // Both headers are lists, on one line or several (RFC 9110 §5.3, §7.6.1 and §7.8; RFC 6455 §4.2.1); the library
        // reads the first line, and of Upgrade the whole of it.
        for (name, token) in [(CONNECTION, "upgrade"), (UPGRADE, "websocket")] {
            if lists(&parts.headers, &name, token) {
                parts.headers.insert(name, HeaderValue::from_static(token));
            }
        }
        let request = http::Request::from_parts(parts, ());
        let response = create_response(&request).map_err(|error| UpgradeError::BadHandshake(error.to_string()))?;
        Ok(Self { request, response, on_upgrade })
    }
}

/// Whether a list header names this token.
fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|listed| listed.trim().eq_ignore_ascii_case(token))
}

/// Why there is no upgrade.
#[derive(Debug)]
pub(super) enum UpgradeError {
    Unavailable(Box<Response>),
    UnknownHub,
    NotAnUpgrade,
    BadHandshake(String),
    NoToken,
    LongToken,
    NoSubprotocol,
    NoSession,
    Slot(SlotRefusal),
    Clock(ReplayRefusal),
    /// By a plan of faults.
    Ordered(Box<Response>),
    Full,
}

impl From<SlotRefusal> for UpgradeError {
    fn from(refusal: SlotRefusal) -> Self {
        Self::Slot(refusal)
    }
}

impl From<ReplayRefusal> for UpgradeError {
    fn from(refusal: ReplayRefusal) -> Self {
        Self::Clock(refusal)
    }
}

impl IntoResponse for UpgradeError {
    fn into_response(self) -> Response {
        let supported = SUBPROTOCOLS.map(|(name, ..)| name).join(", ");
        match self {
            Self::Unavailable(response) | Self::Ordered(response) => *response,
            Self::UnknownHub => {
                error(StatusCode::NOT_FOUND, &format!("no such hub; expected one of {}", HubName::all_names()))
            }
            Self::NotAnUpgrade => {
                let body = error(StatusCode::UPGRADE_REQUIRED, "expected a WebSocket upgrade (RFC 6455)");
                ([(UPGRADE, "websocket")], body).into_response()
            }
            Self::BadHandshake(reason) => {
                let body = error(StatusCode::BAD_REQUEST, &format!("bad WebSocket handshake: {reason}"));
                // RFC 6455 §4.4: tells the version that is spoken.
                ([(SEC_WEBSOCKET_VERSION, "13")], body).into_response()
            }
            Self::NoToken => error(StatusCode::UNAUTHORIZED, "missing access_token"),
            Self::LongToken => error(StatusCode::BAD_REQUEST, "the access_token is too long"),
            Self::NoSubprotocol => {
                error(StatusCode::BAD_REQUEST, &format!("expected a subprotocol: one of {supported}"))
            }
            Self::NoSession => error(
                StatusCode::NOT_FOUND,
                "no such session to recover: it is unknown, ended, expired or of another hub, or the token is wrong",
            ),
            Self::Slot(refusal @ SlotRefusal::Expired) => error(StatusCode::UNAUTHORIZED, &refusal.to_string()),
            Self::Slot(refusal) => error(StatusCode::FORBIDDEN, &refusal.to_string()),
            Self::Clock(refusal) => refusal.into_response(),
            Self::Full => error(StatusCode::SERVICE_UNAVAILABLE, "too many connections"),
        }
    }
}

/// Answers the handshake; a task waits for the socket and gives it to a shard.
async fn upgrade(
    app: &Arc<App>,
    hub: &str,
    request: Request,
    profile: Profile,
    unasked: Option<(Syntax, bool)>,
) -> Result<Response, UpgradeError> {
    if let Some(unavailable) = app.unavailable() {
        return Err(UpgradeError::Unavailable(Box::new(unavailable)));
    }
    let hub = HubName::parse(hub).ok_or(UpgradeError::UnknownHub)?;
    let PendingUpgrade { request, mut response, on_upgrade } = PendingUpgrade::of(request)?;

    let query = request.uri().query();
    let token = auth::parameter(query, "access_token");
    let token = token.as_deref().or_else(|| auth::credential(request.headers()));
    let recovery = Recovery::of_query(query, app.session_tokens.as_deref());
    // A recovery has its reconnection token, and needs no other (`docs/protocols/webpubsub.md`, "Recovery").
    if token.is_none() && recovery.is_none() {
        return Err(UpgradeError::NoToken);
    }
    let token = token.unwrap_or_default();
    if token.len() > auth::MAX_TOKEN {
        return Err(UpgradeError::LongToken);
    }
    let (token, named_session) = session_choice::split(token);
    let asked = subprotocol(request.headers())?;
    let (syntax, reliable) = asked.or(unasked).ok_or(UpgradeError::NoSubprotocol)?;
    let wire = PubSubWire { syntax, reliable, profile };
    let key = auth::key_of(token);
    if let Some(refused) = refused_upgrade(app, key, hub.name()) {
        return Err(UpgradeError::Ordered(Box::new(refused)));
    }
    let (admitted, others) = Admitted::take(&app.pending);
    if app.connections() + others as u64 >= app.options.max_connections as u64 {
        return Err(UpgradeError::Full);
    }

    let entry = match recovery {
        Some(recovery) => Entry::Back(returning(app, recovery, hub, key, request.headers()).await?),
        None if has_expired(app, key, hub.name()) => return Err(SlotRefusal::Expired.into()),
        None => Entry::New(app.slots.connect(token, hub, monotonic_ms())?),
    };
    // The session's own subprotocol wins (`docs/protocols/webpubsub.md`, "Recovery").
    let (user, wire) = match &entry {
        Entry::Back(Recovered::Here(_, _, wire)) => (key, *wire),
        Entry::Back(Recovered::Elsewhere(ticket)) => (&*ticket.user, ticket.wire),
        Entry::Back(Recovered::Unknown) | Entry::New(_) => (key, wire),
    };
    let user: Box<str> = user.into();
    let wire = PubSubWire { profile: app.pinned.unwrap_or(wire.profile), ..wire };
    if asked.is_some() {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(wire.subprotocol()));
    }
    let session = if let Entry::New(_) = &entry { clock_of(app, named_session, &user).await? } else { None };
    let client = HubClient { user, agent: app.live.agent(request.headers()), wire, hub, session, admitted };
    enter(app, entry, client, on_upgrade).await;
    Ok(response.map(|()| Body::empty()))
}

/// What becomes of a client that comes back.
async fn returning(
    app: &App,
    recovery: Recovery,
    hub: HubName,
    key: &str,
    headers: &HeaderMap,
) -> Result<Recovered, UpgradeError> {
    let loses_codes = loses_close_codes(headers);
    let status = if loses_codes { StatusCode::NOT_FOUND } else { StatusCode::SWITCHING_PROTOCOLS };
    match recover(app, recovery, hub, key, status).await {
        Ok(Recovered::Unknown) if loses_codes => Err(UpgradeError::NoSession),
        Ok(recovered) => Ok(recovered),
        Err(MailboxFull) => Err(UpgradeError::Full),
    }
}

/// A client that is let in.
struct HubClient {
    user: Box<str>,
    agent: AgentId,
    wire: PubSubWire,
    hub: HubName,
    /// The session whose clock it is on; `None`: the clock that all share.
    session: Option<Box<Seat>>,
    admitted: Admitted,
}

/// Has a client handed to its shard once it is upgraded. Returns when it may be: what it will be subscribed to is built.
async fn enter(app: &App, entry: Entry, client: HubClient, on_upgrade: OnUpgrade) {
    let HubClient { user, agent, wire, hub, session, admitted } = client;
    let (shard, assignment, restored) = match entry {
        Entry::New(assignment) => (app.next_shard(), assignment, None),
        Entry::Back(Recovered::Elsewhere(ticket)) => {
            let SessionTicket { id, groups, .. } = *ticket;
            (shard_for(app, id), None, Some(RestoredSession { id, groups }))
        }
        Entry::Back(Recovered::Here(shard, id, _)) => {
            let attach =
                move |socket, read| ShardMessage::Attach { id, client: NewSocket { socket, agent, admitted }, read };
            tokio::spawn(hand_over(on_upgrade, shard, attach));
            return;
        }
        Entry::Back(Recovered::Unknown) => {
            let refuse =
                move |socket, _| ShardMessage::Refuse { client: NewSocket { socket, agent, admitted }, hub, wire };
            tokio::spawn(hand_over(on_upgrade, app.next_shard().clone(), refuse));
            return;
        }
    };
    let wanted = build_assigned(app, assignment.as_deref(), session.as_deref().map(Seat::name), wire).await;
    let protocol = ClientProtocol::WebPubSub { wire, hub, assignment, session };
    let open = move |socket, read| {
        let client = NewSocket { socket, agent, admitted };
        ShardMessage::Open(Arrival { client, read, user, protocol, wanted, restored })
    };
    tokio::spawn(hand_over(on_upgrade, shard.clone(), open));
}

/// Has the groups built that the server joins for the client: `connected` says that they are joined.
async fn build_assigned(
    app: &App,
    assignment: Option<&Assignment>,
    session: Option<&str>,
    wire: PubSubWire,
) -> Option<WantedForm> {
    let groups = assignment?.groups();
    let keys = groups.iter().map(|group| group_key(session, group));
    Some(build_ahead(&app.hub, keys, Form::new(wire.plain_form().index())).await)
}

/// The key of a group on the clock of a session, or on the one that all share.
pub(super) fn group_key(session: Option<&str>, group: &str) -> String {
    session.map_or_else(|| group.to_owned(), |session| session_group(session, group))
}

/// What becomes of a client after the `101`.
enum Entry {
    /// It gets a session of its own, and the groups that it was negotiated with.
    New(Option<Arc<Assignment>>),
    /// It gets its session back, or is told that there is no such session.
    Back(Recovered),
}

/// Whether the client is one that cannot be told by a close code. Its name may have an application's before it.
fn loses_close_codes(headers: &HeaderMap) -> bool {
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
    agent.is_some_and(|agent| agent.contains("azsdk-python-webpubsub-client/"))
}

/// The session whose clock the connection is on; `None`: the clock that all share. With `--sessions per-key` a client
/// may come without having negotiated, and its session begins here.
async fn clock_of(app: &App, named: Option<&str>, key: &str) -> Result<Option<Box<Seat>>, ReplayRefusal> {
    let is_per_key = app.options.session.sessions == SessionPolicy::PerKey;
    let Some(clocks) = app.replay.clocks() else {
        return if named.is_some() { Err(ReplayRefusal::Live) } else { Ok(None) };
    };
    let name = match named {
        Some(name) => name.to_owned(),
        None if is_per_key => {
            let session = SessionChoice::of_key(key);
            session.begin(app).await?;
            session.name
        }
        None => return Ok(None),
    };
    let Some(remote) = clocks.session(&name) else { return Err(ReplayRefusal::NoSession { name }) };
    Ok(Some(Box::new(remote.seats().take(&name))))
}

/// The first supported subprotocol of the client's list; `None` if it has no list.
fn subprotocol(headers: &HeaderMap) -> Result<Option<(Syntax, bool)>, UpgradeError> {
    let mut asked = false;
    for list in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
        for name in list.to_str().unwrap_or_default().split(',').map(str::trim) {
            asked = true;
            if let Some((_, syntax, reliable)) = SUBPROTOCOLS.into_iter().find(|(known, ..)| *known == name) {
                return Ok(Some((syntax, reliable)));
            }
        }
    }
    if asked { Err(UpgradeError::NoSubprotocol) } else { Ok(None) }
}

/// Takes the socket out of hyper, with the bytes that the client sent after the handshake, and gives it to
/// its shard.
pub(super) async fn hand_over(
    on_upgrade: OnUpgrade,
    shard: ShardHandle,
    letter: impl FnOnce(UpgradedSocket, bytes::Bytes) -> ShardMessage + Send,
) {
    let upgraded = match on_upgrade.await {
        Ok(upgraded) => upgraded,
        // The client left between request and answer.
        Err(error) => return tracing::debug!(%error, "upgrade not finished"),
    };
    match take_socket(upgraded) {
        Ok((socket, read)) => {
            if shard.send(letter(socket, read)).is_err() && log_limit::client_line(tracing::Level::WARN) {
                tracing::warn!("a shard is overloaded and its mailbox is full; a new connection is dropped");
            }
        }
        Err(error) => tracing::warn!(%error, "expected a TCP socket behind the upgrade"),
    }
}

fn take_socket(upgraded: Upgraded) -> std::io::Result<(UpgradedSocket, bytes::Bytes)> {
    let parts = upgraded
        .downcast::<TokioIo<HttpSocket>>()
        .map_err(|_| std::io::Error::other("the connection is not the one the server accepted"))?;
    Ok((parts.io.into_inner().into_upgraded()?, parts.read_buf))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_supported_subprotocol_of_the_clients_list_is_chosen() {
        let of = |lists: &[&'static str]| {
            let headers = lists.iter().map(|list| (SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(list))).collect();
            subprotocol(&headers)
        };
        let chosen = of(&["mqtt, json.reliable.webpubsub.azure.v1", "protobuf.webpubsub.azure.v1"]);
        assert!(matches!(chosen, Ok(Some((Syntax::Json, true)))));
        assert!(matches!(of(&[]), Ok(None)));
        assert!(matches!(of(&["mqtt"]), Err(UpgradeError::NoSubprotocol)));
    }

    #[test]
    fn azures_python_sdk_is_known_by_its_name_whatever_stands_before_it() {
        let agent = |agent: &'static str| HeaderMap::from_iter([(USER_AGENT, HeaderValue::from_static(agent))]);
        assert!(loses_close_codes(&agent("azsdk-python-webpubsub-client/1.1.0 Python/3.11 (Linux)")));
        assert!(loses_close_codes(&agent("quant azsdk-python-webpubsub-client/1.1.0 Python/3.11 (Linux)")));
        assert!(!loses_close_codes(&agent("azsdk-js-webpubsub-client/1.1.0")));
        assert!(!loses_close_codes(&HeaderMap::new()));
    }

    #[test]
    fn list_headers_may_have_several_names_and_lines() {
        let headers = |lines: &[&'static str]| {
            lines.iter().map(|line| (UPGRADE, HeaderValue::from_static(line))).collect::<HeaderMap>()
        };
        for lines in [&["websocket"][..], &["WebSocket, h2c"], &["h2c", "websocket"], &["h2c ,  websocket"]] {
            assert!(lists(&headers(lines), &UPGRADE, "websocket"), "{lines:?}");
        }
        assert!(!lists(&headers(&["websockets", "h2c"]), &UPGRADE, "websocket"));
    }
}
