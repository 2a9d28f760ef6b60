//! Reading a file that may be truncated or rewritten meanwhile, through a memory mapping.
//!
//! A range is mapped, copied out once, and unmapped. Only the copy is parsed, so what was checked is what is
//! used, whatever happens to the file. Reading a page after the end of a truncated file raises SIGBUS, which
//! would end the process: a handler maps zero pages there instead, and the read reports that the file
//! changed.

#![expect(unsafe_code, reason = "the mapping is read through a pointer, under a signal handler; proofs below")]

use std::cell::Cell;
use std::fs::{File, Metadata, OpenOptions};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{Ordering, compiler_fence};
use std::{io, ptr};

use memmap2::MmapOptions;
use rustix::fs::{Advice, fadvise};

/// Why a range of a file could not be read.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum ReadError {
    /// The file has changed since it was opened.
    #[error(
        "{path}: the file was truncated or rewritten while it was replayed; restart flowcast when the file is complete"
    )]
    Changed { path: PathBuf },
    /// It cannot be opened, mapped or looked at.
    #[error("{path}: expected a readable file: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// A file that is read while others may write to it.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    file: File,
    opened: Identity,
    edges: Edges,
}

/// What a file begins with, and what stood at its end: still there if it has only grown.
#[derive(Debug, PartialEq, Eq)]
struct Edges([Vec<u8>; 2]);

impl Edges {
    /// Bytes of each.
    const LEN: u64 = 256;

    /// Those of the first `len` bytes of a file; shorter if it has less than that by now.
    fn of(file: &File, len: u64) -> io::Result<Self> {
        let edge = |from: u64| {
            let mut bytes = vec![0; Self::LEN.min(len) as usize];
            let mut read = 0;
            while read < bytes.len() {
                match file.read_at(&mut bytes[read..], from + read as u64)? {
                    0 => break,
                    more => read += more,
                }
            }
            bytes.truncate(read);
            io::Result::Ok(bytes)
        };
        Ok(Self([edge(0)?, edge(len.saturating_sub(Self::LEN))?]))
    }
}

/// What changes when a file's content does, or when another file takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Length in bytes.
    pub len: u64,
    /// When it was written last: Unix seconds, and ns.
    pub modified: (i64, i64),
    /// Which file it is: device and inode.
    pub place: (u64, u64),
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            place: (metadata.dev(), metadata.ino()),
        }
    }
}

impl MappedFile {
    /// Opens a file; anything but a regular file is refused.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let failed = |source| ReadError::Io { path: path.to_owned(), source };
        install_handler().map_err(failed)?;
        let (file, metadata) = open_regular(path).map_err(failed)?;
        let edges = Edges::of(&file, metadata.len()).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file, opened: Identity::of(&metadata), edges })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes when it was opened.
    #[expect(clippy::len_without_is_empty, reason = "a file, not a collection")]
    pub fn len(&self) -> u64 {
        self.opened.len
    }

    /// Checks that it still has what it had when it was opened. `Ok(true)`: and more was appended.
    pub fn check(&self) -> Result<bool, ReadError> {
        let failed = |source| ReadError::Io { path: self.path.clone(), source };
        let identity = Identity::of(&self.file.metadata().map_err(failed)?);
        if identity == self.opened {
            return Ok(false);
        }
        // Another, longer file may have been written over it.
        let has_grown =
            identity.len > self.opened.len && Edges::of(&self.file, self.opened.len).map_err(failed)? == self.edges;
        if has_grown { Ok(true) } else { Err(self.has_changed()) }
    }

    /// The error of a file that is not what it was.
    pub fn has_changed(&self) -> ReadError {
        ReadError::Changed { path: self.path.clone() }
    }

    /// Appends `len` bytes from `start` on to `out`. The range lies within [`MappedFile::len`].
    pub fn read(&self, start: u64, len: usize, out: &mut Vec<u8>) -> Result<(), ReadError> {
        debug_assert!(start + len as u64 <= self.len());
        if len == 0 {
            return Ok(());
        }
        // One request for the whole range; page faults of a cold file would ask for it piece by piece.
        let _ = fadvise(&self.file, start, NonZeroU64::new(len as u64), Advice::WillNeed);
        let mapping = MmapOptions::new()
            .offset(start)
            .len(len)
            .map_raw_read_only(&self.file)
            .map_err(|source| ReadError::Io { path: self.path.clone(), source })?;
        out.reserve(len);
        let intact = guarded(mapping.as_ptr(), len, || {
            // SAFETY: source and destination are `len` bytes each: the mapping was made so, the
            // spare capacity was reserved so. They cannot overlap. The bytes are read as volatile
            // bytes and words, never borrowed, because another process may write to the file; any
            // value is a valid byte. A page behind a truncated end is replaced by `on_sigbus`.
            unsafe { copy_volatile(mapping.as_ptr(), out.spare_capacity_mut().as_mut_ptr().cast(), len) };
        });
        if !intact {
            return Err(ReadError::Changed { path: self.path.clone() });
        }
        // SAFETY: the copy above has written `len` bytes into the reserved capacity.
        unsafe { out.set_len(out.len() + len) };
        Ok(())
    }
}

