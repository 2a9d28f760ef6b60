//! A track: one recorded file, its group, and the blocks of it that are in memory. Where a clock stands in it is not
//! its business: see [`super::stand`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;

use super::block::Block;
use super::dataset::RecordFile;
use super::index::Index;
use super::line_stats::{LineStats, REPORTED_LINES, counted};
use super::lines::BlockLines;
use super::mapping::{MappedFile, ReadError};
use crate::engine::group::Group;
use crate::wire::gexbot::{HubTopic, Package, PayloadKind};

/// One file of the day on the clock.
pub struct Track {
    recorded: RecordFile,
    kind: PayloadKind,
    group: Arc<Group>,
    /// The group of its ticker's spot price.
    spot: Arc<Group>,
    file: MappedFile,
    index: Index,
    /// By number; those that the window keeps.
    blocks: Box<[ArcSwapOption<Block>]>,
    /// The last record's time as the end of the file says it, Unix seconds.
    last: u32,
    /// Added to the times of its records, seconds.
    shift: i64,
    /// Its file cannot be read any more: what is in memory is all there is.
    is_lost: AtomicBool,
    has_grown: AtomicBool,
    notes: Mutex<Notes>,
}

/// What was noticed in the lines that were read so far.
#[derive(Default)]
struct Notes {
    /// Figures over the blocks before `next`.
    whole: LineStats,
    next: usize,
    /// Those of later blocks.
    later: BTreeMap<usize, LineStats>,
    reported: usize,
    bad: u64,
    /// The first ones that were logged: line numbers, from 1, and reasons.
    first_bad: Vec<(u64, String)>,
}

/// What a [`Track`] is made of.
#[expect(missing_docs, reason = "see Track")]
pub struct TrackParts {
    pub recorded: RecordFile,
    pub kind: PayloadKind,
    pub group: Arc<Group>,
    pub spot: Arc<Group>,
    pub file: MappedFile,
    pub index: Index,
    /// The last record's time, Unix seconds, before `shift`.
    pub last: u32,
    /// Added to the times of its records, seconds.
    pub shift: i64,
}

impl Track {
    /// A track of which no block is in memory.
    pub fn new(parts: TrackParts) -> Self {
        let TrackParts { recorded, kind, group, spot, file, index, last, shift } = parts;
        let blocks = (0..index.blocks()).map(|_| ArcSwapOption::empty()).collect();
        let (is_lost, has_grown) = (AtomicBool::new(false), AtomicBool::new(false));
        let notes = Mutex::default();
        Self { recorded, kind, group, spot, file, index, blocks, last, shift, is_lost, has_grown, notes }
    }

    /// The ticker as it stands in group names, such as `ES_SPX`.
    pub fn ticker(&self) -> &str {
        &self.recorded.ticker
    }

    /// The package of its records.
    pub fn package(&self) -> Package {
        self.recorded.package
    }

    /// The category of its records, such as `gamma_zero`.
    pub fn category(&self) -> &str {
        &self.recorded.category
    }

    /// The hubs that carry its group, by topic.
    pub fn topic(&self) -> Option<HubTopic> {
        self.recorded.series().topic()
    }

    /// The file that it plays.
    pub fn path(&self) -> &Path {
        &self.recorded.path
    }

    /// What its records are.
    pub fn kind(&self) -> PayloadKind {
        self.kind
    }

    /// Where its records are published.
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// The same group's full name.
    pub fn group_name(&self) -> &str {
        self.group.name()
    }

    /// Where its ticker's spot price is published.
    pub fn spot_group(&self) -> &Arc<Group> {
        &self.spot
    }

    /// The same group's full name.
    pub fn spot_group_name(&self) -> &str {
        self.spot.name()
    }

    /// The file as it is mapped.
    pub fn file(&self) -> &MappedFile {
        &self.file
    }

    /// Where its lines are.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Added to the times of its records, seconds.
    pub fn shift(&self) -> i64 {
        self.shift
    }

    /// From its first record to its last, Unix seconds. The last is what the file's end says until all of it is
    /// indexed.
    pub fn span(&self) -> Option<(u32, u32)> {
        let first = self.index.time_of(0)?;
        let (slots, is_complete) = self.slots();
        let said = u32::try_from(i64::from(self.last) + self.shift).unwrap_or(self.last);
        let last = if is_complete { self.index.time_of(slots.saturating_sub(1)) } else { None };
        Some((first, last.unwrap_or(said).max(first)))
    }

    /// Slots known so far, and whether these are all.
    pub fn slots(&self) -> (u64, bool) {
        // In this order: the slots grow until the index is complete.
        let is_complete = self.index.is_complete();
        (self.index.slots(), is_complete)
    }

    /// Whether its file cannot be read any more.
    pub fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    /// A block by number, if it is in memory.
    pub fn block_at(&self, at: usize) -> Option<Arc<Block>> {
        self.blocks[at].load_full()
    }

