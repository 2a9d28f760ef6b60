//! `GET /healthz`, `/tickers` and `/websocket/status`: how the server is, for people and probes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::app::App;
use crate::engine::status::StreamStatus;

/// Settings of the JSON streams on `/ws`.
///
/// The streams are not built yet: the settings are accepted, so that a deployment's configuration
/// is complete, and told by `/websocket/status`.
#[derive(Debug, Clone, clap::Args)]
pub struct StreamOptions {
    /// Serve the JSON streams on /ws (not built yet: told by /websocket/status only)
    #[arg(id = "websocket-enabled", long = "websocket-enabled", env = "WEBSOCKET_ENABLED", default_value_t = true)]
    #[arg(value_parser = clap::value_parser!(bool), action = clap::ArgAction::Set, value_name = "BOOL")]
    pub enabled: bool,
    /// Seconds between pings on /ws (not built yet)
    #[arg(id = "websocket-ping-interval", long = "websocket-ping-interval", env = "WEBSOCKET_PING_INTERVAL")]
    #[arg(default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600), value_name = "SECONDS")]
    pub ping_interval: u64,
    /// Seconds between two price updates on /ws (not built yet)
    #[arg(id = "websocket-price-update-interval", long = "websocket-price-update-interval")]
    #[arg(env = "WEBSOCKET_PRICE_UPDATE_INTERVAL", default_value_t = 3, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub price_update_interval: u64,
    /// Seconds between two portfolio updates on /ws (not built yet)
    #[arg(id = "websocket-portfolio-update-interval", long = "websocket-portfolio-update-interval")]
    #[arg(env = "WEBSOCKET_PORTFOLIO_UPDATE_INTERVAL", default_value_t = 5, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub portfolio_update_interval: u64,
    /// Connections on /ws (not built yet)
    #[arg(id = "websocket-max-connections", long = "websocket-max-connections", env = "WEBSOCKET_MAX_CONNECTIONS")]
    #[arg(default_value_t = 100_000, value_name = "CONNECTIONS")]
    pub max_connections: usize,
    /// Subscribe new clients of /ws to all trading streams (not built yet)
    #[arg(id = "websocket-auto-subscribe", long = "websocket-auto-subscribe", env = "WEBSOCKET_AUTO_SUBSCRIBE")]
    #[arg(default_value_t = true, value_parser = clap::value_parser!(bool), action = clap::ArgAction::Set)]
    #[arg(value_name = "BOOL")]
    pub auto_subscribe: bool,
    /// Secret of the JWTs on /ws, HS256 (not built yet)
    #[arg(long, env = "WS_AUTH_SECRET", hide_env_values = true, value_name = "SECRET")]
    pub auth_secret: Option<String>,
    /// Browser origins allowed on /ws, comma-separated (not built yet)
    #[arg(long, env = "WS_ALLOWED_ORIGINS", value_delimiter = ',', value_name = "ORIGINS")]
    pub allowed_origins: Vec<String>,
    /// Kafka brokers, host:port, comma-separated (not built yet)
    #[arg(long, env = "WS_KAFKA_BROKERS", value_delimiter = ',', value_name = "BROKERS")]
    pub kafka_brokers: Vec<String>,
    /// Kafka topics, comma-separated (not built yet)
    #[arg(long, env = "WS_KAFKA_TOPICS", value_delimiter = ',', default_value = "lines,order_book,analytics")]
    #[arg(value_name = "TOPICS")]
    pub kafka_topics: Vec<String>,
    /// Kafka consumer group (not built yet)
    #[arg(long, env = "WS_KAFKA_GROUP_ID", default_value = "ws-realtime", value_name = "GROUP")]
    pub kafka_group_id: String,
}

impl StreamOptions {
    /// Settings that were given for what is not built yet, to be warned of.
    pub fn without_effect(&self) -> Vec<&'static str> {
        let given = [
            ("WS_AUTH_SECRET", self.auth_secret.is_some()),
            ("WS_ALLOWED_ORIGINS", !self.allowed_origins.is_empty()),
            ("WS_KAFKA_BROKERS", !self.kafka_brokers.is_empty()),
        ];
        given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }
}

/// 200 only while clients are served.
pub async fn healthz(State(app): State<Arc<App>>) -> Response {
    app.unavailable().unwrap_or_else(|| Json(json!({ "status": "ok" })).into_response())
}

/// Cash indexes the vendor carries; every other name without `_` is a stock or fund.
const INDEXES: [&str; 8] = ["SPX", "NDX", "RUT", "VIX", "DJX", "OEX", "XSP", "XND"];

/// The loaded tickers by kind. A name with `_` is a future (`wire/gexbot.md` §6).
pub async fn tickers(State(app): State<Arc<App>>) -> Response {
    if let Some(unavailable) = app.unavailable() {
        return unavailable;
    }
    let (mut stocks, mut indexes, mut futures) = (Vec::new(), Vec::new(), Vec::new());
    app.hub.for_each_group(|group| {
        if let Some(ticker) = group.symbol() {
            let kind = match &**ticker {
                ticker if ticker.contains('_') => &mut futures,
                ticker if INDEXES.contains(&ticker) => &mut indexes,
                _ => &mut stocks,
            };
            kind.push(Arc::clone(ticker));
        }
    });
    for kind in [&mut stocks, &mut indexes, &mut futures] {
        kind.sort_unstable();
    }
    let text = |kind: Vec<Arc<str>>| kind.iter().map(ToString::to_string).collect::<Vec<_>>();
    Json(json!({ "stocks": text(stocks), "indexes": text(indexes), "futures": text(futures) })).into_response()
}

/// The shape its monitors know, with more keys behind.
pub async fn websocket_status(State(app): State<Arc<App>>) -> Response {
    let streams = app.status.snapshot();
    let health: Map<String, Value> = streams.iter().map(|stream| (stream.name.clone(), health(stream))).collect();
    let (mut groups, mut subscribers) = (0u64, 0u64);
    app.hub.for_each_group(|group| {
        groups += 1;
        subscribers += group.subscribers() as u64;
    });
    let position = streams.iter().find(|stream| stream.name == app.hub.name()).map(|stream| stream.position);
    Json(json!({
        "enabled": app.streams.enabled,
        "active_connections": app.connections(),
        "max_connections": app.streams.max_connections,
        "ping_interval": app.streams.ping_interval,
        "price_update_interval": app.streams.price_update_interval,
        "portfolio_update_interval": app.streams.portfolio_update_interval,
        "stream_health": health,
        "stage": format!("{:?}", app.stage()).to_lowercase(),
        "hubs": {
            app.hub.name(): {
                "groups": groups,
                "subscribers": subscribers,
                "sequence_id": app.hub.published(),
                "replay_ordinal": position,
            },
        },
    }))
    .into_response()
}

fn health(stream: &StreamStatus) -> Value {
    json!({
        "last_update": stream.last_update_unix_ns.map(rfc3339),
        "error_count": stream.errors,
        "recovery_attempts": stream.recoveries,
        "is_healthy": stream.is_healthy,
        "started_at": rfc3339(stream.started_unix_ns),
    })
}

/// UTC with milliseconds.
fn rfc3339(unix_ns: u64) -> String {
    let milliseconds = i64::try_from(unix_ns / 1_000_000).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(milliseconds).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc_with_milliseconds() {
        assert_eq!(rfc3339(1_764_340_202_007_999_999), "2025-11-28T14:30:02.007Z");
    }
}
