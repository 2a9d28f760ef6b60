//! What a file of the vendor's archives has: day, ticker and category, by its name.

use std::path::{Path, PathBuf};

use jiff::civil::Date;

use crate::commands::generate::is_ticker_name;
use crate::source::recorded::dataset::parse_date;
use crate::wire::gexbot::{Package, PayloadKind, Series};

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

/// Why a name does not say where the records of a file belong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameProblem {
    /// It has another form.
    #[error(
        "expected a name of the form {{date}}_{{ticker}}_{{package}}_{{category}}.json.gz, such as \
         2026-07-17_SPX_classic_gex_full.json.gz"
    )]
    Form,
    /// The package has no such category, or no day is called so.
    #[error("expected a category of {}, which are {}; got {category}", .package.name(), .package.categories())]
    Category { package: Package, category: String },
    /// No folder of a data folder may be called so.
    #[error("expected a ticker of 1 to 32 characters A-Z, 0-9 and _, the first a letter; got {0}")]
    Ticker(String),
}

impl NameProblem {
    /// Whether the name has the form of an archive's file, so that leaving the file out would lose records.
    pub fn is_of_an_archive(&self) -> bool {
        *self != Self::Form
    }
}

impl ArchiveName {
    /// Reads `{date}_{ticker}_{package}_{category}`, or the end of a path in a data folder,
    /// `{date}/{ticker}/{package}/{category}`, each with `.json` or `.jsonl`, and `.gz` or not.
    pub fn parse(path: &Path) -> Result<Self, NameProblem> {
        let (date, ticker, package, category) = parts(path).ok_or(NameProblem::Form)?;
        if Series::records(package, category).is_none() {
            return Err(NameProblem::Category { package, category: category.to_owned() });
        }
        if !is_ticker_name(ticker) {
            return Err(NameProblem::Ticker(ticker.to_owned()));
        }
        Ok(Self { date, ticker: ticker.to_owned(), package, category: category.to_owned() })
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

/// Date, ticker, package and category of a path that has the form of one.
fn parts(path: &Path) -> Option<(Date, &str, Package, &str)> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(".gz").unwrap_or(name);
    let stem = name.strip_suffix(".json").or_else(|| name.strip_suffix(".jsonl"))?;
    if let Some((date, group)) = stem.split_once('_')
        && let Some(date) = parse_date(date)
    {
        // As in groups' names: the category is behind the last separator.
        return Package::ALL.into_iter().find_map(|package| {
            let (ticker, category) = group.rsplit_once(&format!("_{}_", package.name()))?;
            Some((date, ticker, package, category))
        });
    }
    let mut folders = path.parent()?.iter().rev().map(|name| name.to_str());
    let (package, ticker, date) = (folders.next()??, folders.next()??, folders.next()??);
    Some((parse_date(date)?, ticker, Package::parse(package)?, stem))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str) -> Result<String, NameProblem> {
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
            assert_eq!(place(path).as_deref(), Ok(expected), "{path}");
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
            assert!(place(path).is_err(), "{path}");
        }
    }

    #[test]
    fn each_problem_of_a_name_is_told_by_its_name() {
        for (path, expected) in [
            ("2026-07-17_SPX_state_volume_zero.json", "got volume_zero"),
            ("2026-07-17_SPX_classic_gamma_zero.json.gz", "expected a category of classic, which are gex_full, "),
            ("2026-07-17/SPX/classic/gex_20260230.json.gz", "got gex_20260230"),
            ("2026-07-17_spx_state_gex_one.json", "got spx"),
            ("2026-02-30_SPX_state_gex_one.json", "such as 2026-07-17_SPX_classic_gex_full.json.gz"),
            ("settings.json", "such as 2026-07-17_SPX_classic_gex_full.json.gz"),
        ] {
            let problem = place(path).unwrap_err();
            assert!(problem.to_string().contains(expected), "{path}: {problem}");
            assert_eq!(problem.is_of_an_archive(), !expected.starts_with("such as"), "{path}");
        }
    }
}
