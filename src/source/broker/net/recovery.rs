//! Keeping one connection alive: connect, and when it ends, decide how to go on.
//!
//! ```text
//! connecting ─▶ open ─▶ lost ─▶ backoff ─▶ connecting …      (reset once it was open for long enough)
//!      │                  └─ tries used up ─▶ gave up        (until SIGHUP)
//!      ├─ 429 ──▶ as long as Retry-After says
//!      └─ credentials refused ─▶ auth failed                 (until they change, or SIGHUP)
//! ```
//!
//! Dead credentials are never tried twice: a broker may lock who hammers it.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::backoff::{Backoff, BackoffSettings};
use super::rate::CallRate;
use crate::source::broker::feed::FeedContext;
use crate::source::broker::feed_events::FeedEventKind;
use crate::source::broker::feed_health::FeedPhase;

/// When a lost connection is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoverySettings {
    /// The waits between tries.
    pub backoff: BackoffSettings,
    /// How long a connection must have been open before the count of tries is reset. A server that accepts
    /// and drops at once would be hammered otherwise.
    pub stable_after: Duration,
    /// How often refused credentials are compared with what their source says now.
    pub credentials_poll: Duration,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// flowcast stopped it: it is not opened again.
    Stopped,
    /// The network failed, the server closed it, or nothing was heard.
    Lost(String),
    /// The credentials are refused, or missing.
    Refused(String),
    /// The server says that there were too many requests.
    Busy {
        /// How long the server wants to be left alone.
        retry_after: Option<Duration>,
        /// What the server says, for people.
        reason: String,
    },
}

/// One connection that [`keep`] opens again and again.
pub trait BrokerConnection: Send {
    /// Opens it, calls [`Opened::now`], works, and returns when it has ended.
    fn run(&mut self, opened: &mut Opened) -> impl Future<Output = ConnectionEnd> + Send;

    /// Whether the credentials are others than those last refused.
    fn credentials_changed(&mut self) -> impl Future<Output = bool> + Send;
}

/// Whether and since when a connection is open.
pub struct Opened {
    context: FeedContext,
    since: Option<Instant>,
    before: bool,
}

impl Opened {
    /// The connection is open: tells so.
    pub fn now(&mut self) {
        if self.since.is_some() {
            return;
        }
        self.since = Some(Instant::now());
        self.context.health().opened(self.before);
        self.context.set_phase(FeedPhase::Open, "");
        self.context.tell(if self.before { FeedEventKind::Reconnected } else { FeedEventKind::Connected }, "");
        self.before = true;
    }

    /// The connection is closed: how long it was open.
    fn end(&mut self) -> Option<Duration> {
        let since = self.since.take()?;
        self.context.health().closed();
        Some(since.elapsed())
    }
}

/// A task may be cut off while its connection is open.
impl Drop for Opened {
    fn drop(&mut self) {
        self.end();
    }
}

/// How long a connection has for its goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Keeps a connection open until the feed is stopped.
pub async fn keep<C: BrokerConnection>(
    mut context: FeedContext,
    settings: &RecoverySettings,
    connects: &CallRate,
    connection: &mut C,
) {
    let mut backoff = Backoff::new(settings.backoff);
    let mut opened = Opened { context: context.clone(), since: None, before: false };
    loop {
        let ended = once(&context, connects, connection, &mut opened).await;
        if opened.end().is_some_and(|lived| lived >= settings.stable_after) {
            backoff.reset();
        }
        context.forget_reload();
        let go_on = match ended {
            ConnectionEnd::Stopped => false,
            ConnectionEnd::Lost(reason) => wait(&mut context, &mut backoff, None, reason).await,
            ConnectionEnd::Busy { retry_after, reason } => {
                let pause = retry_after.unwrap_or(settings.backoff.cap);
                wait(&mut context, &mut backoff, Some(pause), reason).await
            }
            ConnectionEnd::Refused(reason) => {
                context.set_phase(FeedPhase::AuthFailed, reason.as_str());
                context.health().error();
                context.tell(FeedEventKind::AuthFailed, reason);
                backoff.reset();
                other_credentials(&mut context, settings.credentials_poll, connection).await
            }
        };
        if !go_on {
            context.set_phase(FeedPhase::Idle, "stopped");
            return;
        }
    }
}

/// One connection, from its moment on to its end.
async fn once<C: BrokerConnection>(
    context: &FeedContext,
    connects: &CallRate,
    connection: &mut C,
    opened: &mut Opened,
) -> ConnectionEnd {
    let mut connect = pin!(async {
        connects.acquire().await;
        context.set_phase(FeedPhase::Connecting, "");
        connection.run(opened).await
    });
    tokio::select! {
        ended = &mut connect => ended,
        // An open connection says goodbye; one that is still opening is cut off.
        () = context.stopped() => timeout(GOODBYE, connect).await.unwrap_or(ConnectionEnd::Stopped),
    }
}

/// Waits for the next try. `false`: the feed is stopped.
async fn wait(context: &mut FeedContext, backoff: &mut Backoff, pause: Option<Duration>, reason: String) -> bool {
    let stopping = context.clone();
    let Some(drawn) = backoff.next_wait() else {
        context.set_phase(FeedPhase::GaveUp, reason.as_str());
        context.health().error();
        context.tell(FeedEventKind::GaveUp, format!("{reason}; {} tries failed, SIGHUP tries again", backoff.tries()));
        return tokio::select! {
            () = context.reloaded() => {
                backoff.reset();
                true
            }
            () = stopping.stopped() => false,
        };
    };
    context.set_phase(FeedPhase::Backoff, reason.as_str());
    context.tell(FeedEventKind::Error, reason);
    tokio::select! {
        () = sleep(pause.unwrap_or(drawn)) => true,
        () = context.reloaded() => true,
        () = stopping.stopped() => false,
    }
}

/// Waits until trying again makes sense. `false`: the feed is stopped.
async fn other_credentials<C: BrokerConnection>(context: &mut FeedContext, poll: Duration, connection: &mut C) -> bool {
    let stopping = context.clone();
    loop {
        tokio::select! {
            () = sleep(poll) => {}
            () = context.reloaded() => return true,
            () = stopping.stopped() => return false,
        }
        if connection.credentials_changed().await {
            return true;
        }
    }
}
