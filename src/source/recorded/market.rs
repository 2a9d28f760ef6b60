//! The market of a day: every file as a track, by ticker.
//!
//! Opening it reads only the start of each file: whether it has a record, and the time of the first one. The
//! window indexes and builds the rest, ahead of the clock.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::civil::Date;
use rayon::prelude::*;

use super::dataset::{Dataset, RecordFile};
use super::file_kind::{ENOUGH, NotJsonLines};
use super::index::Index;
use super::line_stats::{LineStats, counted};
use super::lines::BlockLines;
use super::mapping::{MappedFile, ReadError};
use super::track::{Track, TrackParts};
use crate::engine::hub::Hub;
use crate::wire::gexbot::{GroupName, PayloadKind, Series};

/// Blocks in which a file's first record must be: 4 MiB.
const FIRST_LOOK: usize = 16;

/// The tracks of one day.
pub struct Market {
    /// The trading day, in New York.
    pub date: Date,
    /// In the order of tickers; a ticker's tracks stand together.
    pub tracks: Vec<Arc<Track>>,
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
    /// Opens the day's files and declares their groups in `hub`. The errors are those of files that are left out.
    pub fn open(dataset: &Dataset, prefix: &str, hub: &Hub) -> (Self, Vec<FileError>) {
        let looks: Vec<Result<FirstLook, FileError>> = dataset.files.par_iter().map(FirstLook::at).collect();
        let (mut tracks, mut errors) = (Vec::new(), Vec::new());
        for look in looks {
            match look {
                Ok(look) => tracks.push(Arc::new(look.track(prefix, hub))),
                Err(error) => errors.push(error),
            }
        }
        (Self { date: dataset.date, tracks }, errors)
    }

    /// The tracks of each ticker, with the place of the first.
    pub fn tickers(&self) -> impl Iterator<Item = (usize, &[Arc<Track>])> {
        let mut place = 0;
        self.tracks.chunk_by(|one, next| one.ticker() == next.ticker()).map(move |tracks| {
            place += tracks.len();
            (place - tracks.len(), tracks)
        })
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

/// The track from which a ticker's spot price is taken: the first that has not ended.
pub fn lead(tracks: &[Arc<Track>]) -> Option<usize> {
    tracks.iter().position(|track| track.can_lead())
}

/// A file with a record.
struct FirstLook<'a> {
    recorded: &'a RecordFile,
    kind: PayloadKind,
    file: MappedFile,
    index: Index,
    begins: i64,
}

impl<'a> FirstLook<'a> {
    fn at(recorded: &'a RecordFile) -> Result<Self, FileError> {
        let kind = recorded.series().kind();
        let file = MappedFile::open(&recorded.path)?;
        let mut start = Vec::new();
        file.read(0, ENOUGH.min(usize::try_from(file.len()).unwrap_or(ENOUGH)), &mut start)?;
        NotJsonLines::check(&recorded.path, &start)?;
        let index = Index::new(file.len());
        let (mut lines, mut stats) = (BlockLines::default(), LineStats::default());
        for block in 0..index.blocks().min(FIRST_LOOK) {
            index.scan(&file, block + 1)?;
            lines.read(&file, &index, block)?;
            for line in lines.iter().filter(|line| line.is_slot) {
                if let Some(record) = stats.read(kind, line) {
                    return Ok(Self { recorded, kind, begins: record.timestamp(), file, index });
                }
            }
        }
        file.check()?;
        let (path, bad) = (recorded.path.clone(), stats.bad);
        let Some((_, first)) = stats.first_bad.into_iter().next() else { return Err(FileError::Empty { path }) };
        Err(FileError::NoRecords { path, bad, first })
    }

    fn track(self, prefix: &str, hub: &Hub) -> Track {
        let Self { recorded, kind, file, index, begins } = self;
        let ticker = recorded.ticker.as_str();
        let declare = |series| hub.declare(&GroupName { ticker, series }.with_prefix(prefix), ticker);
        let (group, spot) = (declare(recorded.series()), declare(Series::Spot));
        Track::new(TrackParts { recorded: recorded.clone(), kind, group, spot, file, index, begins })
    }
}
