//! The market: every file of the dates that are played as a track, by date and ticker.
//!
//! Opening it reads only the ends of each file: whether it has a record, and the times of the first and the last. The
//! window indexes and builds the rest, ahead of the clock.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use rayon::prelude::*;

use super::dataset::{Dataset, RecordFile};
use super::file_kind::{ENOUGH, NotJsonLines};
use super::glance::glance;
use super::index::{Index, TimeRules};
use super::line_stats::{LineStats, counted};
use super::lines::BlockLines;
use super::mapping::{MappedFile, ReadError};
use super::track::{Track, TrackParts};
use super::trading::{Trading, TradingReport};
use crate::engine::hub::Hub;
use crate::replay::moment::{EXCHANGE_ZONE, Span};
use crate::wire::gexbot::{GroupName, PayloadKind, Series};

/// Blocks in which a file's first record must be: 4 MiB.
const FIRST_LOOK: usize = 16;

/// How much of a file's end is looked at for its last time.
const END: u64 = 64 << 10;

const HOUR: i64 = 3600;

/// The tracks of the dates that are played.
pub struct Market {
    /// In order; at least one.
    pub days: Vec<MarketDay>,
    /// In the order of dates and tickers; the tracks of a ticker stand together.
    pub tracks: Vec<Arc<Track>>,
}

/// One date of a market.
pub struct MarketDay {
    /// The trading day, in New York.
    pub date: Date,
    /// The day's folder.
    pub path: PathBuf,
    /// Its tracks, by their places in the market.
    pub tracks: Range<usize>,
    /// Added to the times of its records, seconds.
    pub shift: i64,
}

/// Why a file has no track. The other files are not affected.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum FileError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is compressed, an archive or an array.
    #[error(transparent)]
    NotJsonLines(#[from] NotJsonLines),
    /// It is empty.
    #[error("{path}: expected records, got an empty file")]
    Empty { path: PathBuf },
    /// Its start has lines, but no good one.
    #[error(
        "{path}: expected records, got {} and no good one at its start; the first: {first}",
        counted(*.bad, "bad line", "bad lines")
    )]
    NoRecords { path: PathBuf, bad: u64, first: String },
}

impl Market {
    /// Opens the files of the dates and declares their groups in `hub`. The errors are those of files that are left
    /// out. `shift_days` are added to the times of all records.
    pub fn open(datasets: &[Dataset], prefix: &str, hub: &Hub, shift_days: i64) -> (Self, Vec<FileError>) {
        let (mut days, mut tracks, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        let shift = shift_days * 24 * HOUR;
        for dataset in datasets {
            let first = tracks.len();
            let looks = dataset.files.par_iter().enumerate().map(|(at, file)| {
                let leads = at == 0 || dataset.files[at - 1].ticker != file.ticker;
                FirstLook::at(file, dataset.date, shift, leads)
            });
            let looks: Vec<Result<FirstLook<'_>, FileError>> = looks.collect();
            for look in looks {
                match look {
                    Ok(look) => tracks.push(Arc::new(look.track(prefix, hub))),
                    Err(error) => errors.push(error),
                }
            }
            let (date, path) = (dataset.date, dataset.path.clone());
            days.push(MarketDay { date, path, tracks: first..tracks.len(), shift });
        }
        (Self { days, tracks }, errors)
    }

    /// Each ticker's tracks of a date, by their places.
    pub fn tickers(&self, day: usize) -> impl Iterator<Item = Range<usize>> {
        let tracks = self.days[day].tracks.clone();
        let mut place = tracks.start;
        self.tracks[tracks].chunk_by(|one, next| one.ticker() == next.ticker()).map(move |tracks| {
            place += tracks.len();
            place - tracks.len()..place
        })
    }

    /// From the first record of a date to the last, Unix seconds. An estimate until the files are indexed.
    pub fn span(&self, day: usize) -> (u32, u32) {
        let spans = self.tracks[self.days[day].tracks.clone()].iter().filter_map(|track| track.span());
        spans.reduce(|(first, last), (from, to)| (first.min(from), last.max(to))).unwrap_or((0, 0))
    }

    /// From the first record of all to the last, Unix ms.
    pub fn whole_span(&self) -> Span {
        let ms = |seconds: u32| i64::from(seconds) * 1000;
        Span { first: ms(self.span(0).0), last: ms(self.span(self.days.len() - 1).1) }
    }

    /// The records of a date's folder `streams/`, and what each of its files held.
    pub fn trading(&self, day: usize) -> io::Result<(Trading, Vec<TradingReport>)> {
        let MarketDay { path, shift, .. } = &self.days[day];
        let (first, last) = self.span(day);
        let recorded = |time: u32| u32::try_from(i64::from(time) - shift).unwrap_or(time);
        Trading::load(path, (recorded(first), recorded(last)))
    }

    /// Reads every line of every file; logs the bad ones, and returns how many there are, files that cannot be read
    /// included. `progress` is called with the bytes done and their total, from several threads.
    pub fn read_all(&self, progress: &(dyn Fn(u64, u64) + Sync)) -> u64 {
        let total: u64 = self.tracks.iter().map(|track| track.file().len()).sum();
        let done = AtomicU64::new(0);
        let read = |track: &Arc<Track>| {
            track.read_all(&|bytes| progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total)).unwrap_or_else(
                |error| {
                    track.lose(&error);
                    1
                },
            )
        };
        self.tracks.par_iter().map(read).sum()
    }

