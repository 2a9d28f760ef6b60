//! `POST /api/publish`: one message, an array of them, or one per line (NDJSON).
//!
//! Each message is judged alone: those accepted are published in order and together, whatever becomes
//! of the others, and the answer tells which were refused and why.

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
use super::jwt::PUBLISHER;
use super::stream_upgrade::bearer;
use crate::engine::hub::Outgoing;
use crate::server::shard::grant::Grant;
use crate::streams::{Input, Refused, Together};
use crate::wire::streams::object;

/// Bytes of a body that takes less to judge than to hand to another thread.
const SMALL_BODY: usize = 16 << 10;

/// Refusals told in one answer; the rest is only counted.
const TOLD: usize = 100;

/// One message.
#[derive(Deserialize)]
struct Item<'a> {
    channel: String,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(default)]
    key: Option<String>,
}

/// Takes messages from whoever has the role.
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
    // Off the runtime, where it takes a while: judging a large body, and waiting for the shards.
    let (judged, streams) = if body.len() <= SMALL_BODY {
        (Ok(judge(&app, &grant, &body)), Arc::clone(&app.streams))
    } else {
        let streams = Arc::clone(&app.streams);
        (tokio::task::spawn_blocking(move || judge(&app, &grant, &body)).await, streams)
    };
    let Ok((answer, waiting)) = judged else { return failed() };
    // Before the answer: what it calls accepted, the hub has.
    if !waiting.is_empty() && tokio::task::spawn_blocking(move || streams.hub().publish_all(waiting)).await.is_err() {
        return failed();
    }
    answer
}

fn failed() -> Response {
    error(StatusCode::INTERNAL_SERVER_ERROR, "publishing failed")
}

/// The answer, and what was accepted but must wait to be published; mostly nothing.
fn judge(app: &App, grant: &Grant, body: &[u8]) -> (Response, Vec<Outgoing>) {
    let Ok(body) = std::str::from_utf8(body) else {
        return (error(StatusCode::BAD_REQUEST, "expected JSON in UTF-8"), Vec::new());
    };
    let items = items(body);
    if items.is_empty() {
        let words = r#"expected {"channel":…,"data":…}, got nothing"#;
        return (error(StatusCode::UNPROCESSABLE_ENTITY, words), Vec::new());
    }
    let mut together = app.streams.together();
    let outcomes: Vec<_> = items.into_iter().map(|item| accept(&mut together, grant, item)).collect();
    (answer(&outcomes), together.try_send().err().unwrap_or_default())
}

/// What a publisher's token allows.
fn publisher(app: &App, headers: &HeaderMap) -> Result<Grant, Box<Response>> {
    let refuse = |status, reason: &str| Box::new(error(status, reason));
    let claims = app.authority.check(bearer(headers));
    match claims.map_err(|reason| refuse(StatusCode::UNAUTHORIZED, &reason.to_string()))? {
        None => Err(refuse(StatusCode::FORBIDDEN, "publishing needs WS_AUTH_SECRET on the server")),
        Some(claims) if claims.role.as_deref() == Some(PUBLISHER) => Ok(claims.grant()),
        Some(_) => Err(refuse(StatusCode::FORBIDDEN, r#"expected a token with "role":"publisher""#)),
    }
}

/// The messages of a body: of an array its elements, of anything else its lines, and a single
/// message may stand on several.
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
        // One message over several lines with an error in it reads as many bad lines: the first tells.
        Err(_) => body.lines().map(str::trim).filter(|line| !line.is_empty()).map(parse).collect(),
    }
}

enum Outcome {
    Accepted,
    Forbidden(String),
    TooLarge(String),
    Refused(String),
}

fn accept(together: &mut Together<'_>, grant: &Grant, item: Result<Item<'_>, String>) -> Outcome {
    let item = match item {
        Ok(item) => item,
        Err(reason) => return Outcome::Refused(reason),
    };
    if !grant.allows(&item.channel) {
        return Outcome::Forbidden(format!("the token does not allow the channel {:?}", item.channel));
    }
    let key = item.key.as_ref().map(String::as_bytes);
    match together.publish(&item.channel, &Input { payload: item.data.get().as_bytes(), key, timestamp_ms: None }) {
        Ok(()) => Outcome::Accepted,
        Err(reason @ Refused::TooLarge { .. }) => Outcome::TooLarge(reason.to_string()),
        Err(reason) => Outcome::Refused(reason.to_string()),
    }
}

/// 200 if everything was accepted; otherwise the status of the first refusal.
fn answer(outcomes: &[Outcome]) -> Response {
    let accepted = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Accepted)).count();
    let refusals = outcomes.iter().enumerate().filter_map(|(index, outcome)| match outcome {
        Outcome::Accepted => None,
        Outcome::Forbidden(reason) => Some((index, StatusCode::FORBIDDEN, reason)),
        Outcome::TooLarge(reason) => Some((index, StatusCode::PAYLOAD_TOO_LARGE, reason)),
        Outcome::Refused(reason) => Some((index, StatusCode::UNPROCESSABLE_ENTITY, reason)),
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
