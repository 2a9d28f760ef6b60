//! A dataset: the recorded files of one day.
//!
//! Layout: `{DATA_DIR}/{date}/{ticker}/{package}/{category}.jsonl`. The folder `streams` of a date is
//! reserved and never a ticker.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::civil::Date;

use super::strays::Strays;
use crate::wire::gexbot::{Package, Series, is_ticker};

/// Entries of one folder that are looked at.
const MAX_ENTRIES: usize = 16_384;

/// Where the data is and how strictly it is read.
#[derive(Debug, Clone, clap::Args)]
pub struct DatasetOptions {
    /// Folder of the recorded data: {date}/{ticker}/{package}/{category}.jsonl
    #[arg(long, env = "DATA_DIR", default_value = "./data", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Day to load: YYYY-MM-DD, or `latest`
    #[arg(long, env = "DATA_DATE", default_value = "latest", value_name = "DATE")]
    pub data_date: DataDate,
    /// Refuse to start if anything in the data is bad; by default it is skipped and counted
    #[arg(long, env = "FLOWCAST_STRICT", default_value_t = false, value_parser = clap::value_parser!(bool))]
    #[arg(action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub strict: bool,
}

/// Which day to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataDate {
    /// The newest day that has any ticker.
    Latest,
    /// This day, which must be there.
    On(Date),
}

impl std::str::FromStr for DataDate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "latest" => Ok(Self::Latest),
            _ => parse_date(text)
                .map(Self::On)
                .ok_or_else(|| "expected `latest` or a date as YYYY-MM-DD, such as 2025-11-28".to_owned()),
        }
    }
}

/// Why there is no dataset. The operator must fix all of these.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum DatasetError {
    /// The data folder is missing or unreadable.
    #[error("{path}: expected a folder of recorded days (DATA_DIR), but it cannot be read: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    /// The data folder holds no day at all.
    #[error(
        "{path}: expected folders named YYYY-MM-DD with a ticker in them, found none; make one with `flowcast generate`"
    )]
    NoDates { path: PathBuf },
    /// The wanted day is not there.
    #[error("{path}: expected data for {date}, found none; available dates: {available}")]
    NoSuchDate { path: PathBuf, date: Date, available: String },
    /// The day's folder holds no ticker with a file.
    #[error(
        "{path}: expected files {{TICKER}}/{{package}}/{{category}}.jsonl, such as SPX/orderflow/orderflow.jsonl; {found}"
    )]
    NoTickers { path: PathBuf, found: String, has_records: bool },
}

impl DatasetError {
    /// Whether the day has records that only need to be imported.
    fn has_records(&self) -> bool {
        matches!(self, Self::NoTickers { has_records: true, .. })
    }
}

/// The files of one day.
#[derive(Debug)]
pub struct Dataset {
    /// The trading day, in New York.
    pub date: Date,
    /// The day's folder in the data folder.
    pub path: PathBuf,
    /// Sorted by ticker; orderflow first, then by package and category.
    pub files: Vec<RecordFile>,
    /// What else is in the folder.
    pub strays: Strays,
    /// A newer day that `latest` did not take, though it has records that could be imported.
    pub skipped: Option<DatasetError>,
}

/// Where the records of a ticker's category are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordFile {
    /// The folder's name, as it stands in group names.
    pub ticker: String,
    /// The package of the category.
    pub package: Package,
    /// The category; the package has one of this name.
    pub category: String,
    /// The path of the file.
    pub path: PathBuf,
}

impl RecordFile {
    /// What its records are.
    pub fn series(&self) -> Series<'_> {
        Series::Records { package: self.package, category: &self.category }
    }
}

impl Dataset {
    /// Finds the day's files. Nothing is read yet.
    pub fn find(options: &DatasetOptions) -> Result<Self, DatasetError> {
        let dates = dates(&options.data_dir)?;
        match options.data_date {
            DataDate::On(date) => Self::among(&options.data_dir, date, &dates),
            DataDate::Latest => {
                let mut skipped = None;
                for date in dates.into_iter().rev() {
                    match Self::on(&options.data_dir, date) {
                        Err(error @ DatasetError::NoTickers { .. }) => {
                            skipped = skipped.or(Some(error).filter(DatasetError::has_records));
                        }
                        found => return found.map(|found| Self { skipped, ..found }),
                    }
                }
                Err(skipped.unwrap_or_else(|| DatasetError::NoDates { path: options.data_dir.clone() }))
            }
        }
    }

