//! `GET /` and `/live`: the page, one file that is part of the program. `GET /live/runbook`: what its problems link to.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{HeaderMap, StatusCode};
use ring::digest::{SHA256, digest};

use super::on_live::OnLive;
use super::problems::RUNBOOK;
use crate::server::http::app::error;

const PAGE: &str = include_str!("page.html");

/// What the page may do: run its own script, use its own style, and speak to this server.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'self'; script-src {}; style-src {}; img-src 'self' data:; connect-src 'self' ws: wss:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        sources("script"),
        sources("style")
    )
});

/// `GET /`: the page for browsers, 404 for whatever else asks.
pub async fn root(headers: HeaderMap) -> Response {
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    if accepted.any(|accept| accept.contains("text/html")) {
        return page().await;
    }
    error(StatusCode::NOT_FOUND, "no such path")
}

/// `GET /live`
pub async fn page() -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Another version of the server has another page.
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, PAGE).into_response()
}

/// `GET /live/runbook`: as text, in which browsers find the row that a link names.
pub async fn runbook(_: OnLive) -> Response {
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, RUNBOOK).into_response()
}

/// The hashes of the elements with this name: no other script or style runs.
fn sources(element: &str) -> String {
    let hashes: Vec<String> = contents(element)
        .map(|content| format!("'sha256-{}'", STANDARD.encode(digest(&SHA256, content.as_bytes()))))
        .collect();
    if hashes.is_empty() { "'none'".to_owned() } else { hashes.join(" ") }
}

/// What stands in the elements with this name, which have no attributes.
fn contents(element: &str) -> impl Iterator<Item = &'static str> {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let mut rest = PAGE;
    std::iter::from_fn(move || {
        let (content, behind) = rest.split_once(&open)?.1.split_once(&close)?;
        rest = behind;
        Some(content)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_has_nothing_that_its_policy_forbids() {
        assert!(PAGE.len() <= 60 << 10, "{} bytes", PAGE.len());
        assert_eq!((contents("script").count(), contents("style").count()), (1, 1));
        for outside in
            ["<script ", "<style ", "stylesheet", " style=\"", " onclick=", "src=\"http", "href=\"/", "src=\"/"]
        {
            assert!(!PAGE.contains(outside), "{outside}");
        }
    }
}
