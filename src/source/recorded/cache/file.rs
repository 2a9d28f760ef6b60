//! One cached file.
//!
//! ```text
//! magic, 16 bytes ─ length of the index, u64 LE ─ its xxh3-64, u64 LE ─ index ─ blocks, back to back
//! ```
//!
//! Nothing in a file is trusted beyond what its checksums cover, and what the index says is checked against the
//! file's length before it is used.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use prost::Message;
use xxhash_rust::xxh3::xxh3_64;

use crate::source::recorded::arena::{Block, Chunk, Track};
use crate::source::recorded::line_stats::LineStats;
use crate::source::recorded::mapping::{Identity, MappedFile, ReadError};
use crate::wire::proto::cache::{self as proto, Index, Key};
use crate::wire::webpubsub::PlainForm;

const MAGIC: [u8; 16] = *b"flowcast cache 1";

/// The longest index that is read, in bytes: enough for a few hundred million records.
const MAX_INDEX: u64 = 1 << 30;

/// Bytes before the index: magic, its length, its checksum.
const HEAD: usize = MAGIC.len() + 8 + 8;

/// Why a cached file cannot be used. Its frames are built again.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It cannot be opened or read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It was cut short or overwritten, or was never a cached file.
    #[error("{path}: expected a whole file of the cache, {what}")]
    Broken {
        /// The cached file.
        path: PathBuf,
        /// What is wrong with it, as the end of the log line.
        what: &'static str,
    },
}

/// The result of checking every block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verified {
    /// All blocks of the file.
    pub blocks: u64,
    /// Blocks that do not match their checksum.
    pub bad: u64,
}

/// A block in a file.
#[derive(Debug)]
struct Stored {
    form: PlainForm,
    /// Offset of its first byte from the beginning of the file.
    at: u64,
    checksum: u64,
    /// Offset behind each frame, from the beginning of the block.
    ends: Box<[u32]>,
}

impl Stored {
    fn len(&self) -> usize {
        self.ends.last().map_or(0, |&end| end as usize)
    }
}

/// A cached file whose index was checked. It is not kept open: there may be as many files as tickers.
#[derive(Debug)]
pub struct CachedFile {
    path: PathBuf,
    identity: Identity,
    is_private: bool,
    index: Index,
    /// Indexed by chunk.
    stored: Vec<Vec<Stored>>,
}

impl CachedFile {
    /// Opens a file and checks its index. The blocks are checked when they are read.
    pub fn open(path: &Path) -> Result<Self, CacheError> {
        let file = MappedFile::open(path)?;
        let broken = |what| CacheError::Broken { path: path.to_owned(), what };
        let mut head = Vec::new();
        file.read(0, HEAD.min(file.len() as usize), &mut head)?;
        let Some((&length, &checksum)) = head
            .get(16..24)
            .zip(head.get(24..HEAD))
            .and_then(|(length, checksum)| Some((length.first_chunk::<8>()?, checksum.first_chunk::<8>()?)))
        else {
            return Err(broken("got one that is shorter than its head"));
        };
        if head[..16] != MAGIC {
            return Err(broken("got something else"));
        }
        let length = u64::from_le_bytes(length);
        let data_at = (HEAD as u64).saturating_add(length);
        if length > MAX_INDEX || data_at > file.len() {
            return Err(broken("got one that ends within its index"));
        }
        let mut bytes = Vec::new();
        file.read(HEAD as u64, length as usize, &mut bytes)?;
        if xxh3_64(&bytes) != u64::from_le_bytes(checksum) {
            return Err(broken("got one whose index is damaged"));
        }
        let mut index = Index::decode(bytes.as_slice()).map_err(|_| broken("got an index that is none"))?;
        let in_source =
            index.key.as_ref().is_some_and(|key| index.chunks.iter().all(|chunk| chunk.source_end <= key.size));
        let stored: Option<Vec<_>> =
            index.chunks.iter_mut().map(|chunk| stored_blocks(chunk, data_at, file.len())).collect();
        let stored = stored.filter(|stored| is_even(stored) && in_source && index.lines.is_some());
        let stored = stored.ok_or_else(|| broken("got an index that does not fit the file"))?;
        let (identity, is_private) = (file.identity(), file.is_private());
        Ok(Self { path: path.to_owned(), identity, is_private, index, stored })
    }

