//! `GET /metrics`: Prometheus text.
//!
//! Each shard counts for itself, and the counts are added up when somebody asks.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::app::{App, HubFigures, error};
use crate::faults::fault_board::FaultBoard;
use crate::faults::fault_plan::{FaultClass, FaultKind};
use crate::health::log_limit;
use crate::health::status::{Figure, SourceSnapshot};
use crate::server::shard::close::COUNTERS as CLOSES;
use crate::server::shard::stats::ShardStats;
use crate::wire::gexbot::HubName;

/// The current value of everything that is counted.
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let mut registry = Registry::with_prefix("flowcast");
    registry.register("tick_drift_seconds", "How late ticks of the replay clock began", app.status.drift().clone());
    registry.register_collector(Box::new(Scrape(app)));
    let mut body = String::new();
    match text::encode(&mut body, &registry) {
        Ok(()) => {
            ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], body).into_response()
        }
        Err(fmt::Error) => error(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written"),
    }
}

/// Reads the figures where they are kept.
struct Scrape(Arc<App>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

/// A figure of the shards: name, help, and where it is.
type Row = (&'static str, &'static str, fn(&ShardStats) -> u64);

const GAUGES: [Row; 4] = [
    ("connections", "Open WebSocket connections", |stats| stats.connections.get()),
    ("stream_connections", "Open connections of the JSON streams, a part of connections", |stats| {
        stats.stream_connections()
    }),
    ("sessions_detached", "Reliable sessions waiting for their client", |stats| stats.detached.get()),
    ("subscribers", "Memberships of connections and detached sessions in groups", |stats| stats.subscribers.get()),
];

const COUNTERS: [Row; 15] = [
    ("connections_opened", "WebSocket connections opened", |stats| stats.opened.get()),
    ("frames_out", "Data frames handed to the kernel", |stats| stats.frames()),
    ("bytes_out", "Bytes handed to the kernel", |stats| stats.bytes()),
    ("sends", "Calls of send", |stats| stats.sends.get()),
    ("reliable_frames_finished", "Reliable frames finished, once per shard and publication", |stats| {
        stats.finished.get()
    }),
    ("shard_overruns", "Publications lost by an overloaded shard; above 0 is a bug", |stats| stats.overruns.get()),
    ("recoveries", "Reliable sessions recovered", |stats| stats.recoveries.get()),
    (
        "sessions_restored",
        "Reliable sessions of another node, or from before a restart, taken back by their tokens",
        |stats| stats.restored.get(),
    ),
    ("recovery_gap_frames", "Frames that recovered sessions skipped", |stats| stats.recovery_gap_frames.get()),
    ("joins_silent", "Joins of groups without data", |stats| stats.silent_joins.get()),
    ("requests_refused", "Requests answered with a negative ack", |stats| stats.refused.get()),
    ("request_errors", "Requests on the JSON streams answered with an error", |stats| stats.request_errors.get()),
    ("stream_resumes", "Subscriptions that got everything they had missed", |stats| stats.resumes.get()),
    ("stream_resumes_refused", "Subscriptions that asked for what they had missed and did not get it", |stats| {
        stats.resumes_refused.get()
    }),
    ("stream_messages_skipped", "Messages left out for clients that read too slowly", |stats| stats.skipped.get()),
];

type HubRow = (&'static str, &'static str, fn(&HubFigures) -> u64);

const HUB_GAUGES: [HubRow; 2] = [
    ("hub_connections", "Open WebSocket connections of each of GexBot's hubs", |hub| hub.connections),
    ("hub_groups", "Groups of each of GexBot's hubs; one that several carry counts on each", |hub| hub.groups),
];

type StreamRow = (&'static str, &'static str, fn(&SourceSnapshot) -> u64);

/// What `stream_health` of `/websocket/status` says, as metrics to alert on.
const STREAM_GAUGES: [StreamRow; 2] = [
    ("stream_healthy", "1: the stream's source is connected, and moves as often as it should", |stream| {
        u64::from(stream.is_healthy)
    }),
    ("stream_last_update_seconds", "Unix time of the stream's last update; 0 before the first", |stream| {
        stream.last_update_unix_ns.unwrap_or(0) / 1_000_000_000
    }),
];

const STREAM_COUNTERS: [StreamRow; 2] = [
    ("stream_errors", "Input refused and failures of the stream's source", |stream| stream.errors),
    ("stream_recoveries", "Reconnects of the stream's source", |stream| stream.recoveries),
];

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let app = &self.0;
        encode_shards(app, &mut encoder)?;
        encode_hub(app, &mut encoder)?;
        encode_faults(&app.faults, &mut encoder)?;
        encode_sources(&app.status.snapshot(), &mut encoder)?;
        encode_figures(&app.status.figures(), &mut encoder)
    }
}

