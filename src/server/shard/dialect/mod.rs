//! Dialects: what is specific to one client protocol. Sockets, groups, lag and sending are the same for all.

pub mod ack;
pub mod conversation;
pub mod stream_client;
mod stream_start;
pub mod streams;
pub mod webpubsub;

use std::sync::Arc;

use self::conversation::Conversation;
use self::streams::StreamsDialect;
use self::webpubsub::WebPubSubDialect;
use super::close::{Close, CloseFrame};
use super::connection::Connection;
use super::context::ShardContext;
use super::keepalive::{Keepalive, SentPing};
use super::lanes::Lanes;
use super::outbox::Outbox;
use super::session::Session;
use super::sessions::{Report, Sessions};
use super::stats::ShardStats;
use crate::health::log_limit;
use crate::wire::Wire;
use crate::wire::websocket::ClientMessage;

/// What is specific to one client protocol. The shard calls it and does the rest.
pub trait Dialect {
    /// A client has connected, or has come back.
    fn greet(&mut self, talk: &mut Conversation<'_>);

    /// The groups that the server joins for the client have changed.
    fn reassigned(&mut self, _talk: &mut Conversation<'_>) {}

    /// A text or binary message of an open connection. The error closes it.
    fn hear(&mut self, message: &ClientMessage<'_>, talk: &mut Conversation<'_>) -> Result<(), CloseFrame>;

    /// Decides what becomes of a connection that is too far behind.
    fn too_slow(&self, session: &mut Session) -> Report;

    /// Finished messages that go before the close frame when the server stops or the client has negotiated again.
    fn farewell(&self, session: &Session, frame: &CloseFrame) -> Vec<u8>;

    /// The pings of its connections.
    fn keepalive(&mut self) -> &mut Keepalive;

    /// Sends what was held back until now.
    fn expire(&mut self, now_ms: u64, sessions: &mut Sessions, lanes: &mut Lanes, outbox: &mut Outbox);

    /// When [`Dialect::expire`] or the keep-alive has something to do next, ms.
    fn next_ms(&self) -> Option<u64>;
}

/// The dialects of a shard.
pub struct Dialects {
    webpubsub: WebPubSubDialect,
    streams: StreamsDialect,
}

impl Dialects {
    /// Both of them, without clients.
    pub fn new(context: &ShardContext, stats: &Arc<ShardStats>) -> Self {
        let webpubsub = WebPubSubDialect::new(context, Arc::clone(stats));
        let (streams, options) = (Arc::clone(&context.streams), context.stream_options.clone());
        let streams = StreamsDialect::new(streams, options, context.options.max_reply_bytes, Arc::clone(stats));
        Self { webpubsub, streams }
    }

    /// The dialect of a wire.
    pub fn of(&mut self, wire: Wire) -> &mut dyn Dialect {
        match wire {
            Wire::WebPubSub(_) => &mut self.webpubsub,
            Wire::Streams => &mut self.streams,
        }
    }

    fn all(&mut self) -> [&mut dyn Dialect; 2] {
        [&mut self.webpubsub, &mut self.streams]
    }

    /// Sends what was held back until now, and pings the connections whose turn it is.
    pub fn expire(&mut self, now_ms: u64, sessions: &mut Sessions, lanes: &mut Lanes, outbox: &mut Outbox) {
        for dialect in self.all() {
            dialect.expire(now_ms, sessions, lanes, outbox);
            while let Some(key) = dialect.keepalive().next_pinged(now_ms, sessions) {
                outbox.flush(key, sessions, lanes);
            }
        }
    }

    /// Decides what becomes of a client that is too far behind.
    pub fn too_slow(&mut self, key: u32, sessions: &mut Sessions) {
        let Some(session) = sessions.get_mut(key) else { return };
        if session.connection.as_ref().is_some_and(Connection::is_open) {
            if log_limit::client_line(tracing::Level::INFO) {
                tracing::info!(connection = %session.id, "too slow: further behind than --client-buffer allows");
            }
            let report = self.of(session.wire).too_slow(session);
            sessions.report(key, report);
        }
    }

    /// Messages for a client before its close frame; mostly none.
    pub fn farewell(&mut self, key: u32, frame: &CloseFrame, sessions: &Sessions) -> Vec<u8> {
        match sessions.get(key) {
            Some(session)
                if matches!(
                    frame.close(),
                    Close::Shutdown | Close::Replaced | Close::ClockEnded | Close::ByOperator
                ) =>
            {
                self.of(session.wire).farewell(session, frame)
            }
            _ => Vec::new(),
        }
    }

    /// The next ping of any of them whose answer is overdue.
    pub fn next_overdue(&mut self, now_ms: u64, sessions: &mut Sessions) -> Option<SentPing> {
        self.all().into_iter().find_map(|dialect| dialect.keepalive().next_overdue(now_ms, sessions))
    }

    /// When any of them has something to do next, ms.
    pub fn next_ms(&self) -> Option<u64> {
        self.webpubsub.next_ms().into_iter().chain(self.streams.next_ms()).min()
    }
}
