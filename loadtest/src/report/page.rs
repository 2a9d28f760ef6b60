//! The report as one page: no other file, no network, readable offline.
//!
//! The page is a fixed template with the figures as JSON in it; `page.js` draws the plots as SVG.

use serde::Serialize;
use serde_json::json;

use super::Report;
use super::table;
use crate::clock::SECOND;
use crate::stats::histogram;

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Points along a curve of sorted clients.
const RANKS: usize = 200;

/// Ticks the page shows; of more, the worst of each few.
const TICK_POINTS: usize = 600;

/// Faults the page shows with their place.
const SHOWN_FAULTS: usize = 200;

/// The page.
pub fn render(report: &Report) -> String {
    // `<` would end the script element if it stood in a string of the data.
    let data = data(report).to_string().replace('<', "\\u003c");
    TEMPLATE.replace("/*STYLE*/", STYLE).replace("/*SCRIPT*/", SCRIPT).replace("/*DATA*/", &data)
}

fn data(report: &Report) -> serde_json::Value {
    let facts = &report.facts;
    let first_second = facts.seconds.first().map_or(0, |row| row.second);
    json!({
        "summary": report.summary,
        "setup": facts.setup,
        "machine": facts.machine,
        "started_unix_ms": facts.started_unix_ms,
        "notes": facts.notes,
        "table": table::render(report),
        "seconds": facts.seconds,
        "first_second": first_second,
        "window_seconds": facts.window_seconds.map(|(from, until)| [from - first_second.min(from), until - first_second.min(until)]),
        "percentiles": percentile_curve(report),
        "ticks": tick_curve(report),
        "frames_by_rank": by_rank(&facts.receipts.frames),
        "latency_by_rank": by_rank(&facts.receipts.mean_us),
        "clients": facts.receipts.frames.len(),
        "faults": facts.faults.iter().take(SHOWN_FAULTS).map(|fault| json!({
            "kind": fault.kind.name(),
            "client": fault.client,
            "group": facts.group_name(fault.group),
            "tick": fault.tick,
            "sequence_id": fault.sequence_id,
            "record_timestamp": fault.record_timestamp,
            "detail": fault.detail,
        })).collect::<Vec<_>>(),
    })
}

/// (1 / (1 − quantile), latency in µs), evenly spaced on a logarithmic axis.
fn percentile_curve(report: &Report) -> Vec<(f64, f64)> {
    let mut histogram = histogram::new();
    report.facts.latency.add_to(&mut histogram);
    if histogram.is_empty() {
        return Vec::new();
    }
    let count = histogram.len() as f64;
    let steps = (count.log10() * 20.0).ceil().max(1.0) as i32;
    (0..=steps)
        .map(|step| {
            let inverse = 10_f64.powf(f64::from(step) / 20.0).min(count);
            let quantile = 1.0 - 1.0 / inverse;
            (inverse, histogram.value_at_quantile(quantile) as f64 / 1_000.0)
        })
        .collect()
}

/// (seconds of measured time, µs to the first copy, µs to the last copy) of each tick.
fn tick_curve(report: &Report) -> Vec<(f64, f64, f64)> {
    let window = &report.facts.window;
    let micros = |ns: u64| ns as f64 / 1_000.0;
    let rows: Vec<(f64, f64, f64)> = report
        .facts
        .ticks
        .due_in(window.from_ns, window.until_ns)
        .map(|tick| {
            let at = tick.scheduled_ns.saturating_sub(window.from_ns) as f64 / SECOND as f64;
            let since = |ns: u64| micros(ns.saturating_sub(tick.scheduled_ns));
            (at, since(tick.first_ns), since(tick.last_ns))
        })
        .collect();
    let few = rows.len().div_ceil(TICK_POINTS).max(1);
    let worst = |chunk: &[(f64, f64, f64)]| chunk.iter().copied().max_by(|one, other| one.2.total_cmp(&other.2));
    rows.chunks(few).filter_map(worst).collect()
}

/// The values in order, thinned out to about [`RANKS`] points: (share of clients, value).
fn by_rank<T: Copy + PartialOrd + Serialize>(values: &[T]) -> Vec<(f64, T)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|one, other| one.partial_cmp(other).unwrap_or(std::cmp::Ordering::Equal));
    let Some(last) = sorted.len().checked_sub(1) else { return Vec::new() };
    let points = last.clamp(1, RANKS);
    (0..=points).map(|point| (point as f64 / points as f64, sorted[last * point / points])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::summary::tests::perfect;

    #[test]
    fn the_page_is_whole_and_its_data_cannot_end_the_script() {
        let mut facts = perfect();
        facts.notes.push("</script><b>".to_owned());
        let page = render(&Report::new(facts));
        for placeholder in ["/*STYLE*/", "/*SCRIPT*/", "/*DATA*/"] {
            assert!(!page.contains(placeholder));
        }
        assert!(!page.contains("</script><b>"));
        assert_eq!(page.matches("</script>").count(), 2);
        assert!(!page.contains("http-equiv=\"refresh\"") && !page.contains("src="), "nothing is loaded");
    }

    #[test]
    fn ranks_reach_from_the_least_to_the_most() {
        let ranks = by_rank(&(0..1_000).rev().collect::<Vec<u64>>());
        assert_eq!(ranks.first(), Some(&(0.0, 0)));
        assert_eq!(ranks.last(), Some(&(1.0, 999)));
        assert_eq!(ranks.len(), RANKS + 1);
        assert_eq!(by_rank(&[5_u64]), [(0.0, 5), (1.0, 5)]);
        assert!(by_rank::<u64>(&[]).is_empty());
    }
}
