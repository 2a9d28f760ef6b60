//! Negotiate: where a client's hubs are, and on POST and PATCH what it is subscribed to there.
//!
//! The path tells the generations of the client apart, and with it the profile: the URLs it is given
//! lead to `/ws/…` (2025-11) or `/client/hubs/…` (2026-04). Source: `docs/protocols/gexbot.md`,
//! "Negotiate".
//!
//! - [`api_slots`]: the groups that POST asked for and PATCH changes.
//! - [`mod@public_origin`]: scheme and host of the URLs.

pub mod api_slots;
pub mod negotiate_options;
mod public_origin;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use uuid::Uuid;

use self::public_origin::public_origin;
use super::app::{App, Peer, Stage, error};
use super::auth;
use super::faults::request_faults::refused_negotiate;
use super::readiness::until_served;
use super::replay::replay_refusal::ReplayRefusal;
use super::replay::session_choice::{self, SessionChoice};
use super::replay::session_options::SessionPolicy;
use super::request_body::{self, ReadBody};
use super::upgrade::group_key;
use crate::engine::system_clock::monotonic_ms;
use crate::health::log_limit;
use crate::server::shard::mailbox::{AssignmentNews, ShardMessage};
use crate::wire::gexbot::{HubName, HubTopic};
use crate::wire::wanted_groups::{WantedError, WantedGroups, WantedLimits};

/// Everything but RFC 3986's unreserved characters and `:`, which a query may have.
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');

/// How long a message waits before it is offered again to a shard whose mailbox is full.
const MAILBOX_PAUSE: Duration = Duration::from_millis(1);

/// What the path of a request says about the client.
#[derive(Debug, Clone, Copy)]
struct Generation {
    /// Where its hubs are.
    endpoint: &'static str,
    /// How a GET without a key is answered.
    without_key: StatusCode,
}

const V1: Generation = Generation { endpoint: "/ws", without_key: StatusCode::BAD_REQUEST };
const V2: Generation = Generation { endpoint: "/client/hubs", without_key: StatusCode::UNAUTHORIZED };

/// Why a request is refused: its status, and what was expected.
#[derive(Debug)]
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        error(self.0, &self.1)
    }
}

fn refuse(status: StatusCode, reason: impl Into<String>) -> Refusal {
    Refusal(status, reason.into())
}

/// `GET /negotiate`
pub async fn get_v1(app: State<Arc<App>>, peer: Peer, query: RawQuery, headers: HeaderMap) -> Response {
    get(&app, peer, query.0.as_deref(), &headers, V1).await.unwrap_or_else(IntoResponse::into_response)
}

/// `GET /v2/negotiate`
pub async fn get_v2(app: State<Arc<App>>, peer: Peer, query: RawQuery, headers: HeaderMap) -> Response {
    get(&app, peer, query.0.as_deref(), &headers, V2).await.unwrap_or_else(IntoResponse::into_response)
}

/// `POST /negotiate`
pub async fn post_v1(app: State<Arc<App>>, peer: Peer, query: RawQuery, headers: HeaderMap, body: Body) -> Response {
    post(&app, peer, query.0.as_deref(), &headers, body, V1).await.unwrap_or_else(IntoResponse::into_response)
}

/// `POST /v2/negotiate`
pub async fn post_v2(app: State<Arc<App>>, peer: Peer, query: RawQuery, headers: HeaderMap, body: Body) -> Response {
    post(&app, peer, query.0.as_deref(), &headers, body, V2).await.unwrap_or_else(IntoResponse::into_response)
}

/// `PATCH /negotiate` and `PATCH /v2/negotiate`: the answer has no URLs, so both are the same.
pub async fn patch(app: State<Arc<App>>, query: RawQuery, headers: HeaderMap, body: Body) -> Response {
    replace_groups(&app, query.0.as_deref(), &headers, body).await.unwrap_or_else(IntoResponse::into_response)
}

