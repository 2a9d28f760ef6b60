//! Dates: which there are, and loading others beside those that play.

use axum::Json;
use axum::body::Body;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::LOCATION;
use serde_json::{Value, json};

use super::clock_json::{job_json, span_json, time};
use super::on_replay::OnReplay;
use super::replay_refusal::ReplayRefusal;
use crate::replay::moment::Span;
use crate::replay::replays::{LoadJob, RecordedDate};
use crate::replay::wanted_dates::WantedDates;
use crate::server::http::controller::Controller;

/// `POST /replay/load`
pub async fn load(_: Controller, request: OnReplay, body: Body) -> Result<Response, ReplayRefusal> {
    let wanted = WantedDates::of_json(&request.read(body).await?)?;
    let job = begin(&request, wanted).await?;
    let place = format!("/replay/load/{}", job.id);
    Ok((StatusCode::ACCEPTED, [(LOCATION, place)], Json(job_json(&job))).into_response())
}

/// Begins to load dates.
pub async fn begin(request: &OnReplay, wanted: WantedDates) -> Result<LoadJob, ReplayRefusal> {
    let dates = match &wanted {
        WantedDates::List(dates) => dates.clone(),
        WantedDates::Range { .. } => {
            let available: Vec<_> = recorded(request).await?.iter().map(|recorded| recorded.date).collect();
            wanted.among(&available)?
        }
    };
    let job = request.blocking(move |clocks| Ok(clocks.load(dates)?)).await?;
    request.app.replay.remember(&job);
    Ok(job)
}

/// `GET /replay/load/{job}`
pub async fn job(request: OnReplay, path: Result<Path<String>, PathRejection>) -> Result<Json<Value>, ReplayRefusal> {
    Ok(Json(job_json(&find_job(&request, path)?)))
}

/// A load by its number in a path.
pub fn find_job(request: &OnReplay, path: Result<Path<String>, PathRejection>) -> Result<LoadJob, ReplayRefusal> {
    let name = path.map(|Path(name)| name).unwrap_or_default();
    let job = name.parse().ok().and_then(|id| request.clocks.job(id));
    job.ok_or_else(|| ReplayRefusal::NoJob { job: name.chars().take(32).collect() })
}

/// `GET /replay/dates`
pub async fn dates(request: OnReplay) -> Result<Json<Value>, ReplayRefusal> {
    let dates: Vec<Value> = recorded(&request).await?.iter().map(date_json).collect();
    Ok(Json(json!({ "count": dates.len(), "dates": dates })))
}

/// The days in the data folder, in order; one request at a time looks.
pub async fn recorded(request: &OnReplay) -> Result<Vec<RecordedDate>, ReplayRefusal> {
    let _turn = request.app.replay.listing.lock().await;
    request.blocking(|clocks| Ok(clocks.dates()?)).await
}

fn date_json(recorded: &RecordedDate) -> Value {
    let gap = |gap: &Span| json!({ "from": time(gap.first), "to": time(gap.last) });
    json!({
        "date": recorded.date.to_string(),
        "loaded": recorded.is_loaded,
        "tickers": recorded.tickers,
        "files": recorded.files,
        "records": recorded.records,
        "first": recorded.union.map(|union| time(union.first)),
        "last": recorded.union.map(|union| time(union.last)),
        "intersection": span_json(recorded.intersection),
        "gaps": recorded.gaps.iter().map(gap).collect::<Vec<_>>(),
    })
}
