//! The tables of `flowcast top`: what stands in each, and how it can be sorted.

use std::cmp::Reverse;
use std::fmt::Write as _;

use super::units::{bytes, count, cut, duration, plain};
use crate::server::http::live::live_snapshot::{ClosedRow, ConnectionRow, GroupRow, LiveSnapshot};

/// Which table is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopTable {
    Connections,
    Groups,
    Closed,
    Sources,
}

/// A table as text.
pub struct TableText {
    /// What the rows are.
    pub what: &'static str,
    /// How many there are on the server.
    pub total: u64,
    /// The order in which they come.
    order: &'static str,
    columns: &'static [Column],
    rows: Vec<Vec<Cell>>,
}

/// Title, width, and whether it is one of the orders; the last one has all the room that is left.
struct Column(&'static str, Width, Option<&'static str>);

#[derive(Clone, Copy)]
enum Width {
    Left(usize),
    Right(usize),
    Rest,
}

use Width::{Left, Rest, Right};

/// What stands in it, and by what it is sorted, largest first.
struct Cell(String, u64);

const WORST: &str = "worst first";

fn words(text: &str) -> Cell {
    Cell(plain(text), 0)
}

fn number(value: u64) -> Cell {
    Cell(value.to_string(), value)
}

fn size(value: u64) -> Cell {
    Cell(bytes(value as f64), value)
}

fn time(ms: u64) -> Cell {
    Cell(duration(ms), ms)
}

const CONNECTIONS: &[Column] = &[
    Column("ID", Left(9), None),
    Column("ADDRESS", Left(22), None),
    Column("HUB", Left(18), None),
    Column("USER", Left(13), None),
    Column("GROUPS", Right(7), Some("by groups")),
    Column("BEHIND", Right(8), Some("by behind")),
    Column("", Right(9), None),
    Column("FRAMES", Right(8), Some("by frames")),
    Column("BYTES", Right(10), Some("by bytes")),
    Column("AGE", Right(8), Some("by age")),
    Column("SEEN", Right(6), Some("by silence")),
    Column("  STATE", Left(10), None),
    Column("AGENT", Rest, None),
];

const GROUPS: &[Column] = &[
    Column("GROUP", Left(48), None),
    Column("SUBSCRIBERS", Right(12), Some("by subscribers")),
    Column("FRAMES/S", Right(10), Some("by frames/s")),
    Column("AGE", Right(8), Some("by age")),
    Column("LAG MAX", Right(9), Some("by lag")),
    Column("DROPPED", Right(9), Some("by dropped")),
    Column("  MARK", Rest, None),
];

const CLOSED: &[Column] = &[
    Column("AGO", Right(7), None),
    Column("  LABEL", Left(18), None),
    Column("CODE", Right(5), None),
    Column("LIVED", Right(8), Some("by lived")),
    Column("FRAMES", Right(8), Some("by frames")),
    Column("BEHIND", Right(8), Some("by behind")),
    Column("  HUB", Left(20), None),
    Column("USER", Left(13), None),
    Column("REASON", Rest, None),
];

const SOURCES: &[Column] = &[
    Column("SOURCE", Left(28), None),
    Column("STATE", Left(16), None),
    Column("LAG", Right(9), Some("by lag")),
    Column("ERRORS", Right(8), Some("by errors")),
    Column("  WHY", Rest, None),
];

impl TopTable {
    /// The table with the rows of a snapshot.
    pub fn text(self, snapshot: &LiveSnapshot) -> TableText {
        match self {
            Self::Connections => connections(snapshot),
            Self::Groups => groups(snapshot),
            Self::Closed => closed(snapshot),
            Self::Sources => sources(snapshot),
        }
    }
}

impl TableText {
    /// The names of the orders: the first is that of the rows as they come.
    fn orders(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.columns.iter().enumerate().filter_map(|(at, column)| Some((column.2?, at)))
    }

    /// Title and rows, at most so many lines, in the order with this number; and what that order is called.
    pub fn lines(mut self, order: usize, is_reversed: bool, limit: usize) -> (Vec<String>, String) {
        let orders: Vec<_> = self.orders().collect();
        // One more: as they come.
        let chosen = (order % (orders.len() + 1)).checked_sub(1).map(|at| orders[at]);
        if let Some((_, column)) = chosen {
            // Stable: the worst of equal rows stay first.
            self.rows.sort_by_key(|row| Reverse(row[column].1));
        }
        if is_reversed {
            self.rows.reverse();
        }
        let titles = self.columns.iter().map(|column| column.0);
        let title = line(self.columns, titles);
        let rows = self.rows.iter().map(|row| line(self.columns, row.iter().map(|cell| &*cell.0)));
        let order = chosen.map_or(self.order, |(name, _)| name);
        let order = if is_reversed { format!("{order}, reversed") } else { order.to_owned() };
        (std::iter::once(title).chain(rows).take(limit).collect(), order)
    }

    /// How many rows came.
    pub fn len(&self) -> usize {
        self.rows.len()
    }
}

