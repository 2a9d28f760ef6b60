//! Files that appear whole or not at all: each is written beside its place, then renamed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// What becomes of a file that is in the place already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is replaced. Whoever has it open or mapped keeps the old one.
    Replace,
    /// It stays, and publishing fails with [`io::ErrorKind::AlreadyExists`], even if it appeared a moment ago.
    Keep,
}

/// The file beside its place. Dropped without [`UnfinishedFile::publish`], it is removed.
pub struct UnfinishedFile {
    place: PathBuf,
    beside: PathBuf,
    /// `None` once everything is written.
    out: Option<BufWriter<File>>,
    len: u64,
}

impl UnfinishedFile {
    /// Makes the folders on the way, and the file beside `place`, with a name that no other process uses.
    pub fn create(place: &Path) -> io::Result<Self> {
        let beside = place.with_extension(format!("{}-{:08x}.tmp", std::process::id(), fastrand::u32(..)));
        fs::create_dir_all(place.parent().unwrap_or(place))?;
        let out = BufWriter::with_capacity(64 << 10, File::create_new(&beside)?);
        Ok(Self { place: place.to_owned(), beside, out: Some(out), len: 0 })
    }

    /// Where it will be.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Appends; what is written may wait in a buffer of 64 KiB until [`UnfinishedFile::end`].
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

    /// Renames it to its place. Returns its length.
    pub fn publish(mut self, existing: Existing) -> io::Result<u64> {
        self.end(false)?;
        match existing {
            Existing::Replace => fs::rename(&self.beside, &self.place)?,
            Existing::Keep => rename_to_free_place(&self.beside, &self.place)?,
        }
        Ok(self.len)
    }
}

impl Drop for UnfinishedFile {
    fn drop(&mut self) {
        // Published, it is not there any more. If removing fails too, the first error is still the one to tell.
        let _ = fs::remove_file(&self.beside);
    }
}

/// One call, so that of two processes only one wins. File systems that cannot rename so can mostly link.
fn rename_to_free_place(beside: &Path, place: &Path) -> io::Result<()> {
    match renameat_with(CWD, beside, CWD, place, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => fs::hard_link(beside, place),
        renamed => Ok(renamed?),
    }
}

/// Folders that were not there before. Dropped, those that are still empty are removed.
#[derive(Debug, Default)]
pub struct NewFolders(BTreeSet<PathBuf>);

impl NewFolders {
    /// Notes the folders above `place` that do not exist yet; to be called before they are made.
    pub fn note(&mut self, place: &Path) {
        self.0.extend(place.ancestors().skip(1).take_while(|folder| !folder.exists()).map(Path::to_owned));
    }
}

impl Drop for NewFolders {
    fn drop(&mut self) {
        // The deepest come last. One that has something in it stays.
        self.0.iter().rev().for_each(|folder| drop(fs::remove_dir(folder)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unfinished(place: &Path, text: &str) -> UnfinishedFile {
        let mut file = UnfinishedFile::create(place).unwrap();
        file.write(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn of_two_that_are_written_at_once_the_second_finds_the_place_taken() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("a/b.jsonl");
        let (one, two) = (unfinished(&place, "one"), unfinished(&place, "two"));
        assert_eq!(one.publish(Existing::Keep).unwrap(), 3);
        assert_eq!(two.publish(Existing::Keep).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&place).unwrap(), "one");
        unfinished(&place, "three").publish(Existing::Replace).unwrap();
        assert_eq!(fs::read_to_string(&place).unwrap(), "three");
        assert_eq!(fs::read_dir(place.parent().unwrap()).unwrap().count(), 1, "nothing else stays behind");
    }

    #[test]
    fn what_is_not_published_leaves_neither_a_file_nor_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("old")).unwrap();
        let mut folders = NewFolders::default();
        let place = dir.path().join("old/new/newer/b.jsonl");
        folders.note(&place);
        drop(unfinished(&place, "one"));
        drop(folders);
        assert!(dir.path().join("old").exists() && !dir.path().join("old/new").exists());
    }
}
