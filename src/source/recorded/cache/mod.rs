//! Frames kept from one start to the next: a restart on unchanged data serves at once.
//!
//! ```text
//! first start:  load ─▶ arena ─▶ (serving) ─▶ store ─▶ a file per source
//! restart:      find (same source, settings, build?) ─▶ index ─▶ (serving) ─▶ cached blocks ─▶ arena, ahead of the clock
//! ```
//!
//! A cached file belongs to this user alone. It is written under another name, renamed when it is complete, and
//! never modified. It is used only if the source is unchanged (path, size, inode, and both times of change in
//! ns) and settings and build are the same. Its index is checked at the start, each block before its first use;
//! a damaged block is rebuilt from the source. Bytes are copied out of it through [`super::mapping`], so
//! whatever happens to the file, nothing in memory changes.

mod cached_blocks;
mod file;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use self::cached_blocks::CachedBlocks;
pub use self::file::{CacheError, CachedFile, Verified};
use super::arena::{ArenaOptions, BlockStore, Chunk, Track};
use super::line_stats::LineStats;
use super::loaded::{FileReport, Loaded};
use super::mapping::{Identity, MappedFile, ReadError};
use crate::wire::proto::cache::Key;

/// Extension of cached files.
const EXTENSION: &str = "frames";

/// Extension of cached files that are still being written.
const PART: &str = "part";

/// Where frames are kept between two starts.
#[derive(Debug, Clone, clap::Args)]
pub struct CacheOptions {
    /// Folder in which finished frames are kept, so that a restart with unchanged data serves immediately.
    /// Its files are as large as the frames in memory. No cache by default
    #[arg(long, env = "FLOWCAST_CACHE_DIR", value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Largest size of that folder, in bytes; the oldest files are removed first
    #[arg(long, env = "FLOWCAST_CACHE_BYTES", default_value_t = 16 << 30, value_name = "BYTES")]
    pub cache_bytes: u64,
}

/// A folder of cached files.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
    max_bytes: u64,
}

/// What the cache has of one source.
#[derive(Debug)]
pub struct CachedTrack {
    /// Figures over the source's lines.
    pub lines: LineStats,
    /// The source's records, without frames.
    pub chunks: Vec<Chunk>,
    /// Their frames, which are read when they are needed.
    pub store: Box<dyn BlockStore>,
}

/// A track whose frames are to be cached.
pub struct UnsavedTrack {
    track: Arc<Track>,
    lines: LineStats,
    key: Key,
}

