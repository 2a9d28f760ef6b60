//! One snapshot a second for all readers of the events, and none while nobody reads.
//!
//! A task gathers as long as there is a reader. Each beat has the patch against the one before, made and written once;
//! who has missed a beat, or is new, gets the whole snapshot.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::gatherer::Gatherer;
use super::merge_patch::diff;
use crate::server::http::app::App;

const BEAT: Duration = Duration::from_secs(1);

/// One moment of the server, ready to be sent.
pub struct LiveBeat {
    /// Counts the beats since somebody began to read, from 1.
    pub number: u64,
    /// What has changed since the beat before.
    pub patch: String,
    snapshot: Arc<Value>,
    whole: OnceLock<String>,
}

impl LiveBeat {
    /// The whole snapshot, written when it is first asked for.
    pub fn whole(&self) -> &str {
        self.whole.get_or_init(|| self.snapshot.to_string())
    }
}

/// The beats, and who reads them.
pub struct LiveFeed {
    limit: usize,
    places: Arc<Semaphore>,
    beats: watch::Sender<Option<Arc<LiveBeat>>>,
    /// Whether the task runs. It looks for readers under this lock before it ends.
    is_gathering: Mutex<bool>,
}

/// A reader of the beats; the task goes on as long as there is one.
pub struct LiveReader {
    beats: watch::Receiver<Option<Arc<LiveBeat>>>,
    /// The number of the last beat that was read.
    last: u64,
    _place: OwnedSemaphorePermit,
}

impl LiveFeed {
    /// Nobody reads yet.
    pub fn new(limit: usize) -> Self {
        let (beats, _) = watch::channel(None);
        Self { limit, places: Arc::new(Semaphore::new(limit)), beats, is_gathering: Mutex::new(false) }
    }

    /// How many read.
    pub fn readers(&self) -> usize {
        self.limit.saturating_sub(self.places.available_permits())
    }
}

impl LiveReader {
    /// A new reader; `None` if there are as many as may be.
    pub fn begin(app: &Arc<App>) -> Option<Self> {
        let feed = &app.live.feed;
        let place = Arc::clone(&feed.places).try_acquire_owned().ok()?;
        let mut is_gathering = feed.is_gathering.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *is_gathering, true) {
            tokio::spawn(gather(Arc::clone(app)));
        }
        Some(Self { beats: feed.beats.subscribe(), last: 0, _place: place })
    }

    /// The next beat, and whether the reader had the one before it; `None` when the server ends.
    pub async fn next(&mut self) -> Option<(Arc<LiveBeat>, bool)> {
        loop {
            if let Some(beat) = self.beats.borrow_and_update().as_ref().filter(|beat| beat.number > self.last) {
                let follows = self.last > 0 && beat.number == self.last + 1;
                self.last = beat.number;
                return Some((Arc::clone(beat), follows));
            }
            self.beats.changed().await.ok()?;
        }
    }
}

/// Gathers until nobody reads any more.
async fn gather(app: Arc<App>) {
    let feed = &app.live.feed;
    let (mut gatherer, mut before, mut number) = (Gatherer::default(), Arc::new(Value::Null), 0);
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        {
            let mut is_gathering = feed.is_gathering.lock().unwrap_or_else(PoisonError::into_inner);
            if feed.readers() == 0 {
                *is_gathering = false;
                // The next reader must not see this old moment.
                feed.beats.send_replace(None);
                return;
            }
        }
        let snapshot = serde_json::to_value(gatherer.gather(&app).await).map(Arc::new);
        let snapshot = snapshot.expect("a snapshot has string keys, and nothing else that could fail");
        number += 1;
        let patch = diff(&before, &snapshot).map_or_else(|| "{}".to_owned(), |patch| patch.to_string());
        before = Arc::clone(&snapshot);
        feed.beats.send_replace(Some(Arc::new(LiveBeat { number, patch, snapshot, whole: OnceLock::new() })));
    }
}
