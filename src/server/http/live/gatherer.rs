//! Makes the snapshots: asks the shards, reads the counters, and remembers what it needs for the rates.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::connection_rows::{closed_row, open_row, shown_id};
use super::group_census::{GroupCensus, Published};
use super::problems::Problems;
use super::process;
use super::snapshot::{
    ClosedTable, ConnectionTable, LiveFlow, LiveHead, LiveSnapshot, SourceTable, SweepFigures, TotalFlow,
};
use super::source_tables::{KeptFiles, stream_health};
use super::tick_delays::TickDelays;
use super::totals::{Between, Totals};
use crate::engine::clock;
use crate::server::http::app::App;
use crate::server::shard::close::COUNTERS;
use crate::server::shard::mailbox::ShardMessage;
use crate::server::shard::question::{Question, WorstConnections};

/// How long a shard may take to answer. One that takes longer is left out of this snapshot.
const PATIENCE: Duration = Duration::from_millis(700);

/// What is remembered from one snapshot to the next.
#[derive(Default)]
pub struct Gatherer {
    before: Option<(Totals, Published)>,
    delays: TickDelays,
    files: KeptFiles,
    problems: Problems,
}

impl Gatherer {
    /// The server now. The rates are since the last call.
    pub async fn gather(&mut self, app: &App) -> LiveSnapshot {
        let looked = look(app).await;
        let mut totals = Totals::of(app);
        let census = GroupCensus::take(app, &mut totals);
        let before = self.before.take();
        let between = before.as_ref().map(|(before, published)| (published, totals.since(before)));
        let (groups, published) = census.table(app.live.options.live_groups, &looked.lags, between);
        let between = between.map(|(_, between)| between);
        let now = clock::unix_ns() / 1_000_000;
        let mut snapshot = LiveSnapshot {
            now,
            head: head(app, &totals, between),
            problems: BTreeMap::new(),
            flow: self.flow(app, &totals, &census, between, &looked),
            groups,
            connections: connections(app, &looked, now),
            closed: closed(app),
            sources: SourceTable {
                files: self.files.table(app, app.live.options.live_groups).clone(),
                streams: without_nulls(stream_health(&app.status)),
            },
            verdict: app.live.verdict().map(|(at, report)| json!([{ "at": at, "report": report }])),
        };
        snapshot.problems = self.problems.find(app, &snapshot, &census, between);
        self.before = Some((totals, published));
        snapshot
    }

    fn flow(
        &mut self,
        app: &App,
        totals: &Totals,
        census: &GroupCensus,
        between: Option<Between<'_>>,
        looked: &WorstConnections,
    ) -> LiveFlow {
        let hubs = census.hubs(totals).map(|(place, name, mut flow)| {
            if let Some(between) = between {
                between.of_hub(place, &mut flow);
            }
            (name.to_owned(), flow)
        });
        let sum = |count: fn(&crate::server::shard::stats::ShardStats) -> u64| {
            app.shards.iter().map(|shard| count(shard.stats())).sum()
        };
        let sweeps = looked.sweeps;
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
            sweep: sweeps
                .total_us
                .checked_div(sweeps.sweeps)
                .map(|mean_us| SweepFigures { mean_us, max_us: sweeps.longest_us }),
        }
    }
}

/// Asks every shard for its worst connections; the answers as one.
async fn look(app: &App) -> WorstConnections {
    let limit = app.live.options.live_connections;
    let asked: Vec<_> = app
        .shards
        .iter()
        .filter_map(|shard| {
            let (reply, answer) = oneshot::channel();
            shard.send(ShardMessage::Ask(Question::Worst { limit, reply })).ok().map(|()| answer)
        })
        .collect();
    let mut all = WorstConnections::default();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    for answer in asked {
        let Ok(Ok(of_shard)) = tokio::time::timeout_at(deadline, answer).await else { continue };
        all.connections.extend(of_shard.connections);
        all.blocked += of_shard.blocked;
        for (group, lag) in of_shard.lags {
            let largest = all.lags.entry(group).or_default();
            *largest = lag.max(*largest);
        }
        // The slowest shard's.
        if of_shard.sweeps.longest_us >= all.sweeps.longest_us {
            all.sweeps = of_shard.sweeps;
        }
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
