//! What the live page, `flowcast top` and a report show: one moment of the server (`docs/live.md`).
//!
//! Tables are maps, so that a merge patch can name one row; whoever shows them sorts them. Times are Unix ms; what ends
//! in `_ms` or `_us` is a duration, what ends in `_per_s` a rate. What is not known is left out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The whole of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LiveSnapshot {
    /// The server's clock.
    pub now: u64,
    pub head: LiveHead,
    /// What is wrong, by row of `docs/runbook.md` and name.
    pub problems: BTreeMap<String, Problem>,
    pub flow: LiveFlow,
    pub groups: GroupTable,
    pub connections: ConnectionTable,
    pub closed: ClosedTable,
    pub sources: SourceTable,
    /// The clock that all follow who asked for no other: the body of `GET /replay`, without nulls.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub replay: Map<String, Value>,
    /// The clocks of sessions, by name.
    #[serde(default)]
    pub sessions: BTreeMap<String, SessionRow>,
    /// The number of the plan of faults that is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault_plan: Option<u64>,
    /// The load test's last report, as it was posted, and when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Value>,
}

/// What the server is, and what it takes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LiveHead {
    pub name: String,
    pub version: String,
    /// `loading`, `serving` or `draining`.
    pub stage: String,
    /// `on`, or `summary`: no addresses and no users.
    pub page: String,
    /// What is replayed.
    pub dates: Vec<String>,
    pub started: u64,
    /// Processors that the process used since the snapshot before: 1.0 is one whole core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<f64>,
    pub cores: usize,
    pub kernel: String,
    pub rss_bytes: u64,
    pub connections: u64,
    pub max_connections: usize,
    pub http_connections: u64,
    pub max_http_connections: usize,
    /// Readers of the events.
    pub readers: usize,
    pub max_readers: usize,
}

/// Something that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong, with its figures.
    pub text: String,
    /// The row of `docs/runbook.md` that it is about.
    pub row: String,
    /// The heading above that row.
    pub anchor: String,
    /// What the row says to do.
    pub advice: String,
}

/// What goes in and out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LiveFlow {
    pub total: TotalFlow,
    /// GexBot's hubs that have connections or groups with data, and `streams`.
    pub hubs: BTreeMap<String, HubFlow>,
    /// How late the last ticks began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleError>,
    /// From the first send of a tick to its last, on the slowest shard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sweep: Option<SweepFigures>,
}

/// What all hubs do together. The rates are missing in the first snapshot.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TotalFlow {
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub rates: Option<TotalRates>,
    /// Since the start.
    pub frames: u64,
    /// Since the start.
    pub bytes: u64,
    /// Memberships of connections and detached sessions.
    pub subscribers: u64,
    /// Reliable sessions that wait for their client.
    pub detached: u64,
}

/// A second's worth of everything.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct TotalRates {
    pub frames_per_s: f64,
    pub bytes_per_s: f64,
    pub publications_per_s: f64,
    pub recoveries_per_s: f64,
    /// Connections dropped for lag.
    pub drops_per_s: f64,
    /// Messages left out for slow clients of `/ws`.
    pub skipped_per_s: f64,
    pub opened_per_s: f64,
    pub closed_per_s: f64,
}

/// What one hub does.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct HubFlow {
    pub connections: u64,
    pub groups: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publications_per_s: Option<f64>,
}

/// How late ticks began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleError {
    pub p50_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
    /// How many were looked at.
    pub ticks: usize,
}

/// How long sending took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepFigures {
    pub mean_us: u64,
    pub max_us: u64,
}

/// The groups that need a look, worst first chosen.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct GroupTable {
    /// Of all hubs.
    pub total: usize,
    pub rows: BTreeMap<String, GroupRow>,
}

/// A group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupRow {
    /// As clients join it, at most 200 characters.
    pub name: String,
    /// Without `v2_`; `spot`, or `streams`.
    pub hub: String,
    /// The replay session whose group it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    pub subscribers: usize,
    /// Publications times subscribers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames_per_s: Option<f64>,
    /// The time of its newest record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_at: Option<i64>,
    /// When that was published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published_at: Option<u64>,
    /// Frames that its worst subscriber is behind.
    pub lag_max: u64,
    /// Frames that clients did not get because they were dropped for lag, since the start.
    pub dropped: u64,
    /// `no data`: somebody waits for what no source publishes; `nobody`: data that nobody takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
    /// 0 no data, 1 somebody lags, 2 as it should be, 3 nobody.
    pub rank: u8,
}

/// The connections that are most frames behind.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ConnectionTable {
    pub total: u64,
    /// Sockets that took less than they were offered.
    pub blocked: u64,
    /// By connection id.
    pub rows: BTreeMap<String, ConnectionRow>,
}

/// A connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionRow {
    /// The other end of the TCP connection: the client, or a proxy in front of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    pub hub: String,
    /// The subprotocol, or `json streams`.
    pub wire: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The first characters of the key, or the `client_id` on `/ws`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Its `User-Agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The replay session that it is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    pub groups: usize,
    pub behind_frames: u64,
    pub behind_bytes: u64,
    pub frames: u64,
    pub bytes: u64,
    /// When it connected.
    pub since: u64,
    /// When it was last heard, or seen to read.
    pub seen: u64,
    /// `open`, `blocked` or `closing`.
    pub state: String,
}

/// The connections that were closed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ClosedTable {
    /// Since the start, by label of `docs/closes.md`.
    pub counts: BTreeMap<String, u64>,
    /// The last ones, by running number.
    pub recent: BTreeMap<u64, ClosedRow>,
}

/// A connection that was closed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedRow {
    pub at: u64,
    pub id: String,
    pub hub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The label of `docs/closes.md`.
    pub label: String,
    /// In the close frame, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub lived_ms: u64,
    pub frames: u64,
    /// At the end.
    pub behind_frames: u64,
}

/// Where data comes from.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SourceTable {
    pub files: FileTable,
    /// As `stream_health` in `/websocket/status`.
    pub streams: Map<String, Value>,
    /// The topics that are read from Kafka.
    #[serde(default)]
    pub topics: BTreeMap<String, TopicRow>,
}

/// A topic of Kafka.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TopicRow {
    /// Messages read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_s: Option<f64>,
    /// Since the start.
    pub messages: u64,
    /// Messages that could not be passed on, since the start.
    pub refused: u64,
    /// Messages in Kafka that were not read yet.
    pub lag: u64,
}

/// A session with a clock of its own.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SessionRow {
    /// As the clock's `state`.
    pub state: String,
    pub clients: u64,
}

/// The files of the dates that are replayed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct FileTable {
    pub total: usize,
    pub records: u64,
    /// Lines that were skipped.
    pub bad: u64,
    /// By ticker, package and category; those with bad lines first chosen.
    pub rows: BTreeMap<String, FileRow>,
}

/// A file that is replayed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRow {
    /// In the data folder.
    pub path: String,
    /// Lines that are indexed.
    pub records: u64,
    /// Whether that is the whole file.
    pub complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<i64>,
    pub bad: u64,
    /// The first ones: path, line and reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad_lines: Vec<String>,
}
