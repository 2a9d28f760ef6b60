//! Where a file's lines are, and when: how many begin in each block of it, and the time of each.
//!
//! A file is cut into blocks of [`BLOCK`] bytes; a line belongs to the block in which it begins. A line with
//! anything in it is a *slot*: one tick of its track, whether or not it turns out to be a record. A slot's time is
//! that of its record; one that is odd counts as that of the slot before it (see [`rising`]).

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, TryLockError};

use memchr::memchr;

use super::glance::{glance, rising};
use super::mapping::{MappedFile, ReadError};

/// Bytes of the file per block: some 400 records of orderflow, or 40 of GEX.
pub const BLOCK: u64 = 256 << 10;

/// How far behind a block's end its last line is looked at for its time: longer than any record. A line with more spaces
/// than that is not blank any more, whatever follows them.
const LAST_LINE: usize = 16 << 10;

/// Some editors put it at the start of a file.
pub const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Which times a file's records can have, and what is kept of them.
#[derive(Debug, Clone, Copy)]
pub struct TimeRules {
    /// From and to, Unix seconds; other times are odd.
    pub plausible: (u32, u32),
    /// Added to each time, seconds.
    pub shift: i64,
    /// Whether the spot prices are kept, too.
    pub keeps_spots: bool,
}

/// Slots and lines before each block, as far as the file was scanned. Readers need no lock.
#[derive(Debug)]
pub struct Index {
    len: u64,
    rules: TimeRules,
    /// Times of each block's slots, Unix seconds; see [`figures`].
    times: Box<[OnceLock<Box<[u32]>>]>,
    /// Spot prices of each block's slots in hundredths, if they are kept; see [`figures`].
    spots: Box<[OnceLock<Box<[u32]>>]>,
    /// Number of the first slot of each block; one more entry than blocks.
    slots: Box<[AtomicU64]>,
    /// Number of the first line of each block, from 0, blank ones included.
    lines: Box<[AtomicU64]>,
    /// Blocks that were scanned: entries up to this one are final.
    scanned: AtomicUsize,
    scanning: Mutex<Scan>,
}

/// What a scan uses again for the next block.
#[derive(Debug, Default)]
struct Scan {
    bytes: Vec<u8>,
    times: Vec<Option<u32>>,
    spots: Vec<u32>,
    /// The last time of the blocks before.
    before: Option<u32>,
}

impl Index {
    /// The index of a file of `len` bytes; nothing is scanned yet.
    pub fn new(len: u64, rules: TimeRules) -> Self {
        let blocks = usize::try_from(len.div_ceil(BLOCK)).expect("a file's blocks fit in memory");
        let entries = || (0..=blocks).map(|_| AtomicU64::new(0)).collect();
        let figures = |kept: bool| (0..if kept { blocks } else { 0 }).map(|_| OnceLock::new()).collect();
        Self {
            len,
            rules,
            times: figures(true),
            spots: figures(rules.keeps_spots),
            slots: entries(),
            lines: entries(),
            scanned: AtomicUsize::new(0),
            scanning: Mutex::default(),
        }
    }

    /// How many blocks the file has.
    pub fn blocks(&self) -> usize {
        self.slots.len() - 1
    }

    /// How many of them are scanned.
    pub fn scanned(&self) -> usize {
        // Acquire: the entries before it were stored earlier.
        self.scanned.load(Ordering::Acquire)
    }

    /// Whether the whole file is scanned.
    pub fn is_complete(&self) -> bool {
        self.scanned() == self.blocks()
    }

    /// The slots that are known so far.
    pub fn slots(&self) -> u64 {
        self.slots[self.scanned()].load(Ordering::Relaxed)
    }

    /// The lines that are known so far.
    pub fn lines(&self) -> u64 {
        self.lines[self.scanned()].load(Ordering::Relaxed)
    }

    /// The block of a slot; `None` if no such slot is indexed.
    pub fn find(&self, slot: u64) -> Option<usize> {
        let scanned = self.scanned();
        let known = &self.slots[..=scanned];
        let after = known.partition_point(|first| first.load(Ordering::Relaxed) <= slot);
        (after <= scanned).then(|| after - 1)
    }

    /// The slots of a block that was scanned.
    pub fn slots_of(&self, block: usize) -> Range<u64> {
        self.slots[block].load(Ordering::Relaxed)..self.slots[block + 1].load(Ordering::Relaxed)
    }

    /// The times of a block's slots, Unix seconds; they rise. One alone if all are the same, none unless it was scanned.
    pub fn times_of(&self, block: usize) -> &[u32] {
        self.times.get(block).and_then(OnceLock::get).map_or(&[], |times| times)
    }

    /// The spot prices of a block's slots in hundredths, 0 where there is none. One alone if all are the same, none
    /// unless it was scanned and they are kept.
    pub fn spots_of(&self, block: usize) -> &[u32] {
        self.spots.get(block).and_then(OnceLock::get).map_or(&[], |spots| spots)
    }