    /// The files of one day, which must be among `dates`.
    pub fn among(data_dir: &Path, date: Date, dates: &[Date]) -> Result<Self, DatasetError> {
        if !dates.contains(&date) {
            let available = dates.iter().map(Date::to_string).collect::<Vec<_>>().join(", ");
            let available = if available.is_empty() { "none".to_owned() } else { available };
            return Err(DatasetError::NoSuchDate { path: data_dir.to_owned(), date, available });
        }
        Self::on(data_dir, date)
    }

    /// The files of one day.
    pub fn on(data_dir: &Path, date: Date) -> Result<Self, DatasetError> {
        let path = data_dir.join(date.to_string());
        let DayFolder { mut files, strays } = DayFolder::read(&path, None)?;
        // Orderflow first: the ticker's spot price comes from its first file.
        files.sort_by_cached_key(|file| {
            (file.ticker.clone(), file.package != Package::Orderflow, file.package, file.category.clone())
        });
        if files.is_empty() {
            let (found, has_records) = (strays.in_place_of_files(&path), strays.have_records());
            return Err(DatasetError::NoTickers { path, found, has_records });
        }
        Ok(Self { date, path, files, strays, skipped: None })
    }

    /// What the operator should know of what is not served, a line each.
    pub fn remarks(&self) -> Vec<String> {
        let skipped = self.skipped.as_ref().map(|skipped| format!("a newer day is not served: {skipped}"));
        skipped.into_iter().chain(self.strays.remarks()).collect()
    }
}

/// What a day's folder has.
#[derive(Default)]
struct DayFolder {
    files: Vec<RecordFile>,
    strays: Strays,
}

impl DayFolder {
    /// Lists the folder of a day, or in it only the folder of one ticker.
    fn read(day: &Path, only: Option<&str>) -> Result<Self, DatasetError> {
        let mut found = Self::default();
        let inside = match only {
            None => entries(day).map_err(|source| DatasetError::Unreadable { path: day.to_owned(), source })?,
            // Not every text may become part of a path.
            Some(ticker) if is_ticker(ticker) => vec![day.join(ticker)],
            Some(_) => Vec::new(),
        };
        for path in inside {
            match path.file_name().and_then(|name| name.to_str()) {
                Some(ticker) if is_ticker(ticker) && path.is_dir() => found.read_ticker(ticker, &path),
                // The JSON streams of the day.
                Some("streams") => {}
                _ => found.strays.note_entry(path),
            }
        }
        found.strays.sort();
        Ok(found)
    }

    fn read_ticker(&mut self, ticker: &str, folder: &Path) {
        for path in entries(folder).unwrap_or_default() {
            match path.file_name().and_then(|name| name.to_str()).and_then(Package::parse) {
                Some(package) if path.is_dir() => self.read_package(ticker, package, &path),
                _ => self.strays.note_entry(path),
            }
        }
    }

    fn read_package(&mut self, ticker: &str, package: Package, folder: &Path) {
        for path in entries(folder).unwrap_or_default() {
            match category(&path).filter(|category| Series::records(package, category).is_some()) {
                Some(category) => {
                    let (ticker, category) = (ticker.to_owned(), category.to_owned());
                    self.files.push(RecordFile { ticker, package, category, path });
                }
                None if path.is_dir() => {}
                None => self.strays.note_file(package, path),
            }
        }
    }
}

/// The files of a day, or those of one ticker, in no order. A day that is absent or cannot be read has none.
pub fn files(data_dir: &Path, date: Date, only: Option<&str>) -> Vec<RecordFile> {
    DayFolder::read(&data_dir.join(date.to_string()), only).unwrap_or_default().files
}

