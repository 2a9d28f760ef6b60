//! `flowcast inspect`: what a dataset holds, without serving it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::commands::counted;
use crate::health::status::Status;
use crate::source::recorded::arena::{ArenaOptions, Encodings, Track};
use crate::source::recorded::cache::{self, Cache, CacheOptions, CachedFile, Verified};
use crate::source::recorded::dataset::{DataDate, Dataset, DatasetError, DatasetOptions};
use crate::source::recorded::lines::GAP_SECONDS;
use crate::source::recorded::load;
use crate::source::recorded::loaded::{FileReport, Loaded};
use crate::wire::payload::{EncoderOptions, Profile};
use crate::wire::webpubsub::PlainForm;

/// Which day, and where.
#[derive(Debug, Clone, clap::Args)]
pub struct InspectOptions {
    /// Day to look at: YYYY-MM-DD, or `latest`; by default the one of --data-date
    #[arg(value_name = "DATE")]
    pub date: Option<DataDate>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub dataset: DatasetOptions,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub encoder: EncoderOptions,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub cached: CacheOptions,
    /// Print what the folder --cache-dir holds instead
    #[arg(long, requires = "cache_dir")]
    pub cache: bool,
    /// Check every byte of the cached files
    #[arg(long, requires = "cache")]
    pub verify: bool,
}

/// Why nothing could be printed.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// There is no such dataset.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The output cannot be written, or memory for an encoder is missing.
    #[error("cannot inspect: {0}")]
    Io(#[from] io::Error),
    /// With `--cache`.
    #[error(
        "the cache has damaged files; the server rebuilds what is damaged from the data, and writes a cached file again once it is removed"
    )]
    Damaged,
    /// With `--strict`.
    #[error("the data has errors, and --strict refuses them")]
    Strict,
}

/// Prints what the day holds: a line per ticker, then every problem. With `--cache`: what the cache holds.
pub fn inspect(options: &InspectOptions) -> Result<(), InspectError> {
    if options.cache {
        return inspect_cache(options);
    }
    let mut wanted = options.dataset.clone();
    wanted.data_date = options.date.unwrap_or(wanted.data_date);
    let dataset = Dataset::find(&wanted)?;
    let arena = ArenaOptions { profile: Profile::V2026_04, pin_profile: false, encoder: options.encoder };
    let encodings = Arc::new(Encodings::new(&Status::default()));
    let loaded = load::load(&dataset, "blue", &arena, None, &encodings, &|_, _| {})?;
    load::build_forms(&loaded.tracks, &PlainForm::ALL);

    match print(&dataset, &loaded) {
        // `inspect | head` is fine.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        printed => printed?,
    }
    if wanted.strict && !loaded.is_clean() { Err(InspectError::Strict) } else { Ok(()) }
}

/// Prints a line per cached file; an error if one is damaged.
fn inspect_cache(options: &InspectOptions) -> Result<(), InspectError> {
    let folder = options.cached.cache_dir.clone().unwrap_or_default();
    let unreadable = |error| io::Error::other(format!("{}: expected a folder of the cache: {error}", folder.display()));
    let files = Cache::at(&folder).files().map_err(unreadable)?;
    match print_cache(&files, options.verify) {
        Ok(true) => Err(InspectError::Damaged),
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// A line per cached file; returns whether one is damaged.
fn print_cache(files: &[PathBuf], verify: bool) -> io::Result<bool> {
    let mut damaged = false;
    let mut out = io::stdout().lock();
    let checked = if verify { "blocks" } else { "" };
    writeln!(out, "{:>9} {:>12} {:>8} {:>14}  source", "records", "bytes", "state", checked)?;
    for path in files {
        let file = match CachedFile::open(path) {
            Ok(file) => file,
            // A server has removed it meanwhile.
            Err(_) if !path.exists() => continue,
            Err(error) => {
                damaged = true;
                writeln!(out, "{:>9} {:>12} {:>8} {:>14}  {error}", "-", "-", "damaged", "")?;
                continue;
            }
        };
        let state = if cache::is_current(file.key()) { "current" } else { "stale" };
        let blocks = match verify.then(|| file.verify()) {
            None => String::new(),
            Some(Verified { blocks, bad: 0 }) => format!("{blocks} good"),
            Some(Verified { blocks, bad }) => {
                damaged = true;
                format!("{bad} of {blocks} bad")
            }
        };
        writeln!(out, "{:>9} {:>12} {state:>8} {blocks:>14}  {}", file.lines().records, file.len(), file.key().source)?;
    }
    Ok(damaged)
}

fn print(dataset: &Dataset, loaded: &Loaded) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "date {}, times in New York; encoded sizes are bytes per record", dataset.date)?;
    write!(
        out,
        "{:<12} {:>9} {:>9} {:>9} {:>5} {:>7} {:>6} {:>7}",
        "ticker", "records", "first", "last", "gaps", "longest", "bad", "missing"
    )?;
    for form in PlainForm::ALL {
        write!(out, " {:>17}", format!("{} {}", form.syntax_name(), form.profile))?;
    }
    writeln!(out)?;
    let mut tracks = loaded.tracks.iter();
    for FileReport { file, lines, failed, .. } in &loaded.reports {
        let (first, last) =
            lines.span.map_or(("-".into(), "-".into()), |(first, last)| (clock_time(first), clock_time(last)));
        write!(
            out,
            "{:<12} {:>9} {first:>9} {last:>9} {:>5} {:>6}s {:>6} {:>7}",
            file.ticker, lines.records, lines.gaps, lines.longest_gap, lines.bad, lines.missing
        )?;
        if failed.is_none()
            && let Some(track) = tracks.next()
        {
            for form in PlainForm::ALL {
                write!(out, " {:>17.1}", bytes_per_record(track, form))?;
            }
        }
        writeln!(out)?;
    }
    writeln!(out, "a gap is a step of more than {GAP_SECONDS} s between two records")?;
    for FileReport { file, lines, failed, .. } in &loaded.reports {
        for (line, reason) in &lines.first_bad {
            writeln!(out, "{}:{line}: {reason}", file.path.display())?;
        }
        if lines.bad > lines.first_bad.len() as u64 {
            writeln!(out, "{}: {} bad lines altogether", file.path.display(), lines.bad)?;
        }
        if lines.backwards > 0 {
            let older = counted(lines.backwards, "record is", "records are");
            writeln!(out, "{}: {older} older than the one before", file.path.display())?;
        }
        if let Some(error) = failed {
            writeln!(out, "{error}")?;
        }
    }
    Ok(())
}

fn bytes_per_record(track: &Track, form: PlainForm) -> f64 {
    track.bytes(form) as f64 / track.records() as f64
}

/// The time of day in New York.
fn clock_time(unix_seconds: i64) -> String {
    let zone = TimeZone::get("America/New_York").unwrap_or(TimeZone::UTC);
    match Timestamp::from_second(unix_seconds) {
        Ok(time) => time.to_zoned(zone).strftime("%H:%M:%S").to_string(),
        Err(_) => format!("@{unix_seconds}"),
    }
}
