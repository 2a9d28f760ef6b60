//! The JSON streams: channels and symbols, chosen by request (`docs/streams.md`).
//!
//! ```text
//! request ─▶ next filters, or an error and nothing changes ─▶ groups to join, groups to leave
//!         ─▶ `subscribed` ─▶ the latest state of what was joined
//! ```

use std::sync::Arc;

use super::Dialect;
use super::conversation::Conversation;
use super::stream_client::{StreamClient, groups_of};
use crate::engine::clock;
use crate::health::log_limit;
use crate::server::shard::close::{Close, CloseFrame};
use crate::server::shard::grant::LEEWAY_SECONDS;
use crate::server::shard::keepalive::Keepalive;
use crate::server::shard::lanes::Lanes;
use crate::server::shard::outbox::Outbox;
use crate::server::shard::session::Session;
use crate::server::shard::sessions::{Report, Sessions};
use crate::server::shard::stats::ShardStats;
use crate::streams::stream_options::StreamOptions;
use crate::wire::streams::request::{ErrorCode, RequestError, Selection, StreamRequest};
use crate::wire::streams::{Channels, Filter, messages};
use crate::wire::websocket::ClientMessage;

/// What a shard does for clients of `/ws`.
pub struct StreamsDialect {
    channels: Arc<Channels>,
    options: StreamOptions,
    /// Bytes of answers a client may leave unread.
    max_reply_bytes: usize,
    stats: Arc<ShardStats>,
    keepalive: Keepalive,
}

impl StreamsDialect {
    /// The dialect of one shard, before it has clients.
    pub fn new(
        channels: Arc<Channels>,
        options: StreamOptions,
        max_reply_bytes: usize,
        stats: Arc<ShardStats>,
    ) -> Self {
        let interval_ms = options.ping_interval * 1000;
        let keepalive = Keepalive::new(interval_ms, 2 * interval_ms);
        Self { channels, options, max_reply_bytes, stats, keepalive }
    }

    fn request(&self, message: &ClientMessage<'_>, talk: &mut Conversation<'_>) -> Result<(), RequestError> {
        let limit = self.options.max_request_bytes;
        let request = match message {
            ClientMessage::Text(text) if text.len() <= limit => StreamRequest::parse(text)?,
            ClientMessage::Text(text) => {
                let words = format!("expected messages of at most {limit} bytes, got {}", text.len());
                return Err(RequestError::new(ErrorCode::TooLarge, words));
            }
            _ => return Err(RequestError::new(ErrorCode::InvalidMessage, "expected text, got a binary message")),
        };
        match request {
            StreamRequest::Ping => {
                talk.answer().map(messages::append_pong);
                Ok(())
            }
            StreamRequest::Subscribe(selection) => self.subscribe(&selection, talk),
            StreamRequest::Unsubscribe(selection) => self.unsubscribe(&selection, talk),
        }
    }

    fn subscribe(&self, selection: &Selection<'_>, talk: &mut Conversation<'_>) -> Result<(), RequestError> {
        let Some(client) = client(talk) else { return Ok(()) };
        let filters = client.subscribed(&self.channels, selection, self.options.max_symbols_per_channel)?;
        self.confirm(filters, talk)
    }

    fn unsubscribe(&self, selection: &Selection<'_>, talk: &mut Conversation<'_>) -> Result<(), RequestError> {
        let Some(client) = client(talk) else { return Ok(()) };
        let filters = client.unsubscribed(&self.channels, selection)?;
        self.confirm(filters, talk)
    }

    /// Sets the client's filters, answers `subscribed`, and sends the latest state of what is new.
    fn confirm(&self, filters: Vec<(usize, Filter)>, talk: &mut Conversation<'_>) -> Result<(), RequestError> {
        let joined = self.change(filters, false, talk)?;
        let Some(client) = client(talk) else { return Ok(()) };
        let mut answer = Vec::new();
        let filters = client.filters().iter().map(|(at, filter)| (*at, filter));
        messages::append_subscribed(&self.channels, filters, &mut answer);
        if let Some(out) = talk.answer() {
            out.extend_from_slice(&answer);
        }
        tell_retained(&joined, talk);
        Ok(())
    }

