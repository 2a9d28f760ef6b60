//! Where a file's lines are: how many begin in each block of it.
//!
//! A file is cut into blocks of [`BLOCK`] bytes; a line belongs to the block in which it begins. A line with
//! anything in it is a *slot*: one tick of its track, whether or not it turns out to be a record.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, TryLockError};

use memchr::memchr;

use super::mapping::{MappedFile, ReadError};

/// Bytes of the file per block: some 400 records of orderflow, or 40 of GEX.
pub const BLOCK: u64 = 256 << 10;

/// A line that has nothing but spaces in so many bytes counts as blank.
const PEEK: usize = 64;

/// Slots and lines before each block, as far as the file was scanned. Readers need no lock.
#[derive(Debug)]
pub struct Index {
    len: u64,
    /// Number of the first slot of each block; one more entry than blocks.
    slots: Box<[AtomicU64]>,
    /// Number of the first line of each block, from 0, blank ones included.
    lines: Box<[AtomicU64]>,
    /// Blocks that were scanned: entries up to this one are final.
    scanned: AtomicUsize,
    scanning: Mutex<Vec<u8>>,
}

impl Index {
    /// The index of a file of `len` bytes; nothing is scanned yet.
    pub fn new(len: u64) -> Self {
        let blocks = usize::try_from(len.div_ceil(BLOCK)).expect("a file's blocks fit in memory");
        let entries = || (0..=blocks).map(|_| AtomicU64::new(0)).collect();
        Self { len, slots: entries(), lines: entries(), scanned: AtomicUsize::new(0), scanning: Mutex::default() }
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
        let mut bytes = match self.scanning.try_lock() {
            Ok(bytes) => bytes,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        for block in self.scanned()..until.min(self.blocks()) {
            let (slots, lines) = self.count(file, block, &mut bytes)?;
            self.slots[block + 1].store(self.slots[block].load(Ordering::Relaxed) + slots, Ordering::Relaxed);
            self.lines[block + 1].store(self.lines[block].load(Ordering::Relaxed) + lines, Ordering::Relaxed);
            self.scanned.store(block + 1, Ordering::Release);
        }
        Ok(())
    }

    /// Counts the slots and the lines that begin in a block.
    fn count(&self, file: &MappedFile, block: usize, bytes: &mut Vec<u8>) -> Result<(u64, u64), ReadError> {
        let Range { start, end } = self.bytes_of(block);
        // The byte before tells whether a line begins right at the start.
        let from = start.saturating_sub(1);
        let to = self.len.min(end + PEEK as u64);
        bytes.clear();
        file.read(from, (to - from) as usize, bytes)?;
        let end = (end - from) as usize;
        let mut next = if start == 0 { Some(0) } else { after_newline(bytes, 0) };
        let (mut slots, mut lines) = (0, 0);
        while let Some(at) = next.filter(|&at| at < end) {
            lines += 1;
            slots += u64::from(is_slot(&bytes[at..]));
            next = after_newline(bytes, at);
        }
        Ok((slots, lines))
    }
}

fn after_newline(bytes: &[u8], from: usize) -> Option<usize> {
    memchr(b'\n', &bytes[from..]).map(|at| from + at + 1)
}

/// Whether a line has anything in it. `from` begins with the line and may go on behind it.
pub fn is_slot(from: &[u8]) -> bool {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r');
    from.iter().take(PEEK).find(|byte| !is_space(byte)).is_some_and(|&byte| byte != b'\n')
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

    fn scanned(content: &[u8]) -> Index {
        let index = Index::new(content.len() as u64);
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
        let (index, file) = (Index::new(content.len() as u64), file(&content));
        assert_eq!((index.find(0), index.slots(), index.is_complete()), (None, 0, false));
        index.scan(&file, 1).unwrap();
        assert_eq!(index.find(0), Some(0));
        assert_eq!(index.find(index.slots()), None);
        assert!(index.slots() > 20_000 && !index.is_complete());
        index.scan(&file, usize::MAX).unwrap();
        assert_eq!((index.slots(), index.is_complete()), (100_000, true));
    }
}
