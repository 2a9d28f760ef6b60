//! The recorded day as REST reads it: the tracks of the market.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::civil::Date;

use crate::server::http::rest::series::{RecordedDay, RecordedSeries};
use crate::source::recorded::dataset::Dataset;
use crate::source::recorded::market::Market;
use crate::source::recorded::player_options::CacheMode;
use crate::source::recorded::track::Track;

/// The day that is replayed.
pub struct ReplayedDay {
    date: Date,
    data_dir: PathBuf,
    mode: CacheMode,
    series: Vec<RecordedSeries>,
    /// In the order of the series.
    tracks: Vec<Arc<Track>>,
}

impl ReplayedDay {
    /// The tracks of a market, in REST's order.
    pub fn new(dataset: &Dataset, market: &Market, mode: CacheMode) -> Self {
        let mut tracks = market.tracks.clone();
        tracks.sort_by(|a, b| (a.ticker(), a.package(), a.category()).cmp(&(b.ticker(), b.package(), b.category())));
        let series = |track: &Arc<Track>| RecordedSeries {
            ticker: track.ticker().to_owned(),
            package: track.package(),
            category: track.category().to_owned(),
            path: track.path().to_owned(),
        };
        let data_dir = dataset.path.parent().unwrap_or(&dataset.path).to_owned();
        Self { date: market.date, data_dir, mode, series: tracks.iter().map(series).collect(), tracks }
    }
}

impl RecordedDay for ReplayedDay {
    fn date(&self) -> Date {
        self.date
    }

    fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    fn wraps(&self) -> bool {
        self.mode == CacheMode::Rotation
    }

    fn series(&self) -> &[RecordedSeries] {
        &self.series
    }

    fn slots(&self, series: usize) -> (u64, bool) {
        self.tracks[series].slots()
    }

    fn position(&self, series: usize) -> Option<u64> {
        self.tracks[series].position()
    }

    fn line(&self, series: usize, slot: u64) -> io::Result<Option<Vec<u8>>> {
        self.tracks[series].line(slot).map_err(io::Error::other)
    }
}
