//! A block: the records of some hundred lines, and their frames in each form that was built.
//!
//! Frames of one form lie back to back in one allocation, sliced per record. Whoever holds a slice, or the block,
//! keeps it in memory; the window only decides what it keeps itself. All of that is counted, the tables beside the frames
//! too: a hundred thousand lines that are no records have no frames.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::pages::Pages;
use super::parts::{Part, Parts};
use crate::engine::frames::{Form, FrameStore, PayloadHashes};
use crate::wire::gexbot::PayloadKind;
use crate::wire::payload::Profile;

/// What is known of one line of a block.
#[derive(Debug, Clone, Copy)]
pub struct SlotRecord {
    /// Unix seconds; meaningless if the line is not a record.
    pub timestamp: i64,
    /// Hundredths; 0 where a record has none.
    pub spot: u32,
    /// Whether the line is a record.
    pub is_record: bool,
}

/// Frames of one part, back to back; a line that is not a record has an empty frame.
#[derive(Debug)]
struct PartFrames {
    bytes: Bytes,
    /// Offset behind each frame.
    ends: Box<[u32]>,
}

/// Consecutive lines of one file.
#[derive(Debug)]
pub struct Block {
    slots: Box<[SlotRecord]>,
    kind: PayloadKind,
    parts: [OnceLock<PartFrames>; Part::COUNT],
    /// Of each record's payload, by profile.
    hashes: [OnceLock<Box<[u64]>>; Profile::ALL.len()],
    /// Of each spot price's payload.
    spot_hashes: OnceLock<Box<[u64]>>,
    /// Counts the bytes of all blocks and frames.
    held: Arc<AtomicU64>,
    /// Bytes of the tables, without the frames.
    tables: AtomicU64,
}

/// Set in the number of a record, it asks for the record's spot price.
const SPOT: u32 = 1 << 31;

impl Block {
    /// A block without frames. `held` counts its bytes as long as it is in memory, and each of its frames as long as
    /// anybody holds it.
    pub fn new(kind: PayloadKind, slots: &[SlotRecord], held: &Arc<AtomicU64>) -> Self {
        let block = Self {
            slots: slots.into(),
            kind,
            parts: [const { OnceLock::new() }; Part::COUNT],
            hashes: [const { OnceLock::new() }; Profile::ALL.len()],
            spot_hashes: OnceLock::new(),
            held: Arc::clone(held),
            tables: AtomicU64::new(0),
        };
        block.hold(size_of_val(slots));
        block
    }

    /// Counts a table.
    fn hold(&self, bytes: usize) {
        self.tables.fetch_add(bytes as u64, Ordering::Relaxed);
        self.held.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of its frames and tables.
    pub fn bytes(&self) -> u64 {
        let frames = self.parts.iter().filter_map(OnceLock::get).map(|part| part.bytes.len() as u64);
        self.tables.load(Ordering::Relaxed) + frames.sum::<u64>()
    }

    /// The number by which [`FrameStore::frame`] finds the spot price of a slot.
    pub const fn spot_of(slot: u32) -> u32 {
        slot | SPOT
    }

    /// What is known of a line; `None` beyond the last.
    pub fn slot(&self, slot: u32) -> Option<SlotRecord> {
        self.slots.get(slot as usize).copied()
    }

    /// How many lines it has that are not blank.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The parts that are built.
    pub fn built(&self) -> Parts {
        Part::all().filter(|part| self.parts[part.index()].get().is_some()).collect()
    }

    /// Adds the frames of a part; `ends` are the offsets behind each slot's.
    pub fn add(&self, part: Part, bytes: &[u8], ends: &[u32]) {
        debug_assert_eq!(ends.len(), self.slots.len());
        // If the kernel gives no more mappings, the allocator is good enough.
        let bytes = Pages::copy(bytes, &self.held).unwrap_or_else(|_| Bytes::copy_from_slice(bytes));
        let frames = PartFrames { bytes, ends: ends.into() };
        // Another thread may have been faster with the same bytes.
        if self.parts[part.index()].set(frames).is_ok() {
            self.hold(size_of_val(ends));
        }
    }

    /// Adds the hashes of the payloads in a profile, by slot.
    pub fn add_hashes(&self, profile: Profile, hashes: &[u64]) {
        self.add_table(&self.hashes[profile.index()], hashes);
    }

    /// Adds the hashes of the spot prices' payloads, by slot.
    pub fn add_spot_hashes(&self, hashes: &[u64]) {
        self.add_table(&self.spot_hashes, hashes);
    }

    fn add_table(&self, place: &OnceLock<Box<[u64]>>, table: &[u64]) {
        // It is there if another part of the block was built before.
        if place.get().is_none() && place.set(table.into()).is_ok() {
            self.hold(size_of_val(table));
        }
    }

    fn hash(&self, slot: u32, profile: Profile) -> u64 {
        // The payloads of all other kinds are the same in both.
        let profile = if self.kind == PayloadKind::Orderflow { profile } else { Profile::V2026_04 };
        self.hashes[profile.index()].get().map_or(0, |hashes| hashes[slot as usize])
    }
}

impl FrameStore for Block {
    fn frame(&self, record: u32, form: Form) -> Bytes {
        let (kind, slot) = if record & SPOT == 0 { (self.kind, record) } else { (PayloadKind::Spot, record & !SPOT) };
        let Some(frames) = self.parts[Part::of(kind, form).index()].get() else { return Bytes::new() };
        let slot = slot as usize;
        let start = if slot == 0 { 0 } else { frames.ends[slot - 1] as usize };
        frames.bytes.slice(start..frames.ends[slot] as usize)
    }

