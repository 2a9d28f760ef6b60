//! The tables of a day: a line per file, and the problems behind them.

use std::io::{self, Write};

use super::day_span::DaySpan;
use super::file_figures::FileFigures;
use crate::source::recorded::dataset::{Dataset, RecordFile};
use crate::source::recorded::line_stats::GAP_SECONDS;
use crate::source::recorded::line_stats::counted;
use crate::source::recorded::trading::{STREAMS_FOLDER, TradingReport};
use crate::wire::gexbot::Package;
use crate::wire::webpubsub::PlainForm;

/// A file and its figures.
type Row<'a> = (&'a RecordFile, &'a FileFigures);

/// Prints the day: one table if every ticker has orderflow alone, else one per ticker. `figures` are in the order of
/// the day's files; `streams` are those of its folder `streams/`.
pub fn print(dataset: &Dataset, day: &DaySpan, figures: &[FileFigures], streams: &[TradingReport]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let rows: Vec<Row<'_>> = dataset.files.iter().zip(figures).collect();
    writeln!(out, "date {}, times in New York; encoded sizes are bytes per record", dataset.date)?;
    if dataset.files.iter().all(|file| file.package == Package::Orderflow && file.category == "orderflow") {
        table(&mut out, "ticker", day, &rows, |file| file.ticker.clone())?;
    } else {
        for rows in rows.chunk_by(|(one, _), (next, _)| one.ticker == next.ticker) {
            let title = &rows[0].0.ticker;
            table(&mut out, title, day, rows, |file| format!("{}/{}", file.package.name(), file.category))?;
        }
    }
    streams_table(&mut out, day, streams)?;
    writeln!(
        out,
        "a gap is a step of more than {GAP_SECONDS} s between two records; missing counts numbers that are absent or \
         null"
    )?;
    for row in &rows {
        problems(&mut out, day, row)?;
    }
    for report in streams {
        stream_problems(&mut out, report)?;
    }
    dataset.remarks().iter().try_for_each(|remark| writeln!(out, "{remark}"))
}

fn table(
    out: &mut impl Write,
    title: &str,
    day: &DaySpan,
    rows: &[Row<'_>],
    name: impl Fn(&RecordFile) -> String,
) -> io::Result<()> {
    write!(
        out,
        "{title:<21} {:>9} {:>19} {:>19} {:>5} {:>7} {:>6} {:>7}",
        "records", "first", "last", "gaps", "longest", "bad", "missing"
    )?;
    for form in PlainForm::ALL {
        write!(out, " {:>17}", format!("{} {}", form.syntax_name(), form.profile))?;
    }
    writeln!(out)?;
    for (file, figures) in rows {
        let lines = &figures.lines;
        let (first, last) = shown(day, lines.span);
        write!(
            out,
            "{:<21} {:>9} {first:>19} {last:>19} {:>5} {:>6}s {:>6} {:>7}",
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

fn shown(day: &DaySpan, span: Option<(i64, i64)>) -> (String, String) {
    span.map_or(("-".into(), "-".into()), |(first, last)| (day.shown(first), day.shown(last)))
}

/// The files that are replayed on the trading streams of `/ws`; nothing if the day has none.
fn streams_table(out: &mut impl Write, day: &DaySpan, streams: &[TradingReport]) -> io::Result<()> {
    if streams.is_empty() {
        return Ok(());
    }
    writeln!(out, "{STREAMS_FOLDER:<21} {:>9} {:>19} {:>19} {:>20}", "records", "first", "last", "bad")?;
    for report in streams {
        let name = report.path.file_stem().unwrap_or_default().to_string_lossy();
        let (first, last) = shown(day, report.span);
        writeln!(out, "{name:<21} {:>9} {first:>19} {last:>19} {:>20}", report.records, report.bad)?;
    }
    Ok(())
}

fn stream_problems(out: &mut impl Write, report: &TradingReport) -> io::Result<()> {
    let path = report.path.display();
    for (line, reason) in &report.first_bad {
        writeln!(out, "{path}:{line}: {reason}")?;
    }
    if report.bad > report.first_bad.len() as u64 {
        writeln!(out, "{path}: {} bad lines in all", report.bad)?;
    }
    Ok(())
}

/// What is wrong with a file, a line each.
fn problems(out: &mut impl Write, day: &DaySpan, (file, figures): &Row<'_>) -> io::Result<()> {
    let (path, lines) = (file.path.display(), &figures.lines);
    for (line, reason) in &lines.first_bad {
        writeln!(out, "{path}:{line}: {reason}")?;
    }
    if lines.bad > lines.first_bad.len() as u64 {
        writeln!(out, "{path}: {} bad lines in all", lines.bad)?;
    }
    if let Some((count, line, time)) = figures.astray {
        let records = counted(count, "record is of another day", "records are of another day");
        writeln!(out, "{path}:{line}: {records}: {}", day.shown(time))?;
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
