//! `flowcast inspect`: what a recorded day contains, without serving it.
//!
//! The files are read line by line ([`file_figures`]), several at a time, and printed as tables ([`day_table`]). The
//! folder `streams/` is read as the server reads it.

mod day_span;
mod day_table;
mod file_figures;

use std::io;

use rayon::prelude::*;

use self::day_span::DaySpan;
use self::file_figures::FileFigures;
use crate::source::recorded::dataset::{DataDate, Dataset, DatasetError, DatasetOptions};
use crate::source::recorded::trading::Trading;
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
    let day = DaySpan::new(dataset.date);
    let read = dataset.files.par_iter().map(|file| FileFigures::read(file, &day, options.encoder));
    let figures: Vec<FileFigures> = read.collect::<io::Result<_>>()?;
    let (_, streams) = Trading::load(&dataset.path, session(&figures, &day))?;

    match day_table::print(&dataset, &day, &figures, &streams) {
        // `inspect | head` is fine.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        printed => printed?,
    }
    if figures.iter().all(|figures| figures.failed.is_some()) {
        return Err(InspectError::NothingRead);
    }
    let is_clean = !dataset.strays.have_records()
        && figures.iter().all(FileFigures::is_clean)
        && streams.iter().all(|report| report.bad == 0);
    if wanted.strict && !is_clean { Err(InspectError::Strict) } else { Ok(()) }
}

/// From the first record of any file to the last, Unix seconds; records of another day do not count.
fn session(figures: &[FileFigures], day: &DaySpan) -> (u32, u32) {
    let spans = || figures.iter().filter_map(|figures| figures.lines.span);
    let times = || spans().flat_map(|(first, last)| [first, last]).filter(|&time| day.may_have(time));
    let seconds = |time: i64| u32::try_from(time).unwrap_or_default();
    (times().min().map_or(0, seconds), times().max().map_or(u32::MAX, seconds))
}
