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
    #[arg(value_parser = clap::value_parser!(u64).range(4096..))]
    pub client_buffer_bytes: u64,
    /// Frames a shard keeps per group for recoveries of reliable connections, while a session may still wait for
    /// its client; at least --client-buffer
    #[arg(long, env = "FLOWCAST_RECOVERY_FRAMES", default_value_t = 4096, value_name = "FRAMES")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub recovery_frames: u64,
    /// Bytes a shard keeps per group and form, for slow connections and for recoveries
    #[arg(long, env = "FLOWCAST_RING_BYTES", default_value_t = 64 << 20, value_name = "BYTES")]
    #[arg(value_parser = clap::value_parser!(u64).range(4 << 20..))]
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
    /// Frames a ring keeps: as many as a plain connection may be behind, or as a reliable one may recover.
    pub fn ring_frames(&self, reliable: bool) -> u64 {
        if reliable { self.recovery_frames.max(self.client_buffer) } else { self.client_buffer }
    }

    /// How long a frame may be needed for a recovery, ms: while a session waits, and while its client catches up.
    pub fn recovery_ms(&self) -> u64 {
        const CATCHING_UP: u64 = 30_000;
        self.session_timeout_seconds * 1000 + CATCHING_UP
    }

    /// The oldest position a session may resume from when frames it needs are gone, or when it was dropped for
    /// lag: half an allowance behind `head`, so that it does not lag again immediately.
    pub fn resume_floor(&self, head: u64) -> u64 {
        head.saturating_sub(self.client_buffer / 2)
    }
}

/// Where a recovered subscription continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// The position of the next frame to send.
    pub position: u64,
    /// Frames that are skipped for good.
    pub gap: u64,
}

/// Where to resume: at `confirmed`, the first frame the client has not confirmed.
///
/// Frames before `sent` were written to the old socket. If only such frames have been dropped from the ring,
/// the client continues with the oldest one left: it probably has the others. If frames that were never sent
/// have been dropped, or the session was dropped for lag, it skips to the resume floor.
pub fn resume(options: &LagOptions, confirmed: u64, sent: u64, oldest: u64, head: u64, lagged: bool) -> Resume {
    let floor = if lagged || sent < oldest { options.resume_floor(head).max(oldest) } else { oldest };
    let position = confirmed.max(floor);
    Resume { position, gap: position.saturating_sub(confirmed.max(sent)) }
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

    fn resumed(confirmed: u64, sent: u64, oldest: u64, lagged: bool) -> (u64, u64) {
        let Resume { position, gap } = resume(&options(), confirmed, sent, oldest, 1000, lagged);
        (position, gap)
    }

    #[test]
    fn a_recovery_goes_on_with_the_oldest_unconfirmed_frame() {
        assert_eq!(resumed(400, 450, 300, false), (400, 0));
        assert_eq!(resumed(1000, 1000, 300, false), (1000, 0));
    }

    #[test]
    fn frames_that_were_sent_and_fell_off_make_no_gap() {
        assert_eq!(resumed(200, 800, 300, false), (300, 0));
    }

    #[test]
    fn after_a_hole_it_skips_to_half_an_allowance_behind() {
        assert_eq!(resumed(200, 250, 300, false), (950, 700));
        assert_eq!(resumed(200, 250, 980, false), (980, 730));
    }

    #[test]
    fn after_lag_it_does_not_lag_at_once_again() {
        assert_eq!(resumed(700, 850, 300, true), (950, 100));
        assert_eq!(resumed(990, 995, 300, true), (990, 0));
    }
}
