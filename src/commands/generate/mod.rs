//! A synthetic trading day: the generator behind `flowcast generate`.
//!
//! A file depends on seed, date, ticker and category alone (and on the number of strikes), and is the same on every
//! platform and in every release: [`price_series`] makes the prices and the orderflow, [`option_records`] GEX and
//! greeks around them, and whole hundredths are written. Not here: reading a day back (`dataset`), holidays and half
//! days (every date is a full session).

mod category_choice;
mod json_line;
mod option_chain;
mod option_records;
mod past_records;
mod price_series;
mod ticker_day;
mod trading_records;

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use jiff::{civil::Date, tz::TimeZoneDatabase};
use rayon::prelude::*;

pub use self::category_choice::CategoryChoice;
use self::category_choice::chosen;
use self::price_series::{SESSION, draws};
use self::ticker_day::TickerDay;
use self::trading_records::trading_day;
use crate::commands::unfinished_file::{Existing, NewFolders, UnfinishedFile};
use crate::source::recorded::line_stats::counted;
use crate::source::recorded::trading::STREAMS_FOLDER;
use crate::wire::streams::{PORTFOLIO, SIGNALS, TRADES};

/// What to write, and where.
#[derive(Debug, Clone, clap::Args)]
pub struct GenerateOptions {
    /// Data directory; files go to DIR/DATE/TICKER/PACKAGE/CATEGORY.jsonl and DIR/DATE/streams
    #[arg(long, value_name = "DIR", default_value = "./data")]
    pub out: PathBuf,
    /// Day to generate; weekends and holidays are full sessions too
    #[arg(long, default_value = "2025-11-28")]
    pub date: Date,
    /// Tickers, comma-separated; an unknown one gets made-up prices of a stock
    #[arg(long, value_delimiter = ',', default_value = "SPX,ES_SPX,NDX,SPY", value_parser = ticker)]
    pub tickers: Vec<String>,
    /// Categories, comma-separated: `all` for all fifteen, packages (classic, state, orderflow), or single ones such
    /// as classic/gex_full,state/gamma_zero. Per ticker and second all of them take some 90 KB, orderflow 0.7 KB
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "LIST")]
    pub categories: Vec<CategoryChoice>,
    /// Records per file, one a second from 9:30:00 New York time; more than 23400 go past the close [default: 23400]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub records: Option<u32>,
    /// Number of strikes around the price in a GEX or greek record
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub strikes: u32,
    /// Seed of the random numbers; the same seed, date, ticker and strikes give the same bytes on every machine
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Overwrite existing files. Without it nothing is written if one of the files exists, and the day's
    /// signals, trades and portfolios are kept
    #[arg(long)]
    pub force: bool,
}

fn ticker(name: &str) -> Result<String, GenerateError> {
    is_ticker_name(name).then(|| name.to_owned()).ok_or_else(|| GenerateError::Ticker(name.to_owned()))
}

/// Whether this can be a ticker's name.
pub(in crate::commands) fn is_ticker_name(name: &str) -> bool {
    let fits = |c: u8| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_';
    name.starts_with(|c: char| c.is_ascii_uppercase()) && name.len() <= 32 && name.bytes().all(fits)
}

/// How much a call of [`generate`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generated {
    /// Tickers, each with a file per category.
    pub tickers: usize,
    /// Lines in all files.
    pub records: u64,
    /// Bytes in all files.
    pub bytes: u64,
    /// Signals, trades and portfolios beside them.
    pub trading: u64,
}

impl fmt::Display for Generated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (records, tickers) = (counted(self.records, "record", "records"), self.tickers as u64);
        write!(f, "wrote {records} of {}, {} bytes; ", counted(tickers, "ticker", "tickers"), self.bytes)?;
        write!(f, "{} signals, trades and portfolios", self.trading)
    }
}

/// Why a day was not generated. The operator must fix all of these.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// Not a name the data layout can hold.
    #[error("expected 1 to 32 of A-Z, 0-9 and _, a letter first; got {0:?}")]
    Ticker(String),
    /// Before Unix time, or at the end of jiff's.
    #[error("expected a date from 1970-01-01 to 9999-12-30, got {0}")]
    Date(Date),
    /// A file of the day exists: nothing was written, or only what came before the file that appeared meanwhile.
    #[error("{0} exists already; --force overwrites it, --out chooses another directory")]
    Exists(PathBuf),
    /// Files of other tickers may be in their places already.
    #[error("could not write {0}: {1}; check that the directory is writable and that the disk has free space")]
    Write(PathBuf, io::Error),
    /// Ctrl-C, or SIGTERM.
    #[error("interrupted; nothing was written")]
    Interrupted,
}