/// Opens a file for reading; anything but a regular file is an error.
pub fn open_regular(path: &Path) -> io::Result<(File, Metadata)> {
    // Non-blocking: opening a FIFO would wait for a writer. Regular files do not care.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() {
        Ok((file, metadata))
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
    }
}

/// Copies `len` bytes, each read exactly once.
///
/// # Safety
/// `from` is readable and `to` writable for `len` bytes, and they do not overlap.
#[expect(clippy::cast_ptr_alignment, reason = "the head is read byte by byte until `from` is aligned")]
unsafe fn copy_volatile(from: *const u8, to: *mut u8, len: usize) {
    const WORD: usize = size_of::<u64>();
    // SAFETY: every offset stays below `len`; `*_unaligned` is not available for volatile reads, so
    // the head runs byte by byte until `from` is aligned.
    unsafe {
        let head = from.align_offset(WORD).min(len);
        let words = (len - head) / WORD;
        for at in 0..head {
            to.add(at).write(from.add(at).read_volatile());
        }
        for word in 0..words {
            let at = head + word * WORD;
            to.add(at).cast::<u64>().write_unaligned(from.add(at).cast::<u64>().read_volatile());
        }
        for at in head + words * WORD..len {
            to.add(at).write(from.add(at).read_volatile());
        }
    }
}

/// The mapping the current thread reads, and whether it faulted.
#[derive(Clone, Copy)]
struct Guard {
    start: usize,
    end: usize,
    faulted: bool,
}

thread_local! {
    // `const` and without a destructor: a plain thread-local word, safe to touch in a handler that
    // runs on this very thread (a fault is synchronous).
    static GUARD: Cell<Guard> = const { Cell::new(Guard { start: 0, end: 0, faulted: false }) };
}

/// Runs `copy` with `[start, start + len)` guarded; false if a page of it was missing.
fn guarded(start: *const u8, len: usize, copy: impl FnOnce()) -> bool {
    let start = start.addr();
    GUARD.set(Guard { start, end: start + len, faulted: false });
    // The handler runs on this thread between these fences: only the compiler could reorder.
    compiler_fence(Ordering::SeqCst);
    copy();
    compiler_fence(Ordering::SeqCst);
    !GUARD.replace(Guard { start: 0, end: 0, faulted: false }).faulted
}

static PREVIOUS: OnceLock<Handlers> = OnceLock::new();

struct Handlers {
    previous: libc::sigaction,
    page: usize,
}

// SAFETY: `sigaction` holds a function address and flags, no reference to anything.
unsafe impl Send for Handlers {}
// SAFETY: as above; it is only ever read.
unsafe impl Sync for Handlers {}

