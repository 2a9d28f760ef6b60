//! The recorded days as REST reads them: the tracks of the market, and where the common clock stands.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::civil::Date;

use crate::server::http::rest::rest_state::RestState;
use crate::server::http::rest::series::{RecordedDay, RecordedSeries, SeriesFacts, SeriesReader};
use crate::source::recorded::dataset::{self, DatasetError, RecordFile};
use crate::source::recorded::slot_reader::SlotReader;
use crate::source::recorded::stand::Stand;

/// A day that is replayed.
pub struct ReplayedDay {
    date: Date,
    data_dir: PathBuf,
    is_loop: bool,
    series: Vec<RecordedSeries>,
    /// Places in the market, in the order of the series.
    tracks: Vec<usize>,
    stand: Arc<Stand>,
}

/// From now on REST answers from the days on which this clock stands.
pub fn serve_days(rest: &RestState, stand: &Arc<Stand>, data_dir: &Path, is_loop: bool) {
    let day = |day| Arc::new(ReplayedDay::new(stand, day, data_dir, is_loop)) as Arc<dyn RecordedDay>;
    let days = (0..stand.market().days.len()).map(day).collect();
    let stand = Arc::clone(stand);
    rest.set_days(days, move || stand.day());
}

impl ReplayedDay {
    fn new(stand: &Arc<Stand>, day: usize, data_dir: &Path, is_loop: bool) -> Self {
        let market = stand.market();
        let mut tracks: Vec<usize> = market.days[day].tracks.clone().collect();
        tracks.sort_by_key(|&at| {
            let track = &market.tracks[at];
            (track.ticker(), track.package(), track.category())
        });
        let series = |&at: &usize| RecordedSeries {
            ticker: market.tracks[at].ticker().to_owned(),
            package: market.tracks[at].package(),
            category: market.tracks[at].category().to_owned(),
            path: market.tracks[at].path().to_owned(),
        };
        let (series, date) = (tracks.iter().map(series).collect(), market.days[day].date);
        Self { date, data_dir: data_dir.to_owned(), is_loop, series, tracks, stand: Arc::clone(stand) }
    }
}

impl RecordedDay for ReplayedDay {
    fn date(&self) -> Date {
        self.date
    }

    fn wraps(&self) -> bool {
        self.is_loop
    }

    fn series(&self) -> &[RecordedSeries] {
        &self.series
    }

    fn slots(&self, series: usize) -> (u64, bool) {
        self.stand.market().tracks[self.tracks[series]].slots()
    }

    fn facts(&self, series: usize) -> SeriesFacts {
        let track = &self.stand.market().tracks[self.tracks[series]];
        let (first, last) = track.span().map(|(first, last)| (unix_ms(first), unix_ms(last))).unzip();
        let (bad, first_bad) = track.bad_lines();
        SeriesFacts { first, last, bad, first_bad }
    }

    fn position(&self, series: usize) -> Option<u64> {
        self.stand.places()[self.tracks[series]].shown()
    }

    fn reader(&self, series: usize) -> Box<dyn SeriesReader + '_> {
        Box::new(SlotReader::new(&self.stand.market().tracks[self.tracks[series]]))
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
        self.record(slot).map_err(io::Error::other)
    }

    fn cost(&self) -> u64 {
        self.bytes()
    }
}

fn unix_ms(unix_s: u32) -> i64 {
    i64::from(unix_s) * 1000
}

fn recorded_series(file: RecordFile) -> RecordedSeries {
    let RecordFile { ticker, package, category, path } = file;
    RecordedSeries { ticker, package, category, path }
}
