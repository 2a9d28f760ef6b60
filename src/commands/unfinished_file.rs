//! A file that appears whole or not at all: written beside its place, then renamed.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// The file beside its place. Dropped without [`UnfinishedFile::publish`], it is removed.
pub struct UnfinishedFile {
    place: PathBuf,
    beside: PathBuf,
    /// `None` once everything is written.
    out: Option<BufWriter<File>>,
    len: u64,
}

impl UnfinishedFile {
    /// Makes the folders on the way, and the file beside `place`.
    pub fn create(place: &Path) -> io::Result<Self> {
        let beside = place.with_extension(format!("{}.tmp", std::process::id()));
        fs::create_dir_all(place.parent().unwrap_or(place))?;
        let out = BufWriter::with_capacity(64 << 10, File::create(&beside)?);
        Ok(Self { place: place.to_owned(), beside, out: Some(out), len: 0 })
    }

    /// Where it will be.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Appends.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.len += bytes.len() as u64;
        self.out.as_mut().map_or(Ok(()), |out| out.write_all(bytes))
    }

    /// Ends the writing; `durably` waits until the disk has it.
    pub fn end(&mut self, durably: bool) -> io::Result<()> {
        let Some(mut out) = self.out.take() else { return Ok(()) };
        out.flush()?;
        if durably { out.get_ref().sync_all() } else { Ok(()) }
    }

    /// Renames it to its place. A file that is there is replaced, and whoever has it open or mapped keeps the old one.
    /// Returns its length.
    pub fn publish(mut self) -> io::Result<u64> {
        self.end(false)?;
        fs::rename(&self.beside, &self.place)?;
        Ok(self.len)
    }
}

impl Drop for UnfinishedFile {
    fn drop(&mut self) {
        // Published, it is not there any more. If removing fails too, the first error is still the one to tell.
        let _ = fs::remove_file(&self.beside);
    }
}
