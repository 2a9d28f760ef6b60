//! `GET /negotiate` and `GET /v2/negotiate`: where a client's hub is.
//!
//! The path tells the generations of the client apart, and with it the profile: the URL it is given
//! leads to `/ws/…` (2025-11) or `/client/hubs/…` (2026-04). Source: `docs/protocols/gexbot.md`,
//! "Negotiate".

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use uuid::Uuid;

use super::app::{App, Peer, error};
use super::auth;

/// Everything but RFC 3986's unreserved characters.
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `GET /negotiate`
pub async fn v1(app: State<Arc<App>>, peer: Peer, query: RawQuery, headers: HeaderMap) -> Response {
    negotiate(&app, peer, query.0.as_deref(), &headers, "/ws/orderflow", StatusCode::BAD_REQUEST)
}

/// `GET /v2/negotiate`
pub async fn v2(app: State<Arc<App>>, peer: Peer, query: RawQuery, headers: HeaderMap) -> Response {
    negotiate(&app, peer, query.0.as_deref(), &headers, "/client/hubs/orderflow", StatusCode::UNAUTHORIZED)
}

fn negotiate(
    app: &App,
    peer: Peer,
    query: Option<&str>,
    headers: &HeaderMap,
    path: &str,
    without_key: StatusCode,
) -> Response {
    if let Some(unavailable) = app.unavailable() {
        return unavailable;
    }
    let parameter = auth::parameter(query, "key");
    let Some(key) = parameter.as_deref().or_else(|| auth::credential(headers)) else {
        return error(without_key, "missing key parameter");
    };
    if key.len() > auth::MAX_TOKEN / 2 {
        return error(StatusCode::BAD_REQUEST, "the key is too long");
    }
    let (scheme, host) = origin(headers, peer, &app.options.trusted_proxies);
    let Some(host) = host else {
        return error(StatusCode::BAD_REQUEST, "missing Host header");
    };
    let key = utf8_percent_encode(key, IN_QUERY);
    let url = format!("{scheme}://{host}{path}?access_token={key}:{}", Uuid::new_v4());
    Json(json!({ "websocket_urls": { "orderflow": url }, "prefix": &*app.prefix })).into_response()
}

/// Scheme and host as the client sees them. The headers of a proxy count only if the proxy is trusted.
fn origin<'a>(headers: &'a HeaderMap, peer: Peer, trusted: &[ipnet::IpNet]) -> (&'static str, Option<&'a str>) {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(first);
    let host = header("host").filter(|host| is_host(host));
    if !is_trusted(peer.0.ip(), trusted) {
        return ("ws", host);
    }
    let scheme = match header("x-forwarded-proto") {
        Some(proto) if proto.eq_ignore_ascii_case("https") || proto.eq_ignore_ascii_case("wss") => "wss",
        _ => "ws",
    };
    (scheme, header("x-forwarded-host").filter(|host| is_host(host)).or(host))
}

/// The first of a comma-separated list: the proxy nearest to the client.
fn first(list: &str) -> &str {
    list.split(',').next().unwrap_or(list).trim()
}

fn is_trusted(peer: IpAddr, trusted: &[ipnet::IpNet]) -> bool {
    let peer = peer.to_canonical();
    trusted.iter().any(|network| network.contains(&peer))
}

/// Whether the text has no character that would end the host in a URL.
fn is_host(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]%".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    const FORWARDED: [(&str, &str); 3] =
        [("host", "inner:8080"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "feed.example, inner")];

    #[test]
    fn what_a_proxy_says_is_believed_only_from_a_trusted_one() {
        let headers = headers(&FORWARDED);
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let peer = |address: &str| Peer(address.parse().unwrap());
        assert_eq!(origin(&headers, peer("10.1.2.3:5"), &trusted), ("wss", Some("feed.example")));
        assert_eq!(origin(&headers, peer("[::ffff:10.1.2.3]:5"), &trusted), ("wss", Some("feed.example")));
        assert_eq!(origin(&headers, peer("192.0.2.1:5"), &trusted), ("ws", Some("inner:8080")));
        assert_eq!(origin(&headers, peer("10.1.2.3:5"), &[]), ("ws", Some("inner:8080")));
    }

    #[test]
    fn a_host_that_would_break_the_url_is_none() {
        let peer = Peer("192.0.2.1:5".parse().unwrap());
        for host in ["", "a/b", "a?b", "a b", "a@b", "a\"b"] {
            assert_eq!(origin(&headers(&[("host", host)]), peer, &[]).1, None, "{host}");
        }
        assert_eq!(origin(&headers(&[("host", "[::1]:8080")]), peer, &[]).1, Some("[::1]:8080"));
    }
}
