//! Loading a dataset into the arena, on all cores.
//!
//! Each file is cut into pieces of some 256 KiB. A worker takes the next piece, reads it through a
//! mapping and turns its lines into a chunk of frames ([`super::lines`]). Workers share nothing but
//! the counter that hands out pieces; what they made is put together in file order at the end.

use std::io;
use std::panic;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::arena::{ArenaOptions, Chunk, Encodings, Track};
use super::cache::{Cache, CachedTrack};
use super::dataset::{Dataset, TickerFile};
use super::lines::{LineStats, Piece, PieceReader, ReadPiece};
use super::mapping::{Identity, MappedFile, ReadError};
use crate::wire::gexbot::orderflow_group;
use crate::wire::webpubsub::PlainForm;

/// Bytes of source per piece: some 400 records, a few milliseconds of work.
const PIECE: u64 = 256 << 10;

/// A dataset in memory.
pub struct Loaded {
    /// One track per file that had a record.
    pub tracks: Vec<Arc<Track>>,
    /// What was found, one per file, in the dataset's order.
    pub reports: Vec<FileReport>,
    /// How long it took.
    pub took: Duration,
}

impl Loaded {
    /// Records of all tracks.
    pub fn records(&self) -> u64 {
        self.tracks.iter().map(|track| track.records()).sum()
    }

    /// Bytes of all frames that exist.
    pub fn bytes(&self) -> u64 {
        self.tracks.iter().flat_map(|track| PlainForm::ALL.map(|form| track.bytes(form))).sum()
    }

    /// Whether anything was bad: a file left out, a line skipped.
    pub fn is_clean(&self) -> bool {
        self.reports.iter().all(|report| report.failed.is_none() && report.lines.bad == 0)
    }
}

/// What one file held.
#[derive(Debug)]
pub struct FileReport {
    /// The file.
    pub file: TickerFile,
    /// Figures over its lines.
    pub lines: LineStats,
    /// Why it was left out, if it was.
    pub failed: Option<FileError>,
    /// What it was when it was opened, if it could be.
    pub identity: Option<Identity>,
}

/// Why a file gives no track. The other files are not affected.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read, or changed meanwhile.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It has no lines.
    #[error("{path}: expected records, got an empty file")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It has lines, but no good one.
    #[error("{path}: expected records, got {bad} bad lines and no good one")]
    NoRecords {
        /// The file.
        path: PathBuf,
        /// How many lines were bad.
        bad: u64,
    },
}

