//! A change of the clock that somebody asks for, and why it may be refused.

use std::time::Duration;

use jiff::civil::Date;

use super::moment::Moment;

/// How fast recorded time passes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// So many times as fast as it was recorded.
    Times(f64),
    /// As fast as the slowest shard can send.
    Max,
}

impl Speed {
    /// The slowest that can be asked for.
    pub const LEAST: f64 = 0.01;
    /// The fastest that can be asked for, but for [`Speed::Max`].
    pub const MOST: f64 = 100_000.0;
}

/// When the next records are due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// The next record of every file, at this interval.
    Interval(Duration),
    /// Every record at its own time.
    Recorded(Speed),
}

/// What the clock is told to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Go on.
    Playing,
    /// Stay where it is.
    Paused,
    /// Go to the first record and stay there.
    Stopped,
}

/// A change of the clock: the parts that are `Some`, executed as a whole or not at all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Change {
    /// Play, pause or stop.
    pub wanted: Option<Wanted>,
    /// Another pace.
    pub pace: Option<Pace>,
    /// Go to the first record at or after this, in every file.
    pub seek: Option<Moment>,
    /// Publish so many ticks while paused; a negative number goes back and publishes the one it comes to.
    pub step: Option<i64>,
    /// Pause by itself when the clock comes to this; `Some(None)` takes it back.
    pub pause_at: Option<Option<Moment>>,
    /// Whether the first record follows the last.
    pub is_loop: Option<bool>,
    /// Gaps that are longer are shortened to this; `Some(None)` plays them as they were recorded.
    pub max_gap: Option<Option<Duration>>,
    /// Refuse a moment outside of the recorded time instead of moving it inside.
    pub is_strict: bool,
    /// Refuse everything unless this is the epoch.
    pub if_epoch: Option<u64>,
}

/// The largest number of ticks in one step.
pub const MAX_STEP: i64 = 1_000_000;

/// Why a change was refused. Nothing of it was executed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum Refused {
    /// A step while the clock runs.
    #[error("a step needs a paused clock, and this one is {state}; send {{\"state\":\"paused\"}} first")]
    StepWhilePlaying { state: &'static str },
    /// Another controller was first.
    #[error(
        "the replay is at epoch {is}, not at {expected}: somebody else has moved it; read GET /replay and try again"
    )]
    OtherEpoch { expected: u64, is: u64 },
    /// A moment outside, with `strict`.
    #[error("{asked} is outside of the recorded time, {first} to {last}")]
    OutOfRange { asked: String, first: String, last: String },
    /// The files are not indexed as far as that yet.
    #[error("the data is indexed up to {indexed} so far, and {asked} lies behind that; try again in a moment")]
    NotIndexed { asked: String, indexed: String },
    /// A date without data.
    #[error("{date}: expected a date with data; available dates: {available}")]
    NoSuchDate { date: Date, available: String },
    /// A second load.
    #[error("the dates {dates} are being loaded; wait until that job has ended")]
    IsLoading { dates: String },
    /// The data of a date cannot be read.
    #[error("{reason}")]
    Unreadable { reason: String },
    /// The clock follows the time of day.
    #[error("the position follows the time of day (--anchor wall); only the state can be changed")]
    Anchored,
    /// Too many wait.
    #[error("{waiting} changes are waiting for the clock already; try again in a moment")]
    Busy { waiting: usize },
    /// The process is about to end.
    #[error("the server is shutting down")]
    Ending,
}