impl Cache {
    /// The cache in a folder that exists, to look into it.
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), max_bytes: u64::MAX }
    }

    /// Opens the cache and creates its folder. `None` if no cache is configured, or, with a warning, if the
    /// folder cannot be used.
    pub fn open(options: &CacheOptions) -> Option<Self> {
        let folder = options.cache_dir.clone()?;
        match DirBuilder::new().recursive(true).mode(0o700).create(&folder) {
            Ok(()) => Some(Self { folder, max_bytes: options.cache_bytes }),
            Err(error) => {
                tracing::warn!("{}: the cache is off, because its folder cannot be used: {error}", folder.display());
                None
            }
        }
    }

    /// What the cache has of `source`, whose frames would be built for `group`.
    pub fn find(&self, source: &MappedFile, group: &str, options: &ArenaOptions) -> Option<CachedTrack> {
        let key = key(source, group, options).ok()?;
        let path = self.path(&key);
        match CachedFile::open(&path) {
            Ok(cached) if !cached.is_private() => {
                tracing::warn!(
                    "{}: not used: expected a file that belongs to this user and that nobody else may write to",
                    path.display()
                );
                None
            }
            Ok(cached) if cached.key().build != key.build => {
                tracing::info!("{}: written by another build of flowcast; building its frames again", path.display());
                None
            }
            Ok(mut cached)
                if cached.key() == &key && options.at_start().iter().all(|form| cached.bytes(0, *form).is_some()) =>
            {
                let (lines, chunks) = (cached.lines(), cached.take_chunks());
                let (identity, group, options) = (source.identity(), group.to_owned(), options.clone());
                let frames = CachedBlocks::new(cached, chunks.len(), identity, group, options);
                Some(CachedTrack { lines, chunks, store: Box::new(frames) })
            }
            Ok(_) => {
                tracing::info!(
                    "{} or the settings changed since its frames were cached; reading it again",
                    source.path().display()
                );
                None
            }
            Err(CacheError::Read(ReadError::Io { source, .. })) if source.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!("{error}; building its frames again");
                None
            }
        }
    }

    /// The tracks of a dataset just loaded that were not found in the cache.
    pub fn unsaved(&self, loaded: &Loaded, options: &ArenaOptions) -> Vec<UnsavedTrack> {
        let of_report = |track: &Arc<Track>, report: &FileReport| {
            // The source as it was read. If it has changed since, nobody will look for these frames.
            let source =
                MappedFile::open(&report.file.path).ok().filter(|now| Some(now.identity()) == report.identity)?;
            let key = key(&source, track.group(), options).ok()?;
            Some(UnsavedTrack { track: Arc::clone(track), lines: report.lines.clone(), key })
        };
        let good = loaded.reports.iter().filter(|report| report.failed.is_none());
        let pairs = loaded.tracks.iter().zip(good).filter(|(track, _)| !track.is_cached());
        pairs.filter_map(|(track, report)| of_report(track, report)).collect()
    }

    /// Writes frames to the folder, and keeps the folder within its size. Blocks: call it on a thread of its
    /// own.
    pub fn store(&self, unsaved: &[UnsavedTrack], options: &ArenaOptions) {
        self.tidy();
        let mut bytes = 0;
        for UnsavedTrack { track, lines, key } in unsaved {
            match self.write(track, lines, key, options) {
                Ok(written) => bytes += written,
                Err(error) => {
                    tracing::warn!(
                        "{}: cannot write more frames for the next start: {error}; check that the disk has free space",
                        self.folder.display()
                    );
                    break;
                }
            }
        }
        if bytes > 0 {
            self.tidy();
            tracing::info!(folder = %self.folder.display(), bytes, "frames are kept for the next start");
        }
    }

    fn write(&self, track: &Track, lines: &LineStats, key: &Key, options: &ArenaOptions) -> io::Result<u64> {
        let path = self.path(key);
        // A name that nobody else has, beside the place it will have: a rename stays within the file system.
        let part = path.with_extension(format!("{}.{PART}", Uuid::new_v4().simple()));
        let written = file::write(&part, track, lines, key, &options.at_start());
        let written = written.and_then(|bytes| fs::rename(&part, &path).map(|()| bytes));
        if written.is_err() {
            // It may never have been there.
            let _ = fs::remove_file(&part);
        }
        written
    }

    fn tidy(&self) {
        if let Err(error) = self.remove_surplus() {
            tracing::warn!("{}: cannot remove old files: {error}", self.folder.display());
        }
    }

    /// Removes files that were never finished, and the oldest ones if the folder is too large. Another process
    /// may be doing the same.
    fn remove_surplus(&self) -> io::Result<()> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            if has_extension(&path, EXTENSION) {
                kept.push((metadata.modified()?, path, metadata.size()));
            } else if has_extension(&path, PART) && is_abandoned(&path) {
                remove(&path)?;
            }
        }
        kept.sort();
        let mut total: u64 = kept.iter().map(|(_, _, size)| size).sum();
        for (_, path, size) in kept {
            if total <= self.max_bytes {
                break;
            }
            tracing::info!("{}: removed, because the folder is larger than --cache-bytes", path.display());
            remove(&path)?;
            total -= size;
        }
        Ok(())
    }

    /// Every cached file, in the order of their names.
    pub fn files(&self) -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.folder)?.map(|entry| entry.map(|entry| entry.path()));
        let mut paths: Vec<PathBuf> = entries.collect::<Result<_, _>>()?;
        paths.retain(|path| has_extension(path, EXTENSION));
        paths.sort();
        Ok(paths)
    }

    /// One file per source and settings: when the source changes, its new file replaces the old one.
    fn path(&self, key: &Key) -> PathBuf {
        let name = xxh3_64(format!("{}\0{}", key.source, key.settings).as_bytes());
        self.folder.join(format!("{name:016x}.{EXTENSION}"))
    }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|actual| actual == extension)
}

/// Whether nobody writes to it any more: a writer holds its lock.
fn is_abandoned(part: &Path) -> bool {
    File::open(part).is_ok_and(|file| file.try_lock().is_ok())
}

/// Removes a file that may be gone already.
fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path).or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// What shapes a frame besides data and settings.
const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), " ", env!("FLOWCAST_FRAMES"));

/// What frames of `source` for `group` depend on.
fn key(source: &MappedFile, group: &str, options: &ArenaOptions) -> io::Result<Key> {
    let forms: Vec<usize> = options.at_start().iter().map(|form| form.index()).collect();
    Ok(Key {
        source: fs::canonicalize(source.path())?.to_string_lossy().into_owned(),
        settings: format!("{group} forms {forms:?} zstd {}", options.encoder.zstd_level),
        build: BUILD.to_owned(),
        ..figures(source)
    })
}

/// What a key says of the file itself. The device is left out: its number may differ after a reboot.
fn figures(source: &MappedFile) -> Key {
    let (Identity { len, modified, place }, changed) = (source.identity(), source.changed());
    Key {
        size: len,
        modified_s: modified.0,
        modified_ns: modified.1,
        inode: place.1,
        changed_s: changed.0,
        changed_ns: changed.1,
        ..Key::default()
    }
}

/// Whether the source of a cached file is still what it was, and this build would use its frames.
pub fn is_current(key: &Key) -> bool {
    let Ok(source) = MappedFile::open(Path::new(&key.source)) else { return false };
    let Key { source: path, build, settings, .. } = key.clone();
    key.build == BUILD && *key == Key { source: path, build, settings, ..figures(&source) }
}