impl GenerateError {
    fn of_publishing(place: PathBuf, error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::AlreadyExists { Self::Exists(place) } else { Self::Write(place, error) }
    }
}

/// Writes the day, a file per ticker and category, until `stop` is raised. The files appear together, when all of
/// them are complete. Memory grows by one price per second of the day, and by nothing else.
pub fn generate(options: &GenerateOptions, stop: &AtomicBool) -> Result<Generated, GenerateError> {
    let opening = opening(options.date)?;
    // The command line has checked this; a caller who has not could leave the directory with a `..`.
    options.tickers.iter().try_for_each(|name| ticker(name).map(drop))?;
    let mut tickers = options.tickers.clone();
    let mut seen = HashSet::new();
    tickers.retain(|ticker| seen.insert(ticker.clone()));
    let categories = chosen(&options.categories);
    let paths = tickers
        .iter()
        .flat_map(|ticker| categories.iter().map(move |&category| ticker_day::path(options, ticker, category)));
    let mut folders = NewFolders::default();
    for path in paths {
        if !options.force && path.exists() {
            return Err(GenerateError::Exists(path));
        }
        folders.note(&path);
    }
    let seconds = options.records.unwrap_or(SESSION);
    // No fsync anywhere: what a power cut takes, the seed brings back.
    let days = tickers.par_iter().map(|ticker| TickerDay::write(options, ticker, &categories, opening, seconds, stop));
    let days: Vec<TickerDay> = days.collect::<Result<_, _>>()?;
    let (mut records, mut bytes, mut spots) = (0, 0, Vec::new());
    let existing = if options.force { Existing::Replace } else { Existing::Keep };
    for mut day in days {
        spots.push(std::mem::take(&mut day.spots));
        let (more_records, more_bytes) = day.publish(existing)?;
        records += more_records;
        bytes += more_bytes;
    }
    let trading = write_streams(options, &tickers, &spots, opening)?;
    Ok(Generated { tickers: tickers.len(), records, bytes, trading })
}

/// Writes the day's signals, trades and portfolios; how many there are.
fn write_streams(
    options: &GenerateOptions,
    tickers: &[String],
    spots: &[Vec<i64>],
    opening: i64,
) -> Result<u64, GenerateError> {
    let folder = options.out.join(options.date.to_string()).join(STREAMS_FOLDER);
    let paths = [SIGNALS, TRADES, PORTFOLIO].map(|channel| folder.join(format!("{channel}.jsonl")));
    let failed = |path: &Path, error| GenerateError::Write(path.to_owned(), error);
    let mut draws = draws(options.seed, options.date, STREAMS_FOLDER);
    let trading = trading_day(tickers, spots, opening, &mut draws).map_err(|error| failed(&paths[0], error))?;
    // Those that are there already belong to other tickers of the day, and are kept.
    let lines = [&trading.signals, &trading.trades, &trading.portfolio];
    for (path, lines) in paths.iter().zip(lines).filter(|(path, _)| options.force || !path.exists()) {
        replace(path, lines).map_err(|error| failed(path, error))?;
    }
    Ok(trading.records)
}

fn replace(path: &Path, content: &[u8]) -> io::Result<u64> {
    let mut file = UnfinishedFile::create(path)?;
    file.write(content)?;
    file.publish(Existing::Replace)
}

