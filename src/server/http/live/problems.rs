//! What is wrong, in words, each with the row of the runbook that says what to do.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::group_census::GroupCensus;
use super::live_snapshot::{LiveSnapshot, Problem};
use super::totals::Between;
use crate::server::http::app::App;

/// What to do, for each problem.
pub const RUNBOOK: &str = include_str!("../../../../docs/runbook.md");

/// Ticks this late are named. The alert waits for 100 ms: who looks at the page wants to know earlier.
const LATE_US: u64 = 2000;

/// Share of the connections above which the limit is near.
const NEARLY_FULL: f64 = 0.9;

/// How long something that has happened is shown.
const SHOWN: Duration = Duration::from_mins(1);

/// Rows of the runbook: the text of the first cell, and the heading above the table.
type Row = (&'static str, &'static str);

const TICKS_LATE: Row = ("FlowcastTicksLate", "What to watch");
const UNHEALTHY: Row = ("FlowcastStreamUnhealthy", "What to watch");
const INPUT_REFUSED: Row = ("FlowcastInputRefused", "What to watch");
const SLOW_CONSUMERS: Row = ("FlowcastSlowConsumers", "What to watch");
const OVERRUN: Row = ("FlowcastShardOverrun", "What to watch");
const RECOVERY_GAPS: Row = ("FlowcastRecoveryGaps", "What to watch");
const BLOCKS_MISSING: Row = ("FlowcastBlocksMissing", "What to watch");
const NOTHING_COMES: Row = ("connected and subscribed, but nothing comes", "Troubleshooting");
const FULL: Row = ("503", "Troubleshooting");

/// What has happened lately; a figure that only rises is a problem for a minute.
#[derive(Default)]
pub struct Problems {
    happened: BTreeMap<&'static str, (Row, String, Instant)>,
    blocks_missing: Option<u64>,
}

impl Problems {
    /// What is wrong in a snapshot that has everything else.
    pub fn find(
        &mut self,
        app: &App,
        snapshot: &LiveSnapshot,
        census: &GroupCensus,
        between: Option<Between<'_>>,
    ) -> BTreeMap<String, Problem> {
        self.note_events(app, between);
        let happened = self.happened.values().map(|(row, text, _)| (*row, "", text.clone()));
        let mut problems: Vec<(Row, &str, String)> = happened.collect();
        if let Some(schedule) = snapshot.flow.schedule.filter(|schedule| schedule.p99_us > LATE_US) {
            problems.push((TICKS_LATE, "", format!("ticks are late: p99 {:.1} ms", schedule.p99_us as f64 / 1000.0)));
        }
        for (name, source) in &snapshot.sources.streams {
            if source["is_healthy"] == false {
                let word = |key| source[key].as_str().filter(|word: &&str| !word.is_empty());
                let why = word("reason").or(word("state")).unwrap_or("no update for too long, or not connected");
                problems.push((UNHEALTHY, name, format!("{name}: {why}")));
            }
        }
        let bad = snapshot.sources.files.bad;
        if bad > 0 {
            let lines = if bad == 1 { "line is" } else { "lines are" };
            problems.push((INPUT_REFUSED, "files", format!("{bad} {lines} skipped in the data files")));
        }
        let in_vain = census.waiting_in_vain();
        if in_vain > 0 {
            let groups = if in_vain == 1 { "group has" } else { "groups have" };
            problems.push((NOTHING_COMES, "", format!("{in_vain} {groups} subscribers and no data")));
        }
        let head = &snapshot.head;
        if head.connections as f64 >= NEARLY_FULL * head.max_connections as f64 {
            let text = format!("{} of {} connections are open", head.connections, head.max_connections);
            problems.push((FULL, "", text));
        }
        problems.into_iter().map(|(row, name, text)| (key(row, name), problem(row, text))).collect()
    }

    fn note_events(&mut self, app: &App, between: Option<Between<'_>>) {
        let now = Instant::now();
        self.happened.retain(|_, (_, _, since)| now.duration_since(*since) < SHOWN);
        let Some(between) = between else { return };
        let missing = app.status.figure_value("blocks_missing");
        let new_missing = missing.saturating_sub(self.blocks_missing.replace(missing).unwrap_or(missing));
        for (row, count, what) in [
            (SLOW_CONSUMERS, between.count(|totals| totals.lagged), "connections were dropped for lag"),
            (OVERRUN, between.count(|totals| totals.overruns), "publications were lost by a shard"),
            (RECOVERY_GAPS, between.count(|totals| totals.gap_frames), "frames were skipped by recovered sessions"),
            (BLOCKS_MISSING, new_missing, "records were left out: their frames were not built in time"),
        ] {
            if count > 0 {
                self.happened.insert(row.0, (row, format!("{count} {what} in a second"), now));
            }
        }
    }
}

fn key((row, _): Row, name: &str) -> String {
    if name.is_empty() { row.to_owned() } else { format!("{row} {name}") }
}

fn problem((row, heading): Row, text: String) -> Problem {
    Problem { text, row: row.to_owned(), anchor: anchor(heading), advice: advice(row).to_owned() }
}

/// As renderers of Markdown make it of a heading.
fn anchor(heading: &str) -> String {
    heading.to_lowercase().replace(' ', "-")
}

/// What a row says to do: its last cell.
fn advice(row: &str) -> &'static str {
    let is_row = |line: &&str| line.split('|').nth(1).is_some_and(|cell| cell.trim().trim_matches('`') == row);
    let line = RUNBOOK.lines().find(is_row).unwrap_or_default();
    line.trim_end().trim_end_matches('|').rsplit('|').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_has_its_row_in_the_runbook_below_the_heading_that_it_names() {
        for (row, heading) in [
            TICKS_LATE,
            UNHEALTHY,
            INPUT_REFUSED,
            SLOW_CONSUMERS,
            OVERRUN,
            RECOVERY_GAPS,
            BLOCKS_MISSING,
            NOTHING_COMES,
            FULL,
        ] {
            assert!(advice(row).len() > 20, "{row}: {:?}", advice(row));
            let (_, below) = RUNBOOK.split_once(&format!("\n## {heading}\n")).expect(heading);
            let section = below.split("\n## ").next().unwrap();
            assert!(section.contains(row), "{row} is not below {heading}");
        }
        assert_eq!(anchor("What to watch"), "what-to-watch");
    }
}
