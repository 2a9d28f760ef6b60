//! The last five minutes of the figures that the page draws, a row a second: about 60 KB.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::server::shard::stats::STREAMS;

/// Rows that are kept: one a second.
const ROWS: usize = 300;

/// Figures of a row.
pub const FIGURES: usize = 10;

/// The rows, oldest first.
#[derive(Default)]
pub struct FigureHistory(Mutex<VecDeque<HistoryRow>>);

/// A second.
#[derive(Debug, Clone, Copy)]
pub struct HistoryRow {
    /// What was not known is `None`.
    pub figures: [Option<f32>; FIGURES],
    /// Frames a second of each hub, and of the streams behind them.
    pub hubs: [f32; STREAMS + 1],
}

impl FigureHistory {
    /// Adds a row; the oldest one goes if there are too many.
    pub fn add(&self, row: HistoryRow) {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if rows.len() == ROWS {
            rows.pop_front();
        }
        rows.push_back(row);
    }

    /// All rows, oldest first.
    pub fn rows(&self) -> Vec<HistoryRow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_300_seconds_are_kept() {
        let history = FigureHistory::default();
        for second in 1..=301u16 {
            history.add(HistoryRow { figures: [Some(f32::from(second)); FIGURES], hubs: [0.0; STREAMS + 1] });
        }
        let rows = history.rows();
        let ends = [rows[0], rows[299]].map(|row| row.figures[0]);
        assert_eq!((rows.len(), ends), (300, [Some(2.0), Some(301.0)]));
    }
}
