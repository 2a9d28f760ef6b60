//! Loading a dataset into the arena, on all cores.
//!
//! Each file is cut into pieces of some 256 KiB. rayon's threads read a piece each through a mapping
//! and turn its lines into a chunk of frames ([`super::lines`]); the chunks are put together in file
//! order at the end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rayon::prelude::*;

use super::arena::{ArenaOptions, Chunk, Encodings, Track};
use super::cache::{Cache, CachedTrack};
use super::dataset::{Dataset, RecordFile};
use super::line_stats::LineStats;
use super::lines::{Piece, PieceReader, ReadPiece};
use super::loaded::{FileError, FileReport, Loaded};
use super::mapping::{MappedFile, ReadError};
use crate::wire::gexbot::orderflow_group;
use crate::wire::webpubsub::PlainForm;

/// Bytes of source per piece: some 400 records, a few milliseconds of work.
const PIECE: u64 = 256 << 10;

/// Reads every file of `dataset` and builds the forms that are needed at start. What `cache` has of them is
/// taken from there.
///
/// `progress` is called with the source bytes done and their total, from several threads.
pub fn load(
    dataset: &Dataset,
    prefix: &str,
    options: &ArenaOptions,
    cache: Option<&Cache>,
    encodings: &Arc<Encodings>,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> io::Result<Loaded> {
    let started = Instant::now();
    let sources: Vec<Source> = dataset
        .files
        .par_iter()
        .filter(|file| file.category == "orderflow")
        .map(|file| Source::open(file, prefix, options, cache))
        .collect();
    let pieces: Vec<Piece> = sources.iter().enumerate().flat_map(|(at, source)| source.pieces(at)).collect();
    let mut read = read_pieces(&sources, &pieces, options, progress)?.into_iter();

    let (mut tracks, mut reports) = (Vec::new(), Vec::new());
    for (at, source) in sources.into_iter().enumerate() {
        let count = pieces.iter().filter(|piece| piece.file == at).count();
        let (track, report) = source.finish(read.by_ref().take(count), options, encodings);
        tracks.extend(track.map(Arc::new));
        reports.push(report);
    }
    let forms = options.at_start();
    let (cached, built): (Vec<_>, Vec<_>) = tracks.iter().cloned().partition(|track| track.is_cached());
    build_forms(&built, &forms);
    // Of the cached ones only what comes first; `arena::read_cached` reads the rest ahead of the clock.
    cached.par_iter().for_each(|track| forms.iter().for_each(|&form| track.build(0, form)));
    Ok(Loaded { tracks, reports, took: started.elapsed() })
}

/// Reads all pieces on all cores; the results are in the order of the pieces.
fn read_pieces(
    sources: &[Source],
    pieces: &[Piece],
    options: &ArenaOptions,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> io::Result<Vec<Result<ReadPiece, ReadError>>> {
    let total: u64 = pieces.iter().map(|piece| piece.end - piece.start).sum();
    let done = AtomicU64::new(0);
    let read = |reader: &mut io::Result<PieceReader>, piece: &Piece| {
        let reader = reader.as_mut().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
        let read = sources[piece.file].read(reader, piece);
        let bytes = piece.end - piece.start;
        progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
        Ok(read)
    };
    pieces.par_iter().map_init(|| PieceReader::new(options), read).collect()
}

/// Builds the frames of `forms` for every track, on all cores.
pub fn build_forms(tracks: &[Arc<Track>], forms: &[PlainForm]) {
    tracks.par_iter().for_each(|track| {
        track.starts().par_iter().for_each(|&start| forms.iter().for_each(|&form| track.build(start, form)));
    });
}

/// A file while it is read.
struct Source<'a> {
    file: &'a RecordFile,
    group: String,
    mapped: Result<MappedFile, ReadError>,
    found: Option<CachedTrack>,
}

impl<'a> Source<'a> {
    fn open(file: &'a RecordFile, prefix: &str, options: &ArenaOptions, cache: Option<&Cache>) -> Self {
        let (mapped, group) = (MappedFile::open(&file.path), orderflow_group(prefix, &file.ticker));
        let found = cache.zip(mapped.as_ref().ok()).and_then(|(cache, mapped)| cache.find(mapped, &group, options));
        Self { file, group, mapped, found }
    }

    /// The pieces that must be read: none, if the cache has the file.
    fn pieces(&self, file: usize) -> impl Iterator<Item = Piece> + use<> {
        let len = self.mapped.as_ref().ok().filter(|_| self.found.is_none()).map_or(0, MappedFile::len);
        (0..len.div_ceil(PIECE)).map(move |at| Piece { file, start: at * PIECE, end: len.min((at + 1) * PIECE) })
    }

    fn read(&self, reader: &mut PieceReader, piece: &Piece) -> Result<ReadPiece, ReadError> {
        let file = self.mapped.as_ref().expect("only an opened file has pieces");
        reader.read(file, &self.group, piece)
    }

    /// The file's track, if it has one, and the report on it. `pieces` are those of this file.
    fn finish(
        mut self,
        pieces: impl Iterator<Item = Result<ReadPiece, ReadError>>,
        options: &ArenaOptions,
        encodings: &Arc<Encodings>,
    ) -> (Option<Track>, FileReport) {
        let (file, group) = (self.file.clone(), self.group.clone());
        let identity = self.mapped.as_ref().ok().map(MappedFile::identity);
        let (lines, chunks, store) = match self.found.take() {
            Some(CachedTrack { lines, chunks, store }) => (lines, Ok(chunks), Some(store)),
            None => {
                let (lines, chunks) = self.assemble(pieces);
                (lines, chunks, None)
            }
        };
        let (track, failed) = match chunks {
            Ok(chunks) => {
                if store.is_none() {
                    encodings.count(options.base(), chunks.iter().map(Chunk::len).sum());
                }
                let (ticker, encodings) = (file.ticker.clone(), Arc::clone(encodings));
                (Some(Track::new(ticker, group, options, chunks, store, encodings)), None)
            }
            Err(error) => (None, Some(error)),
        };
        (track, FileReport { file, lines, failed, identity })
    }

    /// Puts the pieces together, unless the file changed meanwhile.
    fn assemble(
        self,
        pieces: impl Iterator<Item = Result<ReadPiece, ReadError>>,
    ) -> (LineStats, Result<Vec<Chunk>, FileError>) {
        let mut lines = LineStats::default();
        let mut chunks = Vec::new();
        let mut intact = Ok(());
        for piece in pieces {
            match piece {
                Ok(piece) => {
                    lines.append(piece.lines);
                    chunks.extend(piece.chunk);
                }
                Err(error) => intact = intact.and(Err(error)),
            }
        }
        let intact = self.mapped.and_then(|file| intact.and_then(|()| file.check()));
        let path = self.file.path.clone();
        let chunks = match intact {
            Err(error) => Err(FileError::Read(error)),
            Ok(()) if lines.lines == 0 => Err(FileError::Empty { path }),
            Ok(()) if chunks.is_empty() => Err(FileError::NoRecords { path, bad: lines.bad }),
            Ok(()) => Ok(chunks),
        };
        (lines, chunks)
    }
}
