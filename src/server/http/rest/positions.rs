//! Positions in the series of a day, as the position stream tells them.

use std::sync::Arc;

use serde::Deserialize;
use tokio::sync::Mutex;

use super::excerpts::Excerpt;
use super::series::RecordedDay;

/// The last beat at which a reader asked, and the clock's positions then; all readers share them.
pub type LastPositions = Mutex<Option<(u64, Arc<Vec<Position>>)>>;

/// One position in a series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Index in [`RecordedDay::series`].
    pub series: usize,
    pub excerpt: Excerpt,
    /// The slot, counted from 0.
    pub index: u64,
    /// Slots of the series, as far as they are known.
    pub slots: u64,
    /// Of the record there, Unix seconds; 0 if there is none.
    pub timestamp: i64,
    /// Whether the series has ended and does not begin again.
    pub is_exhausted: bool,
}

/// Where the clock is in every series.
pub fn on_the_clock(day: &dyn RecordedDay) -> Vec<Position> {
    let at = |series| at_cursor(day, series, Excerpt::Record, day.position(series).unwrap_or(0));
    (0..day.series().len()).map(at).collect()
}

/// Where a cursor is.
pub fn at_cursor(day: &dyn RecordedDay, series: usize, excerpt: Excerpt, index: u64) -> Position {
    #[derive(Deserialize)]
    struct TimedRecord {
        timestamp: i64,
    }
    let (slots, is_complete) = day.slots(series);
    let is_exhausted = !day.wraps() && is_complete && index >= slots;
    let line = if index < slots { day.reader(series).line(index).ok().flatten() } else { None };
    let timed = line.and_then(|line| serde_json::from_slice::<TimedRecord>(&line).ok());
    Position { series, excerpt, index, slots, timestamp: timed.map_or(0, |timed| timed.timestamp), is_exhausted }
}