    /// The block that holds a slot, with the number of its first slot, if it is in memory.
    pub fn block_of(&self, slot: u64) -> Option<(u64, Arc<Block>)> {
        let at = self.index.find(slot)?;
        Some((self.index.slots_of(at).start, self.block_at(at)?))
    }

    /// Keeps a block in memory, or lets it go. Only the window calls this.
    pub fn keep(&self, at: usize, block: Option<Arc<Block>>) {
        self.blocks[at].store(block);
    }

    /// Checks that the file still has what it had at the start; logs once if more was appended.
    pub fn check_file(&self) -> Result<(), ReadError> {
        if self.file.check()? && !self.has_grown.swap(true, Ordering::Relaxed) {
            let path = self.path().display();
            tracing::warn!(
                "{path}: the file grows; only what it had at the start is replayed, the rest after a restart"
            );
        }
        Ok(())
    }

    /// The file cannot be read any more: its group has only what is in memory, and nobody else is affected. Returns
    /// whether that is new.
    pub fn lose(&self, error: &ReadError) -> bool {
        let is_new = !self.is_lost.swap(true, Ordering::Relaxed);
        if is_new {
            let group = self.group_name();
            tracing::error!(group, "{error}; only the part in memory is replayed; other groups are not affected");
        }
        is_new
    }

    /// Reads every line; logs what is wrong, and returns how many are bad. `progress` is told the bytes of each block.
    pub fn read_all(&self, progress: &dyn Fn(u64)) -> Result<u64, ReadError> {
        let (mut lines, mut bad) = (BlockLines::default(), 0);
        for block in 0..self.index.blocks() {
            self.index.scan(&self.file, block + 1)?;
            lines.read(&self.file, &self.index, block)?;
            let mut stats = LineStats::default();
            for line in lines.iter() {
                stats.lines += 1;
                if line.is_slot {
                    let _ = stats.read(self.kind, line);
                }
            }
            bad += self.note(block, stats);
            let bytes = self.index.bytes_of(block);
            progress(bytes.end - bytes.start);
        }
        self.file.check()?;
        Ok(bad)
    }

    /// Logs what was noticed in a block, the first time that it is read. Returns the number of bad lines that are
    /// new.
    pub fn note(&self, at: usize, lines: LineStats) -> u64 {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if at < notes.next || notes.later.contains_key(&at) {
            return 0;
        }
        let (path, before) = (self.path().display(), self.index.lines_before(at));
        for (line, reason) in lines.first_bad.iter().take(REPORTED_LINES - notes.reported.min(REPORTED_LINES)) {
            tracing::warn!("{path}:{}: {reason}", before + line);
            notes.first_bad.push((before + line, reason.clone()));
        }
        notes.reported += lines.first_bad.len();
        let bad = lines.bad;
        notes.bad += bad;
        notes.later.insert(at, lines);
        self.follow(&mut notes);
        bad
    }

    /// Lines that are no records among those that were read, and the first of them: line numbers, from 1, and reasons.
    pub fn bad_lines(&self) -> (u64, Vec<(u64, String)>) {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        (notes.bad, notes.first_bad.clone())
    }

    /// More of the file is indexed: if the rest of it is blank, everything that was noticed is summed up.
    pub fn note_indexed(&self) {
        self.follow(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Sums up what follows the blocks that were read in order; logs the sum when that is the whole file.
    fn follow(&self, notes: &mut Notes) {
        let (before, scanned) = (notes.next, self.index.scanned());
        while notes.next < scanned {
            match notes.later.remove(&notes.next) {
                Some(lines) => notes.whole.append(lines),
                // A block without slots is never read.
                None if self.index.slots_of(notes.next).is_empty() => {}
                None => break,
            }
            notes.next += 1;
        }
        if notes.next == self.index.blocks() && before < notes.next {
            self.sum_up(&notes.whole);
        }
    }

    /// Logs what was noticed in the whole file.
    fn sum_up(&self, lines: &LineStats) {
        let path = self.path().display();
        let reported = lines.bad.min(REPORTED_LINES as u64);
        if lines.bad > reported {
            tracing::warn!("{path}: {} bad lines in all, {} of them not listed", lines.bad, lines.bad - reported);
        }
        if lines.backwards > 0 {
            let older = counted(lines.backwards, "record is", "records are");
            tracing::warn!("{path}: {older} older than the one before; replayed in the order of the file");
        }
        if lines.missing > 0 {
            let missing =
                counted(lines.missing, "number is missing or null and counts", "numbers are missing or null and count");
            tracing::info!("{path}: {missing} as 0");
        }
        if lines.skipped_rows > 0 {
            let rows = counted(lines.skipped_rows, "row", "rows");
            tracing::warn!(
                "{path}: {rows} of strikes, contracts or priors skipped: too short, or not numbers in range"
            );
        }
        if lines.saturated > 0 {
            let sums = counted(lines.saturated, "sum does", "sums do");
            tracing::warn!("{path}: {sums} not fit the field and were set to the end of its range");
        }
    }
}
