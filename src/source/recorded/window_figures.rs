//! What the window reports about itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::Timespec;

use super::parts::{Part, Parts};
use crate::health::status::{SourceHealth, Status};
use crate::wire::webpubsub::PlainForm;

/// Counters and gauges of the window.
pub struct WindowFigures {
    health: Arc<SourceHealth>,
    built: [Arc<AtomicU64>; PlainForm::ALL.len()],
    blocks: Arc<AtomicU64>,
    held: Arc<AtomicU64>,
    budget: Arc<AtomicU64>,
    ahead: Arc<AtomicU64>,
    cpu_us: Arc<AtomicU64>,
    records: Arc<AtomicU64>,
    bad: Arc<AtomicU64>,
}

impl WindowFigures {
    /// Registers them. Bad lines are errors of the source `health`.
    pub fn new(status: &Status, health: Arc<SourceHealth>) -> Self {
        Self {
            health,
            built: frames_built(status),
            blocks: status.count("blocks_built", "Blocks of frames built, a form of a block at a time", vec![]),
            held: status.gauge("arena_bytes", "Bytes of frames in memory, with their tables", vec![]),
            budget: status.gauge("arena_limit_bytes", "Bytes of frames that --arena-bytes allows", vec![]),
            ahead: status.gauge(
                "window_ahead_seconds",
                "How far ahead of the clock the frames of groups with subscribers are built, at the least",
                vec![],
            ),
            cpu_us: status.count("builder_cpu_microseconds", "CPU time that building frames took", vec![]),
            records: status.gauge("records_indexed", "Lines of the day's files that are indexed", vec![]),
            bad: status.count("bad_input", "Lines and files of the data that were skipped", vec![]),
        }
    }

    /// Counts the bytes of frames as long as they are in memory.
    pub fn held(&self) -> &Arc<AtomicU64> {
        &self.held
    }

    /// Bytes of frames in memory.
    pub fn bytes_held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) fn set_budget(&self, bytes: u64) {
        self.budget.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn set_ahead(&self, seconds: u64) {
        self.ahead.store(seconds, Ordering::Relaxed);
    }

    pub(super) fn set_records(&self, slots: u64) {
        self.records.store(slots, Ordering::Relaxed);
    }

    /// Counts skipped lines and files.
    pub fn count_bad(&self, count: u64) {
        self.bad.fetch_add(count, Ordering::Relaxed);
        self.health.count_errors(count);
    }

    pub(super) fn add_cpu(&self, began: Timespec, ended: Timespec) {
        let us = |time: Timespec| time.tv_sec * 1_000_000 + time.tv_nsec / 1000;
        self.cpu_us.fetch_add((us(ended) - us(began)).cast_unsigned(), Ordering::Relaxed);
    }

    /// Counts the parts that were built of a block with so many records.
    pub(super) fn count(&self, parts: Parts, records: u64) {
        for part in Part::all().filter(|part| parts.has(*part)) {
            self.blocks.fetch_add(1, Ordering::Relaxed);
            if let Part::Record(form) = part {
                self.built[form.index()].fetch_add(records, Ordering::Relaxed);
            }
        }
    }
}

/// How often frames were built, per form: the proof that subscribers cost no encoding.
pub fn frames_built(status: &Status) -> [Arc<AtomicU64>; PlainForm::ALL.len()] {
    PlainForm::ALL.map(|form| {
        let labels = vec![("syntax", form.syntax_name().into()), ("profile", form.profile.name().into())];
        status.count("frames_built", "Frames built from records, once per record and form", labels)
    })
}
