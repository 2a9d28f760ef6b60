//! `GET /sync/stream`: positions as server-sent events, first a snapshot, then a batch a second.
//!
//! A batch is made when its reader takes it and holds the positions of that moment, so a slow reader costs nothing:
//! it misses the beats that it was too late for, and sees that in the sequence, which counts beats.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::IntoResponse;
use axum::response::Response;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use super::blocking;
use super::caller::{Caller, masked};
use super::excerpts::Excerpt;
use super::faker_control::cache_mode;
use super::positions::{Position, at_cursor, on_the_clock};
use super::rest_options::RestCursor;
use super::rest_refusal::RestRefusal;
use crate::engine::system_clock;
use crate::server::http::auth::KeyDigest;

/// Time between two batches.
const BEAT: Duration = Duration::from_secs(1);

/// The event's data.
#[derive(Serialize)]
struct PositionBatch {
    broadcaster_id: String,
    data_date: String,
    cache_mode: &'static str,
    /// Unix ms.
    timestamp: u64,
    sequence: u64,
    positions: Vec<PositionRow>,
}

#[derive(Serialize)]
struct PositionRow {
    /// `{ticker}/{package}/{category}[_majors|_maxchange]/{masked key}`
    cache_key: String,
    index: u64,
    data_length: u64,
    data_timestamp: i64,
    exhausted: bool,
}

/// Follows positions: those of the caller's key, or with `--rest-cursor clock` those of every series.
pub async fn positions(caller: Caller) -> Result<Response, RestRefusal> {
    let place = Arc::clone(&caller.app.tick_readers).try_acquire_owned().map_err(|_| RestRefusal::TooManyReaders)?;
    Ok(Sse::new(events(caller, place)).keep_alive(KeepAlive::default()).into_response())
}

fn events(caller: Caller, place: OwnedSemaphorePermit) -> impl Stream<Item = Result<Event, Infallible>> {
    // Released when the client leaves.
    stream::unfold((Arc::new(caller), place, None), async |(caller, place, last)| {
        let name = if last.is_some() { "batch" } else { "snapshot" };
        if let Some(last) = last {
            tokio::time::sleep_until((caller.app.rest.started + beat_after(last)).into()).await;
        }
        let sequence = sequence_at(caller.app.rest.started.elapsed());
        // Only a bug ends the stream: the client asks again.
        let positions = positions_now(&caller, sequence).await.ok()?;
        let data = batch(&caller, sequence, &positions);
        let event = Event::default().event(name).id(sequence.to_string()).data(data);
        Some((Ok(event), (caller, place, Some(sequence))))
    })
}

/// The number of the beat at this time since the start, from 1.
fn sequence_at(elapsed: Duration) -> u64 {
    elapsed.as_secs() / BEAT.as_secs() + 1
}

/// When the beat after this one comes, since the start.
fn beat_after(sequence: u64) -> Duration {
    BEAT * u32::try_from(sequence).unwrap_or(u32::MAX)
}

async fn positions_now(caller: &Arc<Caller>, sequence: u64) -> Result<Arc<Vec<Position>>, RestRefusal> {
    let (app, key) = (Arc::clone(&caller.app), KeyDigest::of(&caller.key));
    let day = Arc::clone(&caller.day);
    match app.rest.cursor {
        RestCursor::Key => {
            blocking(move || {
                let own = app.rest.cursors.of(key);
                let position = |(series, excerpt, index)| at_cursor(&*day, series, excerpt, index);
                Ok(Arc::new(own.into_iter().map(position).collect()))
            })
            .await
        }
        RestCursor::Clock => {
            let rest = Arc::clone(&app);
            let mut last = rest.rest.last_positions.lock().await;
            if let Some((_, positions)) = last.as_ref().filter(|(of, _)| *of == sequence) {
                return Ok(Arc::clone(positions));
            }
            let positions = blocking(move || Ok(Arc::new(on_the_clock(&*day)))).await?;
            *last = Some((sequence, Arc::clone(&positions)));
            Ok(positions)
        }
    }
}

fn batch(caller: &Caller, sequence: u64, positions: &[Position]) -> String {
    let Caller { app, day, key } = caller;
    let key = masked(key);
    let row = |position: &Position| {
        let suffix = match position.excerpt {
            Excerpt::Record => String::new(),
            excerpt => format!("_{}", excerpt.name()),
        };
        PositionRow {
            cache_key: format!("{}{suffix}/{key}", day.series()[position.series].name()),
            index: position.index,
            data_length: position.slots,
            data_timestamp: position.timestamp,
            exhausted: position.is_exhausted,
        }
    };
    let batch = PositionBatch {
        broadcaster_id: app.rest.broadcaster_id.to_string(),
        data_date: day.date().to_string(),
        cache_mode: cache_mode(&**day),
        timestamp: system_clock::unix_ns() / 1_000_000,
        sequence,
        positions: positions.iter().map(row).collect(),
    };
    serde_json::to_string(&batch).expect("a struct of numbers and texts is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_is_late_misses_beats_and_sees_it_in_the_sequence() {
        let seconds = Duration::from_secs_f64;
        assert_eq!([0.0, 0.9, 1.0, 7.5].map(|at| sequence_at(seconds(at))), [1, 1, 2, 8]);
        assert_eq!(beat_after(sequence_at(seconds(0.9))), seconds(1.0));
        assert_eq!(sequence_at(beat_after(8)), 9, "the next beat is due exactly when the sequence moves");
    }
}
