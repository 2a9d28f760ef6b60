//! The state of a feed: plain atomics that its tasks set, and snapshots of them.
//!
//! The figures are those of `health::status`, so `/websocket/status` and the metrics show them.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::instrument::Broker;
use super::quote::ReceivedAt;
use crate::engine::system_clock;
use crate::health::log_limit::{LogLimiter, any};
use crate::health::status::{SourceHealth, Status};

/// What a feed is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FeedPhase {
    /// Not started yet, or stopped.
    Idle,
    /// Logging in or connecting.
    Connecting,
    /// Every connection it needs is open.
    Open,
    /// It waits before it tries again.
    Backoff,
    /// The broker refuses the credentials; it waits for others.
    AuthFailed,
    /// Its tries are used up; it waits for SIGHUP.
    GaveUp,
}

impl FeedPhase {
    /// The value of `state` in `/websocket/status`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Open => "open",
            Self::Backoff => "backoff",
            Self::AuthFailed => "auth_failed",
            Self::GaveUp => "gave_up",
        }
    }
}

impl fmt::Display for FeedPhase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A feed at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedHealth {
    /// The `id` of its `[[feeds]]` block.
    pub id: Arc<str>,
    /// The broker it connects to.
    pub broker: Broker,
    /// What it is doing.
    pub phase: FeedPhase,
    /// The reason, unless all is well.
    pub reason: String,
    /// Connections that are open.
    pub connections: u64,
    /// When the last frame came, UTC milliseconds.
    pub last_message_ms: Option<i64>,
    /// Records it handed to the merged stream since it was added.
    pub records: u64,
    /// How often a connection was opened again after it had been lost.
    pub reconnects: u64,
    /// Failures of connections and calls.
    pub errors: u64,
    /// Frames and packets that could not be read.
    pub malformed: u64,
    /// Frames, events and records nobody asked for.
    pub ignored: u64,
    /// Instruments subscribed at the broker.
    pub subscribed: u64,
    /// Instruments the broker refused.
    pub refused: u64,
}

impl FeedHealth {
    /// Whether all its connections are open.
    pub fn is_connected(&self) -> bool {
        self.phase == FeedPhase::Open
    }
}

/// A feed's figures while it runs.
pub struct FeedFigures {
    id: Arc<str>,
    broker: Broker,
    stream: Arc<SourceHealth>,
    state: Mutex<PhaseState>,
    last_message_ms: AtomicU64,
    records: Arc<AtomicU64>,
    reconnects: Arc<AtomicU64>,
    errors: Arc<AtomicU64>,
    malformed: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    ignored: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
    /// Connections that must be open for the feed to be open.
    needed: AtomicU64,
    subscribed: Arc<AtomicU64>,
}

struct PhaseState {
    phase: FeedPhase,
    reason: String,
    log: LogLimiter,
}

impl FeedFigures {
    /// Registers the figures of a feed.
    pub fn register(status: &Status, id: &Arc<str>, broker: Broker) -> Arc<Self> {
        let labels = || vec![("feed", id.to_string().into())];
        let count = |name, help| status.count(name, help, labels());
        let gauge = |name, help| status.gauge(name, help, labels());
        let stream = status.register(stream_name(id), None);
        stream.set_connected(false);
        stream.set_state(FeedPhase::Idle.name(), "");
        Arc::new(Self {
            id: Arc::clone(id),
            broker,
            stream,
            state: Mutex::new(PhaseState { phase: FeedPhase::Idle, reason: String::new(), log: LogLimiter::default() }),
            last_message_ms: AtomicU64::new(0),
            records: count("feed_records", "Records a broker feed gave"),
            reconnects: count("feed_reconnects", "Connections a broker feed opened again"),
            errors: count("feed_errors", "Failed connections and calls of a broker feed"),
            malformed: count("feed_malformed", "Frames and packets of a broker feed that could not be read"),
            refused: count("feed_refused", "Instruments a broker refused"),
            ignored: count("feed_ignored", "Frames, events and records of a broker feed that nobody asked for"),
            needed: AtomicU64::new(1),
            connections: gauge("feed_connections", "Open connections of a broker feed"),
            subscribed: gauge("feed_subscribed", "Instruments subscribed at a broker"),
        })
    }