fn line<'a>(columns: &[Column], cells: impl Iterator<Item = &'a str>) -> String {
    let mut line = String::new();
    for (Column(_, width, _), cell) in columns.iter().zip(cells) {
        // Writing to a String cannot fail.
        let _ = match *width {
            // One character stays free.
            Left(width) => write!(line, "{:<width$}", cut(cell, width - 1)),
            Right(width) => write!(line, "{cell:>width$}"),
            Rest => write!(line, "  {}", cell.trim_start()),
        };
    }
    line
}

fn connections(snapshot: &LiveSnapshot) -> TableText {
    let mut rows: Vec<(&String, &ConnectionRow)> = snapshot.connections.rows.iter().collect();
    rows.sort_by_key(|(id, row)| (Reverse(row.behind_frames), row.since, *id));
    let cells = |(id, row): (&String, &ConnectionRow)| {
        let text = |text: &Option<String>| words(text.as_deref().unwrap_or("-"));
        vec![
            words(id),
            text(&row.address),
            words(&row.hub),
            text(&row.user),
            number(row.groups as u64),
            number(row.behind_frames),
            size(row.behind_bytes),
            Cell(count(row.frames as f64), row.frames),
            size(row.bytes),
            time(snapshot.now.saturating_sub(row.since)),
            time(snapshot.now.saturating_sub(row.seen)),
            words(&format!("  {}", row.state)),
            text(&row.agent),
        ]
    };
    let rows = rows.into_iter().map(cells).collect();
    TableText { what: "connections", total: snapshot.connections.total, order: WORST, columns: CONNECTIONS, rows }
}

fn groups(snapshot: &LiveSnapshot) -> TableText {
    let mut rows: Vec<&GroupRow> = snapshot.groups.rows.values().collect();
    rows.sort_by_key(|row| (row.rank, Reverse(row.lag_max), Reverse(row.subscribers), row.name.as_str()));
    let cells = |row: &GroupRow| {
        let age = row.published_at.map(|at| snapshot.now.saturating_sub(at));
        let session = row.session.as_ref().map(|session| format!(" (session {session})")).unwrap_or_default();
        vec![
            words(&format!("{}{session}", row.name)),
            number(row.subscribers as u64),
            row.frames_per_s.map_or_else(|| words("-"), |rate| Cell(count(rate), rate as u64)),
            age.map_or_else(|| words("-"), time),
            number(row.lag_max),
            number(row.dropped),
            words(row.mark.as_deref().unwrap_or_default()),
        ]
    };
    let rows = rows.into_iter().map(cells).collect();
    TableText { what: "groups", total: snapshot.groups.total as u64, order: WORST, columns: GROUPS, rows }
}

/// The last ones first.
fn closed(snapshot: &LiveSnapshot) -> TableText {
    let cells = |row: &ClosedRow| {
        vec![
            time(snapshot.now.saturating_sub(row.at)),
            words(&format!("  {}", row.label)),
            words(&row.code.map_or_else(|| "-".to_owned(), |code| code.to_string())),
            time(row.lived_ms),
            Cell(count(row.frames as f64), row.frames),
            number(row.behind_frames),
            words(&format!("  {}", row.hub)),
            words(row.user.as_deref().unwrap_or("-")),
            words(row.reason.as_deref().unwrap_or_default()),
        ]
    };
    let rows = snapshot.closed.recent.values().rev().map(cells).collect();
    TableText {
        what: "closed",
        total: snapshot.closed.counts.values().sum(),
        order: "last first",
        columns: CLOSED,
        rows,
    }
}

/// Topics of Kafka, and what else data comes from: those that are not healthy first.
fn sources(snapshot: &LiveSnapshot) -> TableText {
    let mut rows: Vec<(bool, Vec<Cell>)> = Vec::new();
    for (name, source) in &snapshot.sources.streams {
        let is_healthy = source["is_healthy"] == true;
        let health = if is_healthy { "healthy" } else { "not healthy" };
        let figure = |key: &str| source[key].as_u64().map_or_else(|| words("-"), number);
        rows.push((
            is_healthy,
            vec![
                words(name),
                words(source["state"].as_str().unwrap_or(health)),
                figure("lag"),
                figure("error_count"),
                words(source["reason"].as_str().unwrap_or_default()),
            ],
        ));
    }
    for (name, topic) in &snapshot.sources.topics {
        let rate = topic.messages_per_s.map(|rate| format!("{}/s", count(rate)));
        let cells = [words(&format!("topic {name}")), words(&rate.unwrap_or_default()), number(topic.lag)];
        rows.push((true, cells.into_iter().chain([number(topic.refused), words("")]).collect()));
    }
    let files = &snapshot.sources.files;
    if files.total > 0 {
        let cells = [words(&format!("{} data files", files.total)), words(""), words("-"), number(files.bad)];
        let records = words(&format!("{} records", files.records));
        rows.push((files.bad == 0, cells.into_iter().chain([records]).collect()));
    }
    rows.sort_by_key(|(is_healthy, _)| *is_healthy);
    let total = rows.len() as u64;
    TableText {
        what: "sources",
        total,
        order: WORST,
        columns: SOURCES,
        rows: rows.into_iter().map(|(_, row)| row).collect(),
    }
}
