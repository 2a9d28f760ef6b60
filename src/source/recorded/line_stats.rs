//! Figures over the lines of a file.

use super::lines::{Line, MAX_LINE};
use crate::wire::gexbot::PayloadKind;
use crate::wire::payload::{Noticed, Parsed, Record};

/// A longer step between two records is a gap, in seconds: the feed has a record every second.
pub const GAP_SECONDS: i64 = 5;

/// Bad lines reported in full per file; the rest is summed.
pub const REPORTED_LINES: usize = 5;

/// Figures over consecutive lines of a file.
#[derive(Debug, Default, Clone)]
pub struct LineStats {
    /// All lines, blank ones included.
    pub lines: u64,
    /// Lines that are records.
    pub records: u64,
    /// Lines that are neither blank nor a record.
    pub bad: u64,
    /// The first bad lines: line number, from 1, and reason.
    pub first_bad: Vec<(u64, String)>,
    /// Numbers that were missing or null.
    pub missing: u64,
    /// Rows of strikes, contracts or priors that were skipped.
    pub skipped_rows: u64,
    /// Sums that were set to the end of their range.
    pub saturated: u64,
    /// Records older than the one before.
    pub backwards: u64,
    /// First and last timestamp, in file order.
    pub span: Option<(i64, i64)>,
    /// Steps of more than [`GAP_SECONDS`].
    pub gaps: u64,
    /// The longest step from one record to the next, seconds.
    pub longest_gap: i64,
}

impl LineStats {
    /// Adds the figures of the lines that follow.
    pub fn append(&mut self, next: Self) {
        let room = REPORTED_LINES.saturating_sub(self.first_bad.len());
        let before = self.lines;
        self.first_bad.extend(next.first_bad.into_iter().take(room).map(|(line, reason)| (before + line, reason)));
        self.lines += next.lines;
        self.records += next.records;
        self.bad += next.bad;
        self.missing += next.missing;
        self.skipped_rows += next.skipped_rows;
        self.saturated += next.saturated;
        self.backwards += next.backwards;
        self.gaps += next.gaps;
        self.longest_gap = self.longest_gap.max(next.longest_gap);
        if let Some((first, last)) = next.span {
            self.step_to(first);
            self.span = Some((self.span.map_or(first, |span| span.0), last));
        }
    }

    /// Counts the step from the last record to one at `timestamp`.
    fn step_to(&mut self, timestamp: i64) {
        let Some((_, last)) = self.span else { return };
        let step = timestamp.saturating_sub(last);
        self.backwards += u64::from(step < 0);
        self.gaps += u64::from(step > GAP_SECONDS);
        self.longest_gap = self.longest_gap.max(step);
    }

    /// Reads a line that is not blank; counts what it is. `None` if it is not a record.
    pub fn read(&mut self, kind: PayloadKind, line: Line<'_>) -> Option<Record> {
        if line.is_too_long {
            self.bad(format_args!("expected a line of at most {MAX_LINE} bytes, got a longer one"));
            return None;
        }
        match Record::parse(kind, line.text) {
            Ok(Parsed { record, noticed }) => {
                self.good(record.timestamp(), noticed);
                Some(record)
            }
            Err(error) => {
                self.bad(error);
                None
            }
        }
    }

    /// Counts a record, with what was noticed in it.
    pub fn good(&mut self, timestamp: i64, noticed: Noticed) {
        self.step_to(timestamp);
        self.span = Some((self.span.map_or(timestamp, |span| span.0), timestamp));
        self.records += 1;
        self.missing += u64::from(noticed.missing);
        self.skipped_rows += u64::from(noticed.skipped_rows);
        self.saturated += u64::from(noticed.saturated);
    }

    /// Counts a line that is not a record.
    pub fn bad(&mut self, reason: impl std::fmt::Display) {
        self.bad += 1;
        if self.first_bad.len() < REPORTED_LINES {
            self.first_bad.push((self.lines, reason.to_string()));
        }
    }
}

/// A number with its noun: `1 record`, `2 records`.
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