/// Unix seconds of 9:30:00 in New York, by the bundled zone data: the machine's may be old.
fn opening(date: Date) -> Result<i64, GenerateError> {
    let zone = TimeZoneDatabase::bundled().get("America/New_York");
    let zoned = date.at(9, 30, 0, 0).to_zoned(zone.expect("jiff bundles every zone"));
    let second = zoned.ok().map(|zoned| zoned.timestamp().as_second());
    second.filter(|second| *second >= 0).ok_or(GenerateError::Date(date))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::commands::generate::price_series::KEYS;
    use clap::Parser;
    use xxhash_rust::xxh3::xxh3_64;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: GenerateOptions,
    }

    /// The text of all files, one after the other, that these arguments write into `out`.
    fn run(out: &Path, arguments: &str) -> Result<String, GenerateError> {
        let parsed = Cli::parse_from(["generate"].into_iter().chain(arguments.split_whitespace()));
        let categories = vec!["orderflow".parse().unwrap()];
        let options = GenerateOptions { out: out.to_owned(), categories, ..parsed.options };
        let summary = generate(&options, &AtomicBool::new(false))?;
        let day = out.join(options.date.to_string());
        let files = options.tickers.iter().map(|ticker| day.join(ticker).join("orderflow/orderflow.jsonl"));
        let text: String = files.map(|path| fs::read_to_string(path).unwrap()).collect();
        assert_eq!((summary.records, summary.bytes), (text.lines().count() as u64, text.len() as u64));
        Ok(text)
    }

    fn day(arguments: &str) -> String {
        run(tempfile::tempdir().unwrap().path(), arguments).unwrap()
    }

    #[test]
    fn same_seed_gives_the_same_bytes_in_every_release() {
        let text = day("--records 100 --tickers SPX,NQ_NDX,ABC");
        assert_eq!(text, day("--records 100 --tickers SPX,NQ_NDX,ABC"));
        assert_eq!(
            xxh3_64(text.as_bytes()),
            17_154_193_240_667_159_048,
            "who changes this changes every generated day: tell CHANGELOG.md"
        );
    }

    #[test]
    fn a_ticker_changes_with_seed_and_date_but_not_with_other_tickers() {
        let text = day("--records 9 --tickers SPX");
        let values = |text: &str| text.lines().next().unwrap().split_once("spot").unwrap().1.to_owned();
        assert_ne!(values(&text), values(&day("--records 9 --tickers SPX --seed 2")));
        assert_ne!(values(&text), values(&day("--records 9 --tickers SPX --date 2025-11-29")));
        assert!(day("--records 9").starts_with(&text));
    }

    #[test]
    fn fewer_records_are_the_beginning_of_the_whole_day() {
        let text = day("--tickers SPX");
        assert!(text.lines().count() == 23_400 && text.starts_with(&day("--tickers SPX --records 1000")));
    }

    #[test]
    fn every_record_has_the_37_keys_in_order_and_numbers_that_fit() {
        for line in day("--tickers NQ_NDX,ABC").lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
            let fields = line[1..line.len() - 1].split(',').map(|field| field.split_once(':').unwrap());
            let (keys, values): (Vec<_>, Vec<_>) = fields.map(|(key, value)| (key.trim_matches('"'), value)).unzip();
            assert_eq!(keys, [&["timestamp", "ticker"], &KEYS[..]].concat());
            for (place, value) in values[2..].iter().enumerate() {
                let (_, decimals) = value.split_once('.').unwrap_or((value, "1"));
                assert!(decimals.len() <= 2 && !decimals.ends_with('0') && *value != "-0", "{value} in {line}");
                // The first nine are unsigned on the wire; both limits are those of 32 bits at ×100.
                let range = if place < 9 { 0.01..42_949_672.95 } else { -21_474_836.48..21_474_836.47 };
                assert!(range.contains(&value.parse().unwrap()), "{value} in {line}");
            }
        }
    }

    #[test]
    fn seconds_run_from_half_past_nine_in_new_york_in_summer_and_in_winter() {
        for (date, opening) in [("2025-07-01", 1_751_376_600..), ("2025-11-28", 1_764_340_200..)] {
            for (line, second) in day(&format!("--tickers SPY --date {date}")).lines().zip(opening) {
                assert!(line.starts_with(&format!(r#"{{"timestamp":{second},"ticker":"SPY","#)), "{line}");
            }
        }
    }

    #[test]
    fn an_existing_file_is_overwritten_only_by_force() {
        let out = tempfile::tempdir().unwrap();
        let old = run(out.path(), "--records 2 --tickers SPY").unwrap();
        let refused = run(out.path(), "--records 3 --tickers NDX,SPY");
        assert!(matches!(refused, Err(GenerateError::Exists(path)) if path.ends_with("SPY/orderflow/orderflow.jsonl")));
        assert!(!out.path().join("2025-11-28/NDX").exists(), "nothing at all is written");
        assert!(run(out.path(), "--records 3 --tickers SPY --force").unwrap().starts_with(&old));
        let files = fs::read_dir(out.path().join("2025-11-28/SPY/orderflow")).unwrap();
        assert_eq!(files.count(), 1, "no unfinished file stays behind");
    }

    #[test]
    fn tickers_and_dates_that_the_layout_cannot_hold_are_refused() {
        let refused = |name: &&str| Cli::try_parse_from(["generate", "--tickers", name]).is_err();
        assert!(["", "spx", "../SPX", "_SPX", "1SPX", "streams", &"A".repeat(33)].iter().all(refused));
        let out = tempfile::tempdir().unwrap();
        for date in ["1969-12-31", "9999-12-31"] {
            assert!(matches!(run(out.path(), &format!("--date {date}")), Err(GenerateError::Date(_))));
        }
    }
}
