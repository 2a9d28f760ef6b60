//! Makes the snapshots and the rows of the history: asks the shards, reads the counters, and remembers what it needs for the
//! rates.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::connection_rows::{closed_row, open_row, shown_id};
use super::group_census::{GroupCensus, Published};
use super::history_json::row;
use super::live_snapshot::{
    ClosedTable, ConnectionTable, LiveFlow, LiveHead, LiveSnapshot, SessionRow, SourceTable, SweepFigures, TotalFlow,
};
use super::problems::Problems;
use super::process;
use super::source_tables::{KeptFiles, Topics, stream_health};
use super::tick_delays::TickDelays;
use super::totals::{Between, Totals};
use crate::engine::system_clock;
use crate::replay::replays::SessionInfo;
use crate::server::http::app::App;
use crate::server::http::replay::clock_json::clock_json;
use crate::server::shard::close::COUNTERS;
use crate::server::shard::mailbox::{ShardHandle, ShardMessage};
use crate::server::shard::question::{Question, SweepTimes, WorstConnections};

/// How long a shard may take to answer. One that takes longer is left out of this snapshot.
const PATIENCE: Duration = Duration::from_millis(700);

/// Between two snapshots that are closer together there are no rates: they would be those of a moment.
const LEAST_S: f64 = 0.5;

/// What is remembered from one snapshot to the next.
#[derive(Default)]
pub struct Gatherer {
    /// The totals of the last beat, and what each group had published if somebody read it.
    before: Option<(Totals, Option<Published>)>,
    delays: TickDelays,
    files: KeptFiles,
    topics: Topics,
    problems: Problems,
}

impl Gatherer {
    /// A row of the history, and nothing else.
    pub async fn glance(&mut self, app: &App) {
        let sweep = figures(sweeps(app).await);
        let totals = Totals::of(app);
        let schedule = self.delays.read(app.hub.sequencer().ledger());
        if let Some((before, _)) = &self.before {
            app.live.history.add(row(&totals, totals.since(before), process::rss_bytes(), schedule, sweep));
        }
        self.before = Some((totals, None));
    }

    /// The server now. The rates are since the last call.
    pub async fn gather(&mut self, app: &App) -> LiveSnapshot {
        let looked = look(app).await;
        let mut totals = Totals::of(app);
        let census = GroupCensus::take(app, &mut totals);
        let before = self.before.take();
        let between = before
            .as_ref()
            .map(|(before, published)| (published.as_ref(), totals.since(before)))
            .filter(|(_, between)| between.seconds() >= LEAST_S);
        let groups_between = between.and_then(|(published, between)| Some((published?, between)));
        let has_census = groups_between.is_some();
        let (groups, published) = census.table(app.live.options.live_groups, &looked.lags, groups_between);
        let between = between.map(|(_, between)| between);
        let now = system_clock::unix_ns() / 1_000_000;
        let mut snapshot = LiveSnapshot {
            now,
            head: head(app, &totals, between),
            problems: BTreeMap::new(),
            flow: self.flow(app, &totals, &census, between, has_census, &looked),
            groups,
            connections: connections(app, &looked, now),
            closed: closed(app),
            sources: SourceTable {
                files: self.files.table(app, app.live.options.live_groups).clone(),
                streams: without_nulls(stream_health(&app.status)),
                topics: self.topics.table(&app.status, between.filter(|_| has_census).map(|between| between.seconds())),
            },
            replay: replay(app),
            sessions: sessions(app),
            fault_plan: Some(app.faults.running()).filter(|&plan| plan > 0),
            verdict: app.live.verdict().map(|(at, report)| json!([{ "at": at, "report": report }])),
        };
        snapshot.problems = self.problems.find(app, &snapshot, &census, between);
        if let Some(between) = between {
            let (head, flow) = (&snapshot.head, &snapshot.flow);
            app.live.history.add(row(&totals, between, head.rss_bytes, flow.schedule, flow.sweep));
        }
        // What came too soon is no beginning of the next second.
        self.before = if between.is_none() && before.is_some() { before } else { Some((totals, Some(published))) };
        snapshot
    }

    fn flow(
        &mut self,
        app: &App,
        totals: &Totals,
        census: &GroupCensus,
        between: Option<Between<'_>>,
        has_census: bool,
        looked: &WorstConnections,
    ) -> LiveFlow {
        let hubs = census.hubs(totals).map(|(place, name, mut flow)| {
            if let Some(between) = between {
                between.of_hub(place, has_census, &mut flow);
            }
            (name.to_owned(), flow)
        });
        let sum = |count: fn(&crate::server::shard::stats::ShardStats) -> u64| {
            app.shards.iter().map(|shard| count(shard.stats())).sum()
        };
        LiveFlow {
            total: TotalFlow {
                rates: between.map(|between| between.total()),
                frames: totals.frames.iter().sum(),
                bytes: totals.bytes.iter().sum(),
                subscribers: sum(|stats| stats.subscribers.get()),
                detached: sum(|stats| stats.detached.get()),
            },
            hubs: hubs.collect(),
            schedule: self.delays.read(app.hub.sequencer().ledger()),
            sweep: figures(looked.sweeps),
        }
    }
}

