//! From a block's lines to its frames: parse, scale, protobuf, zstd, and the frame of each part that is wanted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use xxhash_rust::xxh3::xxh3_64;

use super::block::{Block, SlotRecord};
use super::line_stats::LineStats;
use super::lines::BlockLines;
use super::mapping::ReadError;
use super::parts::{Part, Parts};
use super::track::Track;
use crate::wire::gexbot::PayloadKind;
use crate::wire::payload::{Encoder, EncoderOptions, Profile, Record, spot};
use crate::wire::webpubsub::{Syntax, append_data};

/// Builds blocks. One per thread: its buffers and its zstd context are used again.
pub struct BlockBuilder {
    encoder: Encoder,
    lines: BlockLines,
    slots: Vec<SlotRecord>,
    parts: Vec<PartBuffer>,
    hashes: [Vec<u64>; Profile::ALL.len()],
    spot_hashes: Vec<u64>,
}

/// A part while it is built.
struct PartBuffer {
    part: Part,
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

/// What a build added.
#[derive(Debug)]
pub struct Built {
    /// The block: the one that was there, or a new one.
    pub block: Arc<Block>,
    /// Figures over its lines; line numbers count from the block's first.
    pub lines: LineStats,
}

impl BlockBuilder {
    /// A builder with its own zstd context.
    pub fn new(options: EncoderOptions) -> io::Result<Self> {
        Ok(Self {
            encoder: Encoder::new(options)?,
            lines: BlockLines::default(),
            slots: Vec::new(),
            parts: Part::all().map(|part| PartBuffer { part, bytes: Vec::new(), ends: Vec::new() }).collect(),
            hashes: [const { Vec::new() }; Profile::ALL.len()],
            spot_hashes: Vec::new(),
        })
    }

    /// Builds `parts` of a block of `track`. Parts that the block already has stay. `held` counts the bytes as long
    /// as they are in memory.
    pub fn build(&mut self, track: &Track, at: usize, parts: Parts, held: &Arc<AtomicU64>) -> Result<Built, ReadError> {
        let there = track.block_at(at);
        self.lines.read(track.file(), track.index(), at)?;
        self.clear();
        let mut stats = LineStats::default();
        let lines = std::mem::take(&mut self.lines);
        for line in lines.iter() {
            stats.lines += 1;
            if line.is_slot {
                self.slot(track, stats.read(track.kind(), line), parts);
            }
        }
        self.lines = lines;
        let known = track.index().slots_of(at);
        if self.slots.len() as u64 != known.end - known.start {
            return Err(track.file().has_changed());
        }
        let block = there.unwrap_or_else(|| Arc::new(Block::new(track.kind(), &self.slots, held)));
        for buffer in self.parts.iter().filter(|buffer| parts.has(buffer.part)) {
            block.add(buffer.part, &buffer.bytes, &buffer.ends);
        }
        for (profile, hashes) in Profile::ALL.into_iter().zip(&self.hashes) {
            if hashes.len() == self.slots.len() {
                block.add_hashes(profile, hashes);
            }
        }
        if has_spot(parts) {
            block.add_spot_hashes(&self.spot_hashes);
        }
        Ok(Built { block, lines: stats })
    }

    fn clear(&mut self) {
        self.slots.clear();
        self.hashes.iter_mut().for_each(Vec::clear);
        self.spot_hashes.clear();
        for buffer in &mut self.parts {
            buffer.bytes.clear();
            buffer.ends.clear();
        }
    }

    /// Adds a line's record; a line that is not a record gets empty frames.
    fn slot(&mut self, track: &Track, record: Option<Record>, parts: Parts) {
        let mut slot = SlotRecord { timestamp: 0, spot: 0, is_record: false };
        if let Some(mut record) = record {
            record.shift(track.shift());
            slot = SlotRecord { timestamp: record.timestamp(), spot: record.spot(), is_record: true };
            self.spot(track, slot, parts);
            self.record(track, record, parts);
        }
        if !slot.is_record && has_spot(parts) {
            self.spot_hashes.push(0);
        }
        self.slots.push(slot);
        for buffer in self.parts.iter_mut().filter(|buffer| parts.has(buffer.part)) {
            buffer.ends.push(u32::try_from(buffer.bytes.len()).expect("a block's frames stay far below 4 GiB"));
        }
        for (profile, hashes) in Profile::ALL.into_iter().zip(&mut self.hashes) {
            if !slot.is_record && has_profile(parts, profile) {
                hashes.push(0);
            }
        }
    }

    /// Appends the frames of a record: each profile's payload once, for both syntaxes.
    fn record(&mut self, track: &Track, mut record: Record, parts: Parts) {
        // The finest scale first: it is the one that the record was parsed at.
        for profile in [Profile::V2026_04, Profile::V2025_11] {
            if !has_profile(parts, profile) {
                continue;
            }
            record.rescale(profile);
            let payload = record.encode(&mut self.encoder);
            self.hashes[profile.index()].push(xxh3_64(payload));
            for buffer in &mut self.parts {
                if let Part::Record(form) = buffer.part
                    && form.profile == profile
                    && parts.has(buffer.part)
                {
                    append_data(form.syntax, track.group_name(), track.kind().type_url(), payload, &mut buffer.bytes);
                }
            }
        }
    }

    /// Appends the frames of a record's spot price.
    fn spot(&mut self, track: &Track, slot: SlotRecord, parts: Parts) {
        if !has_spot(parts) {
            return;
        }
        let payload = self.encoder.encode(&spot::of_record(slot.timestamp, track.ticker(), slot.spot));
        self.spot_hashes.push(xxh3_64(payload));
        for buffer in &mut self.parts {
            if let Part::Spot(syntax) = buffer.part
                && parts.has(buffer.part)
            {
                append_data(syntax, track.spot_group_name(), PayloadKind::Spot.type_url(), payload, &mut buffer.bytes);
            }
        }
    }
}

fn has_spot(parts: Parts) -> bool {
    [Syntax::Protobuf, Syntax::Json].into_iter().any(|syntax| parts.has(Part::Spot(syntax)))
}

fn has_profile(parts: Parts, profile: Profile) -> bool {
    Part::all().any(|part| matches!(part, Part::Record(form) if form.profile == profile) && parts.has(part))
}
