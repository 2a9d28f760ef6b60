//! Readers of the snapshots: one snapshot a second for all of them. While nobody reads, only a row of the history is made.
//!
//! Each beat has the patch against the one before, made and written once; who has missed a beat, or is new, gets the whole
//! snapshot.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::gatherer::Gatherer;
use super::live_feed::LiveBeat;
use super::snapshot_json::SnapshotJson;
use crate::server::http::app::App;

const BEAT: Duration = Duration::from_secs(1);

/// A reader of the beats.
pub struct LiveReader {
    beats: watch::Receiver<Option<Arc<LiveBeat>>>,
    /// The number of the last beat that was read.
    last: u64,
    _place: OwnedSemaphorePermit,
}

impl LiveReader {
    /// A new reader; `None` if there are as many as may be.
    pub fn begin(app: &App) -> Option<Self> {
        let feed = &app.live.feed;
        let place = Arc::clone(&feed.places).try_acquire_owned().ok()?;
        let beats = feed.beats.subscribe();
        if beats.borrow().is_none() {
            feed.first_came.notify_one();
        }
        Some(Self { beats, last: 0, _place: place })
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

/// Gathers until the process ends.
pub async fn gather(app: Arc<App>) {
    let feed = &app.live.feed;
    let (mut gatherer, mut before, mut number) = (Gatherer::default(), None::<Arc<SnapshotJson>>, 0);
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Both are cancel-safe. The first reader does not wait for the next beat.
        tokio::select! {
            _ = beat.tick() => {}
            () = feed.first_came.notified() => beat.reset(),
        }
        if feed.readers() == 0 {
            gatherer.glance(&app).await;
            before = None;
            // The next reader must not see this old moment.
            feed.beats.send_if_modified(|last| last.take().is_some());
            continue;
        }
        let snapshot = Arc::new(SnapshotJson::new(gatherer.gather(&app).await));
        // The first one after a pause has no patch: whoever still had the last one before must get all of it.
        number += if before.is_some() { 1 } else { 2 };
        let patch = before.as_ref().map_or_else(|| "{}".to_owned(), |before| snapshot.since(before).to_string());
        before = Some(Arc::clone(&snapshot));
        feed.beats.send_replace(Some(Arc::new(LiveBeat::new(number, patch, snapshot))));
    }
}
