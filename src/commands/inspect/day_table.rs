//! The tables of a day: a line per file, and the problems behind them.

use std::io::{self, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::file_figures::FileFigures;
use crate::source::recorded::dataset::{Dataset, RecordFile};
use crate::source::recorded::line_stats::GAP_SECONDS;
use crate::source::recorded::line_stats::counted;
use crate::wire::gexbot::Package;
use crate::wire::webpubsub::PlainForm;

/// A file and its figures.
type Row<'a> = (&'a RecordFile, &'a FileFigures);

/// Prints the day: one table if every ticker has orderflow alone, else one per ticker. `figures` are in the order of
/// the day's files.
pub fn print(dataset: &Dataset, figures: &[FileFigures]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let rows: Vec<Row<'_>> = dataset.files.iter().zip(figures).collect();
    writeln!(out, "date {}, times in New York; encoded sizes are bytes per record", dataset.date)?;
    if dataset.files.iter().all(|file| file.package == Package::Orderflow && file.category == "orderflow") {
        table(&mut out, "ticker", &rows, |file| file.ticker.clone())?;
    } else {
        for rows in rows.chunk_by(|(one, _), (next, _)| one.ticker == next.ticker) {
            table(&mut out, &rows[0].0.ticker, rows, |file| format!("{}/{}", file.package.name(), file.category))?;
        }
    }
    writeln!(
        out,
        "a gap is a step of more than {GAP_SECONDS} s between two records; missing counts numbers that are absent or \
         null"
    )?;
    for row in &rows {
        problems(&mut out, row)?;
    }
    dataset.remarks().iter().try_for_each(|remark| writeln!(out, "{remark}"))
}

fn table(out: &mut impl Write, title: &str, rows: &[Row<'_>], name: impl Fn(&RecordFile) -> String) -> io::Result<()> {
    write!(
        out,
        "{title:<21} {:>9} {:>9} {:>9} {:>5} {:>7} {:>6} {:>7}",
        "records", "first", "last", "gaps", "longest", "bad", "missing"
    )?;
    for form in PlainForm::ALL {
        write!(out, " {:>17}", format!("{} {}", form.syntax_name(), form.profile))?;
    }
    writeln!(out)?;
    for (file, figures) in rows {
        let lines = &figures.lines;
        let (first, last) =
            lines.span.map_or(("-".into(), "-".into()), |(first, last)| (clock_time(first), clock_time(last)));
        write!(
            out,
            "{:<21} {:>9} {first:>9} {last:>9} {:>5} {:>6}s {:>6} {:>7}",
            name(file),
            lines.records,
            lines.gaps,
            lines.longest_gap,
            lines.bad,
            lines.missing
        )?;
        if figures.failed.is_none() {
            for form in PlainForm::ALL {
                write!(out, " {:>17.1}", figures.bytes_per_record(form))?;
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

/// What is wrong with a file, a line each.
fn problems(out: &mut impl Write, (file, figures): &Row<'_>) -> io::Result<()> {
    let (path, lines) = (file.path.display(), &figures.lines);
    for (line, reason) in &lines.first_bad {
        writeln!(out, "{path}:{line}: {reason}")?;
    }
    if lines.bad > lines.first_bad.len() as u64 {
        writeln!(out, "{path}: {} bad lines in all", lines.bad)?;
    }
    for (count, one, many) in [
        (lines.backwards, "record is older than the one before", "records are older than the one before"),
        (lines.skipped_rows, "row of a list is malformed and left out", "rows of lists are malformed and left out"),
        (
            lines.saturated,
            "sum does not fit its field and is set to the end of its range",
            "sums do not fit their fields and are set to the end of their range",
        ),
    ] {
        if count > 0 {
            writeln!(out, "{path}: {}", counted(count, one, many))?;
        }
    }
    match &figures.failed {
        Some(error) => writeln!(out, "{error}"),
        None => Ok(()),
    }
}

/// The time of day in New York.
fn clock_time(unix_seconds: i64) -> String {
    let zone = TimeZone::get("America/New_York").unwrap_or(TimeZone::UTC);
    match Timestamp::from_second(unix_seconds) {
        Ok(time) => time.to_zoned(zone).strftime("%H:%M:%S").to_string(),
        Err(_) => format!("@{unix_seconds}"),
    }
}
