//! The JSON streams: channels and symbols, chosen by request (`docs/streams.md`).
//!
//! ```text
//! request ─▶ next filters, or an error and nothing changes ─▶ groups to join, groups to leave
//!         ─▶ where each channel begins: with what was missed, or with what comes now ─▶ `subscribed`
//!         ─▶ the latest state of what was joined, or what was missed
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use super::Dialect;
use super::conversation::Conversation;
use super::stream_client::{Deferred, DeferredRequest, groups_of};
use super::stream_start::{Answers, StreamStart, client, tell_retained};
use crate::engine::system_clock;
use crate::health::log_limit;
use crate::server::shard::close::{Close, CloseFrame};
use crate::server::shard::grant::LEEWAY_SECONDS;
use crate::server::shard::keepalive::Keepalive;
use crate::server::shard::lanes::Lanes;
use crate::server::shard::outbox::Outbox;
use crate::server::shard::session::Session;
use crate::server::shard::sessions::{Report, Sessions};
use crate::server::shard::stats::ShardStats;
use crate::streams::Streams;
use crate::streams::stream_options::StreamOptions;
use crate::wire::streams::request::{ErrorCode, RequestError, Selection, StreamRequest};
use crate::wire::streams::{Filter, messages};
use crate::wire::websocket::ClientMessage;

/// How often a request that waits for a log is looked at again.
const RETRY_MS: u64 = 20;

/// What a shard does for clients of `/ws`.
pub struct StreamsDialect {
    start: StreamStart,
    /// Bytes of answers a client may leave unread.
    max_reply_bytes: usize,
    keepalive: Keepalive,
    /// Sessions with requests that wait for a log, by key and serial, and when they are looked at again.
    deferring: Vec<(u32, u32)>,
    retry_ms: u64,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Answered,
    /// It cannot be answered yet.
    Deferred,
}

impl StreamsDialect {
    /// The dialect of one shard, before it has clients.
    pub fn new(streams: Arc<Streams>, options: StreamOptions, max_reply_bytes: usize, stats: Arc<ShardStats>) -> Self {
        let interval_ms = options.ping_interval * 1000;
        let keepalive = Keepalive::new(interval_ms, 2 * interval_ms);
        let start = StreamStart { streams, options, stats };
        Self { start, max_reply_bytes, keepalive, deferring: Vec::new(), retry_ms: 0 }
    }

