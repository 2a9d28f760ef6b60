//! A shard's counters. Each has one writer, its shard; anybody may read.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter or gauge with a single writer: plain loads and stores, no locked instruction.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds. Only the owning shard may call this.
    pub fn add(&self, amount: u64) {
        // Relaxed, and not one atomic step: there is no other writer.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// Subtracts. Only the owning shard may call this.
    pub fn subtract(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(amount), Ordering::Relaxed);
    }

    /// The value now, or a moment ago.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The client closed.
    Client,
    /// The socket went away without a close.
    Gone,
    /// The client broke RFC 6455 or its subprotocol, or sent too large a message.
    Protocol,
    /// It fell too far behind.
    Lag,
    /// It sent requests and did not read the answers.
    Replies,
    /// It did not answer a ping.
    PongTimeout,
    /// It did not take the close frame in time.
    WriteTimeout,
    /// A recovery took over its session.
    Recovered,
    /// The server stops.
    Shutdown,
    /// Its token expired.
    Expired,
    /// It sent too many requests that were refused.
    Errors,
}

impl Ending {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 11] = [
        Self::Client,
        Self::Gone,
        Self::Protocol,
        Self::Lag,
        Self::Replies,
        Self::PongTimeout,
        Self::WriteTimeout,
        Self::Recovered,
        Self::Shutdown,
        Self::Expired,
        Self::Errors,
    ];

    /// The name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Gone => "gone",
            Self::Protocol => "protocol",
            Self::Lag => "lag",
            Self::Replies => "replies",
            Self::PongTimeout => "pong_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::Recovered => "recovered",
            Self::Shutdown => "shutdown",
            Self::Expired => "token_expired",
            Self::Errors => "errors",
        }
    }
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What one shard counts.
        #[derive(Debug, Default)]
        pub struct ShardStats {
            $($(#[$doc])* pub $name: Count,)*
            /// Connections that ended, by [`Ending`].
            pub endings: [Count; Ending::ALL.len()],
        }
    };
}

counts! {
    /// Open connections (gauge).
    connections,
    /// Open connections of the JSON streams, counted in `connections` too (gauge).
    stream_connections,
    /// Reliable sessions without a socket (gauge).
    detached,
    /// Connections opened since the start.
    opened,
    /// Subscribers (gauge).
    subscribers,
    /// Data frames handed to the kernel; one that went in part counts, its rest is bound to follow.
    frames,
    /// Bytes handed to the kernel.
    bytes,
    /// Calls of `send`.
    sends,
    /// Reliable frames finished.
    finished,
    /// Publications a shard lost because it was overloaded. Never, or there is a bug.
    overruns,
    /// Sessions recovered.
    recoveries,
    /// Frames that recovered sessions skipped.
    recovery_gap_frames,
    /// Requests refused with a negative ack.
    refused,
    /// Requests on the JSON streams answered with an error.
    request_errors,
    /// Joins of groups without data.
    silent_joins,
}

impl ShardStats {
    /// Counts a connection out.
    pub fn ended(&self, ending: Ending) {
        self.connections.subtract(1);
        self.endings[ending as usize].add(1);
    }
}
