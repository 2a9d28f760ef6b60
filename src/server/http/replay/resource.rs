//! `GET`, `PATCH` and `POST /replay`: the clock that everybody follows who asked for no other.

use axum::Json;
use axum::body::Body;
use axum::extract::RawQuery;
use axum::response::{IntoResponse, Response};
use http::header::{ETAG, IF_MATCH};
use http::{HeaderMap, HeaderValue};
use serde_json::{Map, Value};

use super::clock_json::{clock_json, resolved_json};
use super::on_replay::OnReplay;
use super::replay_refusal::ReplayRefusal;
use crate::replay::change::Change;
use crate::replay::remote::Remote;
use crate::server::http::auth;
use crate::server::http::controller::Controller;

/// `GET /replay`
pub async fn get(request: OnReplay) -> Response {
    let clock = request.clocks.common().snapshot();
    tagged(clock_json(&clock, request.app.connections()), clock.epoch)
}

/// `PATCH` and `POST /replay`: executed as a whole or not at all, and answered with what became of it.
pub async fn patch(
    _: Controller,
    request: OnReplay,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ReplayRefusal> {
    let change = read_change(&request, query.as_deref(), &headers, body).await?;
    let remote = request.clocks.common().clone();
    change_clock(&remote, change, Map::new(), || request.app.connections()).await
}

/// The change in a request: its body, `?strict=1` and `If-Match`.
pub async fn read_change(
    request: &OnReplay,
    query: Option<&str>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Change, ReplayRefusal> {
    let (is_strict, if_epoch) = (strict(query)?, if_match(headers)?);
    let change = Change::of_json(&request.read(body).await?)?;
    Ok(Change { is_strict, if_epoch, ..change })
}

/// Has a clock changed. `about` stands before the clock in the answer.
pub async fn change_clock(
    remote: &Remote,
    change: Change,
    mut about: Map<String, Value>,
    clients: impl Fn() -> u64,
) -> Result<Response, ReplayRefusal> {
    // Not dropped with the request: a step is published to its end if its client leaves, so its answer has a taker.
    let remote = remote.clone();
    let changed = tokio::spawn(async move { remote.change(change).await }).await;
    let answer = changed.map_err(|_| ReplayRefusal::Failed)??;
    about.extend(clock_json(&answer.snapshot, clients()));
    if let Some(resolved) = &answer.resolved {
        about.insert("resolved".to_owned(), resolved_json(resolved));
    }
    Ok(tagged(about, answer.snapshot.epoch))
}

/// An answer whose epoch the next `If-Match` can name.
pub fn tagged(body: Map<String, Value>, epoch: u64) -> Response {
    let tag = HeaderValue::try_from(format!("\"{epoch}\"")).expect("digits in quotes are visible ASCII");
    ([(ETAG, tag)], Json(body)).into_response()
}

fn strict(query: Option<&str>) -> Result<bool, ReplayRefusal> {
    match auth::parameter(query, "strict").as_deref() {
        None | Some("0" | "false") => Ok(false),
        Some("1" | "true") => Ok(true),
        Some(_) => Err(ReplayRefusal::Bad { expected: "expected ?strict=1 or ?strict=0".to_owned() }),
    }
}

/// The epoch of `If-Match`, with or without quotes; `*` is any.
fn if_match(headers: &HeaderMap) -> Result<Option<u64>, ReplayRefusal> {
    let Some(value) = headers.get(IF_MATCH) else { return Ok(None) };
    match value.to_str().map(str::trim) {
        Ok("*") => Ok(None),
        Ok(tag) if let Ok(epoch) = tag.trim_matches('"').parse() => Ok(Some(epoch)),
        _ => Err(ReplayRefusal::Bad { expected: "expected If-Match: EPOCH, the epoch of GET /replay".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_is_an_epoch_in_quotes_or_without() {
        let of = |value: &'static str| if_match(&HeaderMap::from_iter([(IF_MATCH, HeaderValue::from_static(value))]));
        for value in ["4", "\"4\"", " 4 "] {
            assert_eq!(of(value).unwrap(), Some(4), "{value}");
        }
        assert_eq!((of("*").unwrap(), if_match(&HeaderMap::new()).unwrap()), (None, None));
        for value in ["", "-1", "four", "1, 2", "W/\"4\""] {
            assert!(of(value).is_err(), "{value}");
        }
    }

    #[test]
    fn strict_is_a_switch() {
        assert!(strict(Some("strict=1")).unwrap() && !strict(Some("strict=0")).unwrap() && !strict(None).unwrap());
        assert!(strict(Some("strict=perhaps")).is_err());
    }
}
