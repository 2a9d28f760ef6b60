//! What happens to feeds, beside the data: a bounded stream of events for whoever listens.

use std::fmt;
use std::sync::Arc;

use tokio::sync::broadcast;

/// What happened to a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedEventKind {
    /// A connection opened for the first time.
    Connected,
    /// A connection opened again; everything wanted is subscribed again.
    Reconnected,
    /// A connection or a call failed, and is tried again.
    Error,
    /// The broker refuses the credentials. Nothing is tried until they change.
    AuthFailed,
    /// The tries are used up. Nothing is tried until SIGHUP.
    GaveUp,
    /// The broker will never give this instrument; nothing is tried for it until the next connection.
    InstrumentRefused(Arc<str>),
    /// Another feed's records are taken for this symbol: its preferred one is silent.
    FailedOver(Arc<str>),
    /// The preferred feed of this symbol sends records again.
    FailedBack(Arc<str>),
    /// A text of the broker for people to read.
    Notice,
    /// The feed is stopped.
    Stopped,
}

/// Something that happened to a feed, for logs and listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedEvent {
    /// The `id` of its `[[feeds]]` block.
    pub feed: Arc<str>,
    /// What happened; it decides the level of the log line.
    pub kind: FeedEventKind,
    /// Why, for people. Holds no secrets.
    pub reason: String,
}

impl FeedEvent {
    /// Writes it to the log.
    pub fn log(&self) {
        match self.kind {
            FeedEventKind::Connected
            | FeedEventKind::Reconnected
            | FeedEventKind::Stopped
            | FeedEventKind::FailedBack(_)
            | FeedEventKind::Notice => {
                tracing::info!("{self}");
            }
            FeedEventKind::Error | FeedEventKind::InstrumentRefused(_) | FeedEventKind::FailedOver(_) => {
                tracing::warn!("{self}");
            }
            FeedEventKind::AuthFailed | FeedEventKind::GaveUp => tracing::error!("{self}"),
        }
    }
}

impl fmt::Display for FeedEvent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { feed, kind, reason } = self;
        match kind {
            FeedEventKind::Connected => write!(formatter, "{feed}: connected")?,
            FeedEventKind::Reconnected => write!(formatter, "{feed}: connected again")?,
            FeedEventKind::Error => write!(formatter, "{feed}: error")?,
            FeedEventKind::AuthFailed => write!(formatter, "{feed}: credentials refused or missing")?,
            FeedEventKind::GaveUp => write!(formatter, "{feed}: gave up")?,
            FeedEventKind::InstrumentRefused(symbol) => write!(formatter, "{feed}: {symbol} refused")?,
            FeedEventKind::FailedOver(symbol) => {
                write!(formatter, "{feed}: its records of {symbol} are used; the preferred feed is silent")?;
            }
            FeedEventKind::FailedBack(symbol) => write!(formatter, "{feed}: its records of {symbol} are used again")?,
            FeedEventKind::Notice => write!(formatter, "{feed}: the broker says")?,
            FeedEventKind::Stopped => write!(formatter, "{feed}: stopped")?,
        }
        if reason.is_empty() { Ok(()) } else { write!(formatter, ": {reason}") }
    }
}

/// Where events go. A listener that is too slow learns how many it lost.
#[derive(Debug, Clone)]
pub struct EventSender(broadcast::Sender<FeedEvent>);

impl EventSender {
    /// Keeps at most `capacity` events for a slow listener.
    pub fn new(capacity: usize) -> Self {
        Self(broadcast::Sender::new(capacity.max(1)))
    }

    /// Tells an event to the listeners; the log is the caller's.
    pub fn send(&self, event: FeedEvent) {
        // Nobody listens: nothing to do.
        let _ = self.0.send(event);
    }

    /// Events from now on.
    pub fn listen(&self) -> broadcast::Receiver<FeedEvent> {
        self.0.subscribe()
    }
}