    /// Takes the figures out of the registry.
    pub fn unregister(&self, status: &Status) {
        status.remove(&self.stream, ("feed", &self.id));
    }

    /// Notes when a frame was received.
    pub fn message(&self, received: ReceivedAt) {
        self.last_message_ms.store(received.unix_ms.max(0) as u64, Ordering::Relaxed);
        let position = self.records.load(Ordering::Relaxed);
        self.stream.set_position(position, received.unix_ms.max(0) as u64 * 1_000_000);
    }

    /// Records left for the merged stream.
    pub fn records(&self, count: u64) {
        self.records.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts a connection that opened; `again`: it had been open before.
    pub fn opened(&self, again: bool) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        if again {
            self.reconnects.fetch_add(1, Ordering::Relaxed);
            self.stream.count_recovery();
        }
    }

    /// A connection that had opened is closed.
    pub fn closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// A connection or a call failed.
    pub fn error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.stream.count_errors(1);
    }

    /// Input that could not be read; logged at a bounded rate.
    pub fn malformed(&self, what: &dyn fmt::Display) {
        self.malformed.fetch_add(1, Ordering::Relaxed);
        self.stream.count_errors(1);
        let Some(suppressed) = self.may_log() else { return };
        tracing::warn!(feed = %self.id, suppressed = any(suppressed), "{what}");
    }

    /// Whether a line may be written now, and how many were not since the last one.
    pub fn may_log(&self) -> Option<u64> {
        self.state().log.pass(system_clock::unix_ns() / 1_000_000)
    }

    /// Counts a message that flowcast does not use, and that is no fault.
    pub fn ignored(&self) {
        self.ignored.fetch_add(1, Ordering::Relaxed);
    }

    /// The broker refused an instrument.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.stream.count_errors(1);
    }

    /// Instruments subscribed: `added` more, `removed` fewer.
    pub fn subscribed(&self, added: usize, removed: usize) {
        self.subscribed.fetch_add(added as u64, Ordering::Relaxed);
        self.subscribed.fetch_sub(removed as u64, Ordering::Relaxed);
    }

    /// How many connections the feed needs from now on.
    pub fn needs(&self, connections: usize) {
        self.needed.store(connections as u64, Ordering::Relaxed);
    }

    /// What the feed does from now on, and why. It is open when all the connections it needs are.
    pub fn set_phase(&self, phase: FeedPhase, reason: impl Into<String>) {
        let open = self.connections.load(Ordering::Relaxed) >= self.needed.load(Ordering::Relaxed);
        if phase == FeedPhase::Open && !open {
            return;
        }
        let mut state = self.state();
        (state.phase, state.reason) = (phase, reason.into());
        self.stream.set_connected(phase == FeedPhase::Open);
        self.stream.set_state(phase.name(), &state.reason);
    }

    /// The figures as they are now.
    pub fn snapshot(&self) -> FeedHealth {
        let (phase, reason) = {
            let state = self.state();
            (state.phase, state.reason.clone())
        };
        let of = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        FeedHealth {
            id: Arc::clone(&self.id),
            broker: self.broker,
            phase,
            reason,
            connections: of(&self.connections),
            last_message_ms: Some(of(&self.last_message_ms) as i64).filter(|&last| last > 0),
            records: of(&self.records),
            reconnects: of(&self.reconnects),
            errors: of(&self.errors),
            malformed: of(&self.malformed),
            ignored: of(&self.ignored),
            subscribed: of(&self.subscribed),
            refused: of(&self.refused),
        }
    }

    /// Locks, even after a panic elsewhere: nothing is left half done under this lock.
    fn state(&self) -> MutexGuard<'_, PhaseState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The feed's key in `stream_health`.
pub fn stream_name(id: &str) -> String {
    format!("feed:{id}")
}
