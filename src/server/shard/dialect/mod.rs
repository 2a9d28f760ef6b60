//! Dialects: what a client protocol has of its own. Sockets, groups, lag and sending are the same for all.

pub mod ack;
pub mod conversation;
pub mod stream_client;
pub mod streams;
pub mod webpubsub;

use super::close::CloseFrame;
use super::keepalive::{Keepalive, SentPing};
use super::lanes::Lanes;
use super::outbox::Outbox;
use super::session::Session;
use super::sessions::{Report, Sessions};
use crate::server::shard::dialect::conversation::Conversation;
use crate::server::shard::dialect::streams::StreamsDialect;
use crate::server::shard::dialect::webpubsub::WebPubSubDialect;
use crate::wire::Wire;
use crate::wire::websocket::Message;

/// A client protocol.
pub trait Dialect {
    /// A client has connected, or has come back.
    fn greet(&mut self, talk: &mut Conversation<'_>);

    /// A text or binary message of an open connection. The error closes it.
    fn hear(&mut self, message: &Message<'_>, talk: &mut Conversation<'_>) -> Result<(), CloseFrame>;

    /// What becomes of a connection that is too far behind.
    fn too_slow(&self, session: &mut Session) -> Report;

    /// The last words before the server closes a connection because it stops.
    fn append_farewell(&self, session: &Session, reason: &str, out: &mut Vec<u8>);

    /// The pings of its connections.
    fn keepalive(&mut self) -> &mut Keepalive;

    /// Says what was held back until now.
    fn expire(&mut self, now_ms: u64, sessions: &mut Sessions, lanes: &Lanes, outbox: &mut Outbox);

    /// When [`Dialect::expire`] or the keep-alive has something to do next, ms.
    fn next_ms(&self) -> Option<u64>;
}

/// The dialects of a shard.
pub struct Dialects {
    webpubsub: WebPubSubDialect,
    streams: StreamsDialect,
}

impl Dialects {
    /// Both of them.
    pub fn new(webpubsub: WebPubSubDialect, streams: StreamsDialect) -> Self {
        Self { webpubsub, streams }
    }

    /// The dialect of a wire.
    pub fn of(&mut self, wire: Wire) -> &mut dyn Dialect {
        match wire {
            Wire::WebPubSub(_) => &mut self.webpubsub,
            Wire::Streams => &mut self.streams,
        }
    }

    /// All of them.
    pub fn all(&mut self) -> [&mut dyn Dialect; 2] {
        [&mut self.webpubsub, &mut self.streams]
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
