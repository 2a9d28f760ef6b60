//! What the REST routes keep between requests.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use uuid::Uuid;

use super::cursors::Cursors;
use super::positions::LastPositions;
use super::rest_options::{RestCursor, RestOptions};
use super::series::RecordedDay;
use crate::engine::clock;
use crate::health::status::Status;

/// What the REST routes keep between requests.
pub struct RestState {
    day: OnceLock<ServedDay>,
    /// Which record the data routes answer.
    pub cursor: RestCursor,
    pub(super) cursors: Cursors,
    pub(super) last_positions: LastPositions,
    /// Names this process to the readers of the position stream, whose sequences begin with it.
    pub(super) broadcaster_id: Uuid,
    pub(super) started: Instant,
}

/// The day, and since when it is served.
#[derive(Clone)]
pub(super) struct ServedDay {
    pub day: Arc<dyn RecordedDay>,
    pub since_unix_ns: u64,
}

impl RestState {
    /// The state before the day is found: every route answers that there is none.
    pub fn new(options: &RestOptions, status: &Status) -> Self {
        Self {
            day: OnceLock::new(),
            cursor: options.rest_cursor,
            cursors: Cursors::new(options.rest_max_cursors, status),
            last_positions: LastPositions::default(),
            broadcaster_id: Uuid::new_v4(),
            started: Instant::now(),
        }
    }

    /// Sets the day that is replayed. The first one stays.
    pub fn set_day(&self, day: Arc<dyn RecordedDay>) {
        let _ = self.day.set(ServedDay { day, since_unix_ns: clock::unix_ns() });
    }

    /// The day that is replayed; `None` if there is none, or none yet.
    pub(super) fn day(&self) -> Option<&ServedDay> {
        self.day.get()
    }
}
