//! The clock under the names that other imitations of the vendor's API have (`docs/protocols/gexbot.md`, "The fakers"):
//! their clients steer this server unchanged. `docs/replay.md`, "Aliases".

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use jiff::civil::Date;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::excerpts::Excerpt;
use super::positions::{Position, at_cursor};
use super::series::{RecordedDay, RecordedSeries};
use super::{blocking, path_names};
use crate::engine::system_clock;
use crate::replay::change::{Change, Refused};
use crate::replay::moment::{Clamped, Moment, Resolved, date_at};
use crate::replay::remote::Remote;
use crate::replay::replays::{LoadJob, LoadState};
use crate::replay::wanted_dates::{DatesError, WantedDates};
use crate::server::http::app::error;
use crate::server::http::auth;
use crate::server::http::controller::Controller;
use crate::server::http::replay::clock_json::{state_name, time};
use crate::server::http::replay::loads::{begin, find_job, recorded};
use crate::server::http::replay::on_replay::OnReplay;
use crate::server::http::replay::replay_refusal::ReplayRefusal;
use crate::server::http::replay::session_choice::name_of_key;
use crate::server::http::replay::session_options::SessionPolicy;

/// How long a load may take before `/reload-date` gives up waiting; the load goes on.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it looks whether the load has ended.
const LOOK: Duration = Duration::from_millis(10);

/// `POST /seek-to-timestamp`: `{"timestamp":UNIX_SECONDS,"key":KEY}`. The key counts with `--sessions per-key`.
pub async fn seek(_: Controller, request: OnReplay, body: Body) -> Result<Json<Value>, ReplayRefusal> {
    #[derive(Deserialize)]
    struct Seek {
        timestamp: f64,
        key: Option<String>,
    }
    let bad = |reason: String| ReplayRefusal::Bad {
        expected: format!("expected {{\"timestamp\":UNIX_SECONDS}}: {}", reason.chars().take(200).collect::<String>()),
    };
    let seek: Seek = serde_json::from_slice(&request.read(body).await?).map_err(|error| bad(error.to_string()))?;
    let moment = Moment::unix_seconds(seek.timestamp).ok_or_else(|| bad(format!("got {}", seek.timestamp)))?;
    let remote = clock_of(&request, seek.key.as_deref());
    let answer = remote.change(Change { seek: Some(moment), ..Change::default() }).await?;
    let resolved = answer.resolved.ok_or(ReplayRefusal::Failed)?;
    let details = details(&request, seconds(resolved.data_time)).await?;
    Ok(Json(json!({
        "status": "success",
        "message": format!("{} positions set to {}", details.len(), time(resolved.data_time)),
        "positions_set": details.len(),
        "details": details,
        "requested_ts": seconds(resolved.asked),
        "resolved_ts": seconds(resolved.data_time),
        "day": date_at(resolved.data_time).to_string(),
        "in_gap": resolved.in_gap,
        "clamped": resolved.clamped.name(),
        "reason": reason(&resolved),
    })))
}

/// The clock that a key's positions are on.
fn clock_of(request: &OnReplay, key: Option<&str>) -> Remote {
    let is_per_key = request.app.options.session.sessions == SessionPolicy::PerKey;
    let of_key = key.filter(|_| is_per_key).and_then(|key| request.clocks.session(&name_of_key(auth::key_of(key))));
    of_key.unwrap_or_else(|| request.clocks.common().clone())
}

/// Where every series of the day stands when the clock stands at `seconds`; none without a recorded day.
async fn details(request: &OnReplay, seconds: i64) -> Result<Vec<Value>, ReplayRefusal> {
    let Some(day) = request.app.rest.day().map(|served| Arc::clone(&served.day)) else { return Ok(Vec::new()) };
    let rows = blocking(move || {
        let row = |(series, recorded): (usize, &RecordedSeries)| {
            let position = first_at(&*day, series, seconds);
            json!({ "data_key": recorded.name(), "index": position.index, "timestamp": position.timestamp })
        };
        Ok(day.series().iter().enumerate().map(row).collect())
    });
    rows.await.map_err(|_| ReplayRefusal::Failed)
}

/// The first record of a series at or after a time; the last one if there is none. A line that is no record counts as
/// earlier.
fn first_at(day: &dyn RecordedDay, series: usize, seconds: i64) -> Position {
    let at = |index| at_cursor(day, series, Excerpt::Record, index);
    let (mut low, mut high) = (0, day.slots(series).0);
    while low < high {
        let middle = low + (high - low) / 2;
        if at(middle).timestamp < seconds { low = middle + 1 } else { high = middle }
    }
    at(low.min(day.slots(series).0.saturating_sub(1)))
}

fn reason(resolved: &Resolved) -> &'static str {
    match (resolved.clamped, resolved.in_gap) {
        (Clamped::Start, _) => "before the first record: moved to it",
        (Clamped::End, _) => "after the last record: moved to it",
        (Clamped::None, true) => "nothing was recorded then: moved to the next record",
        (Clamped::None, false) => "the first record at or after the time",
    }
}

fn seconds(unix_ms: i64) -> i64 {
    unix_ms.div_euclid(1000)
}

/// `POST /load`
pub async fn load(_: Controller, request: OnReplay, body: Body) -> Result<Response, ReplayRefusal> {
    let wanted = WantedDates::of_json(&request.read(body).await?)?;
    let job = begin(&request, wanted).await?;
    Ok((StatusCode::ACCEPTED, Json(job_row(&request, &job))).into_response())
}

