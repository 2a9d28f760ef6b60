//! The lines of a block, whole, as they stand in the file.

use std::ops::Range;

use memchr::memchr;

use super::index::{BYTE_ORDER_MARK, Index, is_slot};
use super::mapping::{MappedFile, ReadError};

/// The longest line that can be a record.
pub const MAX_LINE: usize = 1 << 20;

/// How much is read at once while looking for the end of a block's last line.
const TAIL: u64 = 64 << 10;

/// The bytes of one block, up to the end of its last line. The next block uses the same buffer.
#[derive(Debug, Default)]
pub struct BlockLines {
    source: Vec<u8>,
    /// Where in the source the block's lines begin.
    begins: Range<usize>,
}

/// A line, without its line break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Without spaces around it. A line longer than [`MAX_LINE`] is cut somewhere behind that.
    pub text: &'a [u8],
    /// Whether it is longer than [`MAX_LINE`].
    pub is_too_long: bool,
    /// Whether it is a slot: it is not blank.
    pub is_slot: bool,
}

impl BlockLines {
    /// Reads a block so that every line that begins in it is whole, or longer than [`MAX_LINE`].
    pub fn read(&mut self, file: &MappedFile, index: &Index, block: usize) -> Result<(), ReadError> {
        let Range { start, end } = index.bytes_of(block);
        self.source.clear();
        // The byte before tells whether a line begins right at the start.
        let from = start.saturating_sub(1);
        file.read(from, (end - from) as usize, &mut self.source)?;
        let begins_end = self.source.len();
        let first = match start {
            0 if self.source.starts_with(BYTE_ORDER_MARK) => BYTE_ORDER_MARK.len(),
            0 => 0,
            _ => memchr(b'\n', &self.source).map_or(begins_end, |newline| newline + 1),
        };
        self.begins = first..begins_end.max(first);
        if self.begins.is_empty() {
            return Ok(());
        }
        let last = self.source[..begins_end - 1].iter().rposition(|&byte| byte == b'\n').map_or(first, |at| at + 1);
        let (mut read, mut searched) = (end, begins_end - 1);
        while read < file.len()
            && memchr(b'\n', &self.source[searched..]).is_none()
            && self.source.len() - last <= MAX_LINE
        {
            searched = self.source.len();
            let length = TAIL.min(file.len() - read);
            file.read(read, length as usize, &mut self.source)?;
            read += length;
        }
        Ok(())
    }

    /// The lines that begin in the block.
    pub fn iter(&self) -> impl Iterator<Item = Line<'_>> {
        self.spans().map(|span| self.line(span))
    }

    /// Where these lines are, without their line breaks.
    pub fn spans(&self) -> impl Iterator<Item = Range<usize>> {
        let mut at = self.begins.start;
        std::iter::from_fn(move || {
            let from = self.source.get(at..).filter(|_| at < self.begins.end)?;
            let length = memchr(b'\n', from).unwrap_or(from.len());
            let begin = at;
            at += length + 1;
            Some(begin..begin + length)
        })
    }

    /// The line at one of the [`BlockLines::spans`].
    pub fn line(&self, span: Range<usize>) -> Line<'_> {
        let (length, text) = (span.len(), &self.source[span]);
        Line { text: text.trim_ascii(), is_too_long: length > MAX_LINE, is_slot: is_slot(text) }
    }

    /// Bytes that were read, those behind the block for its last line included.
    pub fn bytes(&self) -> usize {
        self.source.len()
    }
}
