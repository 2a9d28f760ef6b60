//! The files of an import: single ones, those in folders, and the members of zip archives.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use zip::ZipArchive;
use zip::result::ZipError;

use super::archive_name::ArchiveName;
use super::{Import, ImportError};
use crate::source::recorded::file_kind::{ENOUGH, FileKind};

/// Most files in an archive, or in a folder with all that are in it.
const MOST_FILES: usize = 10_000;

/// How deep a folder is searched.
const MOST_FOLDERS: usize = 8;

/// Reads what a path of the command line names.
pub fn read(path: &Path, import: &mut Import<'_>) -> Result<(), ImportError> {
    let unreadable = |source| ImportError::Unreadable { path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if metadata.is_file() {
        return read_file(path, import);
    }
    if !metadata.is_dir() {
        return Err(unreadable(std::io::Error::other("it is neither a regular file nor a folder")));
    }
    let mut found = Vec::new();
    find(path, MOST_FOLDERS, &mut found).map_err(unreadable)?;
    found.sort();
    if found.is_empty() {
        return Err(ImportError::NothingFound { path: path.to_owned() });
    }
    found.iter().try_for_each(|path| read_file(path, import))
}

/// Finds archives, and files whose name has the form of an archive's; ignores other files. Links are not followed.
fn find(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let name = path.to_string_lossy();
        let is_wanted = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("zip"))
            || ((name.ends_with(".json") || name.ends_with(".gz"))
                && ArchiveName::parse(&path).map_or_else(|problem| problem.is_of_an_archive(), |_| true));
        if kind.is_dir() && depth > 0 {
            find(&path, depth - 1, found)?;
        } else if kind.is_file() && is_wanted {
            found.push(path);
        }
        if found.len() > MOST_FILES {
            return Err(std::io::Error::other(format!("it has more than {MOST_FILES} files to import")));
        }
    }
    Ok(())
}

/// Reads a file by what it is, not by the end of its name.
fn read_file(path: &Path, import: &mut Import<'_>) -> Result<(), ImportError> {
    let unreadable = |source| ImportError::Unreadable { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    let mut first = [0; ENOUGH];
    let read = file.read(&mut first).map_err(unreadable)?;
    if FileKind::of(&first[..read]) == Some(FileKind::Zip) {
        return read_archive(path, file, import);
    }
    let name = path.display().to_string();
    let what = match ArchiveName::parse(path) {
        Ok(what) => what,
        Err(_) if path.extension().is_some_and(|end| end.eq_ignore_ascii_case("zip")) => {
            return Err(ImportError::Archive { name, reason: "no zip archive, or a damaged one".to_owned() });
        }
        Err(problem) => return import.unknown(name, problem),
    };
    import.bar.inc_length(file.metadata().map_err(unreadable)?.len());
    let rest = import.bar.clone().wrap_read(file);
    read_records(&name, &what, &first[..read], rest, import)
}

/// Reads the records of one file, of which `first` is read already.
fn read_records(
    name: &str,
    what: &ArchiveName,
    first: &[u8],
    rest: impl Read,
    import: &mut Import<'_>,
) -> Result<(), ImportError> {
    let whole = BufReader::with_capacity(64 << 10, first.chain(rest));
    match FileKind::of(first) {
        Some(FileKind::Gzip) => import.file(name, what, BufReader::with_capacity(64 << 10, MultiGzDecoder::new(whole))),
        _ => import.file(name, what, whole),
    }
}

/// Reads every member of a zip archive.
fn read_archive(path: &Path, file: File, import: &mut Import<'_>) -> Result<(), ImportError> {
    let of_archive =
        |error: ZipError| ImportError::Archive { name: path.display().to_string(), reason: error.to_string() };
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(of_archive)?;
    if archive.len() > MOST_FILES {
        return Err(ImportError::TooMuch {
            name: path.display().to_string(),
            expected: format!("at most {MOST_FILES} files in an archive"),
            actual: archive.len().to_string(),
        });
    }
    let members = members(path, &archive, import)?;
    for (at, name, what) in members {
        let failed = |error: ZipError| ImportError::Archive { name: name.clone(), reason: error.to_string() };
        let mut member = import.bar.clone().wrap_read(archive.by_index(at).map_err(failed)?);
        let mut first = [0; ENOUGH];
        let read = read_up_to(&mut member, &mut first).map_err(|error| failed(error.into()))?;
        read_records(&name, &what, &first[..read], member, import)?;
    }
    Ok(())
}

/// The members to read: place, name for messages, and what they are. Nothing is unpacked yet.
fn members(
    path: &Path,
    archive: &ZipArchive<BufReader<File>>,
    import: &mut Import<'_>,
) -> Result<Vec<(usize, String, ArchiveName)>, ImportError> {
    let mut members = Vec::new();
    for at in 0..archive.len() {
        let of_archive =
            |error: ZipError| ImportError::Archive { name: path.display().to_string(), reason: error.to_string() };
        let entry = archive.by_index_data(at).map_err(of_archive)?;
        if entry.is_dir() {
            continue;
        }
        let inner = String::from_utf8_lossy(entry.name_raw()).replace(char::is_control, "\u{fffd}");
        let name = format!("{}: {inner}", path.display());
        let what = match ArchiveName::parse(Path::new(&inner)) {
            Ok(what) => what,
            Err(problem) => {
                import.unknown(name, problem)?;
                continue;
            }
        };
        if entry.encrypted() {
            return Err(ImportError::Archive {
                name,
                reason: "an encrypted file; decrypt the archive first".to_owned(),
            });
        }
        import.bar.inc_length(entry.size());
        members.push((at, name, what));
    }
    Ok(members)
}

fn read_up_to(reader: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match reader.read(&mut buffer[read..])? {
            0 => break,
            more => read += more,
        }
    }
    Ok(read)
}