/// `GET /load/status/{job_id}`
pub async fn load_status(
    request: OnReplay,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ReplayRefusal> {
    let job = find_job(&request, path)?;
    Ok(Json(job_row(&request, &job)))
}

/// `GET /current-load`: the load that runs, or the dates that play.
pub async fn current_load(request: OnReplay) -> Json<Value> {
    if let Some(job) = request.app.replay.last_job().filter(|job| job.state == LoadState::Loading) {
        return Json(job_row(&request, &job));
    }
    let dates = loaded(&request);
    let files = request.app.rest.day().map_or(0, |served| served.day.series().len());
    let id = request.app.replay.last_job().map(|job| job.id.to_string());
    Json(json!({
        "job_id": id,
        "dates": texts(&dates),
        "state": "loaded",
        "done": files,
        "total": files,
        "loaded_range": range(&dates),
    }))
}

fn job_row(request: &OnReplay, job: &LoadJob) -> Value {
    let mut row = json!({
        "job_id": job.id.to_string(),
        "dates": texts(&job.dates),
        "state": state_name(&job.state),
        "done": job.done,
        "total": job.total,
        "loaded_range": range(&loaded(request)),
    });
    if let LoadState::Failed(reason) = &job.state {
        row["error"] = reason.as_str().into();
    }
    row
}

/// The dates on the common clock.
fn loaded(request: &OnReplay) -> Vec<Date> {
    request.clocks.common().snapshot().axis.dates.clone()
}

fn range(dates: &[Date]) -> Value {
    json!({ "from": dates.first().map(ToString::to_string), "to": dates.last().map(ToString::to_string) })
}

fn texts(dates: &[Date]) -> Vec<String> {
    dates.iter().map(ToString::to_string).collect()
}

/// `GET /coverage?from=&to=`: the tickers of each day, of any of them, and of all.
pub async fn coverage(request: OnReplay, RawQuery(query): RawQuery) -> Result<Json<Value>, ReplayRefusal> {
    let bound = |name, otherwise: Date| match auth::parameter(query.as_deref(), name) {
        None => Ok(otherwise),
        Some(text) => path_names::date(&text).map_err(|refused| ReplayRefusal::Bad { expected: refused.to_string() }),
    };
    let (from, to) = (bound("from", Date::MIN)?, bound("to", Date::MAX)?);
    let mut days = recorded(&request).await?;
    days.retain(|day| (from..=to).contains(&day.date));
    let tickers = |day: usize| -> BTreeSet<&String> { days[day].tickers.iter().collect() };
    let union: BTreeSet<&String> = (0..days.len()).flat_map(tickers).collect();
    let common = (0..days.len()).map(tickers).reduce(|all, day| &all & &day).unwrap_or_default();
    let rows: Vec<Value> =
        days.iter().map(|day| json!({ "date": day.date.to_string(), "tickers": day.tickers })).collect();
    let range = range(&days.iter().map(|day| day.date).collect::<Vec<_>>());
    Ok(Json(json!({ "from": range["from"], "to": range["to"], "days": rows, "union": union, "intersection": common })))
}

/// `POST /reload-date` `{"date":…}`: loads a date and answers when it plays.
pub async fn reload_date(_: Controller, request: OnReplay, body: Body) -> Response {
    reload(&request, body).await.unwrap_or_else(|refused| match refused {
        // The texts of the fakers.
        ReplayRefusal::Refused(Refused::NoSuchDate { date, .. }) => {
            error(StatusCode::BAD_REQUEST, &format!("date not found: {date}"))
        }
        ReplayRefusal::Refused(Refused::IsLoading { .. }) => error(StatusCode::CONFLICT, "reload already in progress"),
        refused => refused.into_response(),
    })
}

async fn reload(request: &OnReplay, body: Body) -> Result<Response, ReplayRefusal> {
    let wanted = WantedDates::of_json(&request.read(body).await?)?;
    let WantedDates::List(dates) = &wanted else {
        return Err(DatesError::BadShape { reason: "got a range; POST /load takes those".to_owned() }.into());
    };
    let previous = date_at(request.clocks.common().snapshot().data_time);
    let date = texts(dates).join(",");
    let mut job = begin(request, wanted).await?;
    let deadline = Instant::now() + PATIENCE;
    while job.state == LoadState::Loading && Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
        job = request.clocks.job(job.id).ok_or(ReplayRefusal::Failed)?;
    }
    match &job.state {
        LoadState::Loaded => {}
        LoadState::Failed(reason) => return Err(Refused::Unreadable { reason: reason.clone() }.into()),
        LoadState::Loading => {
            let reason = format!("{date} is still being loaded; GET /load/status/{} says how far it is", job.id);
            return Err(ReplayRefusal::Body { status: StatusCode::SERVICE_UNAVAILABLE, reason });
        }
    }
    let now_ms = i64::try_from(system_clock::unix_ns() / 1_000_000).unwrap_or(i64::MAX);
    let answer = json!({
        "status": "success",
        "previous_date": previous.to_string(),
        "new_date": date,
        "loaded_at": time(now_ms),
        "files_loaded": job.total,
    });
    Ok(Json(answer).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_seconds_are_cut_toward_the_past() {
        assert_eq!([1999, 2000, -1].map(seconds), [1, 2, -1]);
    }

    #[test]
    fn a_range_of_no_dates_has_no_ends() {
        assert_eq!(range(&[]), json!({ "from": null, "to": null }));
        let dates = [jiff::civil::date(2025, 11, 24), jiff::civil::date(2025, 11, 28)];
        assert_eq!(range(&dates), json!({ "from": "2025-11-24", "to": "2025-11-28" }));
    }
}
