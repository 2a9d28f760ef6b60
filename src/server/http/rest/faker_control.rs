//! What is served, for scripts written for imitations of the vendor's API
//! (`docs/protocols/gexbot.md`, "The fakers"). None of it needs a key.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Json, RequestExt};
use serde_json::{Value, json};

use super::blocking;
use super::caller::{OnDay, masked};
use super::path_names;
use super::rest_refusal::{RestRefusal, names};
use super::series::{RecordedDay, RecordedSeries};
use crate::replay::change::Change;
use crate::replay::moment::{Moment, date_at};
use crate::server::http::app::App;
use crate::server::http::auth::{self, KeyDigest};
use crate::server::http::controller::Controller;
use crate::server::http::replay::replay_refusal::ReplayRefusal;
use crate::wire::streams::messages;

/// `GET /health`. `data_mode` is always `stream`: a day is never held in memory as a whole.
pub async fn health(State(app): State<Arc<App>>) -> Response {
    if let Some(unavailable) = app.unavailable() {
        return unavailable;
    }
    let day = app.rest.day().map(|served| served.day);
    Json(json!({
        "status": "ok",
        "data_date": day.as_ref().map(|day| day.date().to_string()),
        "data_mode": "stream",
        "cache_mode": day.as_ref().map(|day| cache_mode(&**day)),
        "rest_cursor": app.rest.cursor.name(),
    }))
    .into_response()
}

/// The value of `--cache-mode`.
pub fn cache_mode(day: &dyn RecordedDay) -> &'static str {
    if day.wraps() { "rotation" } else { "exhaust" }
}

/// `GET /available-dates`
pub async fn available_dates(OnDay { day, .. }: OnDay) -> Result<Json<Value>, RestRefusal> {
    let dates = blocking(move || {
        day.dates().map_err(|source| RestRefusal::Unreadable { name: "the data folder".to_owned(), source })
    })
    .await?;
    let dates: Vec<String> = dates.iter().map(ToString::to_string).collect();
    Ok(Json(json!({ "count": dates.len(), "dates": dates })))
}

/// `GET /current-date`
pub async fn current_date(OnDay { app, day, since_unix_ns }: OnDay) -> Json<Value> {
    let loaded_at = messages::rfc3339(i64::try_from(since_unix_ns / 1_000_000).unwrap_or(i64::MAX));
    // With several dates on the clock, the one that plays.
    let playing = app.replay.clocks().map(|clocks| date_at(clocks.common().snapshot().data_time));
    let (date, files) = (playing.unwrap_or_else(|| day.date()).to_string(), day.series().len());
    Json(json!({ "current_date": date, "loaded_at": loaded_at, "files_loaded": files }))
}

/// `GET /available-data/{date}?ticker=`
pub async fn available_data(
    OnDay { day, .. }: OnDay,
    RawQuery(query): RawQuery,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, RestRefusal> {
    let date = path_names::date(&names(path)?)?;
    let only = auth::parameter(query.as_deref(), "ticker");
    if let Some(only) = &only {
        path_names::ticker(only)?;
    }
    let files = blocking(move || Ok(day.files(date, only.as_deref()))).await?;
    let tickers: Vec<Value> = files.chunk_by(|a, b| a.ticker == b.ticker).map(ticker_json).collect();
    let summary = json!({ "total_tickers": tickers.len(), "total_files": files.len() });
    Ok(Json(json!({ "date": date.to_string(), "tickers": tickers, "summary": summary })))
}

fn ticker_json(files: &[RecordedSeries]) -> Value {
    let packages: Vec<Value> = files
        .chunk_by(|a, b| a.package == b.package)
        .map(|files| {
            let categories: Vec<&str> = files.iter().map(|file| &*file.category).collect();
            json!({ "name": files[0].package.name(), "categories": categories })
        })
        .collect();
    json!({ "symbol": files[0].ticker, "packages": packages })
}

/// `POST /reset-cache?key=`: positions of `--rest-cursor key` go back to the first record. A caller without a
/// key resets all, and the clock goes back to its first record too; for that the caller must be one who may steer.
pub async fn reset_cache(State(app): State<Arc<App>>, mut request: Request) -> Response {
    if let Some(unavailable) = app.unavailable() {
        return unavailable;
    }
    let key = auth::parameter(request.uri().query(), "key");
    if key.is_none()
        && let Some(clocks) = app.replay.clocks()
    {
        if let Err(refused) = request.extract_parts_with_state::<Controller, _>(&app).await {
            return refused;
        }
        let start = Change { seek: Some(Moment::Share(0.0)), ..Change::default() };
        if let Err(refused) = clocks.common().change(start).await {
            return ReplayRefusal::from(refused).into_response();
        }
    }
    let count = app.rest.cursors.reset(key.as_deref().map(KeyDigest::of));
    let message = match &key {
        Some(key) => format!("Cache positions reset for key: {}", masked(key)),
        None => "All cache positions reset to index 0".to_owned(),
    };
    Json(json!({ "status": "success", "message": message, "count": count })).into_response()
}