    /// The text of a message, if it may be a request.
    fn text<'a>(&self, message: &ClientMessage<'a>) -> Result<&'a str, RequestError> {
        let limit = self.start.options.max_request_bytes;
        match message {
            ClientMessage::Text(text) if text.len() <= limit => Ok(text),
            ClientMessage::Text(text) => {
                let words = format!("expected messages of at most {limit} bytes, got {}", text.len());
                Err(RequestError::new(ErrorCode::TooLarge, words))
            }
            _ => Err(RequestError::new(ErrorCode::InvalidMessage, "expected text, got a binary message")),
        }
    }

    /// Executes a request. `may_wait`: it may be answered later, if that can make the answer a better one.
    fn request(&self, text: &str, may_wait: bool, talk: &mut Conversation<'_>) -> Result<Outcome, RequestError> {
        match StreamRequest::parse(text)? {
            StreamRequest::Ping => {
                talk.answer().map(messages::append_pong);
            }
            // Requests are answered in their order.
            _ if may_wait && client(talk).is_some_and(|client| client.deferred().is_some()) => {
                return Ok(Outcome::Deferred);
            }
            StreamRequest::Subscribe(selection) if may_wait && self.may_come(&selection) => {
                return Ok(Outcome::Deferred);
            }
            StreamRequest::Subscribe(selection) => self.subscribe(&selection, talk)?,
            StreamRequest::Unsubscribe(selection) => self.unsubscribe(&selection, talk)?,
        }
        Ok(Outcome::Answered)
    }

    /// Whether a position that cannot be answered with everything now may be a moment later.
    fn may_come(&self, selection: &Selection<'_>) -> bool {
        let now_ms = system_clock::monotonic_ms();
        selection.since.iter().any(|(channel, since)| {
            let history = self.start.streams.history_of_log(channel);
            history.is_some_and(|history| history.start_after(since, now_ms).is_err_and(|why| history.may_come(why)))
        })
    }

    /// Keeps a request for later.
    fn defer(&mut self, text: &str, talk: &mut Conversation<'_>) -> Result<(), RequestError> {
        const REQUESTS: usize = 16;
        let now_ms = system_clock::monotonic_ms();
        let wait_ms = u64::try_from(self.start.options.resume_wait.as_millis()).unwrap_or(u64::MAX);
        let (key, serial) = (talk.key, talk.sessions.serial(talk.key));
        let Some(client) = client(talk) else { return Ok(()) };
        let is_first = client.deferred().is_none();
        let until_ms = now_ms.saturating_add(wait_ms);
        let deferred =
            client.deferred().get_or_insert_with(|| Box::new(Deferred { waiting: VecDeque::new(), until_ms }));
        let lengths = deferred.waiting.iter().filter_map(|waiting| match waiting {
            DeferredRequest::Heard(text) => Some(text.len()),
            DeferredRequest::Refused(_) => None,
        });
        let (requests, bytes) = lengths.fold((0, text.len()), |(requests, bytes), len| (requests + 1, bytes + len));
        if requests >= REQUESTS || bytes > self.start.options.max_request_bytes {
            let words = format!(
                "expected at most {REQUESTS} requests and {} bytes while one waits",
                self.start.options.max_request_bytes
            );
            return Err(RequestError::new(ErrorCode::LimitExceeded, words));
        }
        deferred.waiting.push_back(DeferredRequest::Heard(text.into()));
        if is_first {
            if self.deferring.is_empty() {
                self.retry_ms = now_ms + RETRY_MS;
            }
            self.deferring.push((key, serial));
        }
        Ok(())
    }

    /// Tries the requests that wait for a log again. False if some still do.
    fn retry(&self, talk: &mut Conversation<'_>) -> bool {
        loop {
            let Some(deferred) = client(talk).and_then(|client| client.deferred().as_mut()) else { return true };
            let is_over = deferred.until_ms <= system_clock::monotonic_ms();
            let text = match deferred.waiting.pop_front() {
                Some(DeferredRequest::Heard(text)) => text,
                Some(DeferredRequest::Refused(error)) => {
                    tell(&error, talk);
                    continue;
                }
                None => {
                    client(talk).map(|client| client.deferred().take());
                    return true;
                }
            };
            let waits = !is_over
                && matches!(StreamRequest::parse(&text), Ok(StreamRequest::Subscribe(selection)) if self.may_come(&selection));
            if waits {
                if let Some(deferred) = client(talk).and_then(|client| client.deferred().as_mut()) {
                    deferred.waiting.push_front(DeferredRequest::Heard(text));
                }
                return false;
            }
            if let Err(error) = self.request(&text, false, talk) {
                tell(&error, talk);
                if let Err(close) = self.count_error(talk) {
                    talk.sessions.report(talk.key, Report::Close(close));
                    return true;
                }
            }
        }
    }

    fn subscribe(&self, selection: &Selection<'_>, talk: &mut Conversation<'_>) -> Result<(), RequestError> {
        let channels = self.start.streams.channels();
        let Some(client) = client(talk) else { return Ok(()) };
        let numbers = client.resolve(channels, selection)?;
        let policies = numbers.iter().map(|&number| self.start.policy(number, selection.policy, client.pull(number)));
        let policies = policies.collect::<Result<Vec<_>, _>>()?;
        let filters = client.subscribed(channels, selection, self.start.options.max_symbols_per_channel)?;
        let joined = self.change(filters, false, talk)?;
        let mut answers = Answers::new();
        for (&number, policy) in numbers.iter().zip(policies) {
            let name = &channels.all()[number].name;
            let since = selection.since.iter().find(|(channel, _)| channel == name).map(|(_, since)| since);
            answers.extend(self.start.begin(number, policy, since, talk).map(|answer| (number, answer)));
        }
        self.start.confirm(&answers, &joined, talk);
        Ok(())
    }

    fn unsubscribe(&self, selection: &Selection<'_>, talk: &mut Conversation<'_>) -> Result<(), RequestError> {
        let Some(client) = client(talk) else { return Ok(()) };
        let filters = client.unsubscribed(self.start.streams.channels(), selection)?;
        let joined = self.change(filters, false, talk)?;
        self.start.confirm(&Answers::new(), &joined, talk);
        Ok(())
    }

    /// Joins and leaves the groups in which the old and the new filters differ. Returns the lanes joined.
    fn change(
        &self,
        filters: Vec<(usize, Filter)>,
        automatic: bool,
        talk: &mut Conversation<'_>,
    ) -> Result<Vec<u32>, RequestError> {
        let channels = self.start.streams.channels();
        let Some(client_now) = client(talk) else { return Ok(Vec::new()) };
        let (before, after) = (groups_of(channels, client_now.filters()), groups_of(channels, &filters));
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
        if let Some(session) = talk.sessions.get_mut(talk.key)
            && let Some(client) = session.client.as_mut()
        {
            client.set_filters(filters, automatic);
            session.is_pulling = !client.pulls().is_empty();
            self.start.hold_again(session, talk.lanes);
            talk.pull();
        }
        Ok(joined)
    }

    /// Refuses what just came. Requests are answered in their order, so a client whose earlier ones wait is told in its
    /// turn. An error means that there were too many, and closes the connection.
    fn refuse(&self, error: RequestError, talk: &mut Conversation<'_>) -> Result<(), CloseFrame> {
        match client(talk).and_then(|client| client.deferred().as_mut()) {
            Some(deferred) => deferred.waiting.push_back(DeferredRequest::Refused(error)),
            None => tell(&error, talk),
        }
        self.count_error(talk)
    }

    /// Counts a refused request. An error means that there were too many.
    fn count_error(&self, talk: &mut Conversation<'_>) -> Result<(), CloseFrame> {
        self.start.stats.request_errors.add(1);
        let Some(client) = client(talk) else { return Ok(()) };
        if client.count_error(system_clock::monotonic_ms(), self.start.options.max_request_errors) {
            Ok(())
        } else {
            Err(Close::TooManyErrors.into())
        }
    }
}

