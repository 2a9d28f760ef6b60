//! Frames of a track that stay in a cached file until they are needed.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use super::file::CachedFile;
use crate::source::recorded::arena::{ArenaOptions, Block, BlockStore};
use crate::source::recorded::lines::{Piece, PieceReader};
use crate::source::recorded::mapping::{Identity, MappedFile};
use crate::wire::webpubsub::PlainForm;

/// In [`CachedBlocks::bad`]: the block could not be rebuilt from the source either.
const LOST: u8 = 1 << 7;

/// A track's blocks in a cached file, and the source from which a damaged one is rebuilt.
#[derive(Debug)]
pub struct CachedBlocks {
    file: CachedFile,
    /// What the source file was when the server started.
    identity: Identity,
    group: String,
    options: ArenaOptions,
    /// By chunk: a bit for each form whose block is damaged, and [`LOST`]. What has failed once is not tried
    /// again.
    bad: Box<[AtomicU8]>,
    is_told: AtomicBool,
}

impl CachedBlocks {
    /// The blocks of `group`'s records, of this many chunks.
    pub fn new(file: CachedFile, chunks: usize, identity: Identity, group: String, options: ArenaOptions) -> Self {
        let bad = (0..chunks).map(|_| AtomicU8::new(0)).collect();
        Self { file, identity, group, options, bad, is_told: AtomicBool::new(false) }
    }

    /// Runs `attempt` unless it has failed before.
    fn attempt(&self, chunk: usize, bit: u8, attempt: impl FnOnce() -> Option<Block>) -> Option<Block> {
        // Relaxed: two threads may both try, and both fail.
        if self.bad[chunk].load(Ordering::Relaxed) & bit != 0 {
            return None;
        }
        let block = attempt();
        if block.is_none() {
            self.bad[chunk].fetch_or(bit, Ordering::Relaxed);
        }
        block
    }

    /// Logs once that the file is damaged.
    fn tell(&self) {
        if !self.is_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{}: the file is damaged or was replaced; rebuilding the missing blocks",
                self.file.path().display()
            );
        }
    }

    /// Reads the chunk's lines again and builds their base frames.
    fn read_again(&self, chunk: usize) -> Result<Block, String> {
        let records = self.file.records(chunk);
        let (start, end) = self.file.source_range(chunk);
        let source = MappedFile::open(Path::new(&self.file.key().source)).map_err(|error| error.to_string())?;
        let path = source.path().display();
        if source.identity() != self.identity {
            return Err(format!("{path} changed since its frames were cached"));
        }
        let mut reader = PieceReader::new(&self.options).map_err(|error| error.to_string())?;
        let read = reader.read(&source, &self.group, &Piece { file: 0, start, end });
        let read = read.and_then(|read| source.check().map(|()| read)).map_err(|error| error.to_string())?;
        let chunk = read.chunk.filter(|chunk| chunk.len() == records);
        let block = chunk.and_then(|chunk| chunk.into_block(self.options.base()));
        block.ok_or_else(|| format!("{path}: expected {records} records in its bytes {start} to {end}"))
    }
}

impl BlockStore for CachedBlocks {
    fn bytes(&self, chunk: usize, form: PlainForm) -> Option<u64> {
        self.file.bytes(chunk, form)
    }

    fn fetch(&self, chunk: usize, form: PlainForm) -> Option<Block> {
        self.attempt(chunk, 1 << form.index(), || {
            let block = self.file.fetch(chunk, form);
            if block.is_none() {
                self.tell();
            }
            block
        })
    }

    fn finish(&self) {
        let path = self.file.path();
        if self.is_told.load(Ordering::Relaxed) && self.file.is_there() && fs::remove_file(path).is_ok() {
            tracing::info!("{}: removed, because it is damaged; the next start writes it again", path.display());
        }
    }

    fn rebuild(&self, chunk: usize) -> Option<Block> {
        self.attempt(chunk, LOST, || {
            let read = self.read_again(chunk);
            let lost = |reason| {
                let (path, records) = (self.file.path().display(), self.file.records(chunk));
                tracing::error!(
                    "{path}: a block is damaged and cannot be rebuilt: {reason}; {records} records are not sent until a restart"
                );
            };
            read.map_err(lost).ok()
        })
    }
}
