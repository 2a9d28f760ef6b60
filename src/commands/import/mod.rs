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

use self::archive_name::ArchiveName;
use self::elements::{ElementError, ReadLimit};
use crate::commands::shutdown;
use crate::commands::unfinished_file::UnfinishedFile;
use crate::source::recorded::line_stats::counted;
use crate::wire::payload::{Parsed, Record};

/// Bad records that are listed.
const REPORTED: usize = 5;

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
    /// Leave out bad records, and files in an archive whose name says no category; by default they stop the import
    #[arg(long)]
    pub skip_bad: bool,
    /// Largest number of bytes that all files together may unpack to; a day of one ticker takes some 2 GB
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 30)]
    pub max_bytes: u64,
}

/// What was imported.
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
    #[error(
        "{name}: expected {{date}}_{{ticker}}_{{package}}_{{category}}.json.gz of a known category, such as 2026-07-17_SPX_classic_gex_full.json.gz{hint}"
    )]
    UnknownName { name: String, hint: &'static str },
    /// The archive is damaged, encrypted, or compressed in another way.
    #[error("{name}: expected a file stored or deflated in a zip archive, got: {reason}")]
    Archive { name: String, reason: String },
    /// There is too much in it.
    #[error("{name}: expected {expected}, got {actual}")]
    TooMuch { name: String, expected: String, actual: String },
    /// The target exists.
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
    let mut made = BTreeSet::new();
    let imported = read_all(options, &stop, &mut made);
    if imported.is_err() {
        // The deepest come last. One that has something in it stays.
        made.iter().rev().for_each(|folder| drop(std::fs::remove_dir(folder)));
    }
    imported
}

/// Reads everything and puts it into its place. Adds to `made` the folders that were not there before.
fn read_all(options: &ImportOptions, stop: &AtomicBool, made: &mut BTreeSet<PathBuf>) -> Result<Imported, ImportError> {
    let mut import = Import {
        options,
        stop,
        made,
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
    /// Folders that were made.
    made: &'a mut BTreeSet<PathBuf>,
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
        self.made.extend(place.ancestors().skip(1).take_while(|folder| !folder.exists()).map(Path::to_owned));
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
            match Record::parse(kind, line.as_bytes()) {
                Ok(Parsed { .. }) => {
                    records += 1;
                    line.push('\n');
                    target.write(line.as_bytes()).map_err(write_failed)
                }
                Err(error) => {
                    bad += 1;
                    done.note_bad(|| format!("{name}, element {element}: {error}"));
                    Ok(())
                }
            }
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

    /// A file in an archive whose name says no category.
    fn unknown(&mut self, name: String, hint: &'static str) -> Result<(), ImportError> {
        if !self.options.skip_bad {
            return Err(ImportError::UnknownName { name, hint });
        }
        if self.done.notes.len() < 2 * REPORTED {
            self.done.notes.push(format!("{name}: left out, its name says no known category"));
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
        for file in self.unfinished {
            let place = file.place().to_owned();
            let published = file.publish().and_then(|bytes| keep_name(&place).map(|()| bytes));
            done.bytes += published.map_err(|source| ImportError::Publish {
                place: place.clone(),
                source,
                published: done.files,
            })?;
            done.files += 1;
        }
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
