//! What the run means: verdicts and figures from the facts, for terminal, JSON and page.

pub mod adding_up;
pub mod facts;
pub mod judge;
pub mod live_page;
pub mod page;
pub mod summary;
pub mod table;
pub mod verdict;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use self::facts::Facts;
use self::summary::Summary;
use crate::cli::OutputArgs;

/// A report as `--json` writes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Verdicts and figures.
    pub summary: Summary,
    /// What they come from; reports are merged by adding these up.
    pub facts: Facts,
}

/// Why a report cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The file system refused.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What was said.
        source: io::Error,
    },
    /// The file is no report of a swarm of this version.
    #[error("{path}: not a report of the swarm: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl Report {
    /// Draws the conclusions.
    pub fn new(facts: Facts) -> Self {
        Self { summary: Summary::of(&facts), facts }
    }

    /// Reads a report written with `--json`.
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        let text = fs::read(path).map_err(|source| ReportError::File { path: path.to_owned(), source })?;
        serde_json::from_slice(&text).map_err(|source| ReportError::Json { path: path.to_owned(), source })
    }

    /// Writes the files that were asked for.
    pub fn write(&self, output: &OutputArgs) -> Result<(), ReportError> {
        if let Some(path) = &output.json {
            let json =
                serde_json::to_vec_pretty(self).map_err(|source| ReportError::Json { path: path.clone(), source })?;
            write(path, &json)?;
        }
        if let Some(path) = &output.report {
            write(path, page::render(self).as_bytes())?;
        }
        Ok(())
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    fs::write(path, bytes).map_err(|source| ReportError::File { path: path.to_owned(), source })
}
