//! `flowcast import`: turns the vendor's end-of-day archives into days of a data folder.
//!
//! [`archive`] finds the files and opens them, [`elements`] reads their records one at a time, [`archive_name`] says
//! where they belong. Memory does not grow with the files, and either all of them appear or none.

mod archive;
mod archive_name;
mod elements;

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use self::archive_name::{ArchiveName, NameProblem};
use self::elements::{ElementError, ReadLimit};
use crate::commands::shutdown;
use crate::commands::unfinished_file::{Existing, NewFolders, UnfinishedFile};
use crate::source::recorded::line_stats::counted;
use crate::wire::payload::{Parsed, Record};

/// Bad records that are listed.
const REPORTED: usize = 5;

/// Characters of a record's ticker that a report repeats.
const SHOWN: usize = 64;

/// What to read, and where it goes.
#[derive(Debug, Clone, clap::Args)]
pub struct ImportOptions {
    /// Archives of the vendor (zip), single files named {date}_{ticker}_{package}_{category}.json or .json.gz, or
    /// folders with such files
    #[arg(value_name = "FILE|DIR", required = true)]
    pub paths: Vec<PathBuf>,
    /// Folder of the recorded data; files go to DIR/DATE/TICKER/PACKAGE/CATEGORY.jsonl
    #[arg(long, env = "DATA_DIR", default_value = "./data", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Overwrite existing files. Without it nothing is written if one exists
    #[arg(long)]
    pub force: bool,
    /// Leave out bad records, and files whose name says no known category; by default they stop the import
    #[arg(long)]
    pub skip_bad: bool,
    /// Largest number of bytes that all files together may unpack to; a day of one ticker takes some 2 GB
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 30)]
    pub max_bytes: u64,
}

/// How much an import wrote, and what it left out.
#[derive(Debug, Default)]
pub struct Imported {
    /// Files written.
    files: usize,
    /// Lines in them.
    records: u64,
    /// Bytes in them.
    bytes: u64,
    /// Records left out.
    bad: u64,
    /// What was noticed: bad records and files left out, the first few.
    notes: Vec<String>,
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))?;
        let (records, files) = (counted(self.records, "record", "records"), self.files as u64);
        write!(f, "imported {records} into {}, {} bytes", counted(files, "file", "files"), self.bytes)?;
        if self.bad == 0 { Ok(()) } else { write!(f, "; left out {}", counted(self.bad, "bad record", "bad records")) }
    }
}

/// Why nothing was imported. Except for [`ImportError::Publish`], the data folder is as it was before.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum ImportError {
    /// A path cannot be read.
    #[error(
        "{path}: expected an archive (zip), a .json, a .json.gz or a folder with such files, but it cannot be read: {source}"
    )]
    Unreadable { path: PathBuf, source: io::Error },
    /// There is no file that could be imported.
    #[error(
        "{path}: expected files named {{date}}_{{ticker}}_{{package}}_{{category}}.json.gz, such as 2026-07-17_SPX_classic_gex_full.json.gz, or archives of them; found none"
    )]
    NothingFound { path: PathBuf },
    /// The name does not say what is in the file.
    #[error("{name}: {problem}; --skip-bad leaves such files out")]
    UnknownName { name: String, problem: NameProblem },
    /// The archive is damaged, encrypted, or compressed in another way.
    #[error("{name}: expected a file stored or deflated in a zip archive, got: {reason}")]
    Archive { name: String, reason: String },
    /// There is too much in it.
    #[error("{name}: expected {expected}, got {actual}")]
    TooMuch { name: String, expected: String, actual: String },
    /// The place has a file already, perhaps since a moment ago: nothing is overwritten without `--force`.
    #[error("{place} exists already; --force overwrites it, --data-dir chooses another directory")]
    Exists { place: PathBuf },
    /// Two of the files are of the same day, ticker and category.
    #[error("{name}: another file of this import goes to {place} too; import only one of them")]
    Twice { name: String, place: PathBuf },
    /// The JSON text is damaged, cut off, or too long.
    #[error("{name}, element {element}: {reason}")]
    Text { name: String, element: u64, reason: String },
    /// Some of the elements are not records.
    #[error("{}\n{}; --skip-bad imports the others", .first.join("\n"), counted(*.bad, "element is not a record", "elements are not records"))]
    Bad { first: Vec<String>, bad: u64 },
    /// There is not one good record in a file.
    #[error("{name}: expected records, got none")]
    NoRecords { name: String },
    /// A target cannot be written.
    #[error("could not write {place}: {source}; check that the directory is writable and that the disk has free space")]
    Write { place: PathBuf, source: io::Error },
    /// Everything is written, but not all files could be renamed to their place.
    #[error(
        "could not rename the finished file to {place}: {source}; files of this import that are in place: {published}"
    )]
    Publish { place: PathBuf, source: io::Error, published: usize },
    /// Ctrl-C, or SIGTERM.
    #[error("interrupted; nothing was imported")]
    Interrupted,
}

/// Imports what `options` names; a signal ends it with nothing imported.
pub fn import(options: &ImportOptions) -> Result<Imported, ImportError> {
    let stop = shutdown::raised_by_signal()
        .map_err(|source| ImportError::Write { place: options.data_dir.clone(), source })?;
    // It outlives the files in its folders.
    let mut folders = NewFolders::default();
    let mut import = Import {
        options,
        stop: &stop,
        folders: &mut folders,
        limit: ReadLimit::new(options.max_bytes),
        bar: bar(),
        unfinished: Vec::new(),
        places: BTreeSet::new(),
        done: Imported::default(),
    };
    for path in &options.paths {
        archive::read(path, &mut import)?;
    }
    import.bar.finish_and_clear();
    import.finish()
}

