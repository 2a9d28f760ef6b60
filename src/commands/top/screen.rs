//! A snapshot as lines of a terminal.

use std::cmp::Reverse;

use super::units::{bytes, count, cut, duration, plain};
use crate::server::http::live::snapshot::{ConnectionRow, GroupRow, LiveSnapshot};

/// Problems that are listed.
const PROBLEMS: usize = 4;

/// By what connections are sorted, largest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortedBy {
    Behind,
    Bytes,
    Frames,
    Groups,
    Since,
}

impl SortedBy {
    const ALL: [Self; 5] = [Self::Behind, Self::Bytes, Self::Frames, Self::Groups, Self::Since];

    /// The one after it, and the first after the last.
    pub fn next(self) -> Self {
        let at = Self::ALL.into_iter().position(|other| other == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    fn name(self) -> &'static str {
        match self {
            Self::Behind => "behind",
            Self::Bytes => "bytes",
            Self::Frames => "frames",
            Self::Groups => "groups",
            Self::Since => "since",
        }
    }

    fn of(self, row: &ConnectionRow) -> u64 {
        match self {
            Self::Behind => row.behind_frames,
            Self::Bytes => row.bytes,
            Self::Frames => row.frames,
            Self::Groups => row.groups as u64,
            // Oldest first.
            Self::Since => u64::MAX - row.since,
        }
    }
}

/// What of it is shown.
#[derive(Debug, Clone, Copy)]
pub struct TopView {
    pub sorted_by: SortedBy,
    /// Rows of the table at the bottom; `None`: as many as fit.
    pub rows: Option<usize>,
    /// Groups in place of connections.
    pub shows_groups: bool,
}

/// The lines of a snapshot, at most so many and so long.
pub fn lines(snapshot: &LiveSnapshot, view: TopView, width: usize, height: usize) -> Vec<String> {
    let mut lines = head(snapshot);
    lines.extend(flow(snapshot));
    lines.push(String::new());
    let room = height.saturating_sub(lines.len() + 1);
    let rows = view.rows.unwrap_or(room).min(room);
    if view.shows_groups {
        lines.extend(groups(snapshot, rows));
    } else {
        lines.extend(connections(snapshot, view.sorted_by, rows));
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

fn connections(snapshot: &LiveSnapshot, sorted_by: SortedBy, limit: usize) -> Vec<String> {
    let mut rows: Vec<(&String, &ConnectionRow)> = snapshot.connections.rows.iter().collect();
    rows.sort_by_key(|(id, row)| (Reverse(sorted_by.of(row)), row.since, *id));
    let title = format!(
        "{:<9}{:<22}{:<18}{:<13}{:>7}{:>8}{:>9}{:>8}{:>10}{:>8}{:>6}  {}",
        "ID", "ADDRESS", "HUB", "USER", "GROUPS", "BEHIND", "", "FRAMES", "BYTES", "SINCE", "SEEN", "AGENT"
    );
    let row = |(id, row): &(&String, &ConnectionRow)| {
        let text = |text: &Option<String>, width| cut(&plain(text.as_deref().unwrap_or("-")), width);
        format!(
            "{:<9}{:<22}{:<18}{:<13}{:>7}{:>8}{:>9}{:>8}{:>10}{:>8}{:>6}  {}",
            cut(id, 8),
            text(&row.address, 21),
            cut(&row.hub, 17),
            text(&row.user, 12),
            row.groups,
            row.behind_frames,
            bytes(row.behind_bytes as f64),
            count(row.frames as f64),
            bytes(row.bytes as f64),
            duration(snapshot.now.saturating_sub(row.since)),
            duration(snapshot.now.saturating_sub(row.seen)),
            text(&row.agent, 40),
        )
    };
    let shown = rows.len().min(limit);
    let headline = format!(
        "{shown} of {} connections, by {} (o: sort, n: rows, s: groups, q: quit)",
        snapshot.connections.total,
        sorted_by.name()
    );
    [headline, title].into_iter().chain(rows.iter().take(limit.saturating_sub(1)).map(row)).collect()
}

fn groups(snapshot: &LiveSnapshot, limit: usize) -> Vec<String> {
    let mut rows: Vec<&GroupRow> = snapshot.groups.rows.values().collect();
    rows.sort_by_key(|row| (row.rank, Reverse(row.lag_max), Reverse(row.subscribers), row.name.as_str()));
    let title = format!(
        "{:<48}{:>12}{:>10}{:>8}{:>9}{:>9}  {}",
        "GROUP", "SUBSCRIBERS", "FRAMES/S", "AGE", "LAG MAX", "DROPPED", ""
    );
    let row = |row: &&GroupRow| {
        let age = row.published_at.map(|at| duration(snapshot.now.saturating_sub(at)));
        format!(
            "{:<48}{:>12}{:>10}{:>8}{:>9}{:>9}  {}",
            cut(&plain(&row.name), 47),
            row.subscribers,
            row.frames_per_s.map_or_else(|| "-".to_owned(), count),
            age.unwrap_or_else(|| "-".to_owned()),
            row.lag_max,
            row.dropped,
            row.mark.as_deref().unwrap_or_default(),
        )
    };
    let headline = format!(
        "{} of {} groups, worst first (s: connections, n: rows, q: quit)",
        rows.len().min(limit),
        snapshot.groups.total
    );
    [headline, title].into_iter().chain(rows.iter().take(limit.saturating_sub(1)).map(row)).collect()
}
