//! What the sources of a recording tell its writer, and how a connection is kept.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::recorded_files::RecordedRecord;
use crate::source::broker::net::backoff::{Backoff, BackoffSettings};

/// Records on their way to the files. A source waits while so many do.
pub const WAITING: usize = 1024;

/// What a source tells.
#[derive(Debug)]
pub enum Heard {
    /// One line for the files.
    Record(RecordedRecord),
    /// Something that cannot be a line, and why.
    LeftOut(String),
    /// The server has left messages of a channel out, because they were taken too slowly.
    Skipped { channel: String, count: u64 },
    /// A connection is lost: records are missing until it is back.
    Lost {
        /// Whose connection it is.
        what: String,
        reason: String,
    },
    /// It is back after so long.
    Back { what: String, away: Duration },
    /// Tell when everything before this is on the disk.
    #[cfg_attr(not(feature = "kafka"), expect(dead_code, reason = "only Kafka commits"))]
    Sync(std::sync::mpsc::Sender<()>),
}

/// The way to the writer.
pub type ToFiles = mpsc::Sender<Heard>;

/// A channel of `/ws`, or a topic: its file in the folder of a day.
pub fn stream_file(channel: &str) -> PathBuf {
    PathBuf::from(crate::source::recorded::trading::STREAMS_FOLDER).join(format!("{channel}.jsonl"))
}

/// How often a lost connection is tried again: for ever.
const RETRIES: BackoffSettings =
    BackoffSettings { base: Duration::from_secs(1), cap: Duration::from_mins(1), limit: None };

/// A connection that lived this long is tried again quickly.
const STABLE: Duration = Duration::from_secs(10);

/// Tells of a connection's ends, and waits before it is tried again.
pub struct Keeper {
    what: String,
    files: ToFiles,
    backoff: Backoff,
    opened: Instant,
    lost: Option<Instant>,
}

impl Keeper {
    /// The keeper of a connection that is open.
    pub fn new(what: impl Into<String>, files: ToFiles) -> Self {
        Self { what: what.into(), files, backoff: Backoff::new(RETRIES), opened: Instant::now(), lost: None }
    }

    /// The connection ended, or could not be opened: tells it, and waits. False if the recording has ended.
    pub async fn lost(&mut self, reason: &anyhow::Error) -> bool {
        if self.lost.is_none() {
            self.lost = Some(Instant::now());
            if self.opened.elapsed() >= STABLE {
                self.backoff.reset();
            }
        }
        let wait = self.backoff.next_wait().unwrap_or(RETRIES.cap);
        let lost = Heard::Lost { what: self.what.clone(), reason: format!("{reason:#}") };
        if self.files.send(lost).await.is_err() {
            return false;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => true,
            () = self.files.closed() => false,
        }
    }

    /// The connection is open again.
    pub async fn back(&mut self) {
        self.opened = Instant::now();
        if let Some(lost) = self.lost.take() {
            let _ = self.files.send(Heard::Back { what: self.what.clone(), away: lost.elapsed() }).await;
        }
    }
}