/// The client joins its groups itself.
async fn get(
    app: &App,
    peer: Peer,
    query: Option<&str>,
    headers: &HeaderMap,
    generation: Generation,
) -> Result<Response, Refusal> {
    if let Some(unavailable) = app.unavailable() {
        return Ok(unavailable);
    }
    let key = key(query, headers).ok_or_else(|| refuse(generation.without_key, "missing key parameter"))?;
    let token = format!("{}:{}", checked(&key)?, Uuid::new_v4());
    if let Some(refused) = refused_negotiate(app, auth::key_of(&key)).await {
        return Ok(refused);
    }
    let urls = Urls::of(app, peer, headers, generation)?;
    let session = begun_session(app, query, &key).await?;
    let token = on_session(token, session.as_ref());
    let hubs = app.topics().map(|topic| topic.hub(false));
    let urls = urls.to(hubs, &token);
    Ok(Json(json!({ "websocket_urls": urls, "prefix": &*app.prefix })).into_response())
}

/// The server joins the groups when the client connects.
async fn post(
    app: &Arc<App>,
    peer: Peer,
    query: Option<&str>,
    headers: &HeaderMap,
    body: Body,
    generation: Generation,
) -> Result<Response, Refusal> {
    if let Some(unavailable) = app.unavailable() {
        return Ok(unavailable);
    }
    let key = required_key(query, headers)?;
    if let Some(refused) = refused_negotiate(app, auth::key_of(&key)).await {
        return Ok(refused);
    }
    let urls = Urls::of(app, peer, headers, generation)?;
    let body = read(app, body).await?;
    let wanted = WantedGroups::of_post(&body, &limits(app)).map_err(|wanted| refuse_wanted(&wanted))?;
    let session = begun_session(app, query, &key).await?;
    let slot = app.slots.take(checked(&key)?, &wanted, monotonic_ms());
    let (token, replaced) = slot.map_err(|full| refuse(StatusCode::SERVICE_UNAVAILABLE, full.to_string()))?;
    if log_limit::client_line(tracing::Level::INFO) {
        tracing::info!(memberships = wanted.memberships(), v2 = wanted.is_v2(), "a client negotiated its groups");
    }
    tell(app, replaced).await;
    let token = on_session(token, session.as_ref());
    let hubs = HubTopic::ALL.into_iter().map(|topic| topic.hub(wanted.is_v2()));
    Ok(Json(json!({ "websocket_urls": urls.to(hubs, &token) })).into_response())
}

/// Changes the groups of open connections, and of those that will be opened.
async fn replace_groups(
    app: &Arc<App>,
    query: Option<&str>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    if let Some(unavailable) = app.unavailable() {
        return Ok(unavailable);
    }
    let key = required_key(query, headers)?;
    if let Some(refused) = refused_negotiate(app, auth::key_of(&key)).await {
        return Ok(refused);
    }
    let body = read(app, body).await?;
    let wanted = WantedGroups::of_patch(&body, &limits(app)).map_err(|wanted| refuse_wanted(&wanted))?;
    // It may be a token too, whose key was checked when it was made.
    let (credential, session) = session_choice::split(&key);
    let patched = app.slots.patch(credential, &wanted, monotonic_ms());
    let reassigned = patched.map_err(|refused| refuse(StatusCode::BAD_REQUEST, refused.to_string()))?;
    tell(app, reassigned).await;
    let groups = HubTopic::ALL.into_iter().flat_map(|topic| wanted.groups(topic));
    until_served(&app.hub, groups.map(|group| group_key(session, &format!("{}_{group}", app.prefix)))).await;
    let count = |topic: HubTopic| (topic.hub(wanted.is_v2()).name().to_owned(), wanted.groups(topic).len().into());
    let hubs: Map<String, Value> = HubTopic::ALL.into_iter().map(count).collect();
    Ok(Json(json!({ "updated_groups": wanted.memberships(), "hubs": hubs })).into_response())
}

/// The token that puts a connection on the session's clock.
fn on_session(token: String, session: Option<&SessionChoice>) -> String {
    match session {
        Some(session) => session.token(&token),
        None => token,
    }
}

