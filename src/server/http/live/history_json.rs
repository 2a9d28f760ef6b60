//! `GET /live/history`: the last five minutes of the figures that the page draws, whether somebody watched or not.
//!
//! Making a row reads the shards' counters and asks each shard how long its sweeps took; nobody goes through groups or
//! connections for it.

use std::collections::BTreeMap;

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::figure_history::{FIGURES, HistoryRow};
use super::live_snapshot::{ScheduleError, SweepFigures};
use super::on_live::OnLive;
use super::totals::{Between, PLACES, Totals, place_name};

/// The figures of a row, by their path in a snapshot.
const PATHS: [&str; FIGURES] = [
    "flow.total.frames_per_s",
    "flow.total.bytes_per_s",
    "flow.total.publications_per_s",
    "flow.total.drops_per_s",
    "flow.total.recoveries_per_s",
    "head.connections",
    "head.cpu_cores",
    "head.rss_bytes",
    "flow.schedule.p99_us",
    "flow.sweep.max_us",
];

/// A row of what was gathered, in the order of [`PATHS`].
pub fn row(
    totals: &Totals,
    between: Between<'_>,
    rss_bytes: u64,
    schedule: Option<ScheduleError>,
    sweep: Option<SweepFigures>,
) -> HistoryRow {
    let rates = between.total();
    let connections: u64 = totals.connections.iter().sum();
    let figures = [
        Some(rates.frames_per_s),
        Some(rates.bytes_per_s),
        Some(rates.publications_per_s),
        Some(rates.drops_per_s),
        Some(rates.recoveries_per_s),
        Some(connections as f64),
        Some(between.cpu_cores()),
        Some(rss_bytes as f64),
        schedule.map(|schedule| schedule.p99_us as f64),
        sweep.map(|sweep| sweep.max_us as f64),
    ];
    HistoryRow {
        figures: figures.map(|figure| figure.map(|value| value as f32)),
        hubs: std::array::from_fn(|place| between.frames_per_s(place) as f32),
    }
}

/// `GET /live/history`
pub async fn history(OnLive(app): OnLive) -> Response {
    Json(shown(&app.live.history.rows())).into_response()
}

/// By path, and the frames of hubs that sent any by name; every list has the same length.
fn shown(rows: &[HistoryRow]) -> Value {
    let figure = |at: usize| rows.iter().map(|row| row.figures[at]).collect::<Vec<_>>();
    let figures: BTreeMap<&str, _> = PATHS.into_iter().enumerate().map(|(at, path)| (path, figure(at))).collect();
    let frames = |place: usize| rows.iter().map(|row| row.hubs[place]).collect::<Vec<_>>();
    let hubs: BTreeMap<&str, Vec<f32>> = (0..PLACES)
        .map(|place| (place_name(place), frames(place)))
        .filter(|(_, frames)| frames.iter().any(|&rate| rate > 0.0))
        .collect();
    json!({ "every_ms": 1000, "rows": rows.len(), "figures": figures, "hubs": hubs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_their_paths_and_hubs_without_frames_are_left_out() {
        let before = Totals::default();
        let mut totals = Totals { at_ns: 1_000_000_000, ..Totals::default() };
        (totals.frames[1], totals.connections[1]) = (10, 7);
        let shown = shown(&[row(&totals, totals.since(&before), 7, None, None)]);
        assert_eq!((&shown["rows"], &shown["figures"]["head.connections"]), (&json!(1), &json!([7.0])));
        assert_eq!(shown["figures"]["flow.total.frames_per_s"], json!([10.0]));
        assert_eq!(shown["figures"]["flow.sweep.max_us"], json!([null]));
        assert_eq!(shown["hubs"], json!({ place_name(1): [10.0] }));
    }
}