    /// What its frames were made of.
    pub fn key(&self) -> &Key {
        self.index.key.as_ref().expect("checked when it was opened")
    }

    /// Figures over the source's lines.
    pub fn lines(&self) -> LineStats {
        let lines = self.index.lines.as_ref().expect("checked when it was opened");
        LineStats {
            lines: lines.lines,
            records: lines.records,
            bad: lines.bad,
            first_bad: lines.first_bad.iter().map(|bad| (bad.line, bad.reason.clone())).collect(),
            missing: lines.missing,
            backwards: lines.backwards,
            span: Some((lines.first, lines.last)),
            gaps: lines.gaps,
            longest_gap: lines.longest_gap,
            ..LineStats::default()
        }
    }

    /// Takes the records out, without frames.
    pub fn take_chunks(&mut self) -> Vec<Chunk> {
        let of_chunk = |chunk: &mut proto::Chunk| {
            let mut timestamps = std::mem::take(&mut chunk.timestamps);
            let mut time = 0_i64;
            for step in &mut timestamps {
                time = time.wrapping_add(*step);
                *step = time;
            }
            let spots = std::mem::take(&mut chunk.spots);
            Chunk::new(chunk.source_start..chunk.source_end, &timestamps, &spots)
        };
        self.index.chunks.iter_mut().map(of_chunk).collect()
    }

    /// How many records a chunk has.
    pub fn records(&self, chunk: usize) -> usize {
        self.stored[chunk][0].ends.len()
    }

    /// The range of the source in which a chunk's lines begin.
    pub fn source_range(&self, chunk: usize) -> (u64, u64) {
        let chunk = &self.index.chunks[chunk];
        (chunk.source_start, chunk.source_end)
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file belongs to this user, and nobody else may write to it.
    pub fn is_private(&self) -> bool {
        self.is_private
    }

    /// Whether its path still names the same file.
    pub fn is_there(&self) -> bool {
        self.reopened().is_some()
    }

    fn reopened(&self) -> Option<MappedFile> {
        MappedFile::open(&self.path).ok().filter(|file| file.identity() == self.identity)
    }

    /// Its length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a file, not a collection")]
    pub fn len(&self) -> u64 {
        self.identity.len
    }

    /// Bytes of a chunk's frames of `form`; `None` if that form is not there.
    pub fn bytes(&self, chunk: usize, form: PlainForm) -> Option<u64> {
        self.stored(chunk, form).map(|stored| stored.len() as u64)
    }

    /// Reads a chunk's block and checks it; `None` if it is damaged or missing.
    pub fn fetch(&self, chunk: usize, form: PlainForm) -> Option<Block> {
        let stored = self.stored(chunk, form)?;
        let mut bytes = Vec::new();
        self.reopened()?.read(stored.at, stored.len(), &mut bytes).ok()?;
        (xxh3_64(&bytes) == stored.checksum).then(|| Block::new(&bytes, &stored.ends))
    }

    /// Reads and checks every block.
    pub fn verify(&self) -> Verified {
        let mut verified = Verified::default();
        for (at, stored) in self.stored.iter().enumerate() {
            for stored in stored {
                verified.blocks += 1;
                verified.bad += u64::from(self.fetch(at, stored.form).is_none());
            }
        }
        verified
    }

    fn stored(&self, chunk: usize, form: PlainForm) -> Option<&Stored> {
        self.stored.get(chunk)?.iter().find(|stored| stored.form == form)
    }
}

/// Whether every chunk has the same forms, and there is one.
fn is_even(stored: &[Vec<Stored>]) -> bool {
    let forms = |chunk: &[Stored]| chunk.iter().map(|stored| stored.form).collect::<Vec<_>>();
    stored.first().is_some_and(|first| stored.iter().all(|chunk| forms(chunk) == forms(first)))
}

/// A chunk's blocks, as the index lists them; `None` if anything about the chunk is impossible.
fn stored_blocks(chunk: &mut proto::Chunk, data_at: u64, file_len: u64) -> Option<Vec<Stored>> {
    let records = chunk.timestamps.len();
    let sound = records > 0
        && chunk.spots.len() == records
        && chunk.source_start < chunk.source_end
        && !chunk.blocks.is_empty()
        && chunk.blocks.iter().all(|block| block.lengths.len() == records);
    if !sound {
        return None;
    }
    std::mem::take(&mut chunk.blocks)
        .into_iter()
        .map(|block| {
            let form = *PlainForm::ALL.get(block.form as usize)?;
            let mut end = 0_u32;
            let mut ends = block.lengths;
            for length in &mut ends {
                end = end.checked_add(*length).filter(|_| *length > 0)?;
                *length = end;
            }
            let at = data_at.checked_add(block.offset)?;
            at.checked_add(u64::from(end)).filter(|&behind| behind <= file_len)?;
            Some(Stored { form, at, checksum: block.checksum, ends: ends.into() })
        })
        .collect()
}

/// Writes `forms` of a track to a new private file; returns its length.
pub fn write(path: &Path, track: &Track, lines: &LineStats, key: &Key, forms: &[PlainForm]) -> io::Result<u64> {
    let index = index(track, lines, key, forms)?.encode_to_vec();
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // Locked until it is closed, so that whoever tidies up sees that the file is being written.
    file.lock()?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    out.write_all(&MAGIC)?;
    out.write_all(&(index.len() as u64).to_le_bytes())?;
    out.write_all(&xxh3_64(&index).to_le_bytes())?;
    out.write_all(&index)?;
    let mut written = (HEAD + index.len()) as u64;
    for block in blocks(track, forms) {
        let bytes = block?.1.bytes();
        out.write_all(bytes)?;
        written += bytes.len() as u64;
    }
    // Before the rename: after a power cut the name must not stand for half a file.
    out.into_inner()?.sync_data()?;
    Ok(written)
}

/// Every block to be written, chunk by chunk, in the order of `forms`.
fn blocks<'a>(track: &'a Track, forms: &'a [PlainForm]) -> impl Iterator<Item = io::Result<(PlainForm, &'a Block)>> {
    let of_chunk = move |chunk: &'a Chunk| {
        forms.iter().map(move |&form| {
            let block = chunk.block(form).ok_or_else(|| io::Error::other("expected frames that are built"))?;
            Ok((form, block))
        })
    };
    track.chunks().iter().flat_map(of_chunk)
}