/// The days that have a folder, oldest first.
pub fn dates(data_dir: &Path) -> Result<Vec<Date>, DatasetError> {
    let inside = entries(data_dir).map_err(|source| DatasetError::Unreadable { path: data_dir.to_owned(), source })?;
    let folders = inside.iter().filter(|path| path.is_dir());
    let mut dates: Vec<Date> = folders.filter_map(|path| parse_date(path.file_name()?.to_str()?)).collect();
    dates.sort_unstable();
    Ok(dates)
}

/// What is in a folder, as far as it is looked at.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(fs::read_dir(folder)?.filter_map(Result::ok).take(MAX_ENTRIES).map(|entry| entry.path()).collect())
}

/// The category that a file's name says: `gamma_zero` of `gamma_zero.jsonl`.
fn category(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.strip_suffix(".jsonl")
}

/// The day that a folder's name says, in its full form alone: jiff also reads 20251128.
pub fn parse_date(text: &str) -> Option<Date> {
    text.parse::<Date>().ok().filter(|date| date.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn options(dir: &Path, data_date: DataDate) -> DatasetOptions {
        DatasetOptions { data_dir: dir.to_owned(), data_date, strict: false }
    }

    fn write(dir: &Path, file: &str) {
        let path = dir.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn every_category_of_a_ticker_is_a_file_and_the_rest_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for file in [
            "2025-11-28/SPX/state/gamma_zero.jsonl",
            "2025-11-28/SPX/classic/gex_full.jsonl",
            "2025-11-28/SPX/classic/gamma_zero.jsonl",
            "2025-11-28/SPX/orderflow/orderflow.jsonl",
            "2025-11-28/SPX/state/gex_20251219.jsonl",
            "2025-11-28/SPX/orderflow/orderflow.json.gz",
            "2025-11-28/SPX/other/gex_full.jsonl",
            "2025-11-28/ES_SPX/orderflow/orderflow.jsonl",
            "2025-11-28/NDX/classic/gex_full.jsonl",
            "2025-11-28/streams/orderflow/orderflow.jsonl",
            "2025-11-28/.trash/orderflow/orderflow.jsonl",
            "2025-11-28/notes.txt",
        ] {
            write(dir.path(), file);
        }
        let dataset = Dataset::find(&options(dir.path(), DataDate::On(date(2025, 11, 28)))).unwrap();
        let name = |file: &RecordFile| file.series().unprefixed(&file.ticker);
        let names: Vec<String> = dataset.files.iter().map(name).collect();
        assert_eq!(
            names,
            [
                "ES_SPX_orderflow_orderflow",
                "NDX_classic_gex_full",
                "SPX_orderflow_orderflow",
                "SPX_classic_gex_full",
                "SPX_state_gamma_zero",
                "SPX_state_gex_20251219",
            ]
        );
        let remarks = dataset.remarks();
        let [category, name, folders] = &remarks[..] else { panic!("{remarks:?}") };
        assert!(category.contains("classic/gamma_zero.jsonl: ignored; expected a category of classic, "), "{category}");
        assert!(name.ends_with("orderflow.json.gz: ignored; expected the name orderflow.jsonl"), "{name}");
        assert!(folders.starts_with("ignored folders: ") && folders.contains("SPX/other\"; expected"), "{folders}");
    }

    #[test]
    fn latest_is_the_newest_day_that_has_a_ticker() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "2025-11-27/SPX/orderflow/orderflow.jsonl");
        write(dir.path(), "2025-11-28/SPX/orderflow/orderflow.jsonl");
        write(dir.path(), "2025-12-01/SPX/empty");
        write(dir.path(), "20251230/SPX/orderflow/orderflow.jsonl");
        let dataset = Dataset::find(&options(dir.path(), DataDate::Latest)).unwrap();
        assert_eq!(dataset.date, date(2025, 11, 28));
    }

    #[test]
    fn a_missing_day_lists_the_days_there_are() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "2025-11-27/SPX/orderflow/orderflow.jsonl");
        write(dir.path(), "2025-11-28/SPX/orderflow/orderflow.jsonl");
        let error = Dataset::find(&options(dir.path(), DataDate::On(date(2025, 1, 2)))).unwrap_err().to_string();
        assert!(
            error.ends_with("expected data for 2025-01-02, found none; available dates: 2025-11-27, 2025-11-28"),
            "{error}"
        );
    }

    #[test]
    fn each_kind_of_nothing_has_its_own_error() {
        let dir = tempfile::tempdir().unwrap();
        let find = |date| Dataset::find(&options(dir.path(), date)).unwrap_err();
        assert!(matches!(find(DataDate::Latest), DatasetError::NoDates { .. }));
        write(dir.path(), "2025-11-28/notes.txt");
        let empty = find(DataDate::On(date(2025, 11, 28)));
        assert!(matches!(&empty, DatasetError::NoTickers { found, .. } if found == "found none"), "{empty}");
        let missing = Dataset::find(&options(&dir.path().join("missing"), DataDate::Latest)).unwrap_err();
        assert!(matches!(missing, DatasetError::Unreadable { .. }));
    }

    #[test]
    fn a_day_that_must_be_imported_first_is_told_with_the_command_and_latest_does_not_hide_it() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["2025-12-01/SPX/classic/gex_full.json.gz", "2025-12-01/SPX/state/gamma_zero.json.gz"] {
            write(dir.path(), file);
        }
        let day = dir.path().join("2025-12-01").display().to_string();
        let command = &*format!("): flowcast import --data-dir {} {day}", dir.path().display());
        for date in [DataDate::On(date(2025, 12, 1)), DataDate::Latest] {
            let error = Dataset::find(&options(dir.path(), date)).unwrap_err().to_string();
            assert!(error.ends_with(command) && error.contains("SPX/classic/gex_full.json.gz"), "{error}");
        }
        write(dir.path(), "2025-11-28/SPX/orderflow/orderflow.jsonl");
        let dataset = Dataset::find(&options(dir.path(), DataDate::Latest)).unwrap();
        assert_eq!(dataset.date, date(2025, 11, 28));
        let remarks = dataset.remarks();
        assert!(remarks[0].starts_with("a newer day is not served: ") && remarks[0].ends_with(command), "{remarks:?}");
    }

    #[test]
    fn folders_that_can_be_no_ticker_are_named_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        for ticker in ["SPX", "S P X", "A/B", "x$", "a_state_b", "é", ".hidden"] {
            write(dir.path(), &format!("2025-11-28/{ticker}/orderflow/orderflow.jsonl"));
        }
        write(dir.path(), "2025-11-28/SPX/2025-11-28_SPX_classic_gex_full.json.gz");
        let dataset = Dataset::find(&options(dir.path(), DataDate::Latest)).unwrap();
        let remarks = dataset.remarks();
        assert!(remarks.len() == 2 && remarks[0].contains("gex_full.json.gz"), "{remarks:?}");
        for name in ["S P X\"", "A/B\"", "x$\"", "a_state_b\"", "é\""] {
            assert!(remarks[1].contains(name), "{name}: {}", remarks[1]);
        }
        assert!(!remarks[1].contains("hidden"), "{}", remarks[1]);
    }

    #[test]
    fn the_files_of_one_ticker_are_listed_and_no_text_leads_out_of_the_day() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "2025-11-28/SPX/orderflow/orderflow.jsonl");
        write(dir.path(), "2025-11-28/NDX/orderflow/orderflow.jsonl");
        let count = |only| files(dir.path(), date(2025, 11, 28), only).len();
        assert_eq!((count(None), count(Some("SPX")), count(Some("SPY"))), (2, 1, 0));
        assert_eq!((count(Some("../2025-11-28/SPX")), count(Some("..")), count(Some(""))), (0, 0, 0));
        assert!(files(dir.path(), date(2025, 11, 27), None).is_empty());
    }

    #[test]
    fn a_date_is_written_in_full() {
        assert_eq!("latest".parse(), Ok(DataDate::Latest));
        assert_eq!("2025-11-28".parse(), Ok(DataDate::On(date(2025, 11, 28))));
        for text in ["20251128", "2025-13-01", "yesterday", ""] {
            assert!(text.parse::<DataDate>().is_err(), "{text}");
        }
    }
}
