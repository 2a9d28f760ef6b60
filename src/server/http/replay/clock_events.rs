//! `GET /replay/events` and `/replay/sessions/{name}/events`: a clock as server-sent events.
//!
//! A `state` comes first, at every change, and at each beat (`?hz=`, once a second); an `epoch` at every jump and every
//! change of speed, before the `state` that it led to. An event is made when its reader takes it, so a slow reader
//! misses states and costs nothing; epochs it gets late, up to 256 of them. The events of a session end with it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use http::{HeaderMap, HeaderName};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};

use super::clock_json::{clock_json, epoch_json, session_json};
use super::on_replay::OnReplay;
use super::replay_refusal::ReplayRefusal;
use super::session_routes::session_name;
use crate::replay::remote::Remote;
use crate::replay::replays::Replays;
use crate::server::http::app::App;
use crate::server::http::auth;

/// Beats a second, if the reader asks for none.
const USUAL_HZ: f64 = 1.0;

/// From one beat in ten seconds to a hundred in one.
const HZ: std::ops::RangeInclusive<f64> = 0.1..=100.0;

struct ClockReader {
    app: Arc<App>,
    remote: Remote,
    /// The session whose clock this is, and where it is looked for; `None` for the common one.
    session: Option<(String, Arc<dyn Replays>)>,
    changed: watch::Receiver<u64>,
    beat: Duration,
    next_beat: Instant,
    /// The last epoch that was told.
    epoch: u64,
    ready: VecDeque<Event>,
    /// Released when the client leaves.
    _place: OwnedSemaphorePermit,
}

/// Follows the common clock. With `Last-Event-ID` the epochs after that one come first.
pub async fn events(
    request: OnReplay,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ReplayRefusal> {
    let remote = request.clocks.common().clone();
    follow(request.app, remote, None, query.as_deref(), &headers)
}

/// Follows the clock of a session until it ends.
pub async fn session_events(
    request: OnReplay,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ReplayRefusal> {
    let name = session_name(path);
    let remote = request.session(&name)?;
    follow(request.app, remote, Some((name, request.clocks)), query.as_deref(), &headers)
}

fn follow(
    app: Arc<App>,
    remote: Remote,
    session: Option<(String, Arc<dyn Replays>)>,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response, ReplayRefusal> {
    let beat = Duration::from_secs_f64(1.0 / hz(query)?);
    let place = Arc::clone(&app.tick_readers).try_acquire_owned();
    let place = place.map_err(|_| ReplayRefusal::TooManyReaders)?;
    let last_event = headers.get(HeaderName::from_static("last-event-id"));
    let last_event = last_event.and_then(|id| id.to_str().ok()?.parse().ok());
    let reader = ClockReader {
        app,
        changed: remote.watch(),
        epoch: last_event.unwrap_or_else(|| remote.snapshot().epoch),
        remote,
        session,
        beat,
        next_beat: Instant::now(),
        ready: VecDeque::new(),
        _place: place,
    };
    Ok(Sse::new(reader.events()).keep_alive(KeepAlive::default()).into_response())
}

fn hz(query: Option<&str>) -> Result<f64, ReplayRefusal> {
    let Some(text) = auth::parameter(query, "hz") else { return Ok(USUAL_HZ) };
    let hz = text.parse().ok().filter(|hz| HZ.contains(hz));
    let expected = || format!("expected ?hz= from {} to {} events a second", HZ.start(), HZ.end());
    hz.ok_or_else(|| ReplayRefusal::Bad { expected: expected() })
}

impl ClockReader {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, async |mut reader| {
            while reader.ready.is_empty() {
                // Both are cancel-safe, and a change that came before is still marked as unseen.
                tokio::select! {
                    changed = reader.changed.changed() => changed.ok()?,
                    () = sleep_until(reader.next_beat) => {}
                }
                reader.look()?;
            }
            let event = reader.ready.pop_front()?;
            Some((Ok(event), reader))
        })
    }

    /// Makes the events of this moment; `None` if the session has ended.
    fn look(&mut self) -> Option<()> {
        // Before the clock is read: a change in between wakes us again.
        self.changed.borrow_and_update();
        for epoch in self.remote.epochs_after(self.epoch) {
            self.epoch = epoch.number;
            let event = Event::default().event("epoch").id(epoch.number.to_string());
            self.ready.push_back(event.data(epoch_json(&epoch).to_string()));
        }
        let state = self.state()?;
        self.ready.push_back(Event::default().event("state").data(state.to_string()));
        let now = Instant::now();
        if self.next_beat <= now {
            // Beats that nobody took are left out.
            let next = self.next_beat + self.beat;
            self.next_beat = if next > now { next } else { now + self.beat };
        }
        Some(())
    }

    /// The body of a GET of the same clock.
    fn state(&self) -> Option<Value> {
        let Some((name, clocks)) = &self.session else {
            return Some(clock_json(&self.remote.snapshot(), self.app.connections()).into());
        };
        let info = clocks.sessions().into_iter().find(|info| info.name == *name && info.remote.is_of(&self.remote))?;
        Some(session_json(name, &info.remote).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_is_a_number_in_its_range() {
        assert!((hz(None).unwrap() - 1.0).abs() < 1e-9 && (hz(Some("hz=10")).unwrap() - 10.0).abs() < 1e-9);
        for bad in ["hz=0", "hz=-1", "hz=NaN", "hz=1e308", "hz=fast", "hz=101"] {
            assert!(hz(Some(bad)).is_err(), "{bad}");
        }
    }
}