    /// Joins and leaves the groups in which the old and the new filters differ. Returns the lanes joined.
    fn change(
        &self,
        filters: Vec<(usize, Filter)>,
        automatic: bool,
        talk: &mut Conversation<'_>,
    ) -> Result<Vec<u32>, RequestError> {
        let Some(client_now) = client(talk) else { return Ok(Vec::new()) };
        let (before, after) = (groups_of(&self.channels, client_now.filters()), groups_of(&self.channels, &filters));
        let mut joined = Vec::new();
        for group in after.difference(&before) {
            match talk.join(group) {
                Ok(lane) => joined.extend(lane),
                Err(too_many) => {
                    // The request is refused as a whole: leave what was joined so far.
                    after.difference(&before).for_each(|group| talk.leave(group));
                    let words = format!("expected at most {} filters on this server", too_many.limit);
                    return Err(RequestError::new(ErrorCode::LimitExceeded, words));
                }
            }
        }
        if before.difference(&after).next().is_some() {
            // What is due from the old groups is sent first; only what a slow socket does not take is lost.
            talk.flush();
            before.difference(&after).for_each(|group| talk.leave(group));
        }
        if let Some(client) = client(talk) {
            client.set_filters(filters, automatic);
        }
        Ok(joined)
    }

    /// Answers a refused request. An error means that there were too many, and closes the connection.
    fn refuse(&self, error: &RequestError, talk: &mut Conversation<'_>) -> Result<(), CloseFrame> {
        self.stats.request_errors.add(1);
        if let Some(out) = talk.answer() {
            messages::append_error(error, (clock::unix_ns() / 1_000_000) as i64, out);
        }
        let Some(client) = client(talk) else { return Ok(()) };
        if client.count_error(clock::monotonic_ms(), self.options.max_request_errors) {
            Ok(())
        } else {
            Err(Close::TooManyErrors.into())
        }
    }
}

impl Dialect for StreamsDialect {
    /// Auto-subscription: every trading stream the token allows, until the client asks for something.
    fn greet(&mut self, talk: &mut Conversation<'_>) {
        let Some(session) = talk.session() else { return };
        if log_limit::client_line(tracing::Level::INFO) {
            tracing::info!(connection = %session.id, "stream connection opened");
        }
        let Some(client) = session.client.as_ref() else { return };
        let automatic = client.automatic();
        if let Some(expires_unix_s) = client.expires_unix_s() {
            let expires_ns = expires_unix_s.saturating_add(LEEWAY_SECONDS).saturating_mul(1_000_000_000);
            let left_ms = expires_ns.saturating_sub(clock::unix_ns()) / 1_000_000;
            talk.sessions.set_expiry(talk.key, clock::monotonic_ms().saturating_add(left_ms));
        }
        // Cannot fail: these groups are declared.
        if self.options.auto_subscribe
            && let Ok(joined) = self.change(automatic, true, talk)
        {
            tell_retained(&joined, talk);
        }
    }

    fn hear(&mut self, message: &ClientMessage<'_>, talk: &mut Conversation<'_>) -> Result<(), CloseFrame> {
        if let Err(error) = self.request(message, talk) {
            self.refuse(&error, talk)?;
        }
        if talk.unread_bytes() > self.max_reply_bytes {
            return Err(Close::UnreadAnswers.into());
        }
        Ok(())
    }

    fn too_slow(&self, _: &mut Session) -> Report {
        Report::Close(Close::SlowStream.into())
    }

    /// Nothing: the close frame says it all.
    fn farewell(&self, _: &Session, _: &CloseFrame) -> Vec<u8> {
        Vec::new()
    }

    fn keepalive(&mut self) -> &mut Keepalive {
        &mut self.keepalive
    }

    fn expire(&mut self, _: u64, _: &mut Sessions, _: &mut Lanes, _: &mut Outbox) {}

    fn next_ms(&self) -> Option<u64> {
        self.keepalive.next_ms()
    }
}

/// Queues the latest state of the groups just joined, where there is one. However large it is, it is no answer that
/// the client leaves unread: it goes out as the client takes it, and costs no memory of its own.
fn tell_retained(joined: &[u32], talk: &mut Conversation<'_>) {
    for &lane in joined {
        let state = talk.lanes.retained(lane);
        let connection = talk.sessions.connection_mut(talk.key).filter(|connection| connection.is_open());
        if let (Some(state), Some(connection)) = (state, connection) {
            connection.push_state(lane, state);
        }
    }
}

/// What is remembered of the client; every session of this dialect has it.
fn client<'a>(talk: &'a mut Conversation<'_>) -> Option<&'a mut StreamClient> {
    talk.session()?.client.as_deref_mut()
}
