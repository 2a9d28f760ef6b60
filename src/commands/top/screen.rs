//! A snapshot as lines of a terminal.

use super::tables::TopTable;
use super::units::{bytes, count, cut, duration, plain};
use crate::commands::replay::clock_line;
use crate::server::http::live::live_snapshot::LiveSnapshot;

/// Problems that are listed.
const PROBLEMS: usize = 4;

/// Lines below which the keys are not listed: there is more to see than to be told.
const SMALL: usize = 12;

const KEYS: &str = "o: order  r: reverse  n: rows  s: groups  c: closed  f: sources  p: pause  q: quit";

/// What of it is shown.
#[derive(Debug, Clone, Copy)]
pub struct TopView {
    pub table: TopTable,
    /// Counts through the orders of the table.
    pub order: usize,
    pub is_reversed: bool,
    /// Rows of the table at the bottom; `None`: as many as fit.
    pub rows: Option<usize>,
    /// Whether it stands still.
    pub is_paused: bool,
}

impl TopView {
    /// The connections, those most behind first.
    pub const FIRST: Self =
        Self { table: TopTable::Connections, order: 0, is_reversed: false, rows: None, is_paused: false };
}

/// The lines of a snapshot, at most so many and so long.
pub fn lines(snapshot: &LiveSnapshot, view: TopView, width: usize, height: usize) -> Vec<String> {
    let mut lines = head(snapshot);
    lines.extend(flow(snapshot));
    lines.push(String::new());
    let table = view.table.text(snapshot);
    let keys = (height >= SMALL).then_some(KEYS);
    let room = height.saturating_sub(lines.len() + 2 + usize::from(keys.is_some()));
    let shown = view.rows.unwrap_or(room).min(room).min(table.len());
    let (what, total) = (table.what, table.total);
    let (rows, order) = table.lines(view.order, view.is_reversed, shown + 1);
    let paused = if view.is_paused { "   PAUSED" } else { "" };
    lines.push(format!("{shown} of {total} {what}, {order}{paused}"));
    lines.extend(rows);
    if let Some(keys) = keys {
        lines.truncate(height.saturating_sub(1));
        lines.push(keys.to_owned());
    }
    lines.truncate(height);
    lines.into_iter().map(|line| cut(&plain(&line), width)).collect()
}

fn head(snapshot: &LiveSnapshot) -> Vec<String> {
    let head = &snapshot.head;
    let uptime = duration(snapshot.now.saturating_sub(head.started));
    let dates = if head.dates.is_empty() { "live".to_owned() } else { head.dates.join(", ") };
    let cpu = head.cpu_cores.map_or_else(|| "-".to_owned(), |cores| format!("{cores:.2}"));
    let mut lines = vec![
        format!("{} {}   {}   {dates}   up {uptime}   {}", head.name, head.version, head.stage, head.kernel),
        format!(
            "cpu {cpu}/{} cores   rss {}   sockets {}/{}   http {}/{}",
            head.cores,
            bytes(head.rss_bytes as f64),
            head.connections,
            head.max_connections,
            head.http_connections,
            head.max_http_connections
        ),
    ];
    if !snapshot.replay.is_empty() {
        let sessions = snapshot.sessions.len();
        let sessions = if sessions == 0 { String::new() } else { format!("   sessions {sessions}") };
        lines.push(format!("clock {}{sessions}", clock_line(&snapshot.replay.clone().into())));
    }
    let problems = &snapshot.problems;
    lines.extend(problems.values().take(PROBLEMS).map(|problem| format!("! {}: {}", problem.text, problem.advice)));
    if let Some(more) = problems.len().checked_sub(PROBLEMS).filter(|&more| more > 0) {
        lines.push(format!("! and {more} more"));
    }
    lines
}

fn flow(snapshot: &LiveSnapshot) -> Vec<String> {
    let flow = &snapshot.flow;
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), count);
    let rates = flow.total.rates;
    let mut lines = vec![format!(
        "out {} frames/s {}/s   in {} publications/s   recoveries {}/s   drops {}/s   skipped {}/s",
        rate(rates.map(|rates| rates.frames_per_s)),
        rates.map_or_else(|| "-".to_owned(), |rates| bytes(rates.bytes_per_s)),
        rate(rates.map(|rates| rates.publications_per_s)),
        rate(rates.map(|rates| rates.recoveries_per_s)),
        rate(rates.map(|rates| rates.drops_per_s)),
        rate(rates.map(|rates| rates.skipped_per_s)),
    )];
    let schedule =
        flow.schedule.map(|late| format!("ticks late p50 {} p99 {} max {} us", late.p50_us, late.p99_us, late.max_us));
    let sweep = flow.sweep.map(|sweep| format!("first to last send mean {} max {} us", sweep.mean_us, sweep.max_us));
    let clock: Vec<String> = schedule.into_iter().chain(sweep).collect();
    if !clock.is_empty() {
        lines.push(clock.join("   "));
    }
    let closed: Vec<String> = snapshot.closed.counts.iter().map(|(label, count)| format!("{label} {count}")).collect();
    if !closed.is_empty() {
        lines.push(format!("closed since the start: {}", closed.join("   ")));
    }
    lines.push(format!(
        "{:<24}{:>12}{:>8}{:>11}{:>12}{:>10}",
        "HUB", "CONNECTIONS", "GROUPS", "FRAMES/S", "BYTES/S", "PUBL/S"
    ));
    // A hub without clients has nothing to tell.
    for (name, hub) in flow.hubs.iter().filter(|(_, hub)| hub.connections > 0) {
        let bytes = hub.bytes_per_s.map_or_else(|| "-".to_owned(), bytes);
        lines.push(format!(
            "{name:<24}{:>12}{:>8}{:>11}{bytes:>12}{:>10}",
            hub.connections,
            hub.groups,
            rate(hub.frames_per_s),
            rate(hub.publications_per_s)
        ));
    }
    lines
}
