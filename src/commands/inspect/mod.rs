//! `flowcast inspect`: what a recorded day contains, without serving it.
//!
//! The files are read line by line ([`file_figures`]), several at a time, and printed as tables ([`day_table`]).

mod day_table;
mod file_figures;

use std::io;

use rayon::prelude::*;

use self::file_figures::FileFigures;
use crate::source::recorded::dataset::{DataDate, Dataset, DatasetError, DatasetOptions};
use crate::wire::payload::EncoderOptions;

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
}

/// Why nothing could be printed, or why what was printed is not good.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// There is no such dataset.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The output cannot be written, or memory for an encoder is missing.
    #[error("cannot inspect: {0}")]
    Io(#[from] io::Error),
    /// Every file was left out.
    #[error("none of the day's files has a record that can be read")]
    NothingRead,
    /// With `--strict`: a bad line, an unreadable file, or records that were not imported.
    #[error("the data has errors, and --strict refuses them")]
    Strict,
}

/// Prints what the day holds: a line per file, then every problem.
pub fn inspect(options: &InspectOptions) -> Result<(), InspectError> {
    let mut wanted = options.dataset.clone();
    wanted.data_date = options.date.unwrap_or(wanted.data_date);
    let dataset = Dataset::find(&wanted)?;
    let read = dataset.files.par_iter().map(|file| FileFigures::read(file, options.encoder));
    let figures: Vec<FileFigures> = read.collect::<io::Result<_>>()?;
    match day_table::print(&dataset, &figures) {
        // `inspect | head` is fine.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        printed => printed?,
    }
    if figures.iter().all(|figures| figures.failed.is_some()) {
        return Err(InspectError::NothingRead);
    }
    let is_clean = !dataset.strays.have_records() && figures.iter().all(FileFigures::is_clean);
    if wanted.strict && !is_clean { Err(InspectError::Strict) } else { Ok(()) }
}
