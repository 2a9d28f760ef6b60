//! `GET /live/history`: the last five minutes of the figures that the page draws, whether somebody watched or not.
//!
//! A row a second, at most 300 of them: about 60 KB in all. Making one reads the shards' counters and asks each shard how
//! long its sweeps took; nobody goes through groups or connections for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::on_live::OnLive;
use super::snapshot::{ScheduleError, SweepFigures};
use super::totals::{Between, PLACES, Totals, place_name};

/// Rows that are kept: one a second.
const ROWS: usize = 300;

/// The figures of a row, by their path in a snapshot.
const FIGURES: [&str; 10] = [
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

/// The rows, oldest first.
#[derive(Default)]
pub struct History(Mutex<VecDeque<HistoryRow>>);

/// A second.
struct HistoryRow {
    /// In the order of [`FIGURES`]; what was not known is `None`.
    figures: [Option<f32>; FIGURES.len()],
    /// Frames a second of each hub.
    hubs: [f32; PLACES],
}

/// What a row is made of.
#[expect(missing_docs, reason = "as a snapshot has them")]
pub struct Moment<'a> {
    pub totals: &'a Totals,
    pub between: Between<'a>,
    pub rss_bytes: u64,
    pub schedule: Option<ScheduleError>,
    pub sweep: Option<SweepFigures>,
}

impl History {
    /// Adds a row; the oldest one goes if there are too many.
    pub fn add(&self, moment: &Moment<'_>) {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if rows.len() == ROWS {
            rows.pop_front();
        }
        rows.push_back(HistoryRow::of(moment));
    }

    /// By path, and the frames of hubs that sent any by name; every list has the same length.
    fn shown(&self) -> Value {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let figures: BTreeMap<&str, Vec<Option<f32>>> = FIGURES
            .iter()
            .enumerate()
            .map(|(at, &path)| (path, rows.iter().map(|row| row.figures[at]).collect()))
            .collect();
        let frames = |place: usize| rows.iter().map(|row| row.hubs[place]).collect::<Vec<_>>();
        let hubs: BTreeMap<&str, Vec<f32>> = (0..PLACES)
            .filter(|&place| rows.iter().any(|row| row.hubs[place] > 0.0))
            .map(|place| (place_name(place), frames(place)))
            .collect();
        json!({ "every_ms": 1000, "rows": rows.len(), "figures": figures, "hubs": hubs })
    }
}

impl HistoryRow {
    fn of(moment: &Moment<'_>) -> Self {
        let rates = moment.between.total();
        let connections: u64 = moment.totals.connections.iter().sum();
        let figures = [
            Some(rates.frames_per_s),
            Some(rates.bytes_per_s),
            Some(rates.publications_per_s),
            Some(rates.drops_per_s),
            Some(rates.recoveries_per_s),
            Some(connections as f64),
            Some(moment.between.cpu_cores()),
            Some(moment.rss_bytes as f64),
            moment.schedule.map(|schedule| schedule.p99_us as f64),
            moment.sweep.map(|sweep| sweep.max_us as f64),
        ];
        Self {
            figures: figures.map(|figure| figure.map(|value| value as f32)),
            hubs: std::array::from_fn(|place| moment.between.frames_per_s(place) as f32),
        }
    }
}

/// `GET /live/history`
pub async fn history(OnLive(app): OnLive) -> Response {
    Json(app.live.history.shown()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_300_seconds_are_kept_and_hubs_without_frames_left_out() {
        let history = History::default();
        let mut before = Totals::default();
        for second in 1..=301u64 {
            let mut totals = Totals { at_ns: second * 1_000_000_000, ..Totals::default() };
            totals.frames[1] = second * 10;
            totals.connections[1] = second;
            let moment =
                Moment { totals: &totals, between: totals.since(&before), rss_bytes: 7, schedule: None, sweep: None };
            history.add(&moment);
            before = totals;
        }
        let shown = history.shown();
        assert_eq!(shown["rows"], 300);
        let connections = shown["figures"]["head.connections"].as_array().unwrap();
        assert_eq!((connections.len(), &connections[0], &connections[299]), (300, &json!(2.0), &json!(301.0)));
        assert_eq!(shown["figures"]["flow.total.frames_per_s"][0], 10.0);
        assert_eq!(shown["figures"]["flow.sweep.max_us"][0], Value::Null);
        let hubs = shown["hubs"].as_object().unwrap();
        assert_eq!((hubs.len(), &hubs[place_name(1)][299]), (1, &json!(10.0)));
    }
}
