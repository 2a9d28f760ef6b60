//! The clocks of a server, and the dates that they can play.

use jiff::civil::Date;

use super::change::{Pace, Refused};
use super::moment::{Moment, Span};
use super::remote::Remote;

/// A day that can be loaded.
#[derive(Debug, Clone)]
pub struct RecordedDate {
    /// The trading day, in New York.
    pub date: Date,
    /// Whether it is on the clock's axis now.
    pub is_loaded: bool,
    /// Its tickers, sorted.
    pub tickers: Vec<String>,
    /// How many files they have.
    pub files: usize,
    /// Lines of these files; `None` unless the day is loaded and indexed.
    pub records: Option<u64>,
    /// From the first record of any file to the last of any, Unix ms; `None` if no file has a time.
    pub union: Option<Span>,
    /// The time for which every file has records, Unix ms; `None` if there is none.
    pub intersection: Option<Span>,
    /// The longest times without a record in any file, longest first, at most 16; empty unless it is loaded.
    pub gaps: Vec<Span>,
}

/// How far a load is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadState {
    /// Files are being opened and indexed; the running dates play on.
    Loading,
    /// The clock plays the new dates.
    Loaded,
    /// It plays the old ones on; this is why.
    Failed(String),
}

/// A load of dates.
#[derive(Debug, Clone)]
pub struct LoadJob {
    /// Counts the loads of this process, from 1.
    pub id: u64,
    /// The dates that were asked for.
    pub dates: Vec<Date>,
    /// How far it is.
    pub state: LoadState,
    /// Files that are opened and indexed.
    pub done: usize,
    /// All of them.
    pub total: usize,
}

/// Where the clock of a new session begins; whatever is `None` is as the common clock was started.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SessionStart {
    /// Where it stands.
    pub from: Option<Moment>,
    /// How fast it goes.
    pub pace: Option<Pace>,
    /// Whether it stands still until somebody plays it.
    pub is_paused: bool,
}

/// A session, as the status shows it.
#[derive(Clone)]
pub struct SessionInfo {
    /// Its name.
    pub name: String,
    /// Its clock, with the clients on it.
    pub remote: Remote,
}

/// Why a session was not begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum SessionError {
    /// As many as may be.
    #[error("{limit} sessions exist already; --max-sessions allows no more; end one with DELETE /replay/sessions/NAME")]
    TooMany { limit: usize },
    /// A name that cannot be shown in a log line.
    #[error("expected a session name of 1 to 64 letters, digits, `-`, `_` or `.`")]
    BadName,
    /// Where it should begin is refused.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// The longest name of a session.
pub const MAX_SESSION_NAME: usize = 64;

/// Whether a session may have this name: it can be shown anywhere.
pub fn is_session_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=MAX_SESSION_NAME).contains(&name.len()) && name.bytes().all(is_plain)
}

/// The clocks of a server that replays. `Err` of its methods never changes anything.
pub trait Replays: Send + Sync {
    /// The clock that everybody follows who asked for no other.
    fn common(&self) -> &Remote;

    /// The days in the data folder. Reads the folder, and the ends of files that are not loaded: call it where
    /// waiting is allowed.
    fn dates(&self) -> Result<Vec<RecordedDate>, Refused>;

    /// Begins to load dates in place of those on the common clock; they are swapped between two ticks. One load at a
    /// time.
    fn load(self: std::sync::Arc<Self>, dates: Vec<Date>) -> Result<LoadJob, Refused>;

    /// A load by its number; the last 16 are remembered.
    fn job(&self, id: u64) -> Option<LoadJob>;

    /// The session of this name, if it exists.
    fn session(&self, name: &str) -> Option<Remote>;

    /// The session of this name; begins it if it does not exist.
    fn begin_session(&self, name: &str, start: SessionStart) -> Result<Remote, SessionError>;

    /// Ends a session and closes its connections; false if there is none of this name.
    fn end_session(&self, name: &str) -> bool;

    /// All sessions, by name.
    fn sessions(&self) -> Vec<SessionInfo>;
}