fn figures(sweeps: SweepTimes) -> Option<SweepFigures> {
    let mean_us = sweeps.total_us.checked_div(sweeps.sweeps)?;
    Some(SweepFigures { mean_us, max_us: sweeps.longest_us })
}

/// The clock, if a day is replayed.
fn replay(app: &App) -> Map<String, Value> {
    let clock = app.replay.clocks().map(|clocks| clock_json(&clocks.common().snapshot(), app.connections()));
    without_nulls(clock.unwrap_or_default())
}

fn sessions(app: &App) -> BTreeMap<String, SessionRow> {
    let sessions = app.replay.clocks().map(|clocks| clocks.sessions()).unwrap_or_default();
    let row = |info: SessionInfo| {
        let (state, clients) = (info.remote.snapshot().state.name().to_owned(), info.remote.seats().taken() as u64);
        (info.name, SessionRow { state, clients })
    };
    sessions.into_iter().map(row).collect()
}

/// Asks every shard how long its sweeps took; the slowest one's answer.
async fn sweeps(app: &App) -> SweepTimes {
    let answers = ask(app, |reply| Question::Sweeps { reply }).await;
    answers.into_iter().fold(SweepTimes::default(), SweepTimes::slower)
}

/// Asks every shard; those that take too long are left out.
async fn ask<T>(app: &App, question: impl Fn(oneshot::Sender<T>) -> Question) -> Vec<T> {
    let ask_one = |shard: &ShardHandle| {
        let (reply, answer) = oneshot::channel();
        shard.send(ShardMessage::Ask(question(reply))).ok().map(|()| answer)
    };
    let asked: Vec<_> = app.shards.iter().filter_map(ask_one).collect();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut answers = Vec::with_capacity(asked.len());
    for answer in asked {
        answers.extend(tokio::time::timeout_at(deadline, answer).await.ok().and_then(Result::ok));
    }
    answers
}

/// Asks every shard for its worst connections; the answers as one.
async fn look(app: &App) -> WorstConnections {
    let limit = app.live.options.live_connections;
    let mut all = WorstConnections::default();
    for of_shard in ask(app, |reply| Question::Worst { limit, reply }).await {
        all.connections.extend(of_shard.connections);
        all.blocked += of_shard.blocked;
        for (group, lag) in of_shard.lags {
            let largest = all.lags.entry(group).or_default();
            *largest = lag.max(*largest);
        }
        all.sweeps = all.sweeps.slower(of_shard.sweeps);
    }
    all.connections.sort_by_key(|seen| (Reverse(seen.behind.0), Reverse(seen.age_ms), seen.id));
    all.connections.truncate(limit);
    all
}

fn head(app: &App, totals: &Totals, between: Option<Between<'_>>) -> LiveHead {
    let dates = app.replay.clocks().map(|clocks| clocks.common().snapshot().axis.dates.clone()).unwrap_or_default();
    LiveHead {
        name: "flowcast".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        stage: format!("{:?}", app.stage()).to_lowercase(),
        page: app.live.options.live_page.name().to_owned(),
        dates: dates.iter().map(ToString::to_string).collect(),
        started: app.live.started_unix_ms,
        cpu_cores: between.map(|between| between.cpu_cores()),
        cores: app.live.cores,
        kernel: app.live.kernel.clone(),
        rss_bytes: process::rss_bytes(),
        connections: totals.connections.iter().sum(),
        max_connections: app.options.max_connections,
        http_connections: app.bounds.places.open(),
        max_http_connections: app.options.max_http_connections,
        readers: app.live.readers(),
        max_readers: app.live.options.max_live_readers,
    }
}

fn connections(app: &App, looked: &WorstConnections, now: u64) -> ConnectionTable {
    let rows = looked.connections.iter().map(|seen| (shown_id(seen.id), open_row(&app.live, seen, now)));
    ConnectionTable { total: app.connections(), blocked: looked.blocked, rows: rows.collect() }
}

fn closed(app: &App) -> ClosedTable {
    let ended = |label: &'static str| {
        let count: u64 = app.shards.iter().map(|shard| shard.stats().closes(label)).sum();
        (label.to_owned(), count)
    };
    let recent = app.live.closed.recent();
    ClosedTable {
        counts: COUNTERS.into_iter().map(ended).filter(|(_, count)| *count > 0).collect(),
        recent: recent.iter().map(|(number, closed)| (*number, closed_row(&app.live, closed))).collect(),
    }
}

/// Between snapshots patches are made, in which a null removes a key.
fn without_nulls(values: serde_json::Map<String, Value>) -> serde_json::Map<String, Value> {
    let clean = |value| match value {
        Value::Object(object) => without_nulls(object).into(),
        other => other,
    };
    values.into_iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key, clean(value))).collect()
}
