//! What a clock says of itself.

use std::sync::Arc;
use std::time::Duration;

use jiff::civil::Date;

use super::change::Pace;
use super::moment::Span;

/// What a clock does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It goes on.
    Playing,
    /// It stays where it is.
    Paused,
    /// It stays before the first record.
    Stopped,
    /// The last record was published, and no loop was asked for.
    Ended,
    /// It starts when so many clients have joined.
    Waiting {
        /// How many.
        clients: usize,
    },
}

impl State {
    /// As `GET /replay` says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Playing => "playing",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Ended => "ended",
            Self::Waiting { .. } => "waiting",
        }
    }
}

/// The dates on a clock's axis, and from when to when they were recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    /// In order; at least one.
    pub dates: Vec<Date>,
    /// From the first record of the first date to the last record of the last.
    pub span: Span,
}

/// A clock at one moment. Times are Unix ms of the records.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// What it does.
    pub state: State,
    /// When the next records are due.
    pub pace: Pace,
    /// Recorded time per real time, since the last change or the last seconds; `None` while that is not known.
    pub achieved_speed: Option<f64>,
    /// Time of the records published last; after a seek, of those that come next.
    pub data_time: i64,
    /// How many records of the reference file (the first of the current date) lie before the clock.
    pub record: u64,
    /// The dates there are.
    pub axis: Arc<Axis>,
    /// Whether the first record follows the last.
    pub is_loop: bool,
    /// Gaps are shortened to this.
    pub max_gap: Option<Duration>,
    /// Rises with every jump and every change of speed.
    pub epoch: u64,
    /// Ticks published since the start.
    pub tick: u64,
    /// It pauses by itself when it comes to this.
    pub pause_at: Option<i64>,
    /// 99th percentile of how late the last ticks were, µs.
    pub late_us_p99: u64,
}

/// Why an epoch was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The first one.
    Start,
    /// Somebody went elsewhere.
    Seek,
    /// A step backwards.
    StepBack,
    /// The first record follows the last.
    Loop,
    /// Other dates were loaded.
    Load,
    /// Another pace.
    Pace,
}

impl Cause {
    /// As `/ticks` says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Seek => "seek",
            Self::StepBack => "step_back",
            Self::Loop => "loop",
            Self::Load => "load",
            Self::Pace => "pace",
        }
    }
}

/// A new epoch: the recorded time goes on elsewhere, or otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    /// From 1.
    pub number: u64,
    /// Why.
    pub cause: Cause,
    /// Where the clock stood, Unix ms of the records.
    pub from: i64,
    /// Where it goes on.
    pub to: i64,
}
