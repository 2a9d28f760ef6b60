//! Sessions, each with a clock of its own. A client begins one at negotiate (`negotiate?session=NAME`).

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use super::clock_json::session_json;
use super::on_replay::OnReplay;
use super::replay_refusal::ReplayRefusal;
use super::resource::{change_clock, read_change, tagged};
use crate::server::http::app::Stage;
use crate::server::http::controller::Controller;
use crate::server::shard::mailbox::ShardMessage;

/// How long a message waits before it is offered again to a shard whose mailbox is full.
const MAILBOX_PAUSE: Duration = Duration::from_millis(1);

/// `GET /replay/sessions`
pub async fn list(request: OnReplay) -> Json<Value> {
    let sessions = request.clocks.sessions();
    let sessions: Vec<_> = sessions.iter().map(|info| session_json(&info.name, &info.remote)).collect();
    Json(json!({ "count": sessions.len(), "sessions": sessions }))
}

/// `GET /replay/sessions/{name}`
pub async fn get(request: OnReplay, path: Result<Path<String>, PathRejection>) -> Result<Response, ReplayRefusal> {
    let name = session_name(path);
    let remote = request.session(&name)?;
    let epoch = remote.snapshot().epoch;
    Ok(tagged(session_json(&name, &remote), epoch))
}

/// `PATCH` and `POST /replay/sessions/{name}`
pub async fn patch(
    _: Controller,
    request: OnReplay,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ReplayRefusal> {
    let name = session_name(path);
    let remote = request.session(&name)?;
    let change = read_change(&request, query.as_deref(), &headers, body).await?;
    let about = Map::from_iter([("session".to_owned(), name.as_str().into())]);
    change_clock(&remote, change, about, || remote.seats().taken() as u64).await
}

/// `DELETE /replay/sessions/{name}`: closes its connections.
pub async fn end(
    _: Controller,
    request: OnReplay,
    path: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, ReplayRefusal> {
    let name = session_name(path);
    request.session(&name)?;
    let of_session = name.clone();
    let has_ended = request.blocking(move |clocks| Ok(clocks.end_session(&of_session))).await?;
    if !has_ended {
        // Somebody else was first.
        return Err(ReplayRefusal::NoSession { name });
    }
    let clock: Arc<str> = name.into();
    for shard in &request.app.shards {
        while shard.send(ShardMessage::ClockEnded(Arc::clone(&clock))).is_err() && request.app.stage() == Stage::Serving
        {
            tokio::time::sleep(MAILBOX_PAUSE).await;
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The name in a path. No session has the empty name, which stands for one that is not UTF-8.
pub fn session_name(path: Result<Path<String>, PathRejection>) -> String {
    path.map(|Path(name)| name).unwrap_or_default()
}
