//! The data folder as REST lists it: days, tickers and files by name. Nothing is read.
//!
//! Only validated names become part of a path, so that no request leaves the data folder.

use std::fs;
use std::io;
use std::path::Path;

use jiff::civil::Date;

use super::rest_refusal::{RestRefusal, shown};
use super::series::RecordedSeries;
use crate::wire::gexbot::{Package, Series, is_ticker};

/// Entries of one folder that are looked at.
const MAX_ENTRIES: usize = 16_384;

/// A day's folder name; only the full form.
pub fn date(text: &str) -> Result<Date, RestRefusal> {
    let date = text.parse::<Date>().ok().filter(|date| date.to_string() == text);
    date.ok_or_else(|| RestRefusal::BadDate { date: shown(text) })
}

/// The name of a ticker's folder, if it can be one.
pub fn ticker(name: &str) -> Result<&str, RestRefusal> {
    if is_ticker(name) { Ok(name) } else { Err(RestRefusal::BadTicker { ticker: shown(name) }) }
}

/// The days that have a folder, oldest first.
pub fn dates(data_dir: &Path) -> Result<Vec<Date>, RestRefusal> {
    let names =
        entries(data_dir).map_err(|source| RestRefusal::Unreadable { name: "the data folder".to_owned(), source })?;
    let mut dates: Vec<Date> = names.iter().filter_map(|name| date(name).ok()).collect();
    dates.sort_unstable();
    Ok(dates)
}

/// The files of a day that are some category's, sorted; those of one ticker if `only` names it. An absent day has none.
pub fn files(data_dir: &Path, date: Date, only: Option<&str>) -> Vec<RecordedSeries> {
    let day = data_dir.join(date.to_string());
    let mut files = Vec::new();
    let tickers = match only {
        Some(ticker) => vec![ticker.to_owned()],
        None => entries(&day).unwrap_or_default(),
    };
    for ticker in tickers.into_iter().filter(|name| ticker(name).is_ok()) {
        for package in Package::ALL {
            let folder = day.join(&ticker).join(package.name());
            for name in entries(&folder).unwrap_or_default() {
                let category = name.strip_suffix(".jsonl").filter(|name| Series::records(package, name).is_some());
                let path = folder.join(&name);
                // Neither folders nor links to nowhere.
                if let Some(category) = category.filter(|_| path.is_file()) {
                    let ticker = ticker.clone();
                    files.push(RecordedSeries { ticker, package, category: category.to_owned(), path });
                }
            }
        }
    }
    files.sort_by(|a, b| (&a.ticker, a.package, &a.category).cmp(&(&b.ticker, b.package, &b.category)));
    files
}

fn entries(folder: &Path) -> io::Result<Vec<String>> {
    let names = fs::read_dir(folder)?.filter_map(Result::ok).take(MAX_ENTRIES);
    Ok(names.filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_day_lists_the_files_of_known_categories() {
        let dir = tempfile::tempdir().unwrap();
        for file in [
            "2025-11-28/SPX/state/gamma_zero.jsonl",
            "2025-11-28/SPX/classic/gex_20251219.jsonl",
            "2025-11-28/SPX/classic/notes.jsonl",
            "2025-11-28/SPX/classic/gex_full.jsonl.gz",
            "2025-11-28/SPX/classic/gex_one.jsonl/notes",
            "2025-11-28/ES_SPX/orderflow/orderflow.jsonl",
            "2025-11-28/streams/orderflow/orderflow.jsonl",
            "2025-11-27/notes",
        ] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let day = date("2025-11-28").unwrap();
        let names = |only| files(dir.path(), day, only).iter().map(RecordedSeries::name).collect::<Vec<_>>();
        assert_eq!(names(None), ["ES_SPX/orderflow/orderflow", "SPX/classic/gex_20251219", "SPX/state/gamma_zero"]);
        assert_eq!(names(Some("ES_SPX")), ["ES_SPX/orderflow/orderflow"]);
        assert_eq!(names(Some("../2025-11-28/SPX")), Vec::<String>::new());
        assert_eq!(dates(dir.path()).unwrap(), [date("2025-11-27").unwrap(), day]);
    }

    proptest! {
        #[test]
        fn no_text_leads_out_of_the_folder(name in "[./\\\\a-zA-Z0-9-]{0,12}|.{0,12}") {
            for valid in [date(&name).map(|date| date.to_string()), ticker(&name).map(str::to_owned)].into_iter().flatten() {
                prop_assert!(!valid.contains(['/', '\\', '\0']) && valid != "." && valid != "..", "{valid:?}");
            }
        }
    }
}