/// What the shards count, over all shards.
fn encode_shards(app: &App, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let sum = |count: fn(&ShardStats) -> u64| app.shards.iter().map(|shard| count(shard.stats())).sum::<u64>();
    for (name, help, count) in GAUGES {
        gauge(encoder, name, help, sum(count))?;
    }
    for (name, help, count) in COUNTERS {
        counter(encoder, name, help, sum(count))?;
    }
    let help = "Lines about single clients that were left out of the log (--client-log-lines)";
    counter(encoder, "client_log_lines_left_out", help, log_limit::client_lines_left_out())?;
    let help = "WebSocket connections ended";
    let mut family = encoder.encode_descriptor("connections_closed", help, None, MetricType::Counter)?;
    for reason in CLOSES {
        let ended: u64 = app.shards.iter().map(|shard| shard.stats().closes(reason)).sum();
        ConstCounter::new(ended).encode(family.encode_family(&[("reason", reason)])?)?;
    }
    Ok(())
}

/// The groups of GexBot's hubs.
fn encode_hub(app: &App, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let (mut groups, mut silent, mut publications) = (0u64, 0u64, 0u64);
    app.hub.for_each_group(|group| {
        groups += 1;
        silent += u64::from(!group.is_declared());
        publications += group.publications();
    });
    let hubs: Vec<(HubName, HubFigures)> = app.gexbot_hubs().collect();
    for (name, help, value) in HUB_GAUGES {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (hub, figures) in &hubs {
            let value = ConstGauge::new(i64::try_from(value(figures)).unwrap_or(i64::MAX));
            value.encode(family.encode_family(&[("hub", hub.name())])?)?;
        }
    }
    gauge(encoder, "groups", "Groups of GexBot's hubs, each once", groups)?;
    gauge(encoder, "groups_silent", "Groups that were joined but have no data", silent)?;
    counter(encoder, "publications", "Records published to groups with subscribers", publications)
}

/// What plans of faults have done.
fn encode_faults(faults: &FaultBoard, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let running = faults.running();
    gauge(
        encoder,
        "faults_active",
        "1: a plan of faults runs, and clients are struck on purpose",
        u64::from(running > 0),
    )?;
    gauge(
        encoder,
        "faults_plan",
        "Number of the last plan of faults since the start; 0 before the first",
        faults.last_plan(),
    )?;
    gauge(encoder, "fault_held_bytes", "Bytes of frames that a plan of faults holds back", faults.held_bytes())?;
    let help = "Batches that a shard was too late for to strike their frames; above 0, entries are missing";
    counter(encoder, "fault_ticks_missed", help, faults.missed())?;
    let help = "Clients and requests that plans of faults have struck";
    let mut family = encoder.encode_descriptor("faults", help, None, MetricType::Counter)?;
    for kind in FaultKind::ALL {
        ConstCounter::new(faults.totals(kind).0).encode(family.encode_family(&[("do", kind.name())])?)?;
    }
    let help = "Frames that plans of faults have struck";
    let mut family = encoder.encode_descriptor("fault_frames", help, None, MetricType::Counter)?;
    for kind in FaultKind::ALL.into_iter().filter(|kind| kind.class() == FaultClass::Frames) {
        ConstCounter::new(faults.totals(kind).1).encode(family.encode_family(&[("do", kind.name())])?)?;
    }
    Ok(())
}

/// The state of each source. The label keeps its name, `stream`, for existing dashboards.
fn encode_sources(sources: &[SourceSnapshot], encoder: &mut DescriptorEncoder) -> fmt::Result {
    for (name, help, value) in STREAM_GAUGES {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for source in sources {
            let value = ConstGauge::new(i64::try_from(value(source)).unwrap_or(i64::MAX));
            value.encode(family.encode_family(&[("stream", source.name.as_str())])?)?;
        }
    }
    for (name, help, value) in STREAM_COUNTERS {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for source in sources {
            ConstCounter::new(value(source)).encode(family.encode_family(&[("stream", source.name.as_str())])?)?;
        }
    }
    Ok(())
}

/// What the sources registered. Figures with the same name stand side by side and are one metric.
fn encode_figures(figures: &[Figure], encoder: &mut DescriptorEncoder) -> fmt::Result {
    for same in figures.chunk_by(|one, other| one.name == other.name) {
        let kind = if same[0].is_gauge { MetricType::Gauge } else { MetricType::Counter };
        let mut family = encoder.encode_descriptor(same[0].name, same[0].help, None, kind)?;
        for figure in same {
            if figure.labels.is_empty() {
                encode(figure, family)?;
                break;
            }
            let labels: Vec<(&str, &str)> = figure.labels.iter().map(|(name, value)| (*name, &**value)).collect();
            encode(figure, family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn encode(figure: &Figure, encoder: MetricEncoder) -> fmt::Result {
    let value = figure.value.load(Ordering::Relaxed);
    if figure.is_gauge {
        return ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder);
    }
    ConstCounter::new(value).encode(encoder)
}

fn counter(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: u64) -> fmt::Result {
    let value = ConstCounter::new(value);
    value.encode(encoder.encode_descriptor(name, help, None, value.metric_type())?)
}

fn gauge(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: u64) -> fmt::Result {
    let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    value.encode(encoder.encode_descriptor(name, help, None, value.metric_type())?)
}
