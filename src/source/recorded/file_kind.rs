//! Files that are not JSONL but can be imported, recognized by their first bytes.

use std::fmt;
use std::path::{Path, PathBuf};

/// How many bytes of a file are enough to tell.
pub const ENOUGH: usize = 64;

/// Something that `flowcast import` turns into JSONL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Compressed with gzip, as the files of the vendor's archives are.
    Gzip,
    /// A zip archive.
    Zip,
    /// One JSON array of records.
    JsonArray,
}

impl FileKind {
    /// What a file that begins with `first` is; `None` for JSONL and for anything unknown, whose lines are then bad.
    /// `first` has [`ENOUGH`] bytes, or fewer if the file is shorter.
    pub fn of(first: &[u8]) -> Option<Self> {
        if first.starts_with(&[0x1f, 0x8b]) {
            return Some(Self::Gzip);
        }
        if first.starts_with(b"PK\x03\x04") || first.starts_with(b"PK\x05\x06") {
            return Some(Self::Zip);
        }
        // A first line that is a list of numbers does not make the file an array of records: it is a bad line.
        let text = first.strip_prefix("\u{feff}".as_bytes()).unwrap_or(first).trim_ascii_start();
        let inside = text.strip_prefix(b"[")?.trim_ascii_start();
        matches!(inside, [] | [b'{' | b']', ..]).then_some(Self::JsonArray)
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "a file compressed with gzip",
            Self::Zip => "a zip archive",
            Self::JsonArray => "one JSON array",
        })
    }
}

/// A file that must be imported before it can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{path}: expected one JSON object a line, got {kind}; convert it with: flowcast import{} --data-dir {} {}",
    force(.path),
    shell_word(data_dir(.path)),
    shell_word(.path)
)]
pub struct NotJsonLines {
    /// Where it is: `{data dir}/{date}/{ticker}/{package}/{category}.jsonl`.
    pub path: PathBuf,
    /// What it is.
    pub kind: FileKind,
}

impl NotJsonLines {
    /// An error if the file that begins with `first` is of a [`FileKind`].
    pub fn check(path: &Path, first: &[u8]) -> Result<(), Self> {
        match FileKind::of(first) {
            Some(kind) => Err(Self { path: path.to_owned(), kind }),
            None => Ok(()),
        }
    }
}

/// What stands where its lines belong is overwritten by them.
fn force(path: &Path) -> &'static str {
    if path.extension().is_some_and(|end| end == "jsonl") { " --force" } else { "" }
}

/// A path as one word of a command line.
pub(super) fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@^,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// The data folder that a file of a dataset is in.
fn data_dir(path: &Path) -> &Path {
    path.ancestors().nth(4).filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_compressed_files_and_arrays_are_told_from_lines() {
        for (first, kind) in [
            (&b"\x1f\x8b\x08\x00"[..], Some(FileKind::Gzip)),
            (b"PK\x03\x04\x14", Some(FileKind::Zip)),
            (b"[{\"timestamp\":1", Some(FileKind::JsonArray)),
            (b"\xef\xbb\xbf \n[ \n {", Some(FileKind::JsonArray)),
            (b"[]", Some(FileKind::JsonArray)),
            (b"{\"timestamp\":1", None),
            (b"[1,2,3]\n{", None),
            (b"", None),
            (b"\x1f", None),
        ] {
            assert_eq!(FileKind::of(first), kind, "{first:?}");
        }
    }

    #[test]
    fn the_error_has_the_command_that_helps() {
        let path = Path::new("data/2025-11-28/SPX/classic/gex_full.jsonl");
        let error = NotJsonLines::check(path, b"\x1f\x8b\x08").unwrap_err().to_string();
        let command = "flowcast import --force --data-dir data data/2025-11-28/SPX/classic/gex_full.jsonl";
        assert!(error.contains("got a file compressed with gzip") && error.ends_with(command), "{error}");
        let path = Path::new("my data/2025-11-28/SPX/classic/gex_full.json.gz");
        let error = NotJsonLines::check(path, b"\x1f\x8b\x08").unwrap_err().to_string();
        let command = "flowcast import --data-dir 'my data' 'my data/2025-11-28/SPX/classic/gex_full.json.gz'";
        assert!(error.ends_with(command), "what is not in the place of its lines overwrites nothing: {error}");
    }
}