/// Answers a refused request.
fn tell(error: &RequestError, talk: &mut Conversation<'_>) {
    if let Some(out) = talk.answer() {
        messages::append_error(error, (system_clock::unix_ns() / 1_000_000) as i64, out);
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
        let channels: Vec<usize> = automatic.iter().map(|(at, _)| *at).collect();
        if let Some(expires_unix_s) = client.expires_unix_s() {
            let expires_ns = expires_unix_s.saturating_add(LEEWAY_SECONDS).saturating_mul(1_000_000_000);
            let left_ms = expires_ns.saturating_sub(system_clock::unix_ns()) / 1_000_000;
            talk.sessions.set_expiry(talk.key, system_clock::monotonic_ms().saturating_add(left_ms));
        }
        // Cannot fail: these groups are declared.
        if self.start.options.auto_subscribe
            && let Ok(joined) = self.change(automatic, true, talk)
        {
            for channel in channels {
                let policy = self.start.options.policy(&self.start.streams.channels().all()[channel].name);
                self.start.begin(channel, policy, None, talk);
            }
            tell_retained(&joined, talk);
        }
    }

    fn hear(&mut self, message: &ClientMessage<'_>, talk: &mut Conversation<'_>) -> Result<(), CloseFrame> {
        let heard = self.text(message).and_then(|text| match self.request(text, true, talk)? {
            Outcome::Answered => Ok(()),
            Outcome::Deferred => self.defer(text, talk),
        });
        if let Err(error) = heard {
            self.refuse(error, talk)?;
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

    fn expire(&mut self, now_ms: u64, sessions: &mut Sessions, lanes: &mut Lanes, outbox: &mut Outbox) {
        if self.deferring.is_empty() || now_ms < self.retry_ms {
            return;
        }
        self.retry_ms = now_ms + RETRY_MS;
        for (key, serial) in std::mem::take(&mut self.deferring) {
            if sessions.current(key, serial).is_none() {
                continue;
            }
            let mut talk = Conversation { key, sessions, lanes, outbox };
            if !self.retry(&mut talk) {
                self.deferring.push((key, serial));
            }
            talk.flush();
        }
    }

    fn next_ms(&self) -> Option<u64> {
        let retry_ms = (!self.deferring.is_empty()).then_some(self.retry_ms);
        self.keepalive.next_ms().into_iter().chain(retry_ms).min()
    }
}