/// Reads every file of `dataset` and builds the forms that are due at start; what `cache` has of them is
/// taken from there.
///
/// `progress` is told how many source bytes of how many are done, from several threads.
pub fn load(
    dataset: &Dataset,
    prefix: &str,
    options: &ArenaOptions,
    cache: Option<&Cache>,
    encodings: &Arc<Encodings>,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> io::Result<Loaded> {
    let started = Instant::now();
    let files: Vec<&TickerFile> = dataset.files.iter().collect();
    let sources = on_all_cores(&files, || Ok(()), |(), file| Source::open(file, prefix, options, cache))?;
    let pieces: Vec<Piece> = sources.iter().enumerate().flat_map(|(at, source)| source.pieces(at)).collect();
    let total: u64 = pieces.iter().map(|piece| piece.end - piece.start).sum();

    let done = AtomicU64::new(0);
    let mut read = on_all_cores(
        &pieces,
        || PieceReader::new(options),
        |reader, piece| {
            let read = sources[piece.file].read(reader, piece);
            let bytes = piece.end - piece.start;
            progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
            read
        },
    )?
    .into_iter();

    let (mut tracks, mut reports) = (Vec::new(), Vec::new());
    for (at, mut source) in sources.into_iter().enumerate() {
        let count = pieces.iter().filter(|piece| piece.file == at).count();
        let (file, group) = (source.file.clone(), source.group.clone());
        let identity = source.mapped.as_ref().ok().map(MappedFile::identity);
        let (lines, chunks, store) = match source.found.take() {
            Some(CachedTrack { lines, chunks, store }) => (lines, Ok(chunks), Some(store)),
            None => {
                let (lines, chunks) = source.assemble(read.by_ref().take(count));
                (lines, chunks, None)
            }
        };
        let failed = match chunks {
            Ok(chunks) => {
                if store.is_none() {
                    encodings.count(options.base(), chunks.iter().map(Chunk::len).sum());
                }
                let (ticker, encodings) = (file.ticker.clone(), Arc::clone(encodings));
                tracks.push(Arc::new(Track::new(ticker, group, options, chunks, store, encodings)));
                None
            }
            Err(error) => Some(error),
        };
        reports.push(FileReport { file, lines, failed, identity });
    }
    let forms = options.at_start();
    let (cached, read): (Vec<_>, Vec<_>) = tracks.iter().cloned().partition(|track| track.is_cached());
    build_forms(&read, &forms)?;
    // Of the others what comes first; the rest follows ahead of the clock, see `arena::prepare`.
    on_all_cores(&cached, || Ok(()), |(), track| forms.iter().for_each(|&form| track.build(0, form)))?;
    Ok(Loaded { tracks, reports, took: started.elapsed() })
}

/// Builds the frames of `forms` for every track, on all cores.
pub fn build_forms(tracks: &[Arc<Track>], forms: &[PlainForm]) -> io::Result<()> {
    let chunks: Vec<_> =
        tracks.iter().flat_map(|track| track.starts().iter().map(move |&start| (track, start))).collect();
    on_all_cores(
        &chunks,
        || Ok(()),
        |(), (track, start)| {
            for &form in forms {
                track.build(*start, form);
            }
        },
    )?;
    Ok(())
}

/// A file while it is read.
struct Source<'a> {
    file: &'a TickerFile,
    group: String,
    mapped: Result<MappedFile, ReadError>,
    found: Option<CachedTrack>,
}

impl<'a> Source<'a> {
    fn open(file: &'a TickerFile, prefix: &str, options: &ArenaOptions, cache: Option<&Cache>) -> Self {
        let (mapped, group) = (MappedFile::open(&file.path), orderflow_group(prefix, &file.ticker));
        let found = cache.zip(mapped.as_ref().ok()).and_then(|(cache, mapped)| cache.find(mapped, &group, options));
        Self { file, group, mapped, found }
    }

    /// What of it is to be read: nothing, if the cache has it.
    fn pieces(&self, file: usize) -> impl Iterator<Item = Piece> + use<> {
        let len = self.mapped.as_ref().ok().filter(|_| self.found.is_none()).map_or(0, MappedFile::len);
        (0..len.div_ceil(PIECE)).map(move |at| Piece { file, start: at * PIECE, end: len.min((at + 1) * PIECE) })
    }

    fn read(&self, reader: &mut PieceReader, piece: &Piece) -> Result<ReadPiece, ReadError> {
        let file = self.mapped.as_ref().expect("only an opened file has pieces");
        reader.read(file, &self.group, piece)
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

/// `work` on every item, in order of the items; one worker per core, each with its own `state`.
fn on_all_cores<T: Sync, S, R: Send>(
    items: &[T],
    state: impl Fn() -> io::Result<S> + Sync,
    work: impl Fn(&mut S, &T) -> R + Sync,
) -> io::Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let worker = || -> io::Result<Vec<(usize, R)>> {
        let mut state = state()?;
        let mut results = Vec::new();
        loop {
            // Relaxed: the counter only hands out numbers; results meet at the join.
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return Ok(results) };
            results.push((at, work(&mut state, item)));
        }
    };
    let mut results = Vec::with_capacity(items.len());
    thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(1, usize::from).min(items.len()).max(1);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            results.extend(worker.join().unwrap_or_else(|panic| panic::resume_unwind(panic))?);
        }
        io::Result::Ok(())
    })?;
    results.sort_by_key(|(at, _)| *at);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}