fn bar() -> ProgressBar {
    let target = if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("importing {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}");
    ProgressBar::with_draw_target(Some(0), target).with_style(style.expect("a valid template"))
}

/// An import under way. Dropped before its end, it leaves nothing behind.
struct Import<'a> {
    options: &'a ImportOptions,
    stop: &'a AtomicBool,
    limit: ReadLimit,
    bar: ProgressBar,
    /// Written, but not in their place yet.
    unfinished: Vec<UnfinishedFile>,
    places: BTreeSet<PathBuf>,
    folders: &'a mut NewFolders,
    done: Imported,
}

impl Import<'_> {
    /// Reads one file's records; `name` is for messages.
    fn file(&mut self, name: &str, what: &ArchiveName, reader: impl BufRead) -> Result<(), ImportError> {
        let place = what.place(&self.options.data_dir);
        if !self.options.force && place.symlink_metadata().is_ok() {
            return Err(ImportError::Exists { place });
        }
        if !self.places.insert(place.clone()) {
            return Err(ImportError::Twice { name: name.to_owned(), place });
        }
        let write_failed = |source| ImportError::Write { place: place.clone(), source };
        self.folders.note(&place);
        let mut target = UnfinishedFile::create(&place).map_err(write_failed)?;
        let (mut element, mut records, mut bad) = (0_u64, 0_u64, 0_u64);
        let (done, stop, kind) = (&mut self.done, self.stop, what.kind());
        let mut line = String::new();
        let read = elements::for_each(reader, &self.limit, |text| {
            if stop.load(Ordering::Relaxed) {
                return Err(ImportError::Interrupted);
            }
            element += 1;
            // A record is one line: line breaks between the values of an element become spaces.
            line.clear();
            line.extend(text.chars().map(|c| if c == '\n' || c == '\r' { ' ' } else { c }));
            let problem = match Record::parse(kind, line.as_bytes()) {
                Ok(Parsed { record, .. }) if record.ticker() == what.ticker => {
                    records += 1;
                    line.push('\n');
                    return target.write(line.as_bytes()).map_err(write_failed);
                }
                Ok(Parsed { record, .. }) => {
                    let other: String = record.ticker().chars().take(SHOWN).collect();
                    format!("ticker: expected {} as in the file's name, got {other:?}", what.ticker)
                }
                Err(error) => error.to_string(),
            };
            bad += 1;
            done.note_bad(|| format!("{name}, element {element}: {problem}"));
            Ok(())
        });
        read.map_err(|error| match error {
            ElementError::Each(error) => error,
            ElementError::Text { element, reason } => ImportError::Text { name: name.to_owned(), element, reason },
        })?;
        if records == 0 && bad == 0 {
            return Err(ImportError::NoRecords { name: name.to_owned() });
        }
        if records == 0 && self.options.skip_bad {
            self.done.notes.push(format!("{name}: left out, it has no good record"));
            return Ok(());
        }
        target.end(true).map_err(write_failed)?;
        self.done.records += records;
        self.unfinished.push(target);
        Ok(())
    }

    /// A file whose name does not say where its records belong.
    fn unknown(&mut self, name: String, problem: NameProblem) -> Result<(), ImportError> {
        if !self.options.skip_bad {
            return Err(ImportError::UnknownName { name, problem });
        }
        if self.done.notes.len() < 2 * REPORTED {
            self.done.notes.push(format!("{name}: left out; {problem}"));
        }
        Ok(())
    }

    /// Puts everything into its place.
    fn finish(self) -> Result<Imported, ImportError> {
        let mut done = self.done;
        if done.bad > 0 && !self.options.skip_bad {
            return Err(ImportError::Bad { first: done.notes, bad: done.bad });
        }
        if self.unfinished.is_empty() {
            return Err(ImportError::NothingFound { path: self.options.paths[0].clone() });
        }
        if self.stop.load(Ordering::Relaxed) {
            return Err(ImportError::Interrupted);
        }
        let existing = if self.options.force { Existing::Replace } else { Existing::Keep };
        let mut published: Vec<PathBuf> = Vec::new();
        for file in self.unfinished {
            let place = file.place().to_owned();
            match file.publish(existing) {
                Ok(bytes) => done.bytes += bytes,
                // Nothing was in these places before: without these files the folder is as it was.
                Err(source) if existing == Existing::Keep => {
                    for place in &published {
                        // If this fails too, the first error is still the one to tell.
                        let _ = std::fs::remove_file(place);
                    }
                    return Err(match source.kind() {
                        io::ErrorKind::AlreadyExists => ImportError::Exists { place },
                        _ => ImportError::Publish { place, source, published: 0 },
                    });
                }
                Err(source) => return Err(ImportError::Publish { place, source, published: published.len() }),
            }
            published.push(place);
        }
        for place in &published {
            let unsure = |source| ImportError::Publish { place: place.clone(), source, published: published.len() };
            keep_name(place).map_err(unsure)?;
        }
        done.files = published.len();
        Ok(done)
    }
}

impl Imported {
    fn note_bad(&mut self, note: impl FnOnce() -> String) {
        self.bad += 1;
        if self.bad <= REPORTED as u64 {
            self.notes.push(note());
        }
    }
}

/// Waits until the disk has the file under its new name.
fn keep_name(place: &Path) -> io::Result<()> {
    std::fs::File::open(place.parent().unwrap_or(place))?.sync_all()
}
