//! Reading a piece of a file: lines in, frames and figures out.

use memchr::memchr;

use super::arena::{ArenaOptions, Block, Chunk};
use super::line_stats::LineStats;
use super::mapping::{MappedFile, ReadError};
use crate::wire::payload::{Encoder, Profile};
use crate::wire::payload::{Parsed, orderflow};
use crate::wire::webpubsub::{ORDERFLOW_TYPE_URL, PlainForm, append_data};

/// The longest line that can be a record.
pub const MAX_LINE: usize = 1 << 20;

/// How much is read at once while looking for the end of a piece's last line.
const TAIL: u64 = 64 << 10;

/// A part of a file: the lines that *begin* in `start..end`.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    /// Index of the file in the dataset.
    pub file: usize,
    /// Offset of its first byte.
    pub start: u64,
    /// Offset behind its last byte.
    pub end: u64,
}

/// A piece's records and what was noticed.
pub struct ReadPiece {
    /// The records' frames in the base form; `None` without a good record.
    pub chunk: Option<Chunk>,
    /// Figures over the lines; line numbers count from the piece's first.
    pub lines: LineStats,
}

/// Reads pieces. One per thread: buffers and the zstd context are reused.
pub struct PieceReader {
    base: PlainForm,
    encoder: Encoder,
    source: Vec<u8>,
    frames: Vec<u8>,
    ends: Vec<u32>,
    timestamps: Vec<i64>,
    spots: Vec<u32>,
}

impl PieceReader {
    /// A reader for the base form of `options`.
    pub fn new(options: &ArenaOptions) -> std::io::Result<Self> {
        Ok(Self {
            base: options.base(),
            encoder: Encoder::new(options.encoder)?,
            source: Vec::new(),
            frames: Vec::new(),
            ends: Vec::new(),
            timestamps: Vec::new(),
            spots: Vec::new(),
        })
    }

    /// Turns the lines that begin in `piece` into frames for `group`.
    pub fn read(&mut self, file: &MappedFile, group: &str, piece: &Piece) -> Result<ReadPiece, ReadError> {
        let (mut at, end) = self.fetch(file, piece)?;
        self.frames.clear();
        self.ends.clear();
        self.timestamps.clear();
        self.spots.clear();
        let mut lines = LineStats::default();
        while at < end {
            let line_end = memchr(b'\n', &self.source[at..]).map_or(self.source.len(), |length| at + length);
            lines.lines += 1;
            self.line(at, line_end, group, &mut lines);
            at = line_end + 1;
        }
        let chunk = (lines.records > 0).then(|| {
            let block = Block::new(&self.frames, &self.ends);
            Chunk::new(piece.start..piece.end, &self.timestamps, &self.spots).with(self.base, block)
        });
        Ok(ReadPiece { chunk, lines })
    }

    /// Reads one line, without its line break; bad ones are noted.
    fn line(&mut self, start: usize, end: usize, group: &str, lines: &mut LineStats) {
        let line = self.source[start..end].trim_ascii();
        if line.is_empty() {
            return;
        }
        if end - start > MAX_LINE {
            return lines.bad(format_args!("expected a line of at most {MAX_LINE} bytes, got a longer one"));
        }
        match orderflow::parse(line) {
            Ok(Parsed { mut record, noticed }) => {
                lines.good(record.timestamp, noticed);
                self.timestamps.push(record.timestamp);
                self.spots.push(record.spot);
                // Parsed at the finest scale; only a pinned older profile makes a coarser base.
                if self.base.profile != Profile::V2026_04 {
                    orderflow::rescale(&mut record, self.base.profile);
                }
                let payload = self.encoder.encode(&record);
                append_data(self.base.syntax, group, ORDERFLOW_TYPE_URL, payload, &mut self.frames);
                self.ends.push(u32::try_from(self.frames.len()).expect("frames of one piece stay far below 4 GiB"));
            }
            Err(error) => lines.bad(error),
        }
    }

    /// Fills `source` so that every line that begins in `piece` is whole, or longer than
    /// [`MAX_LINE`]. Returns where in it the first such line begins, and where the piece ends.
    fn fetch(&mut self, file: &MappedFile, piece: &Piece) -> Result<(usize, usize), ReadError> {
        self.source.clear();
        // The byte before tells whether a line begins right at the start.
        let from = piece.start.saturating_sub(1);
        file.read(from, (piece.end - from) as usize, &mut self.source)?;
        let end = self.source.len();
        let first = match piece.start {
            0 => 0,
            _ => memchr(b'\n', &self.source).map_or(end, |newline| newline + 1),
        };
        if first >= end {
            return Ok((end, end));
        }
        let last = self.source[..end - 1].iter().rposition(|&byte| byte == b'\n').map_or(first, |at| at + 1);
        let mut read = piece.end;
        let mut searched = end - 1;
        while read < file.len()
            && memchr(b'\n', &self.source[searched..]).is_none()
            && self.source.len() - last <= MAX_LINE
        {
            searched = self.source.len();
            let length = TAIL.min(file.len() - read);
            file.read(read, length as usize, &mut self.source)?;
            read += length;
        }
        Ok((first, end))
    }
}