/// Installs the handler once per process.
fn install_handler() -> io::Result<()> {
    if PREVIOUS.get().is_some() {
        return Ok(());
    }
    // SAFETY: an all-zero `sigaction` is a valid value of the C struct.
    let mut previous: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: reads the current action into `previous`; nothing is installed yet.
    if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut previous) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if PREVIOUS.set(Handlers { previous, page: rustix::param::page_size() }).is_err() {
        return Ok(());
    }
    // SAFETY: as above for the zeroed value; `on_sigbus` has the signature SA_SIGINFO asks for and
    // does only what a signal handler may. SA_ONSTACK: Rust's threads have an alternate stack.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        if libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// A page behind the end of a guarded mapping becomes zeros; any other fault goes to the handler that was there
/// before.
extern "C" fn on_sigbus(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let Some(handlers) = PREVIOUS.get() else { return };
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo, whose address is set for SIGBUS.
    let address = unsafe { (*info).si_addr() }.addr();
    let guard = GUARD.get();
    if (guard.start..guard.end).contains(&address) {
        let page = address & !(handlers.page - 1);
        // SAFETY: replaces the pages from the faulting one to the end of this thread's own mapping
        // (rounded up to whole pages, which that mapping also covers) by private zero pages; they
        // are unmapped with it. `mmap` is a plain system call.
        let zeros = unsafe {
            libc::mmap(
                ptr::with_exposed_provenance_mut(page),
                guard.end - page,
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        if zeros != libc::MAP_FAILED {
            GUARD.set(Guard { faulted: true, ..guard });
            return;
        }
    }
    // Not ours: restore the former action; the instruction runs again and faults into it.
    // SAFETY: `previous` came from sigaction itself; the call is async-signal-safe.
    unsafe { libc::sigaction(libc::SIGBUS, &raw const handlers.previous, ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn file(dir: &Path, len: usize) -> (PathBuf, Vec<u8>) {
        let path = dir.join("file");
        let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        fs::write(&path, &bytes).unwrap();
        (path, bytes)
    }

    #[test]
    fn any_range_reads_as_it_is_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (path, bytes) = file(dir.path(), 20_000);
        let mapped = MappedFile::open(&path).unwrap();
        for (start, len) in [(0, 20_000), (1, 7), (4095, 2), (8192, 11_808), (19_999, 1), (5, 0)] {
            let mut out = vec![42];
            mapped.read(start as u64, len, &mut out).unwrap();
            assert_eq!(out[1..], bytes[start..start + len], "{len} bytes from {start}");
        }
        mapped.check().unwrap();
    }

    #[test]
    fn a_file_truncated_under_the_mapping_is_reported_and_crashes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (path, _) = file(dir.path(), 1 << 20);
        let mapped = MappedFile::open(&path).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(10_000).unwrap();
        let mut out = Vec::new();
        assert!(matches!(mapped.read(0, 1 << 20, &mut out), Err(ReadError::Changed { .. })));
        assert!(out.is_empty());
        assert!(matches!(mapped.check(), Err(ReadError::Changed { .. })));
    }

    #[test]
    fn a_file_rewritten_in_place_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let (path, bytes) = file(dir.path(), 10_000);
        let mapped = MappedFile::open(&path).unwrap();
        fs::write(&path, &bytes).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert!(matches!(mapped.check(), Err(ReadError::Changed { .. })));
    }

    #[test]
    fn a_longer_file_that_is_written_over_it_is_no_growth() {
        let dir = tempfile::tempdir().unwrap();
        let (path, mut bytes) = file(dir.path(), 10_000);
        let mapped = MappedFile::open(&path).unwrap();
        bytes.extend(b"more");
        fs::write(&path, &bytes).unwrap();
        assert!(mapped.check().unwrap(), "the same bytes and more");
        for at in [0, 9_999] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            fs::write(&path, &other).unwrap();
            assert!(matches!(mapped.check(), Err(ReadError::Changed { .. })), "byte {at} is another");
        }
    }

    #[test]
    fn what_is_not_a_readable_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        for path in [dir.path().to_owned(), dir.path().join("missing"), fifo] {
            let error = MappedFile::open(&path).unwrap_err().to_string();
            assert!(error.starts_with(&path.display().to_string()), "{error}");
        }
    }
}
