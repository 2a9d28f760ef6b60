//! `POST /api/publish`: one message, an array of them, or one per line (NDJSON).
//!
//! Each message is checked by itself: those accepted are published together and in order, and the answer
//! says which of the others were refused and why.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::app::{App, error};
use super::auth::bearer;
use super::jwt::PUBLISHER;
use crate::server::shard::grant::Grant;
use crate::streams::publish_batch::ChannelMessage;
use crate::streams::{Input, InputError, PublishBatch};
use crate::wire::streams::object;

/// A body up to this many bytes is checked sooner than it is handed to another thread.
const SMALL_BODY: usize = 16 << 10;

/// Refusals listed in one answer; the rest is only counted.
const TOLD: usize = 100;

/// One message of the body.
#[derive(Deserialize)]
struct Item<'a> {
    channel: String,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(default)]
    key: Option<String>,
}

/// Handles the request; the token must have the role `publisher`.
pub async fn publish(State(app): State<Arc<App>>, headers: HeaderMap, body: Result<Bytes, BytesRejection>) -> Response {
    if let Some(unavailable) = app.unavailable() {
        return unavailable;
    }
    let grant = match publisher(&app, &headers) {
        Ok(grant) => grant,
        Err(refused) => return *refused,
    };
    let body = match body {
        Ok(body) => body,
        Err(BytesRejection::FailedToBufferBody(too_large)) if too_large.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            let words = format!("expected a body of at most {} bytes", app.options.max_body_bytes);
            return error(StatusCode::PAYLOAD_TOO_LARGE, &words);
        }
        Err(rejection) => return error(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    // Checking a large body and waiting for the shards take a while, so they leave the runtime's threads.
    let (judged, streams) = if body.len() <= SMALL_BODY {
        (Ok(judge(&app, &grant, &body)), Arc::clone(&app.streams))
    } else {
        let streams = Arc::clone(&app.streams);
        (tokio::task::spawn_blocking(move || judge(&app, &grant, &body)).await, streams)
    };
    let Ok((answer, waiting)) = judged else { return failed() };
    // Before the answer, so that the hub has whatever the answer calls accepted.
    if !waiting.is_empty()
        && tokio::task::spawn_blocking(move || streams.hub().sequencer().publish_all(waiting)).await.is_err()
    {
        return failed();
    }
    answer
}

fn failed() -> Response {
    error(StatusCode::INTERNAL_SERVER_ERROR, "publishing failed")
}

/// The answer, and the messages that must wait to be published; mostly none.
fn judge(app: &App, grant: &Grant, body: &[u8]) -> (Response, Vec<ChannelMessage>) {
    let Ok(body) = std::str::from_utf8(body) else {
        return (error(StatusCode::BAD_REQUEST, "expected JSON in UTF-8"), Vec::new());
    };
    let items = items(body);
    if items.is_empty() {
        let words = r#"expected {"channel":…,"data":…}, got nothing"#;
        return (error(StatusCode::UNPROCESSABLE_ENTITY, words), Vec::new());
    }
    let mut batch = app.streams.batch();
    let outcomes: Vec<_> = items.into_iter().map(|item| accept(&mut batch, grant, item)).collect();
    (answer(&outcomes), batch.try_send().err().unwrap_or_default())
}

/// What the token of a publisher allows.
fn publisher(app: &App, headers: &HeaderMap) -> Result<Grant, Box<Response>> {
    let refuse = |status, reason: &str| Box::new(error(status, reason));
    let claims = app.authority.check(bearer(headers));
    match claims.map_err(|reason| refuse(StatusCode::UNAUTHORIZED, &reason.to_string()))? {
        None => Err(refuse(StatusCode::FORBIDDEN, "publishing needs WS_AUTH_SECRET on the server")),
        Some(claims) if claims.role.as_deref() == Some(PUBLISHER) => Ok(claims.grant()),
        Some(_) => Err(refuse(StatusCode::FORBIDDEN, r#"expected a token with "role":"publisher""#)),
    }
}

/// The messages of a body: the elements of an array, one message on any number of lines, or one message
/// per line.
fn items(body: &str) -> Vec<Result<Item<'_>, String>> {
    let parse = |text| object::<Item<'_>>(text).map_err(|reason| format!("record: {reason}"));
    let body = body.trim();
    if body.starts_with('[') {
        return match serde_json::from_str::<Vec<&RawValue>>(body) {
            Ok(elements) => elements.into_iter().map(|element| parse(element.get())).collect(),
            Err(error) => vec![Err(format!("record: {error}"))],
        };
    }
    match parse(body) {
        Ok(single) => vec![Ok(single)],
        Err(reason) if body.lines().count() == 1 => vec![Err(reason)],
        // A faulty message over several lines reads as so many faulty lines; the first error names it.
        Err(_) => body.lines().map(str::trim).filter(|line| !line.is_empty()).map(parse).collect(),
    }
}

enum ItemOutcome {
    Accepted,
    Forbidden(String),
    TooLarge(String),
    Refused(String),
}

fn accept(batch: &mut PublishBatch<'_>, grant: &Grant, item: Result<Item<'_>, String>) -> ItemOutcome {
    let item = match item {
        Ok(item) => item,
        Err(reason) => return ItemOutcome::Refused(reason),
    };
    if !grant.allows(&item.channel) {
        return ItemOutcome::Forbidden(format!("the token does not allow the channel {:?}", item.channel));
    }
    let key = item.key.as_ref().map(String::as_bytes);
    match batch.publish(&item.channel, &Input { key, ..Input::new(item.data.get().as_bytes()) }) {
        Ok(()) => ItemOutcome::Accepted,
        Err(reason @ InputError::TooLarge { .. }) => ItemOutcome::TooLarge(reason.to_string()),
        Err(reason) => ItemOutcome::Refused(reason.to_string()),
    }
}

/// 200 if everything was accepted; otherwise the status of the first refusal.
fn answer(outcomes: &[ItemOutcome]) -> Response {
    let accepted = outcomes.iter().filter(|outcome| matches!(outcome, ItemOutcome::Accepted)).count();
    let refusals = outcomes.iter().enumerate().filter_map(|(index, outcome)| match outcome {
        ItemOutcome::Accepted => None,
        ItemOutcome::Forbidden(reason) => Some((index, StatusCode::FORBIDDEN, reason)),
        ItemOutcome::TooLarge(reason) => Some((index, StatusCode::PAYLOAD_TOO_LARGE, reason)),
        ItemOutcome::Refused(reason) => Some((index, StatusCode::UNPROCESSABLE_ENTITY, reason)),
    });
    let Some((_, status, reason)) = refusals.clone().next() else {
        return Json(json!({ "accepted": accepted })).into_response();
    };
    let told: Vec<_> =
        refusals.take(TOLD).map(|(index, _, reason)| json!({ "index": index, "error": reason })).collect();
    let refused = outcomes.len() - accepted;
    let body = json!({ "error": reason, "accepted": accepted, "refused": refused, "refusals": told });
    (status, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channels(body: &str) -> Vec<Result<String, String>> {
        items(body).into_iter().map(|item| item.map(|item| item.channel)).collect()
    }

    #[test]
    fn a_body_is_one_message_an_array_or_lines() {
        let one = r#"{"channel":"a","data":1}"#;
        assert_eq!(channels(one), [Ok("a".to_owned())]);
        assert_eq!(channels("{\n\"channel\":\"a\",\n\"data\":{}\n}\n"), [Ok("a".to_owned())]);
        assert_eq!(channels(&format!("[{one},{one}]")).len(), 2);
        assert_eq!(channels(&format!("{one}\n\n{one}\r\n{one}\n")).len(), 3);
        assert!(channels("[]").is_empty());
    }

    #[test]
    fn one_bad_message_leaves_the_others_whole() {
        let of = |body| channels(body).into_iter().map(|item| item.is_ok()).collect::<Vec<_>>();
        assert_eq!(of("{\"channel\":\"a\",\"data\":1}\nnope\n{\"channel\":\"b\",\"data\":2}"), [true, false, true]);
        assert_eq!(of(r#"[{"channel":"a","data":1},{"channel":"b"}]"#), [true, false]);
        assert_eq!(of("{"), [false]);
    }
}
