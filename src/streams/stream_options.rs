//! Settings of the JSON streams.

use std::time::Duration;

use super::history::HistoryOptions;
use crate::wire::streams::slow_policy::SlowPolicy;

/// Settings of the JSON streams on `/ws`.
#[derive(Debug, Clone, clap::Args)]
pub struct StreamOptions {
    /// Serve the JSON streams on /ws
    #[arg(id = "websocket-enabled", long = "websocket-enabled", env = "WEBSOCKET_ENABLED", default_value_t = true)]
    #[arg(value_parser = clap::value_parser!(bool), action = clap::ArgAction::Set, value_name = "BOOL")]
    pub enabled: bool,
    /// Seconds between pings on /ws; a connection that leaves two pings in a row unanswered is closed
    #[arg(id = "websocket-ping-interval", long = "websocket-ping-interval", env = "WEBSOCKET_PING_INTERVAL")]
    #[arg(default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600), value_name = "SECONDS")]
    pub ping_interval: u64,
    /// Seconds between two price updates on /ws
    #[arg(id = "websocket-price-update-interval", long = "websocket-price-update-interval")]
    #[arg(env = "WEBSOCKET_PRICE_UPDATE_INTERVAL", default_value_t = 3, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub price_update_interval: u64,
    /// Seconds between two portfolio updates on /ws
    #[arg(id = "websocket-portfolio-update-interval", long = "websocket-portfolio-update-interval")]
    #[arg(env = "WEBSOCKET_PORTFOLIO_UPDATE_INTERVAL", default_value_t = 5, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub portfolio_update_interval: u64,
    /// Connections allowed on /ws; further ones get 503
    #[arg(id = "websocket-max-connections", long = "websocket-max-connections", env = "WEBSOCKET_MAX_CONNECTIONS")]
    #[arg(default_value_t = 100_000, value_name = "CONNECTIONS")]
    pub max_connections: usize,
    /// Subscribe new clients of /ws to all trading streams
    #[arg(id = "websocket-auto-subscribe", long = "websocket-auto-subscribe", env = "WEBSOCKET_AUTO_SUBSCRIBE")]
    #[arg(default_value_t = true, value_parser = clap::value_parser!(bool), action = clap::ArgAction::Set)]
    #[arg(value_name = "BOOL")]
    pub auto_subscribe: bool,
    /// Largest request a client of /ws may send, bytes; a longer one is answered with an error, one
    /// over --max-message-bytes closes the connection
    #[arg(long, env = "FLOWCAST_MAX_REQUEST_BYTES", default_value_t = 64 << 10, value_name = "BYTES")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(125..=64 << 20))]
    pub max_request_bytes: usize,
    /// A client of /ws that causes more errors than this in a minute is closed
    #[arg(long, env = "FLOWCAST_MAX_REQUEST_ERRORS", default_value_t = 30, value_name = "ERRORS")]
    pub max_request_errors: u32,
    /// Symbols one client may choose per channel
    #[arg(long, env = "FLOWCAST_MAX_SYMBOLS_PER_CHANNEL", default_value_t = 200, value_name = "SYMBOLS")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    pub max_symbols_per_channel: usize,
    /// Largest number of different symbol filters in use on the server at a time
    #[arg(long, env = "FLOWCAST_MAX_FILTERS", default_value_t = 65_536, value_name = "FILTERS")]
    pub max_filters: usize,
    /// Largest number of symbols whose latest price is kept; prices of further ones are refused
    #[arg(long, env = "FLOWCAST_MAX_SYMBOLS", default_value_t = 50_000, value_name = "SYMBOLS")]
    pub max_symbols: usize,
    /// Largest message that may be published to a channel, bytes
    #[arg(long, env = "FLOWCAST_MAX_PUBLISH_BYTES", default_value_t = 1 << 20, value_name = "BYTES")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=2 << 20))]
    pub max_publish_bytes: usize,
    /// What becomes of clients that read a channel too slowly, CHANNEL=POLICY, comma-separated: drop (the
    /// connection is closed; what is not named has this), skip, latest, latest@RATE
    #[arg(long, env = "FLOWCAST_CHANNEL_POLICY", value_delimiter = ',', value_name = "CHANNEL=POLICY")]
    #[arg(value_parser = channel_policy)]
    pub channel_policy: Vec<(String, SlowPolicy)>,
    /// How long the answer to a client that comes back may wait until Kafka's log has been read far enough
    #[arg(long, env = "FLOWCAST_RESUME_WAIT", default_value = "5s", value_name = "DURATION")]
    #[arg(value_parser = humantime::parse_duration)]
    pub resume_wait: Duration,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub history: HistoryOptions,
}

impl StreamOptions {
    /// The policy of a channel.
    pub fn policy(&self, channel: &str) -> SlowPolicy {
        let named = self.channel_policy.iter().rev().find(|(name, _)| name == channel);
        named.map_or(SlowPolicy::Drop, |(_, policy)| *policy)
    }
}

fn channel_policy(text: &str) -> Result<(String, SlowPolicy), String> {
    let (channel, policy) = text.split_once('=').ok_or("expected CHANNEL=POLICY, such as lines=skip")?;
    Ok((channel.to_owned(), policy.parse()?))
}
