//! What loading a dataset gives: its tracks, and a report on each file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::arena::Track;
use super::dataset::RecordFile;
use super::line_stats::LineStats;
use super::mapping::{Identity, ReadError};
use crate::wire::webpubsub::PlainForm;

/// A dataset in memory, ready to be replayed.
pub struct Loaded {
    /// One track per file that had a record.
    pub tracks: Vec<Arc<Track>>,
    /// What was found, one per file, in the dataset's order.
    pub reports: Vec<FileReport>,
    /// How long loading took.
    pub took: Duration,
}

impl Loaded {
    /// Records of all tracks together.
    pub fn records(&self) -> u64 {
        self.tracks.iter().map(|track| track.records()).sum()
    }

    /// Bytes of all frames that exist.
    pub fn bytes(&self) -> u64 {
        self.tracks.iter().flat_map(|track| PlainForm::ALL.map(|form| track.bytes(form))).sum()
    }

    /// Whether anything was bad: a file left out, a line skipped.
    pub fn is_clean(&self) -> bool {
        self.reports.iter().all(|report| report.failed.is_none() && report.lines.bad == 0)
    }
}

/// What one file held, or why it was left out.
#[derive(Debug)]
pub struct FileReport {
    /// The ticker and the path of its file.
    pub file: RecordFile,
    /// Figures over the file's lines.
    pub lines: LineStats,
    /// Why it was left out, if it was.
    pub failed: Option<FileError>,
    /// What it was when it was opened, if it could be.
    pub identity: Option<Identity>,
}

/// Why a file gives no track. The other files are not affected.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum FileError {
    /// It cannot be read, or changed meanwhile.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is empty.
    #[error("{path}: expected records, got an empty file")]
    Empty { path: PathBuf },
    /// It has lines, but no good one.
    #[error("{path}: expected records, got {bad} bad lines and no good one")]
    NoRecords { path: PathBuf, bad: u64 },
}
