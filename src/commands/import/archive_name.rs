//! What a file of the vendor's archives has: day, ticker and category, by its name.

use std::path::{Path, PathBuf};

use jiff::civil::Date;

use crate::commands::generate::is_ticker_name;
use crate::wire::gexbot::{GroupName, Package, PayloadKind, Series};

/// A day of one category. It alone decides where the records go: no other part of the source's path does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArchiveName {
    /// The trading day, in New York.
    pub date: Date,
    /// Whose records they are.
    pub ticker: String,
    /// The package of the category.
    pub package: Package,
    /// The category; the package has one of this name.
    pub category: String,
}

impl ArchiveName {
    /// Reads `{date}_{ticker}_{package}_{category}`, or the end of a path in a data folder,
    /// `{date}/{ticker}/{package}/{category}`, each with `.json` or `.jsonl`, and `.gz` or not.
    pub fn parse(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let name = name.strip_suffix(".gz").unwrap_or(name);
        let stem = name.strip_suffix(".json").or_else(|| name.strip_suffix(".jsonl"))?;
        Self::of_name(stem).or_else(|| Self::of_folders(path.parent()?, stem))
    }

    fn of_name(stem: &str) -> Option<Self> {
        let (date, group) = stem.split_once('_')?;
        let GroupName { ticker, series } = GroupName::parse_unprefixed(group).ok()?;
        let Series::Records { package, category } = series else { return None };
        Self::new(date, ticker, package, category)
    }

    fn of_folders(folder: &Path, category: &str) -> Option<Self> {
        let mut names = folder.iter().rev().map(|name| name.to_str());
        let (package, ticker, date) = (names.next()??, names.next()??, names.next()??);
        Self::new(date, ticker, Package::parse(package)?, category)
    }

    fn new(date: &str, ticker: &str, package: Package, category: &str) -> Option<Self> {
        // Only the full form: jiff also reads 20251128.
        let date = date.parse::<Date>().ok().filter(|parsed| parsed.to_string() == date)?;
        Series::records(package, category)?;
        is_ticker_name(ticker).then(|| Self { date, ticker: ticker.to_owned(), package, category: category.to_owned() })
    }

    /// Where its records belong in a data folder.
    pub fn place(&self, data_dir: &Path) -> PathBuf {
        let folder = data_dir.join(self.date.to_string()).join(&self.ticker).join(self.package.name());
        folder.join(format!("{}.jsonl", self.category))
    }

    /// What its records are.
    pub fn kind(&self) -> PayloadKind {
        Series::Records { package: self.package, category: &self.category }.kind()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str) -> Option<String> {
        ArchiveName::parse(Path::new(path)).map(|name| name.place(Path::new("D")).display().to_string())
    }

    #[test]
    fn a_name_says_day_ticker_package_and_category() {
        for (path, expected) in [
            ("SPX/classic/gex_full/2026-07-17_SPX_classic_gex_full.json.gz", "D/2026-07-17/SPX/classic/gex_full.jsonl"),
            ("2026-07-17_ES_SPX_state_gamma_zero.json", "D/2026-07-17/ES_SPX/state/gamma_zero.jsonl"),
            ("x/2026-07-17_SPX_orderflow_orderflow.json.gz", "D/2026-07-17/SPX/orderflow/orderflow.jsonl"),
            ("E/2026-07-17/SPX/state/gex_one.jsonl", "D/2026-07-17/SPX/state/gex_one.jsonl"),
            ("2026-07-17/SPX/state/gex_one.jsonl.gz", "D/2026-07-17/SPX/state/gex_one.jsonl"),
        ] {
            assert_eq!(place(path).as_deref(), Some(expected), "{path}");
        }
    }

    #[test]
    fn nothing_leads_out_of_the_data_folder() {
        for path in [
            "../../2026-07-17_.._state_gex_one.json",
            "2026-07-17/../state/gex_one.jsonl",
            "2026-07-17_A/B_state_gex_one.json.gz",
            "2026-07-17_SPX_state_../gex_one.json",
            "2026-07-17_SPX_state_volume_zero.json",
            "20260717_SPX_state_gex_one.json",
            "2026-07-17_spx_state_gex_one.json",
            "2026-07-17_SPX_spot.json",
            "SPX/state/gex_one.jsonl",
            "notes.txt",
            "",
        ] {
            assert_eq!(place(path), None, "{path}");
        }
    }
}
