//! The JSON streams on `/ws`: not built yet, only their settings are.

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
