//! Readers of the snapshots: one snapshot a second for all of them, and none while nobody reads.
//!
//! A task gathers as long as there is a reader. Each beat has the patch against the one before, made and written once;
//! who has missed a beat, or is new, gets the whole snapshot.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::feed::LiveBeat;
use super::gatherer::Gatherer;
use super::merge_patch::diff;
use crate::server::http::app::App;

const BEAT: Duration = Duration::from_secs(1);

/// A reader of the beats; the task goes on as long as there is one.
pub struct LiveReader {
    beats: watch::Receiver<Option<Arc<LiveBeat>>>,
    /// The number of the last beat that was read.
    last: u64,
    _place: OwnedSemaphorePermit,
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
        feed.beats.send_replace(Some(Arc::new(LiveBeat::new(number, patch, snapshot))));
    }
}
