//! `POST /live/publish`: one message of an operator, to see how clients take it.
//!
//! To a channel of `/ws` it is published like any other. To a group of GexBot's hubs it goes as a JSON value, as an
//! application server would send it, which no client takes for a record.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64;

use super::live_refusal::LiveRefusal;
use crate::engine::frames::{Form, FrameStore, Frames, PayloadHashes};
use crate::server::http::app::App;
use crate::server::http::controller::Controller;
use crate::server::http::publish::publish_body;
use crate::server::http::request_body;
use crate::server::shard::grant::Grant;
use crate::server::shard::shown_text::shown;
use crate::wire::webpubsub::{PlainForm, Syntax, append_json_data};

/// Bytes of a body.
const MAX_BODY: usize = 256 << 10;

const EXPECTED: &str = r#"expected {"channel":…,"data":…} or {"group":…,"data":…}"#;

/// A message for a channel or a group.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Injected<'a> {
    channel: Option<String>,
    group: Option<String>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(rename = "key")]
    _key: Option<String>,
}

/// `POST /live/publish`
pub async fn inject(_: Controller, State(app): State<Arc<App>>, body: Body) -> Result<Response, LiveRefusal> {
    let body = request_body::read(&app, body, MAX_BODY.min(app.options.max_body_bytes)).await?;
    let bad = |why: String| LiveRefusal::Bad { expected: format!("{EXPECTED}{why}") };
    let injected: Injected<'_> = serde_json::from_slice(&body).map_err(|error| bad(format!(": {error}")))?;
    match (injected.channel, injected.group) {
        (Some(channel), None) => {
            tracing::info!(channel = %shown(&channel, 64), "an operator publishes a message");
            Ok(publish_body(&app, Grant::default(), body).await)
        }
        (None, Some(group)) => {
            let data = injected.data.get().to_owned();
            tracing::info!(group = %shown(&group, 64), "an operator publishes a message");
            let published = tokio::task::spawn_blocking(move || to_group(&app, &group, &data)).await;
            published.unwrap_or(Err(LiveRefusal::Failed))
        }
        _ => Err(bad(String::new())),
    }
}

/// Waits for its turn between the ticks.
fn to_group(app: &App, name: &str, data: &str) -> Result<Response, LiveRefusal> {
    let group = app.hub.find(name).ok_or_else(|| LiveRefusal::NoGroup { group: shown(name, 64) })?;
    let subscribers = group.subscribers();
    if !group.is_live() {
        return Err(LiveRefusal::Nobody { group: shown(name, 64) });
    }
    let frames = Frames::new(Arc::new(JsonMessage::new(name, data)), 0);
    let mut batch = app.hub.sequencer().begin(None);
    batch.wait_for_room(&group);
    let sequence_id = batch.next_id();
    batch.publish(&group, frames);
    drop(batch);
    Ok(Json(json!({ "accepted": 1, "subscribers": subscribers, "sequence_id": sequence_id })).into_response())
}

/// A JSON value as a group's data, in both syntaxes.
struct JsonMessage {
    json: Bytes,
    protobuf: Bytes,
    /// Of the JSON text, which is its payload.
    hash: u64,
}

impl JsonMessage {
    fn new(group: &str, data: &str) -> Self {
        let frame = |syntax| {
            let mut frame = Vec::new();
            append_json_data(syntax, group, data, &mut frame);
            Bytes::from(frame)
        };
        Self { json: frame(Syntax::Json), protobuf: frame(Syntax::Protobuf), hash: xxh3_64(data.as_bytes()) }
    }
}

impl FrameStore for JsonMessage {
    fn frame(&self, _: u32, form: Form) -> Bytes {
        match PlainForm::ALL.get(form.index()).map(|form| form.syntax) {
            Some(Syntax::Json) => self.json.clone(),
            Some(Syntax::Protobuf) => self.protobuf.clone(),
            None => Bytes::new(),
        }
    }

    /// It is no record.
    fn timestamp(&self, _: u32) -> i64 {
        0
    }

    fn hashes(&self, _: u32) -> PayloadHashes {
        [self.hash; 2]
    }
}