    /// When a slot is due, Unix seconds; `None` if it is not indexed.
    pub fn time_of(&self, slot: u64) -> Option<u32> {
        let block = self.find(slot)?;
        match self.times_of(block) {
            [same] => Some(*same),
            times => times.get((slot - self.slots_of(block).start) as usize).copied(),
        }
    }

    /// The first slot that is due at `time` or later; one behind the last if there is none. `None` if the file is not
    /// scanned as far as that.
    pub fn slot_at(&self, time: u32) -> Option<u64> {
        let scanned = self.scanned();
        let (mut low, mut high) = (0, scanned);
        while low < high {
            let middle = low + (high - low) / 2;
            // A block without slots says nothing: the nearest one before it does.
            match (low..=middle).rev().find_map(|block| Some((block, *self.times_of(block).last()?))) {
                Some((block, last)) if last >= time => high = block,
                _ => low = middle + 1,
            }
        }
        if low == scanned {
            return (scanned == self.blocks()).then(|| self.slots());
        }
        Some(self.slots_of(low).start + self.times_of(low).partition_point(|&at| at < time) as u64)
    }

    /// How many lines come before a block that was scanned.
    pub fn lines_before(&self, block: usize) -> u64 {
        self.lines[block].load(Ordering::Relaxed)
    }

    /// The bytes of the file in which a block's lines begin.
    pub fn bytes_of(&self, block: usize) -> Range<u64> {
        let start = block as u64 * BLOCK;
        start..self.len.min(start + BLOCK)
    }

