//! What REST needs of a recorded day. `serve` implements it, so that this part reads no records itself.

use std::io;
use std::path::PathBuf;

use jiff::civil::Date;

use crate::wire::gexbot::Package;

/// One file of a recorded day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedSeries {
    /// Whose records they are, such as `ES_SPX`.
    pub ticker: String,
    /// The folder in the ticker's.
    pub package: Package,
    /// The file's name without `.jsonl`.
    pub category: String,
    /// Where the file is.
    pub path: PathBuf,
}

impl RecordedSeries {
    /// As error texts and cursors name it: `SPX/classic/gex_full`.
    pub fn name(&self) -> String {
        format!("{}/{}/{}", self.ticker, self.package.name(), self.category)
    }
}

/// What the lines of a series say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeriesFacts {
    /// Time of the first record, Unix ms.
    pub first: Option<i64>,
    /// Time of the last record, Unix ms.
    pub last: Option<i64>,
    /// Lines that are no records, among those that were read.
    pub bad: u64,
    /// The first ones: line numbers, from 1, and reasons.
    pub first_bad: Vec<(u64, String)>,
}

/// Reads slots of one series. Slots that lie close together are read from the disk once.
pub trait SeriesReader {
    /// The line in a slot as it stands in the file, without its line break; `None` if it is not a record.
    fn line(&mut self, slot: u64) -> io::Result<Option<Vec<u8>>>;

    /// Bytes that it has read and parsed so far: what it has cost.
    fn cost(&self) -> u64;
}

/// The day that is replayed. A *slot* is a non-blank line of a file, counted from 0; a series is named by its
/// place in [`RecordedDay::series`]. Methods that return lines may wait for a disk.
pub trait RecordedDay: Send + Sync {
    /// The trading day, in New York.
    fn date(&self) -> Date;

    /// Whether a series begins again after its last slot.
    fn wraps(&self) -> bool;

    /// The files that are replayed, sorted by ticker, then package, then category. They stay the same.
    fn series(&self) -> &[RecordedSeries];

    /// How many slots are indexed, and whether these are all of the file.
    fn slots(&self, series: usize) -> (u64, bool);

    /// What its lines say, as far as they were read.
    fn facts(&self, series: usize) -> SeriesFacts;

    /// The slot that was published last; `None` before the first tick.
    fn position(&self, series: usize) -> Option<u64>;

    /// A reader of its lines, for one request.
    fn reader(&self, series: usize) -> Box<dyn SeriesReader + '_>;

    /// The days that have a folder, oldest first.
    fn dates(&self) -> io::Result<Vec<Date>>;

    /// The files of any day, sorted as [`RecordedDay::series`]; those of one ticker if `only` names it. An absent day
    /// has none.
    fn files(&self, date: Date, only: Option<&str>) -> Vec<RecordedSeries>;
}
