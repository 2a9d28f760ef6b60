//! `GET /live/connections/{id}`: one connection with its groups. `POST /live/connections/{id}/close` closes it.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::connection_rows::{open_row, shown_id};
use super::live_refusal::LiveRefusal;
use super::on_live::{OnLive, read_json};
use crate::engine::hub::wire_name;
use crate::engine::system_clock;
use crate::server::http::app::App;
use crate::server::http::controller::Controller;
use crate::server::shard::close::CloseFrame;
use crate::server::shard::connection_id::shard_of;
use crate::server::shard::mailbox::ShardMessage;
use crate::server::shard::question::Question;
use crate::server::shard::shown_text::shown;

/// Bytes of a body.
const MAX_BODY: usize = 4096;

/// Bytes of the longest reason: a control frame has 125, two of them for the code.
const MAX_REASON: usize = 123;

/// What the client is told if the operator says nothing else.
const USUAL_CODE: u16 = 1008;
const USUAL_REASON: &str = "closed by an operator";

/// What a client is told.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CloseRequest {
    #[serde(default)]
    code: Option<u16>,
    #[serde(default)]
    reason: Option<String>,
}

/// `GET /live/connections/{id}`
pub async fn show(OnLive(app): OnLive, Path(id): Path<String>) -> Result<Response, LiveRefusal> {
    let found = ask(&app, &id, |id, reply| Question::One { id, reply }).await?;
    let found = found.ok_or_else(|| no_connection(&id))?;
    let now = system_clock::unix_ns() / 1_000_000;
    let mut told =
        serde_json::to_value(open_row(&app.live, &found.connection, now)).map_err(|_| LiveRefusal::Failed)?;
    let group = |(name, behind): &(Arc<str>, u64)| json!({ "group": wire_name(name).0, "behind_frames": behind });
    told["id"] = shown_id(found.connection.id).into();
    told["memberships"] = found.groups.iter().map(group).collect::<Value>();
    Ok(Json(told).into_response())
}

/// `POST /live/connections/{id}/close`
pub async fn close(
    _: Controller,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, LiveRefusal> {
    let wanted: CloseRequest =
        read_json(&app, body, MAX_BODY, r#"{"code":4000,"reason":"why"}, both optional"#).await?;
    let (code, reason) = (wanted.code.unwrap_or(USUAL_CODE), wanted.reason.unwrap_or_else(|| USUAL_REASON.to_owned()));
    // Those that RFC 6455 §7.4 allows an endpoint to send.
    if !matches!(code, 1000 | 1001 | 1008 | 1011..=1013 | 3000..=4999) {
        let expected = format!("expected the code 1000, 1001, 1008, 1011 to 1013, or 3000 to 4999, got {code}");
        return Err(LiveRefusal::Bad { expected });
    }
    if reason.len() > MAX_REASON {
        let expected = format!("expected a reason of at most {MAX_REASON} bytes, got {}", reason.len());
        return Err(LiveRefusal::Bad { expected });
    }
    let told = reason.clone();
    let close = move |id, reply| Question::Close { id, frame: CloseFrame::by_operator(code, told), reply };
    if !ask(&app, &id, close).await? {
        return Err(no_connection(&id));
    }
    tracing::info!(connection = %shown(&id, 64), code, "an operator closes a connection");
    Ok(Json(json!({ "id": id, "code": code, "reason": reason })).into_response())
}

/// Asks the shard of a connection.
async fn ask<T>(
    app: &App,
    id: &str,
    look: impl FnOnce(Uuid, oneshot::Sender<T>) -> Question,
) -> Result<T, LiveRefusal> {
    let uuid = Uuid::try_parse(id).map_err(|_| no_connection(id))?;
    let shard = app.shards.get(usize::from(shard_of(uuid))).ok_or_else(|| no_connection(id))?;
    let (reply, answer) = oneshot::channel();
    shard.send(ShardMessage::Ask(look(uuid, reply))).map_err(|_| LiveRefusal::Busy)?;
    answer.await.map_err(|_| LiveRefusal::Busy)
}

fn no_connection(id: &str) -> LiveRefusal {
    LiveRefusal::NoConnection { id: shown(id, 64) }
}