fn index(track: &Track, lines: &LineStats, key: &Key, forms: &[PlainForm]) -> io::Result<Index> {
    let mut offset = 0;
    let mut blocks = blocks(track, forms);
    let of_chunk = |chunk: &Chunk| {
        let blocks = blocks.by_ref().take(forms.len()).map(|block| {
            let (form, block) = block?;
            let starts = std::iter::once(&0).chain(block.ends());
            let lengths = block.ends().iter().zip(starts).map(|(end, start)| end - start).collect();
            let checksum = xxh3_64(block.bytes());
            let at = offset;
            offset += block.bytes().len() as u64;
            Ok(proto::Block { form: form.index() as u32, offset: at, checksum, lengths })
        });
        let times = chunk.timestamps();
        let before = std::iter::once(&0).chain(times);
        Ok(proto::Chunk {
            source_start: chunk.source().start,
            source_end: chunk.source().end,
            timestamps: times.iter().zip(before).map(|(time, before)| time.wrapping_sub(*before)).collect(),
            spots: chunk.spots().to_vec(),
            blocks: blocks.collect::<io::Result<_>>()?,
        })
    };
    let chunks = track.chunks().iter().map(of_chunk).collect::<io::Result<_>>()?;
    let (first, last) = lines.span.unwrap_or_default();
    let lines = proto::Lines {
        lines: lines.lines,
        records: lines.records,
        bad: lines.bad,
        first_bad: lines
            .first_bad
            .iter()
            .map(|(line, reason)| proto::BadLine { line: *line, reason: reason.clone() })
            .collect(),
        missing: lines.missing,
        backwards: lines.backwards,
        first,
        last,
        gaps: lines.gaps,
        longest_gap: lines.longest_gap,
    };
    Ok(Index { key: Some(key.clone()), lines: Some(lines), chunks })
}