    fn timestamp(&self, record: u32) -> i64 {
        self.slots[(record & !SPOT) as usize].timestamp
    }

    fn hashes(&self, record: u32) -> PayloadHashes {
        if record & SPOT == 0 {
            return Profile::ALL.map(|profile| self.hash(record, profile));
        }
        // The same in both profiles.
        [self.spot_hashes.get().map_or(0, |hashes| hashes[(record & !SPOT) as usize]); Profile::ALL.len()]
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.held.fetch_sub(*self.tables.get_mut(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::webpubsub::{PlainForm, Syntax};

    fn block(kind: PayloadKind, held: &Arc<AtomicU64>) -> Block {
        let record = |timestamp| SlotRecord { timestamp, spot: 1, is_record: true };
        Block::new(kind, &[record(1), record(2)], held)
    }

    fn form(syntax: Syntax, profile: Profile) -> Form {
        Form::new(PlainForm { syntax, profile }.index())
    }

    #[test]
    fn a_frame_is_a_slice_and_its_bytes_are_counted_as_long_as_it_lives() {
        let held = Arc::new(AtomicU64::new(0));
        let block = block(PayloadKind::Gex, &held);
        let slots = held.load(Ordering::Relaxed);
        assert_eq!(slots, 2 * size_of::<SlotRecord>() as u64);
        assert!(block.frame(0, form(Syntax::Json, Profile::V2026_04)).is_empty(), "not built yet");
        let part = Part::of(PayloadKind::Gex, form(Syntax::Json, Profile::V2026_04));
        block.add(part, b"onetwo", &[3, 6]);
        block.add(part, b"onetwo", &[3, 6]);
        block.add_hashes(Profile::V2026_04, &[1, 2]);
        assert_eq!(block.bytes(), slots + 6 + 2 * 4 + 2 * 8, "the same part once");
        assert_eq!(held.load(Ordering::Relaxed), block.bytes());
        for profile in Profile::ALL {
            assert_eq!(block.frame(1, form(Syntax::Json, profile)), "two");
        }
        let frame = block.frame(0, form(Syntax::Json, Profile::V2026_04));
        drop(block);
        assert_eq!((frame.as_ref(), held.load(Ordering::Relaxed)), (&b"one"[..], 6));
        drop(frame);
        assert_eq!(held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_spot_price_of_a_record_has_a_number_of_its_own() {
        let block = block(PayloadKind::Orderflow, &Arc::default());
        block.add(Part::Spot(Syntax::Protobuf), b"ab", &[1, 2]);
        assert_eq!(block.frame(Block::spot_of(1), form(Syntax::Protobuf, Profile::V2025_11)), "b");
        assert!(block.frame(1, form(Syntax::Protobuf, Profile::V2025_11)).is_empty());
        assert_eq!(FrameStore::timestamp(&block, Block::spot_of(1)), 2);
    }
}
