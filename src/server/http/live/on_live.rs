//! A request that reads what is for operators, and bodies of JSON.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::live_refusal::LiveRefusal;
use crate::server::http::app::App;
use crate::server::http::control_access::check_reader;
use crate::server::http::request_body;

/// A request that may read: it comes from a program, or from a page of this server.
pub struct OnLive(pub Arc<App>);

impl FromRequestParts<Arc<App>> for OnLive {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        check_reader(&app.options.control, &parts.headers, &parts.uri).map_err(IntoResponse::into_response)?;
        Ok(Self(Arc::clone(app)))
    }
}

/// A body of JSON; `expected` is what it should have been.
pub async fn read_json<T: DeserializeOwned>(
    app: &App,
    body: Body,
    limit: usize,
    expected: &str,
) -> Result<T, LiveRefusal> {
    let body = request_body::read(app, body, limit).await?;
    serde_json::from_slice(&body)
        .map_err(|error| LiveRefusal::Bad { expected: format!("expected {expected}: {error}") })
}
