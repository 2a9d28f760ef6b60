//! Settings of the shards.

use std::thread;

use crate::engine::policy::LagOptions;

/// Limits and times of connections, the same for every shard.
#[derive(Debug, Clone, clap::Args)]
pub struct ShardOptions {
    /// Threads that serve connections; 0: one per core
    #[arg(long, env = "FLOWCAST_SHARDS", default_value_t = 0, value_name = "SHARDS")]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=64))]
    pub shards: u8,
    /// Send through io_uring, if the kernel has it and allows it
    #[arg(long, env = "FLOWCAST_IO_URING", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub io_uring: bool,
    /// Groups one connection may join
    #[arg(long, env = "FLOWCAST_MAX_GROUPS_PER_CONNECTION", default_value_t = 150, value_name = "GROUPS")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub max_groups_per_connection: usize,
    /// Largest message a client may send, bytes
    #[arg(long, env = "FLOWCAST_MAX_MESSAGE_BYTES", default_value_t = 512 << 10, value_name = "BYTES")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(125..=64 << 20))]
    pub max_message_bytes: usize,
    /// Bytes of messages that clients have begun and not finished, over all connections; a client whose message has no
    /// room is closed with 1013. At least --max-message-bytes
    #[arg(long, env = "FLOWCAST_UNFINISHED_BYTES", default_value_t = 64 << 20, value_name = "BYTES")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(125..=1 << 40))]
    pub unfinished_bytes: usize,
    /// Bytes of answers a client may leave unread before it is closed
    #[arg(long, env = "FLOWCAST_MAX_REPLY_BYTES", default_value_t = 256 << 10, value_name = "BYTES")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(512..))]
    pub max_reply_bytes: usize,
    /// Milliseconds an ack is held back, because Azure's Python SDK hangs for 30 s if an ack arrives before its
    /// caller waits for it
    #[arg(long, env = "FLOWCAST_ACK_DELAY_MS", default_value_t = 2, value_name = "MS")]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=1000))]
    pub ack_delay_ms: u64,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub keepalive: KeepaliveOptions,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub lag: LagOptions,
}

impl ShardOptions {
    /// How many shards there will be.
    pub fn count(&self) -> usize {
        match self.shards {
            0 => thread::available_parallelism().map_or(1, usize::from).min(64),
            shards => usize::from(shards),
        }
    }
}

/// When a connection counts as dead.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct KeepaliveOptions {
    /// Seconds between WebSocket pings
    #[arg(long, env = "FLOWCAST_PING_INTERVAL_SECONDS", default_value_t = 54, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub ping_interval_seconds: u64,
    /// Seconds from one ping to the deadline for answering the next. Must be more than --ping-interval-seconds;
    /// the difference is the time a client has to answer
    #[arg(long, env = "FLOWCAST_PONG_TIMEOUT_SECONDS", default_value_t = 60, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(2..=7200))]
    pub pong_timeout_seconds: u64,
    /// Seconds a client has to take the close frame before it is reset
    #[arg(long, env = "FLOWCAST_WRITE_TIMEOUT_SECONDS", default_value_t = 10, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=600))]
    pub write_timeout_seconds: u64,
}

impl KeepaliveOptions {
    /// From a ping to the moment its answer is overdue.
    pub fn pong_grace_ms(&self) -> u64 {
        self.pong_timeout_seconds.saturating_sub(self.ping_interval_seconds).max(1) * 1000
    }
}
