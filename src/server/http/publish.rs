//! `POST /api/publish`: one message, an array of them, or one per line (NDJSON).
//!
//! Each message is checked by itself: those accepted are published together and in order, and the answer
//! says which of the others were refused and why.

use std::iter;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::app::{App, error};
use super::auth::bearer;
use super::jwt::PUBLISHER;
use super::request_body::{self, ReadBody};
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
pub async fn publish(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    if let Some(unavailable) = app.unavailable() {
        return unavailable;
    }
    let grant = match publisher(&app, &headers) {
        Ok(grant) => grant,
        Err(refused) => return *refused,
    };
    // Only now: what strangers send is not kept.
    let body = match request_body::read(&app, body, app.options.max_body_bytes).await {
        Ok(body) => body,
        Err(refused) => return error(refused.status(), &refused.to_string()),
    };
    publish_body(&app, grant, body).await
}

/// Publishes the messages of a body as this grant allows, and says what became of them.
pub async fn publish_body(app: &Arc<App>, grant: Grant, body: ReadBody) -> Response {
    // Checking a large body and waiting for the shards take a while, so they leave the runtime's threads.
    let (judged, streams) = if body.len() <= SMALL_BODY {
        (Ok(judge(app, &grant, &body)), Arc::clone(&app.streams))
    } else {
        let (app, streams) = (Arc::clone(app), Arc::clone(&app.streams));
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
    let mut batch = app.streams.batch();
    let mut outcome = BodyOutcome::default();
    for item in items(body) {
        outcome.count(accept(&mut batch, grant, item));
    }
    if outcome.accepted + outcome.refused == 0 {
        let words = r#"expected {"channel":…,"data":…}, got nothing"#;
        return (error(StatusCode::UNPROCESSABLE_ENTITY, words), Vec::new());
    }
    (outcome.answer(), batch.try_send().err().unwrap_or_default())
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
/// per line. One after the other: of a body of nothing but faults, the faults would need many times its memory.
fn items(body: &str) -> Box<dyn Iterator<Item = Result<Item<'_>, String>> + '_> {
    let parse = |text| object::<Item<'_>>(text).map_err(|reason| format!("record: {reason}"));
    let body = body.trim();
    if body.starts_with('[') {
        return match serde_json::from_str::<Vec<&RawValue>>(body) {
            Ok(elements) => Box::new(elements.into_iter().map(move |element| parse(element.get()))),
            Err(error) => Box::new(iter::once(Err(format!("record: {error}")))),
        };
    }
    match parse(body) {
        Ok(single) => Box::new(iter::once(Ok(single))),
        Err(reason) if body.lines().count() == 1 => Box::new(iter::once(Err(reason))),
        // A faulty message over several lines reads as so many faulty lines; the first error names it.
        Err(_) => Box::new(body.lines().map(str::trim).filter(|line| !line.is_empty()).map(parse)),
    }
}

/// Why one message is refused: the status if it is the first, and the words.
type ItemRefusal = (StatusCode, String);

fn accept(batch: &mut PublishBatch<'_>, grant: &Grant, item: Result<Item<'_>, String>) -> Result<(), ItemRefusal> {
    let item = item.map_err(|reason| (StatusCode::UNPROCESSABLE_ENTITY, reason))?;
    if !grant.allows(&item.channel) {
        return Err((StatusCode::FORBIDDEN, format!("the token does not allow the channel {:?}", item.channel)));
    }
    let key = item.key.as_ref().map(String::as_bytes);
    let input = Input { key, ..Input::new(item.data.get().as_bytes()) };
    batch.publish(&item.channel, &input).map_err(|reason| {
        let status = match reason {
            InputError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        (status, reason.to_string())
    })
}

/// What became of the messages of one body.
#[derive(Default)]
struct BodyOutcome {
    accepted: usize,
    refused: usize,
    /// The first ones, with their positions in the body.
    told: Vec<(usize, ItemRefusal)>,
}

impl BodyOutcome {
    fn count(&mut self, item: Result<(), ItemRefusal>) {
        match item {
            Ok(()) => self.accepted += 1,
            Err(refusal) => {
                if self.told.len() < TOLD {
                    self.told.push((self.accepted + self.refused, refusal));
                }
                self.refused += 1;
            }
        }
    }

    /// 200 if everything was accepted; otherwise the status of the first refusal.
    fn answer(self) -> Response {
        let Some((_, (status, reason))) = self.told.first() else {
            return Json(json!({ "accepted": self.accepted })).into_response();
        };
        let told: Vec<_> =
            self.told.iter().map(|(index, (_, reason))| json!({ "index": index, "error": reason })).collect();
        let body = json!({ "error": reason, "accepted": self.accepted, "refused": self.refused, "refusals": told });
        (*status, Json(body)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channels(body: &str) -> Vec<Result<String, String>> {
        items(body).map(|item| item.map(|item| item.channel)).collect()
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
