//! A dataset: the recorded files of one day.
//!
//! Layout: `{DATA_DIR}/{date}/{ticker}/{package}/{category}.jsonl`. The folder `streams` of a date is
//! reserved and never a ticker.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::civil::Date;

use crate::wire::gexbot::{Package, Series, is_ticker};

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
        "{path}: expected files {{TICKER}}/{{package}}/{{category}}.jsonl, such as SPX/orderflow/orderflow.jsonl, found none"
    )]
    NoTickers { path: PathBuf },
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
    /// Files in the packages' folders whose names are not `{category}.jsonl` of a known category.
    pub others: Vec<PathBuf>,
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
            DataDate::On(date) if !dates.contains(&date) => {
                let available = dates.iter().map(Date::to_string).collect::<Vec<_>>().join(", ");
                let available = if available.is_empty() { "none".to_owned() } else { available };
                Err(DatasetError::NoSuchDate { path: options.data_dir.clone(), date, available })
            }
            DataDate::On(date) => Self::on(&options.data_dir, date),
            DataDate::Latest => {
                for date in dates.into_iter().rev() {
                    match Self::on(&options.data_dir, date) {
                        Err(DatasetError::NoTickers { .. }) => {}
                        found => return found,
                    }
                }
                Err(DatasetError::NoDates { path: options.data_dir.clone() })
            }
        }
    }

    /// Days that have a folder, oldest first.
    pub fn dates(data_dir: &Path) -> Result<Vec<Date>, DatasetError> {
        dates(data_dir)
    }

    /// The files of one day.
    pub fn on(data_dir: &Path, date: Date) -> Result<Self, DatasetError> {
        let path = data_dir.join(date.to_string());
        let (mut files, mut others) = (Vec::new(), Vec::new());
        for ticker in folders(&path)?.filter(|ticker| is_ticker(ticker)) {
            // Orderflow first: the ticker's spot price comes from its first file.
            for package in [Package::Orderflow, Package::Classic, Package::State] {
                for path in entries(&path.join(&ticker).join(package.name())) {
                    match category(&path).filter(|category| Series::records(package, category).is_some()) {
                        Some(category) => {
                            files.push(RecordFile {
                                ticker: ticker.clone(),
                                package,
                                category: category.to_owned(),
                                path,
                            });
                        }
                        None if path.is_dir() => {}
                        None => others.push(path),
                    }
                }
            }
        }
        let order = |file: &RecordFile| {
            (file.ticker.clone(), file.package != Package::Orderflow, file.package, file.category.clone())
        };
        files.sort_by_cached_key(order);
        others.sort();
        if files.is_empty() { Err(DatasetError::NoTickers { path }) } else { Ok(Self { date, path, files, others }) }
    }
}

/// What is in a package's folder; nothing if it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.path()).collect()
}

/// The category that a file's name says: `gamma_zero` of `gamma_zero.jsonl`.
fn category(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.strip_suffix(".jsonl")
}

/// Days that have a folder, oldest first.
fn dates(data_dir: &Path) -> Result<Vec<Date>, DatasetError> {
    let mut dates: Vec<Date> = folders(data_dir)?.filter_map(|name| parse_date(&name)).collect();
    dates.sort_unstable();
    Ok(dates)
}

fn folders(path: &Path) -> Result<impl Iterator<Item = String> + use<>, DatasetError> {
    let entries = fs::read_dir(path).map_err(|source| DatasetError::Unreadable { path: path.to_owned(), source })?;
    Ok(entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok()))
}

/// Only the full form: jiff also reads 20251128, which is not a folder's name here.
fn parse_date(text: &str) -> Option<Date> {
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
        let others: Vec<&str> = dataset.others.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(others, ["gamma_zero.jsonl", "orderflow.json.gz"]);
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
        assert!(matches!(find(DataDate::On(date(2025, 11, 28))), DatasetError::NoTickers { .. }));
        let missing = Dataset::find(&options(&dir.path().join("missing"), DataDate::Latest)).unwrap_err();
        assert!(matches!(missing, DatasetError::Unreadable { .. }));
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
