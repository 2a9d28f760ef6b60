//! Keep-alive: pings, and how long silence is borne.

/// When a connection counts as dead.
#[expect(clippy::struct_field_names, reason = "the names are the settings' names")]
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Keepalive {
    /// Seconds between WebSocket pings
    #[arg(long, env = "FLOWCAST_PING_INTERVAL_SECONDS", default_value_t = 54, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub ping_interval_seconds: u64,
    /// Seconds from one ping to the latest answer to the next: more than --ping-interval-seconds, and
    /// what is more is the time a client has to answer
    #[arg(long, env = "FLOWCAST_PONG_TIMEOUT_SECONDS", default_value_t = 60, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(2..=7200))]
    pub pong_timeout_seconds: u64,
    /// Seconds a client has to take the close frame before it is reset
    #[arg(long, env = "FLOWCAST_WRITE_TIMEOUT_SECONDS", default_value_t = 10, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=600))]
    pub write_timeout_seconds: u64,
}

impl Keepalive {
    /// From a ping to the moment its answer is missed.
    pub fn pong_grace_ms(&self) -> u64 {
        self.pong_timeout_seconds.saturating_sub(self.ping_interval_seconds).max(1) * 1000
    }
}