/// Begins the session that is asked for, unless it exists. `None`: the clock that all share.
async fn begun_session(app: &App, query: Option<&str>, key: &str) -> Result<Option<SessionChoice>, Refusal> {
    let refused = |refusal: ReplayRefusal| refuse(refusal.status(), refusal.to_string());
    // Whoever asks for no session is served on a live server too.
    let policy = app.replay.clocks().map_or(SessionPolicy::Named, |_| app.options.session.sessions);
    let choice = SessionChoice::of_query(query, policy, key).map_err(refused)?;
    if let Some(choice) = &choice {
        choice.begin(app).await.map_err(refused)?;
    }
    Ok(choice)
}

/// The key of a request: a parameter, else a header.
fn key(query: Option<&str>, headers: &HeaderMap) -> Option<String> {
    auth::parameter(query, "key").or_else(|| auth::credential(headers).map(str::to_owned))
}

/// The key of a POST or PATCH, refused as GexBot does (`docs/protocols/gexbot.md`, "Credentials and errors").
fn required_key(query: Option<&str>, headers: &HeaderMap) -> Result<String, Refusal> {
    key(query, headers).ok_or_else(|| match headers.get(AUTHORIZATION) {
        None => refuse(StatusCode::BAD_REQUEST, "Authorization header not found."),
        Some(_) => refuse(StatusCode::UNAUTHORIZED, "expected Authorization: Bearer KEY or Basic KEY"),
    })
}

fn checked(key: &str) -> Result<&str, Refusal> {
    auth::checked_key(key).map_err(|long| refuse(StatusCode::BAD_REQUEST, long.to_string()))
}

fn limits(app: &App) -> WantedLimits<'_> {
    WantedLimits {
        prefix: &app.prefix,
        memberships: app.options.negotiate.max_memberships,
        groups_of_hub: app.max_groups_per_connection,
    }
}

fn refuse_wanted(wanted: &WantedError) -> Refusal {
    let status = if wanted.is_limit() { StatusCode::FORBIDDEN } else { StatusCode::BAD_REQUEST };
    refuse(status, wanted.to_string())
}

/// The whole body.
async fn read(app: &App, body: Body) -> Result<ReadBody, Refusal> {
    let read = request_body::read(app, body, app.options.negotiate.max_body_bytes()).await;
    read.map_err(|unread| refuse(unread.status(), unread.to_string()))
}

/// Tells every shard, and waits until all of them have acted. It goes on if the client leaves meanwhile.
async fn tell(app: &Arc<App>, assignments: Vec<u64>) {
    if assignments.is_empty() {
        return;
    }
    let app = Arc::clone(app);
    let told = tokio::spawn(async move {
        let assignments: Arc<[u64]> = assignments.into();
        let (done, mut acted) = mpsc::channel::<Infallible>(1);
        for shard in &app.shards {
            let news = || AssignmentNews { assignments: Arc::clone(&assignments), done: done.clone() };
            while shard.send(ShardMessage::Assigned(news())).is_err() && app.stage() == Stage::Serving {
                tokio::time::sleep(MAILBOX_PAUSE).await;
            }
        }
        drop(done);
        // Nothing is ever sent: `recv` ends when the last shard has dropped its sender.
        let _ = acted.recv().await;
    });
    let _ = told.await;
}

/// What the URLs of an answer have in common.
struct Urls {
    /// Up to the hub.
    start: String,
}

impl Urls {
    fn of(app: &App, peer: Peer, headers: &HeaderMap, generation: Generation) -> Result<Self, Refusal> {
        let (scheme, host) = public_origin(headers, peer, &app.options.trusted_proxies);
        let host = host.ok_or_else(|| refuse(StatusCode::BAD_REQUEST, "missing Host header"))?;
        Ok(Self { start: format!("{scheme}://{host}{}", generation.endpoint) })
    }

    /// The URLs of these hubs, all with the same token.
    fn to(&self, hubs: impl Iterator<Item = HubName>, token: &str) -> Map<String, Value> {
        let token = utf8_percent_encode(token, IN_QUERY);
        hubs.map(|hub| (hub.name().to_owned(), format!("{}/{hub}?access_token={token}", self.start).into())).collect()
    }
}
