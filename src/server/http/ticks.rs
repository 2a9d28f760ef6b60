//! `GET /ticks`: the tick ledger, as JSON or as server-sent events.
//!
//! The swarm compares what it received with this. Payload hashes were made when the payloads were built, so they
//! are there only for profiles whose frames exist.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::app::{App, error};
use crate::engine::frames::PayloadHashes;
use crate::engine::hub::wire_name;
use crate::engine::ledger::Tick;
use crate::engine::system_clock;
use crate::replay::snapshot::Epoch;
use crate::wire::payload::Profile;

/// Ticks per answer, unless the client asks for fewer.
const MAX_TICKS: usize = 1000;

/// Publications per answer, about a megabyte. The client asks again for those after the last one.
const MAX_PUBLICATIONS: usize = 4096;

/// `?after=` position and `?limit=` ticks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TickRange {
    after: Option<u64>,
    limit: Option<usize>,
}

/// `GET /ticks`: one JSON object, or an event stream if the client accepts one.
pub async fn ticks(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    range: Result<Query<TickRange>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Ok(Query(range)) = range else {
        return error(StatusCode::BAD_REQUEST, "expected ?after=POSITION&limit=TICKS, both optional numbers");
    };
    let header = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    if header(ACCEPT).is_some_and(|accept| accept.contains("text/event-stream")) {
        let last_event = header(http::HeaderName::from_static("last-event-id")).and_then(|id| id.parse().ok());
        let after = last_event.or(range.after).unwrap_or(app.hub.sequencer().ledger().span().1);
        let Ok(place) = Arc::clone(&app.tick_readers).try_acquire_owned() else {
            return error(StatusCode::SERVICE_UNAVAILABLE, "too many readers of the tick ledger");
        };
        return Sse::new(events(app, after, place)).keep_alive(KeepAlive::default()).into_response();
    }
    let limit = range.limit.unwrap_or(MAX_TICKS).min(MAX_TICKS);
    let mut publications = 0;
    let ticks: Vec<Value> = app
        .hub
        .sequencer()
        .ledger()
        .after(range.after.unwrap_or(0), limit)
        .iter()
        .take_while(|(_, tick)| {
            // The first tick is sent whatever its size: otherwise the client could never get past it.
            let fits = publications == 0 || publications + tick.weight() <= MAX_PUBLICATIONS;
            publications += tick.weight();
            fits
        })
        .map(|(seq, tick)| tick_json(*seq, tick))
        .collect();
    let mut answer = now_json(&app);
    answer.insert("ticks".to_owned(), ticks.into());
    Json(answer).into_response()
}

/// First the event `now` with the ledger's span, then every tick after `after`, as long as the client
/// listens.
fn events(app: Arc<App>, after: u64, place: OwnedSemaphorePermit) -> impl Stream<Item = Result<Event, Infallible>> {
    struct TickReader {
        app: Arc<App>,
        after: u64,
        changed: tokio::sync::watch::Receiver<u64>,
        ready: std::vec::IntoIter<(u64, Arc<Tick>)>,
        greeted: bool,
        /// Released when the client leaves.
        _place: OwnedSemaphorePermit,
    }
    let changed = app.hub.sequencer().ledger().watch();
    let reader = TickReader { app, after, changed, ready: Vec::new().into_iter(), greeted: false, _place: place };
    stream::unfold(reader, async |mut reader| {
        if !reader.greeted {
            reader.greeted = true;
            let event = Event::default().event("now").data(Value::from(now_json(&reader.app)).to_string());
            return Some((Ok(event), reader));
        }
        loop {
            if let Some((seq, tick)) = reader.ready.next() {
                reader.after = seq;
                let data = tick_json(seq, &tick).to_string();
                return Some((Ok(Event::default().event("tick").id(seq.to_string()).data(data)), reader));
            }
            // Marked as seen before the ledger is read: a tick that arrives in between wakes us again.
            reader.changed.borrow_and_update();
            reader.ready = reader.app.hub.sequencer().ledger().after(reader.after, 64).into_iter();
            if reader.ready.len() == 0 && reader.changed.changed().await.is_err() {
                return None;
            }
        }
    })
}

fn now_json(app: &App) -> Map<String, Value> {
    let (oldest, newest) = app.hub.sequencer().ledger().span();
    let now = json!({ "monotonic_ns": system_clock::monotonic_ns(), "unix_ns": system_clock::unix_ns() });
    Map::from_iter([
        ("hub".to_owned(), app.hub.name().into()),
        ("now".to_owned(), now),
        ("oldest".to_owned(), oldest.into()),
        ("newest".to_owned(), newest.into()),
    ])
}

fn tick_json(seq: u64, tick: &Tick) -> Value {
    let late_ns = tick.published_ns.saturating_sub(tick.scheduled_ns);
    let publications: Vec<Value> = tick
        .publications
        .iter()
        .map(|publication| {
            json!({
                "group": wire_name(&publication.group).0,
                "sequence_id": publication.id,
                "record_timestamp": publication.record_timestamp,
                "subscribers": publication.subscribers,
                "payloads": payloads(publication.hashes),
            })
        })
        .collect();
    let mut told = json!({
        "seq": seq,
        "ordinal": tick.ordinal,
        "scheduled_ns": tick.scheduled_ns,
        "published_ns": tick.published_ns,
        "scheduled_unix_ns": tick.published_unix_ns.saturating_sub(late_ns),
        "published_unix_ns": tick.published_unix_ns,
        "publications": publications,
    });
    if !tick.faults.is_empty() {
        told["faults"] = json!(tick.faults);
    }
    // Only a replay has epochs, and only some clocks are those of sessions.
    if tick.epoch > 0 {
        told["epoch"] = tick.epoch.into();
    }
    if let Some(session) = &tick.session {
        told["session"] = (&**session).into();
    }
    if let Some(Epoch { number, cause, from, to }) = tick.opens {
        let time = |ms| Timestamp::from_millisecond(ms).map_or(Value::Null, |time| time.to_string().into());
        told["opens"] = json!({ "epoch": number, "cause": cause.name(), "from": time(from), "to": time(to) });
    }
    told
}

/// xxh3-64 of the payload, per profile that is in use.
fn payloads(hashes: PayloadHashes) -> Map<String, Value> {
    let built = Profile::ALL.into_iter().zip(hashes).filter(|(_, hash)| *hash != 0);
    built.map(|(profile, hash)| (profile.name().to_owned(), format!("{hash:016x}").into())).collect()
}
