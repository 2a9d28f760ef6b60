//! `POST /live/verdict`: the report of a load test, shown with the figures of the server that it tested.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::live_refusal::LiveRefusal;
use super::on_live::read_json;
use crate::server::http::app::App;
use crate::server::http::controller::Controller;

/// Bytes of a report.
const MAX_BODY: usize = 64 << 10;

/// Keeps the report in place of the one before.
pub async fn verdict(_: Controller, State(app): State<Arc<App>>, body: Body) -> Result<Response, LiveRefusal> {
    let report: Map<String, Value> = read_json(&app, body, MAX_BODY, "a report, as an object of JSON").await?;
    let at = app.live.set_verdict(report.into());
    Ok(Json(json!({ "at": at })).into_response())
}
