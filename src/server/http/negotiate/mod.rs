//! Negotiate: where a client's hubs are.
//!
//! The path tells the generations of the client apart, and with it the profile: the URLs it is given
//! lead to `/ws/…` (2025-11) or `/client/hubs/…` (2026-04). Source: `docs/protocols/gexbot.md`,
//! "Negotiate".

mod public_origin;

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use self::public_origin::public_origin;
use super::app::{App, Peer, error};
use super::auth;
use crate::wire::gexbot::HubName;

/// Everything but RFC 3986's unreserved characters and `:`, which a query may have.
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');

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

/// `GET /negotiate`
pub async fn v1(app: State<Arc<App>>, peer: Peer, query: RawQuery, headers: HeaderMap) -> Response {
    negotiate(&app, peer, query.0.as_deref(), &headers, V1).unwrap_or_else(|refused| *refused)
}

/// `GET /v2/negotiate`
pub async fn v2(app: State<Arc<App>>, peer: Peer, query: RawQuery, headers: HeaderMap) -> Response {
    negotiate(&app, peer, query.0.as_deref(), &headers, V2).unwrap_or_else(|refused| *refused)
}

fn negotiate(
    app: &App,
    peer: Peer,
    query: Option<&str>,
    headers: &HeaderMap,
    generation: Generation,
) -> Result<Response, Box<Response>> {
    if let Some(unavailable) = app.unavailable() {
        return Err(Box::new(unavailable));
    }
    let key = key(query, headers).ok_or_else(|| refuse(generation.without_key, "missing key parameter"))?;
    let token = format!("{}:{}", checked(&key)?, Uuid::new_v4());
    let urls = websocket_urls(app, peer, headers, generation, app.topics().map(|topic| topic.hub(false)), &token)?;
    Ok(Json(json!({ "websocket_urls": urls, "prefix": &*app.prefix })).into_response())
}

/// The key of a request: a parameter, else a header.
fn key(query: Option<&str>, headers: &HeaderMap) -> Option<String> {
    auth::parameter(query, "key").or_else(|| auth::credential(headers).map(str::to_owned))
}

fn checked(key: &str) -> Result<&str, Box<Response>> {
    let fits = key.len() <= auth::MAX_TOKEN / 2;
    fits.then_some(key).ok_or_else(|| refuse(StatusCode::BAD_REQUEST, "the key is too long"))
}

/// A URL for each hub, all with the same token.
fn websocket_urls(
    app: &App,
    peer: Peer,
    headers: &HeaderMap,
    generation: Generation,
    hubs: impl Iterator<Item = HubName>,
    token: &str,
) -> Result<Map<String, Value>, Box<Response>> {
    let (scheme, host) = public_origin(headers, peer, &app.options.trusted_proxies);
    let host = host.ok_or_else(|| refuse(StatusCode::BAD_REQUEST, "missing Host header"))?;
    let endpoint = generation.endpoint;
    let token = utf8_percent_encode(token, IN_QUERY);
    let url = |hub| format!("{scheme}://{host}{endpoint}/{hub}?access_token={token}");
    Ok(hubs.map(|hub| (hub.name().to_owned(), url(hub).into())).collect())
}

fn refuse(status: StatusCode, reason: &str) -> Box<Response> {
    Box::new(error(status, reason))
}