    /// Scans the next blocks, up to `until`. Returns at once if another thread is scanning.
    pub fn scan(&self, file: &MappedFile, until: usize) -> Result<(), ReadError> {
        let mut scan = match self.scanning.try_lock() {
            Ok(scan) => scan,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        for block in self.scanned()..until.min(self.blocks()) {
            let lines = self.look(file, block, &mut scan)?;
            let slots = scan.times.len() as u64;
            let times = rising(&scan.times, self.rules.plausible, scan.before);
            scan.before = times.last().copied().or(scan.before);
            let shifted = |time: &u32| u32::try_from(i64::from(*time) + self.rules.shift).unwrap_or(*time);
            let _ = self.times[block].set(figures(times.iter().map(shifted).collect()));
            if let Some(spots) = self.spots.get(block) {
                let _ = spots.set(figures(scan.spots.clone()));
            }
            self.slots[block + 1].store(self.slots[block].load(Ordering::Relaxed) + slots, Ordering::Relaxed);
            self.lines[block + 1].store(self.lines[block].load(Ordering::Relaxed) + lines, Ordering::Relaxed);
            self.scanned.store(block + 1, Ordering::Release);
        }
        Ok(())
    }

    /// Looks at the lines that begin in a block: the times of those that are slots. Returns how many lines they are.
    fn look(&self, file: &MappedFile, block: usize, scan: &mut Scan) -> Result<u64, ReadError> {
        let Scan { bytes, times, spots, .. } = scan;
        let Range { start, end } = self.bytes_of(block);
        // The byte before tells whether a line begins right at the start.
        let from = start.saturating_sub(1);
        let to = self.len.min(end + LAST_LINE as u64);
        bytes.clear();
        times.clear();
        spots.clear();
        file.read(from, (to - from) as usize, bytes)?;
        let end = (end - from) as usize;
        let mut next = match start {
            0 if bytes.starts_with(BYTE_ORDER_MARK) => Some(BYTE_ORDER_MARK.len()),
            0 => Some(0),
            _ => after_newline(bytes, 0),
        };
        let mut lines = 0;
        while let Some(at) = next.filter(|&at| at < end) {
            lines += 1;
            next = after_newline(bytes, at);
            if is_slot(&bytes[at..]) {
                let seen = glance(&bytes[at..next.unwrap_or(bytes.len())], self.rules.keeps_spots);
                times.push(seen.time);
                spots.push(seen.spot);
            }
        }
        Ok(lines)
    }
}

fn after_newline(bytes: &[u8], from: usize) -> Option<usize> {
    memchr(b'\n', &bytes[from..]).map(|at| from + at + 1)
}

/// What is kept of a block's figures: one alone if all are the same, as those of a hundred thousand lines that are no
/// records, so that an index is never larger than its file.
fn figures(all: Vec<u32>) -> Box<[u32]> {
    match &all[..] {
        [first, rest @ ..] if rest.iter().all(|figure| figure == first) => Box::new([*first]),
        _ => all.into(),
    }
}

/// Whether a line has anything in it. `from` begins with the line and may go on behind it.
pub fn is_slot(from: &[u8]) -> bool {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r');
    match from.iter().take(LAST_LINE).find(|byte| !is_space(byte)) {
        Some(&byte) => byte != b'\n',
        None => from.len() >= LAST_LINE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(content: &[u8]) -> MappedFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        MappedFile::open(file.path()).unwrap()
    }

    const RULES: TimeRules = TimeRules { plausible: (0, u32::MAX), shift: 0, keeps_spots: true };

    fn scanned(content: &[u8]) -> Index {
        let index = Index::new(content.len() as u64, RULES);
        index.scan(&file(content), usize::MAX).unwrap();
        index
    }

    #[test]
    fn blank_lines_are_lines_but_no_slots() {
        let index = scanned(b"\r\na\n  \t\n b\n\nc");
        assert_eq!((index.slots(), index.lines(), index.is_complete()), (3, 6, true));
        assert_eq!((scanned(b"").blocks(), scanned(b"\n").slots(), scanned(b"a\n").lines()), (0, 0, 1));
    }

    #[test]
    fn a_line_that_begins_with_many_spaces_is_a_slot() {
        let (indented, endless) = (format!("{}a\n", " ".repeat(200)), " ".repeat(LAST_LINE));
        assert_eq!((scanned(indented.as_bytes()).slots(), scanned(endless.as_bytes()).slots()), (1, 1));
        assert_eq!(scanned(format!("{}\nb", &endless[1..]).as_bytes()).slots(), 1, "a blank line and b");
    }

    #[test]
    fn a_byte_order_mark_is_no_line_of_its_own() {
        for (content, slots, lines) in
            [("\u{feff}\na", 1, 2), ("\u{feff}\r\na", 1, 2), ("\u{feff}a", 1, 1), ("\u{feff}", 0, 0)]
        {
            let index = scanned(content.as_bytes());
            assert_eq!((index.slots(), index.lines()), (slots, lines), "{content:?}");
        }
    }

    #[test]
    fn lines_that_are_no_records_take_less_memory_than_the_file_has_bytes() {
        let content = [b"{\"timestamp\":1000,\"spot\":5.25}\n".repeat(2), b"x\n".repeat(300_000)].concat();
        let index = scanned(&content);
        assert_eq!((index.blocks(), index.slots()), (3, 300_002));
        assert_eq!((index.times_of(1), index.spots_of(1)), (&[1000][..], &[0][..]));
        assert_eq!(
            (index.time_of(299_999), index.slot_at(1000), index.slot_at(1001)),
            (Some(1000), Some(0), Some(300_002))
        );
    }

    #[test]
    fn a_line_belongs_to_the_block_in_which_it_begins_however_the_blocks_fall() {
        for length in [1, 7, 1000, BLOCK as usize - 1, BLOCK as usize, BLOCK as usize + 1] {
            let mut content = Vec::new();
            let mut begins = Vec::new();
            while content.len() < 3 * BLOCK as usize {
                begins.push(content.len() as u64);
                content.extend(std::iter::repeat_n(b'x', length));
                content.push(b'\n');
            }
            let index = scanned(&content);
            assert_eq!(index.slots(), begins.len() as u64, "lines of {length}");
            for (slot, begin) in begins.iter().enumerate() {
                assert_eq!(index.find(slot as u64), Some((begin / BLOCK) as usize), "slot {slot} of {length}");
            }
            assert_eq!(index.find(begins.len() as u64), None);
        }
    }

    #[test]
    fn what_is_not_scanned_yet_is_not_known() {
        let content = b"0123456789\n".repeat(100_000);
        let (index, file) = (Index::new(content.len() as u64, RULES), file(&content));
        assert_eq!((index.find(0), index.slots(), index.is_complete()), (None, 0, false));
        index.scan(&file, 1).unwrap();
        assert_eq!(index.find(0), Some(0));
        assert_eq!(index.find(index.slots()), None);
        assert!(index.slots() > 20_000 && !index.is_complete());
        index.scan(&file, usize::MAX).unwrap();
        assert_eq!((index.slots(), index.is_complete()), (100_000, true));
    }

    #[test]
    fn a_moment_is_found_whether_or_not_a_record_stands_at_it() {
        let line = |time: u32| format!("{{\"timestamp\":{time},\"spot\":{time}.5}}{}\n", " ".repeat(1000));
        let content: String = (0..1000).map(|at| line(1000 + at / 2 * 10)).collect();
        let index = scanned(content.as_bytes());
        assert!(index.blocks() > 3);
        assert_eq!([0, 1000, 1001, 1010, 5990].map(|time| index.slot_at(time)), [0, 0, 2, 2, 998].map(Some));
        assert_eq!(index.slot_at(5991), Some(1000), "behind the last");
        assert_eq!([0, 1, 2, 999].map(|slot| index.time_of(slot)), [1000, 1000, 1010, 5990].map(Some));
        assert_eq!((index.time_of(1000), index.spots_of(0)[2]), (None, 101_050));
        let begun = Index::new(content.len() as u64, RULES);
        begun.scan(&file(content.as_bytes()), 1).unwrap();
        assert_eq!((begun.slot_at(1010), begun.slot_at(5990)), (Some(2), None), "not scanned so far");
    }
}
