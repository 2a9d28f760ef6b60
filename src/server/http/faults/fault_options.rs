//! Settings of faults on demand.

use std::path::{Path, PathBuf};

use crate::faults::fault_plan::FaultPlan;
use crate::faults::plan_reader::{PlanError, PlanSyntax};

/// Settings of faults on demand.
#[derive(Debug, Clone, clap::Args)]
pub struct FaultOptions {
    /// Plan of faults to begin with, TOML or *.json (docs/faults.md); PUT /faults replaces it. For tests of clients: it
    /// resets, delays, drops or corrupts what it is told to
    #[arg(long, env = "FLOWCAST_FAULTS", value_name = "FILE")]
    pub faults: Option<PathBuf>,
}

/// Why there is no plan to begin with.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum PlanFileError {
    /// It cannot be read.
    #[error("{path}: expected a readable plan of faults: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// It is no plan.
    #[error("{path}: {source}")]
    NoPlan { path: PathBuf, source: PlanError },
}

impl FaultOptions {
    /// The plan to begin with.
    pub fn read(&self) -> Result<Option<FaultPlan>, PlanFileError> {
        self.faults.as_deref().map(read_plan_file).transpose()
    }
}

/// The syntax of a plan in a file of this name.
pub fn syntax_of(path: &Path) -> PlanSyntax {
    let is_json = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
    if is_json { PlanSyntax::Json } else { PlanSyntax::Toml }
}

/// Reads a plan from a file.
pub fn read_plan_file(path: &Path) -> Result<FaultPlan, PlanFileError> {
    let bytes = std::fs::read(path).map_err(|source| PlanFileError::Unreadable { path: path.to_owned(), source })?;
    FaultPlan::read(&bytes, syntax_of(path)).map_err(|source| PlanFileError::NoPlan { path: path.to_owned(), source })
}
