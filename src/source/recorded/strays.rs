//! What a day's folder holds beside the files that are served, and what to do about it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::file_kind::{ENOUGH, FileKind, NotJsonLines, shell_word};
use crate::wire::gexbot::{Package, Series};

/// How many of a kind are listed.
const LISTED: usize = 5;

/// Files and folders that are not served.
#[derive(Debug, Default)]
pub struct Strays {
    files: Vec<StrayFile>,
    /// Neither a ticker's nor a package's.
    folders: Vec<PathBuf>,
}

#[derive(Debug)]
struct StrayFile {
    path: PathBuf,
    /// The package whose folder it is in.
    package: Option<Package>,
}

impl Strays {
    /// Notes a file of a package's folder that is not `{category}.jsonl`.
    pub fn note_file(&mut self, package: Package, path: PathBuf) {
        self.files.push(StrayFile { path, package: Some(package) });
    }

    /// Notes something that is in no package's folder. Only archives are remarkable there, and folders that are not
    /// hidden.
    pub fn note_entry(&mut self, path: PathBuf) {
        let is_archive = |end: &std::ffi::OsStr| end.eq_ignore_ascii_case("gz") || end.eq_ignore_ascii_case("zip");
        if !path.is_dir() {
            if path.extension().is_some_and(is_archive) {
                self.files.push(StrayFile { path, package: None });
            }
        } else if path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')) {
            self.folders.push(path);
        }
    }

    /// Brings everything into an order that does not depend on the disk.
    pub fn sort(&mut self) {
        self.files.sort_by(|one, other| one.path.cmp(&other.path));
        self.folders.sort();
    }

    /// Whether there are files with records that only need to be imported.
    pub fn have_records(&self) -> bool {
        self.files.iter().any(StrayFile::is_importable)
    }

    /// One line for each file, the first few, and one for all folders.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks: Vec<String> = self.files.iter().take(LISTED).map(StrayFile::remark).collect();
        if let Some(more) = self.files.len().checked_sub(LISTED).filter(|&more| more > 0) {
            remarks.push(format!("{more} more files beside the day's files are ignored"));
        }
        if !self.folders.is_empty() {
            remarks.push(format!(
                "ignored folders: {}; expected {{ticker}}/classic, {{ticker}}/state and {{ticker}}/orderflow, a ticker \
                 of at most 64 letters, digits, _, ., - or ^ that contains no package's name",
                listed(self.folders.iter().map(PathBuf::as_path))
            ));
        }
        remarks
    }

    /// What stands in the day's folder in place of files that can be served, for an error.
    pub fn in_place_of_files(&self, day: &Path) -> String {
        let importable: Vec<&Path> =
            self.files.iter().filter(|file| file.is_importable()).map(|file| &*file.path).collect();
        if !importable.is_empty() {
            let (data_dir, day) = (shell_word(day.parent().unwrap_or(Path::new("."))), shell_word(day));
            let listed = listed(importable.into_iter());
            return format!(
                "found only files that must be imported first ({listed}): flowcast import --data-dir {data_dir} {day}"
            );
        }
        match self.remarks().first() {
            Some(remark) => format!("found none, but {remark}"),
            None => "found none".to_owned(),
        }
    }
}

impl StrayFile {
    /// The category that its name says, known or not.
    fn category(&self) -> Option<&str> {
        let name = self.path.file_name()?.to_str()?;
        let name = name.strip_suffix(".gz").unwrap_or(name);
        name.strip_suffix(".json").or_else(|| name.strip_suffix(".jsonl"))
    }

    fn is_importable(&self) -> bool {
        match self.package.zip(self.category()) {
            Some((package, category)) => Series::records(package, category).is_some(),
            None => self.kind().is_some(),
        }
    }

    /// What it is by its first bytes. Only of a regular file: opening a FIFO would wait for a writer.
    fn kind(&self) -> Option<FileKind> {
        let mut first = [0; ENOUGH];
        let mut file = self.path.is_file().then(|| File::open(&self.path).ok())??;
        let read = file.read(&mut first).ok()?;
        FileKind::of(&first[..read])
    }

    fn remark(&self) -> String {
        let path = self.path.display();
        match (self.package, self.category()) {
            (Some(package), Some(category)) if Series::records(package, category).is_none() => {
                let (package, known) = (package.name(), package.categories());
                format!("{path}: ignored; expected a category of {package}, which are {known}; got {category}")
            }
            (package, category) => match (self.kind(), package, category) {
                (Some(kind), _, _) => NotJsonLines { path: self.path.clone(), kind }.to_string(),
                (None, Some(_), Some(category)) => format!("{path}: ignored; expected the name {category}.jsonl"),
                (None, Some(package), None) => {
                    let (package, known) = (package.name(), package.categories());
                    format!("{path}: ignored; expected {{category}}.jsonl, the category one of {package}: {known}")
                }
                (None, None, _) => format!("{path}: ignored; it is in no package's folder"),
            },
        }
    }
}

/// The first few, quoted, since they may hold anything, and how many more there are.
fn listed<'p>(paths: impl ExactSizeIterator<Item = &'p Path>) -> String {
    let more = paths.len().saturating_sub(LISTED);
    let shown: Vec<String> = paths.take(LISTED).map(|path| format!("{:?}", path.display().to_string())).collect();
    let shown = shown.join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}
