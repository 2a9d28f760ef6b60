//! What lag means: when a subscriber is too far behind, and where a recovered one resumes.

/// How far behind a connection may be, and how long a session outlives its socket.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct LagOptions {
    /// Frames a connection may be behind in any one of its groups before it is dropped
    #[arg(long, env = "WS_CLIENT_BUFFER", default_value_t = 256, value_name = "FRAMES")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub client_buffer: u64,
    /// Bytes a connection may be behind in all its groups together before it is dropped
    #[arg(long, env = "FLOWCAST_CLIENT_BUFFER_BYTES", default_value_t = 16 << 20, value_name = "BYTES")]
    pub client_buffer_bytes: u64,
    /// Frames a shard keeps per group for recoveries of reliable connections; at least
    /// --client-buffer
    #[arg(long, env = "FLOWCAST_RECOVERY_FRAMES", default_value_t = 4096, value_name = "FRAMES")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub recovery_frames: u64,
    /// Bytes a shard keeps per group and form, for slow connections and for recoveries
    #[arg(long, env = "FLOWCAST_RING_BYTES", default_value_t = 64 << 20, value_name = "BYTES")]
    pub ring_bytes: u64,
    /// Seconds a reliable session waits for its client to come back
    #[arg(long, env = "FLOWCAST_SESSION_TIMEOUT_SECONDS", default_value_t = 30, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub session_timeout_seconds: u64,
    /// Reliable sessions that may wait for their client at the same time, per shard; beyond it the
    /// oldest is given up
    #[arg(long, env = "FLOWCAST_MAX_DETACHED_SESSIONS", default_value_t = 20_000, value_name = "SESSIONS")]
    pub max_detached_sessions: usize,
}

impl LagOptions {
    /// Frames a ring keeps: plain connections need their allowance, reliable ones the recovery.
    pub fn ring_frames(&self, reliable: bool) -> u64 {
        if reliable { self.recovery_frames.max(self.client_buffer) } else { self.client_buffer }
    }

    /// The oldest position a session may resume from when frames it needs are gone, or when it was
    /// dropped for lag: half an allowance behind `head`, so that it does not lag at once again.
    pub fn resume_floor(&self, head: u64) -> u64 {
        head.saturating_sub(self.client_buffer / 2)
    }
}

/// Where a recovered subscription goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// The position of the next frame to send.
    pub position: u64,
    /// Frames that are skipped for good.
    pub gap: u64,
}

/// Where to resume: at `unacked`, the oldest frame the client has not confirmed, unless the ring no
/// longer reaches back that far or the session was dropped for lag.
pub fn resume(options: &LagOptions, unacked: u64, oldest: u64, head: u64, lagged: bool) -> Resume {
    let hole = unacked < oldest;
    let floor = if lagged || hole { options.resume_floor(head).max(oldest) } else { oldest };
    let position = unacked.max(floor);
    Resume { position, gap: position - unacked }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> LagOptions {
        LagOptions {
            client_buffer: 100,
            client_buffer_bytes: 1,
            recovery_frames: 1000,
            ring_bytes: 1,
            session_timeout_seconds: 30,
            max_detached_sessions: 1,
        }
    }

    #[test]
    fn a_recovery_goes_on_with_the_oldest_unconfirmed_frame() {
        assert_eq!(resume(&options(), 400, 300, 1000, false), Resume { position: 400, gap: 0 });
        assert_eq!(resume(&options(), 1000, 300, 1000, false), Resume { position: 1000, gap: 0 });
    }

    #[test]
    fn after_a_hole_it_skips_to_half_an_allowance_behind() {
        assert_eq!(resume(&options(), 200, 300, 1000, false), Resume { position: 950, gap: 750 });
        assert_eq!(resume(&options(), 200, 980, 1000, false), Resume { position: 980, gap: 780 });
    }

    #[test]
    fn after_lag_it_does_not_lag_at_once_again() {
        assert_eq!(resume(&options(), 850, 300, 1000, true), Resume { position: 950, gap: 100 });
        assert_eq!(resume(&options(), 990, 300, 1000, true), Resume { position: 990, gap: 0 });
    }
}
