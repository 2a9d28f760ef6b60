//! The recorded day as REST reads it: the tracks of the market.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::civil::Date;

use crate::server::http::rest::series::{RecordedDay, RecordedSeries, SeriesReader};
use crate::source::recorded::dataset::{self, Dataset, DatasetError, RecordFile};
use crate::source::recorded::market::Market;
use crate::source::recorded::player_options::CacheMode;
use crate::source::recorded::slot_reader::SlotReader;
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

    fn reader(&self, series: usize) -> Box<dyn SeriesReader + '_> {
        Box::new(SlotReader::new(&self.tracks[series]))
    }

    fn dates(&self) -> io::Result<Vec<Date>> {
        // Its text would have the path of the data folder, which is not the caller's to know.
        dataset::dates(&self.data_dir).map_err(|error| match error {
            DatasetError::Unreadable { source, .. } => source,
            other => io::Error::other(other),
        })
    }

    fn files(&self, date: Date, only: Option<&str>) -> Vec<RecordedSeries> {
        let files = dataset::files(&self.data_dir, date, only).into_iter();
        // Neither folders nor links to nowhere.
        let mut files: Vec<RecordedSeries> = files.filter(|file| file.path.is_file()).map(recorded_series).collect();
        files.sort_by(|a, b| (&a.ticker, a.package, &a.category).cmp(&(&b.ticker, b.package, &b.category)));
        files
    }
}

impl SeriesReader for SlotReader<'_> {
    fn line(&mut self, slot: u64) -> io::Result<Option<Vec<u8>>> {
        Ok(self.record(slot).map_err(io::Error::other)?.map(<[u8]>::to_vec))
    }

    fn cost(&self) -> u64 {
        self.bytes()
    }
}

fn recorded_series(file: RecordFile) -> RecordedSeries {
    let RecordFile { ticker, package, category, path } = file;
    RecordedSeries { ticker, package, category, path }
}
