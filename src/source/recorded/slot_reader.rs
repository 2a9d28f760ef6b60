//! Single slots of a track, read from its file: what REST answers. The clock reads whole blocks.

use std::ops::Range;

use super::glance;
use super::lines::{BlockLines, Line};
use super::mapping::ReadError;
use super::track::Track;
use crate::wire::payload::Record;

/// Reads slots of a track. The block of the last one is kept: one close to it costs no further reading.
pub struct SlotReader<'t> {
    track: &'t Track,
    lines: BlockLines,
    /// The block that is kept.
    block: Option<usize>,
    /// Where its slots are in `lines`.
    slots: Vec<Range<usize>>,
    bytes: u64,
}

impl<'t> SlotReader<'t> {
    /// A reader that has read nothing yet.
    pub fn new(track: &'t Track) -> Self {
        Self { track, lines: BlockLines::default(), block: None, slots: Vec::new(), bytes: 0 }
    }

    /// Bytes that were read and parsed so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The line of a slot as it stands in the file, but for the days by which the times of its market are moved; `None`
    /// if it is not a record, or if no such slot is indexed.
    pub fn record(&mut self, slot: u64) -> Result<Option<Vec<u8>>, ReadError> {
        let (file, index) = (self.track.file(), self.track.index());
        let Some(block) = index.find(slot) else { return Ok(None) };
        if self.block != Some(block) {
            file.check()?;
            self.block = None;
            self.lines.read(file, index, block)?;
            self.slots = self.lines.spans().filter(|span| self.lines.line(span.clone()).is_slot).collect();
            self.bytes += self.lines.bytes() as u64;
            self.block = Some(block);
        }
        let at = usize::try_from(slot - index.slots_of(block).start).unwrap_or(usize::MAX);
        let line = self.slots.get(at).map(|span| self.lines.line(span.clone()));
        let Some(Line { text, is_too_long: false, .. }) = line else { return Ok(None) };
        self.bytes += text.len() as u64;
        if Record::parse(self.track.kind(), text).is_err() {
            return Ok(None);
        }
        Ok(match self.track.shift() {
            0 => Some(text.to_vec()),
            seconds => glance::shifted(text, seconds),
        })
    }
}
