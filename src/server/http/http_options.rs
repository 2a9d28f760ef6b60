//! Settings of the HTTP side.

use ipnet::IpNet;

use super::control_options::ControlOptions;
use super::live::live_options::LiveOptions;
use super::negotiate::negotiate_options::NegotiateOptions;
use super::replay::session_options::SessionOptions;
use super::rest::rest_options::RestOptions;

/// Settings of the HTTP side.
#[derive(Debug, Clone, clap::Args)]
pub struct HttpOptions {
    /// Serve GexBot's hubs: /negotiate and their WebSocket endpoints
    #[arg(long, env = "WS_ENABLED", default_value_t = true, value_parser = clap::value_parser!(bool))]
    #[arg(action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub ws_enabled: bool,
    /// Largest number of open WebSocket connections; further ones are answered with 503
    #[arg(long, env = "FLOWCAST_MAX_CONNECTIONS", default_value_t = 100_000, value_name = "CONNECTIONS")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub max_connections: usize,
    /// Largest number of open HTTP connections, unfinished upgrades included; a further one gets the place of the client
    /// that the server has waited for longest
    #[arg(long, env = "FLOWCAST_MAX_HTTP_CONNECTIONS", default_value_t = 4096, value_name = "CONNECTIONS")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub max_http_connections: usize,
    /// Seconds an HTTP client has to send the head of a request, and again for its body; also how long it may be idle
    /// between two
    #[arg(long, env = "FLOWCAST_HTTP_TIMEOUT_SECONDS", default_value_t = 30, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub http_timeout_seconds: u64,
    /// Largest number of clients that follow /ticks, /sync/stream or /replay/events; further ones are answered with 503
    #[arg(long, env = "FLOWCAST_MAX_TICK_READERS", default_value_t = 64, value_name = "READERS")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(0..=65_536))]
    pub max_tick_readers: usize,
    /// Largest body of POST /api/publish, in bytes
    #[arg(long, env = "FLOWCAST_MAX_BODY_BYTES", default_value_t = 8 << 20, value_name = "BYTES")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=64 << 20))]
    pub max_body_bytes: usize,
    /// Bytes of request bodies that are in memory at a time, over all clients; a request beyond them is answered with
    /// 503. At least --max-body-bytes
    #[arg(long, env = "FLOWCAST_REQUEST_BODIES_BYTES", default_value_t = 64 << 20, value_name = "BYTES")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1 << 40))]
    pub request_bodies_bytes: usize,
    /// Bytes of HTTP answers that wait in memory for clients to take them, over all clients; a request beyond them is
    /// answered with 503. Answers up to 16 KiB do not count
    #[arg(long, env = "FLOWCAST_ANSWERS_BYTES", default_value_t = 64 << 20, value_name = "BYTES")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1 << 20..=1 << 40))]
    pub answers_bytes: usize,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub negotiate: NegotiateOptions,
    /// Proxies whose X-Forwarded-Proto and X-Forwarded-Host headers are trusted: addresses or networks such
    /// as 10.0.0.0/8, comma-separated. flowcast does not terminate TLS: put a proxy in front, list its
    /// address here, and negotiate answers with wss:// URLs
    #[arg(long, env = "FLOWCAST_TRUSTED_PROXIES", value_delimiter = ',', value_name = "NETWORKS", value_parser = network)]
    pub trusted_proxies: Vec<IpNet>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub rest: RestOptions,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub control: ControlOptions,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub live: LiveOptions,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub session: SessionOptions,
}

fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| "expected an address or a network such as 10.0.0.0/8".to_owned())
}
