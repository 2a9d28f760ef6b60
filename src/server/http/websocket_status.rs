//! `GET /healthz` and `/websocket/status`: the state of the server, for operators and probes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::app::App;
use super::live::source_tables::stream_health;
use super::replay::clock_json::{clock_json, session_json};
use crate::engine::hub::Hub;
use crate::replay::replays::SessionInfo;
use crate::streams::Streams;
use crate::wire::streams::Channel;

/// 200 only while clients are served.
pub async fn healthz(State(app): State<Arc<App>>) -> Response {
    app.unavailable().unwrap_or_else(|| Json(json!({ "status": "ok" })).into_response())
}

/// `GET /websocket/status`: the keys that monitors of the predecessor know, then ours.
pub async fn websocket_status(State(app): State<Arc<App>>) -> Response {
    let streams = app.status.snapshot();
    let position = streams.iter().find(|stream| stream.name == app.hub.name()).map(|stream| stream.position);
    let gexbot = app.connections() - app.stream_connections().min(app.connections());
    let mut hubs: Map<String, Value> = app
        .gexbot_hubs()
        .map(|(hub, told)| (hub.name().to_owned(), json!({ "connections": told.connections, "groups": told.groups })))
        .collect();
    hubs.insert(app.streams.hub().name().to_owned(), hub(app.streams.hub(), app.stream_connections(), None));
    let mut told = json!({
        "enabled": app.stream_options.enabled,
        "active_connections": app.stream_connections(),
        "max_connections": app.stream_options.max_connections,
        "ping_interval": app.stream_options.ping_interval,
        "price_update_interval": app.stream_options.price_update_interval,
        "portfolio_update_interval": app.stream_options.portfolio_update_interval,
        "stream_health": stream_health(&app.status),
        "stream_history": history(&app.streams),
        "stage": format!("{:?}", app.stage()).to_lowercase(),
        // Those hubs share their groups and one sequence of ids.
        "gexbot": hub(&app.hub, gexbot, position),
        "hubs": hubs,
    });
    if let Some(clocks) = app.replay.clocks() {
        let session = |info: &SessionInfo| session_json(&info.name, &info.remote);
        told["replay"] = clock_json(&clocks.common().snapshot(), app.connections()).into();
        told["replay_sessions"] = clocks.sessions().iter().map(session).collect();
    }
    Json(told).into_response()
}

/// Where each channel stands, and how much of it can be sent again.
fn history(streams: &Streams) -> Map<String, Value> {
    let told = |(at, channel): (usize, &Channel)| {
        let history = streams.history(at);
        let (messages, bytes) = history.behind(0);
        let told = json!({ "epoch": **history.epoch(), "seq": history.seqs(), "messages": messages, "bytes": bytes });
        (channel.name.to_string(), told)
    };
    streams.channels().all().iter().enumerate().map(told).collect()
}

fn hub(hub: &Hub, connections: u64, replay_ordinal: Option<u64>) -> Value {
    let (mut groups, mut subscribers) = (0u64, 0u64);
    hub.for_each_group(|group| {
        groups += 1;
        subscribers += group.subscribers() as u64;
    });
    let mut told = json!({
        "connections": connections,
        "groups": groups,
        "subscribers": subscribers,
        "sequence_id": hub.sequencer().published(),
    });
    if let Some(ordinal) = replay_ordinal {
        told["replay_ordinal"] = ordinal.into();
    }
    told
}