    /// Slots of all tracks that are indexed.
    pub fn slots(&self) -> u64 {
        self.tracks.iter().map(|track| track.slots().0).sum()
    }
}

/// From when to when the records of each file of a day are, Unix seconds, without opening the day. Files without a
/// record are left out.
pub fn spans(dataset: &Dataset) -> Vec<(&RecordFile, (u32, u32))> {
    let look = |file| {
        let look = FirstLook::at(file, dataset.date, 0, false).ok()?;
        Some((file, (look.index.time_of(0)?, look.last)))
    };
    dataset.files.par_iter().filter_map(look).collect()
}

/// A file with a record.
struct FirstLook<'a> {
    recorded: &'a RecordFile,
    kind: PayloadKind,
    file: MappedFile,
    index: Index,
    /// The last record's time, Unix seconds.
    last: u32,
    shift: i64,
}

impl<'a> FirstLook<'a> {
    fn at(recorded: &'a RecordFile, date: Date, shift: i64, keeps_spots: bool) -> Result<Self, FileError> {
        let kind = recorded.series().kind();
        let file = MappedFile::open(&recorded.path)?;
        let mut start = Vec::new();
        file.read(0, ENOUGH.min(usize::try_from(file.len()).unwrap_or(ENOUGH)), &mut start)?;
        NotJsonLines::check(&recorded.path, &start)?;
        let samples = [0, file.len() / 2, file.len().saturating_sub(END)].map(|from| times_from(&file, from));
        let plausible = plausible(date, &samples);
        let is_plausible = |time: &u32| (plausible.0..=plausible.1).contains(time);
        let last = samples.iter().rev().flatten().rev().copied().find(is_plausible).unwrap_or(plausible.0);
        let index = Index::new(file.len(), TimeRules { plausible, shift, keeps_spots });
        let (mut lines, mut stats) = (BlockLines::default(), LineStats::default());
        for block in 0..index.blocks().min(FIRST_LOOK) {
            index.scan(&file, block + 1)?;
            lines.read(&file, &index, block)?;
            for line in lines.iter().filter(|line| line.is_slot) {
                if stats.read(kind, line).is_some() {
                    return Ok(Self { recorded, kind, file, index, last, shift });
                }
            }
        }
        file.check()?;
        let (path, bad) = (recorded.path.clone(), stats.bad);
        let Some((_, first)) = stats.first_bad.into_iter().next() else { return Err(FileError::Empty { path }) };
        Err(FileError::NoRecords { path, bad, first })
    }

    fn track(self, prefix: &str, hub: &Hub) -> Track {
        let Self { recorded, kind, file, index, last, shift } = self;
        let ticker = recorded.ticker.as_str();
        let declare = |series| hub.declare(&GroupName { ticker, series }.with_prefix(prefix), ticker);
        let (group, spot) = (declare(recorded.series()), declare(Series::Spot));
        Track::new(TrackParts { recorded: recorded.clone(), kind, group, spot, file, index, last, shift })
    }
}

/// The times of the lines that begin in 64 KiB of a file, in their order; none if it cannot be read.
fn times_from(file: &MappedFile, from: u64) -> Vec<u32> {
    let mut bytes = Vec::new();
    let length = END.min(file.len().saturating_sub(from));
    if file.read(from, length as usize, &mut bytes).is_err() {
        return Vec::new();
    }
    let whole = if from == 0 { 0 } else { memchr::memchr(b'\n', &bytes).map_or(bytes.len(), |at| at + 1) };
    bytes[whole..].split(|byte| *byte == b'\n').filter_map(|line| glance(line, false).time).collect()
}

/// Which times records of a file can have: a day around its date, since futures begin the evening before. A file that
/// has other times throughout, as one that was renamed, has those around its own.
fn plausible(date: Date, samples: &[Vec<u32>]) -> (u32, u32) {
    let around = |from: i64, to: i64| (u32::try_from(from).unwrap_or(0), u32::try_from(to).unwrap_or(u32::MAX));
    let zone = TimeZone::get(EXCHANGE_ZONE).unwrap_or(TimeZone::UTC);
    let midnight = date.to_zoned(zone).map_or(0, |zoned| zoned.timestamp().as_second());
    let of_date = around(midnight - 24 * HOUR, midnight + 48 * HOUR);
    let mut times: Vec<u32> = samples.iter().flatten().copied().collect();
    if times.is_empty() || times.iter().any(|time| (of_date.0..=of_date.1).contains(time)) {
        return of_date;
    }
    let middle = times.len() / 2;
    let (_, median, _) = times.select_nth_unstable(middle);
    around(i64::from(*median) - 36 * HOUR, i64::from(*median) + 36 * HOUR)
}
