//! What the REST routes keep between requests.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use uuid::Uuid;

use super::cursors::Cursors;
use super::positions::LastPositions;
use super::rest_options::{RestCursor, RestOptions};
use super::series::RecordedDay;
use crate::engine::system_clock;
use crate::health::status::Status;

/// What the REST routes keep between requests.
pub struct RestState {
    days: ArcSwapOption<ServedDays>,
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
pub struct ServedDay {
    /// The day.
    pub day: Arc<dyn RecordedDay>,
    /// Since then, Unix ns.
    pub since_unix_ns: u64,
}

/// The dates that are replayed, one after the other.
struct ServedDays {
    days: Vec<ServedDay>,
    /// Which of them is played now.
    current: Box<dyn Fn() -> usize + Send + Sync>,
}

impl RestState {
    /// The state before the day is found: every route answers that there is none.
    pub fn new(options: &RestOptions, status: &Status) -> Self {
        Self {
            days: ArcSwapOption::empty(),
            cursor: options.rest_cursor,
            cursors: Cursors::new(options.rest_max_cursors, status),
            last_positions: LastPositions::default(),
            broadcaster_id: Uuid::new_v4(),
            started: Instant::now(),
        }
    }

    /// Sets the dates that are replayed, and what tells which of them is played now.
    pub fn set_days(&self, days: Vec<Arc<dyn RecordedDay>>, current: impl Fn() -> usize + Send + Sync + 'static) {
        let since_unix_ns = system_clock::unix_ns();
        let days = days.into_iter().map(|day| ServedDay { day, since_unix_ns }).collect();
        self.days.store(Some(Arc::new(ServedDays { days, current: Box::new(current) })));
    }

    /// The day that is played now; `None` if there is none, or none yet.
    pub fn day(&self) -> Option<ServedDay> {
        let served = self.days.load_full()?;
        served.days.get((served.current)()).cloned()
    }
}
