//! Azure Web PubSub: requests with acks, sequence acks, and sessions that outlive their sockets.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::Dialect;
use super::ack::{AckFailure, HeldAck};
use super::conversation::Conversation;
use crate::engine::system_clock::monotonic_ms;
use crate::health::log_limit;
use crate::server::shard::close::{Close, CloseFrame};
use crate::server::shard::context::ShardContext;
use crate::server::shard::keepalive::Keepalive;
use crate::server::shard::lanes::Lanes;
use crate::server::shard::outbox::{AckFault, Outbox};
use crate::server::shard::session::{Session, TokenState};
use crate::server::shard::session_token::SessionTokens;
use crate::server::shard::sessions::{Report, Sessions};
use crate::server::shard::shard_options::ShardOptions;
use crate::server::shard::stats::ShardStats;
use crate::server::shard::timers::Timeouts;
use crate::wire::Wire;
use crate::wire::gexbot::GroupName;
use crate::wire::webpubsub::{self, Downstream, Upstream};
use crate::wire::websocket::ClientMessage;

/// How often a shard checks whether the frames are built that an ack waits for, ms.
const WAIT_MS: u64 = 2;

/// Acks that a plan of faults may hold back at a time; others come as usual.
const LATE_ACKS: usize = 4096;

/// What a shard does for clients of Web PubSub.
pub struct WebPubSubDialect {
    /// First part of every group's name.
    prefix: Arc<str>,
    max_groups: usize,
    /// Signs reconnection tokens, if a key is set.
    tokens: Option<Arc<SessionTokens>>,
    stats: Arc<ShardStats>,
    acks: Timeouts<HeldAck>,
    /// Acks that a plan of faults holds back, by the time when they are due, ms.
    late: BTreeMap<(u64, u64), HeldAck>,
    /// Tells those of one time apart.
    late_count: u64,
    /// Acks of joins whose frames are not built yet.
    waiting: Timeouts<HeldAck>,
    keepalive: Keepalive,
}

impl WebPubSubDialect {
    /// The dialect of one shard, before it has clients.
    pub fn new(context: &ShardContext, stats: Arc<ShardStats>) -> Self {
        let ShardOptions { keepalive, max_groups_per_connection: max_groups, ack_delay_ms, .. } = *context.options;
        Self {
            prefix: Arc::clone(&context.prefix),
            max_groups,
            tokens: context.tokens.clone(),
            stats,
            acks: Timeouts::new(ack_delay_ms),
            late: BTreeMap::new(),
            late_count: 0,
            waiting: Timeouts::new(WAIT_MS),
            keepalive: Keepalive::new(keepalive.ping_interval_seconds * 1000, keepalive.pong_grace_ms()),
        }
    }

    fn request(&mut self, request: Upstream<'_>, talk: &mut Conversation<'_>) {
        match request {
            Upstream::Join { group, ack_id } => {
                let result = self.changed(talk, |talk| once(ack_id, talk, |talk| self.join(&group, talk)));
                let lane = talk.lane_of(&group);
                self.hold_ack(ack_id, result, lane, talk);
            }
            Upstream::Leave { group, ack_id } => {
                let leave = |talk: &mut Conversation<'_>| {
                    talk.leave(&group);
                    Ok(())
                };
                let result = self.changed(talk, |talk| once(ack_id, talk, leave));
                self.hold_ack(ack_id, result, None, talk);
            }
            Upstream::SendToGroup { ack_id } => self.hold_ack(ack_id, Err(AckFailure::Publishing), None, talk),
            Upstream::Event { ack_id } => self.hold_ack(ack_id, Err(AckFailure::NoEventHandler), None, talk),
            Upstream::SequenceAck(id) => {
                let Some(session) = talk.sessions.get_mut(talk.key) else { return };
                // Confirming an id that was never sent would lose frames in a recovery.
                if session.wire.is_reliable() && id <= talk.lanes.drained(session.wire) {
                    session.acked = session.acked.max(id);
                }
            }
            Upstream::Ping => say(&Downstream::Pong, talk),
        }
    }

    /// Executes a request that may change the groups of a session, which a signed token has in it.
    fn changed<T>(&self, talk: &mut Conversation<'_>, execute: impl FnOnce(&mut Conversation<'_>) -> T) -> T {
        let count = |talk: &mut Conversation<'_>| talk.session().map_or(0, |session| session.memberships.len());
        let before = count(talk);
        let executed = execute(talk);
        let has_changed = count(talk) != before && self.tokens.is_some();
        if let Some(session) = talk.session().filter(|session| has_changed && session.is_portable()) {
            session.token_state = TokenState::Outdated;
        }
        executed
    }

    /// Makes a session a subscriber. Joining twice does nothing.
    fn join(&self, group: &str, talk: &mut Conversation<'_>) -> Result<(), AckFailure> {
        let Some(session) = talk.sessions.get_mut(talk.key) else { return Ok(()) };
        let hub = session.hub;
        GroupName::joinable(group, hub, &self.prefix).map_err(|error| AckFailure::of_name(error, hub))?;
        if session.followed.as_ref().is_some_and(|followed| !followed.allows(group)) {
            return Err(AckFailure::NotAssigned);
        }
        let lane = talk.lanes.find(&session.group_key(group), session.wire);
        let joined = lane.is_some_and(|lane| session.membership(lane).is_some());
        if !joined && session.memberships.len() >= self.max_groups {
            return Err(AckFailure::TooManyGroups);
        }
        talk.join(group).map(drop).map_err(|_| AckFailure::TooManySilentGroups)
    }

    /// Joins and leaves what negotiate says. What stays is not touched, so it loses nothing.
    fn follow(&self, talk: &mut Conversation<'_>) {
        let Some(session) = talk.session() else { return };
        // A closing connection has left its groups; should its client come back, it is greeted again.
        if session.connection.as_ref().is_some_and(|connection| !connection.is_open()) {
            return;
        }
        let Some(followed) = &mut session.followed else { return };
        let (gone, current) = followed.follow();
        let id = session.id;
        for group in &gone {
            talk.leave(group);
        }
        for group in current.iter() {
            if let Err(failure) = self.join(group, talk) {
                self.stats.refused.add(1);
                let reason = failure.words(&self.prefix, self.max_groups);
                if log_limit::client_line(tracing::Level::WARN) {
                    tracing::warn!(connection = %id, %group, %reason, "an assigned group was not joined");
                }
            }
        }
    }

    /// Answers a request after a delay: the Python SDK loses an ack that arrives before its caller waits for
    /// it. A request without an ack id gets no answer, but perhaps a new token. `lane` is what the client has joined.
    fn hold_ack(
        &mut self,
        ack_id: Option<u64>,
        result: Result<(), AckFailure>,
        lane: Option<u32>,
        talk: &mut Conversation<'_>,
    ) {
        if result.is_err() {
            self.stats.refused.add(1);
        }
        let (key, serial) = (talk.key, talk.sessions.serial(talk.key));
        let fault = ack_id.filter(|_| self.late.len() < LATE_ACKS).and_then(|ack_id| talk.ack_fault(ack_id));
        let ack =
            HeldAck { key, serial, ack_id: ack_id.filter(|_| !matches!(fault, Some(AckFault::Lost))), result, lane };
        if let Some(AckFault::Late { by_ms }) = fault {
            self.late_count += 1;
            self.late.insert((monotonic_ms() + by_ms, self.late_count), ack);
        } else if ack.ack_id.is_some()
            || talk.session().is_some_and(|session| session.token_state == TokenState::Outdated)
        {
            self.acks.push(monotonic_ms(), ack);
        }
    }

    /// The next ack whose time has come.
    fn next_ack(&mut self, now_ms: u64) -> Option<HeldAck> {
        let held = self.waiting.pop(now_ms).or_else(|| self.acks.pop(now_ms));
        held.or_else(|| {
            let late = self.late.first_entry()?;
            (late.key().0 <= now_ms).then(|| late.remove())
        })
    }

    /// Appends an ack whose delay is over. What was joined or left is in the client's token before it is acknowledged, so
    /// that no restart can take it back.
    fn ack(&self, HeldAck { key, serial, ack_id, result, .. }: HeldAck, sessions: &mut Sessions, lanes: &Lanes) {
        let words = result.err().map(|error| error.words(&self.prefix, self.max_groups));
        let result = result.map_err(|error| (error.name(), words.as_deref().unwrap_or_default()));
        if !sessions.current(key, serial).is_some_and(|connection| connection.is_open()) {
            return;
        }
        let Some(session) = sessions.get_mut(key) else { return };
        let Some(wire) = wire_of(session) else { return };
        if session.token_state == TokenState::Outdated {
            self.tell_connected(session, wire, lanes);
        }
        if let (Some(ack_id), Some(connection)) = (ack_id, &mut session.connection) {
            wire.append(&Downstream::Ack { ack_id, result }, connection.control());
        }
    }

    /// Appends `connected`, which has the token.
    fn tell_connected(&self, session: &mut Session, wire: webpubsub::PubSubWire, lanes: &Lanes) {
        session.token_state = TokenState::Current;
        let signed = self.tokens.as_ref().and_then(|tokens| session.signed_token(tokens, lanes));
        let (mut id, mut plain) = (Uuid::encode_buffer(), Uuid::encode_buffer());
        let plain = &*Uuid::from_u128(session.token).simple().encode_lower(&mut plain);
        let connected = Downstream::Connected {
            connection_id: session.id.hyphenated().encode_lower(&mut id),
            user_id: &session.user,
            reconnection_token: wire.reliable.then_some(signed.as_deref().unwrap_or(plain)),
        };
        if let Some(connection) = &mut session.connection {
            wire.append(&connected, connection.control());
        }
    }
}

impl Dialect for WebPubSubDialect {
    /// `connected` is the first message of every connection.
    fn greet(&mut self, talk: &mut Conversation<'_>) {
        let Some(session) = talk.sessions.get_mut(talk.key) else { return };
        let Some(wire) = wire_of(session) else { return };
        self.tell_connected(session, wire, talk.lanes);
        let (subprotocol, profile) = (wire.subprotocol(), wire.profile.name());
        if log_limit::client_line(tracing::Level::INFO) {
            tracing::info!(connection = %session.id, hub = %session.hub, subprotocol, profile, "connection opened");
        }
        self.follow(talk);
    }

    fn reassigned(&mut self, talk: &mut Conversation<'_>) {
        self.follow(talk);
    }

    fn hear(&mut self, message: &ClientMessage<'_>, talk: &mut Conversation<'_>) -> Result<(), CloseFrame> {
        let Some(wire) = talk.session().and_then(|session| wire_of(session)) else { return Ok(()) };
        let request = wire.parse(message).map_err(|malformed| CloseFrame::violation(malformed.code(), &malformed))?;
        self.request(request, talk);
        Ok(())
    }

    /// A plain connection is told and closed. A reliable one is reset, and its session waits for the
    /// client to come back.
    fn too_slow(&self, session: &mut Session) -> Report {
        if session.wire.is_reliable() {
            session.lagged = true;
            return Report::Lost(Close::SlowReliable);
        }
        Report::Close(Close::Slow.into())
    }

    fn farewell(&self, session: &Session, frame: &CloseFrame) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(wire) = wire_of(session) {
            wire.append(&Downstream::Disconnected { reason: frame.reason() }, &mut out);
        }
        out
    }

    fn keepalive(&mut self) -> &mut Keepalive {
        &mut self.keepalive
    }

    fn expire(&mut self, now_ms: u64, sessions: &mut Sessions, lanes: &mut Lanes, outbox: &mut Outbox) {
        while let Some(ack) = self.next_ack(now_ms) {
            if is_waiting(&ack, sessions, lanes) {
                self.waiting.push(now_ms, ack);
                continue;
            }
            let key = ack.key;
            self.ack(ack, sessions, lanes);
            // Acks of the same moment leave in one send.
            if self.acks.front().is_none_or(|next| next.key != key) {
                outbox.flush(key, sessions, lanes);
            }
        }
    }

    fn next_ms(&self) -> Option<u64> {
        let late_ms = self.late.first_key_value().map(|((due_ms, _), _)| *due_ms);
        let held = self.acks.next_ms().into_iter().chain(self.waiting.next_ms()).chain(late_ms);
        held.chain(self.keepalive.next_ms()).min()
    }
}

/// Whether the frames of what was joined are still being built.
fn is_waiting(ack: &HeldAck, sessions: &mut Sessions, lanes: &mut Lanes) -> bool {
    let Some(lane) = ack.lane else { return false };
    // It may have left meanwhile: then nothing is waited for.
    let is_member = sessions.get_mut(ack.key).is_some_and(|session| session.membership(lane).is_some());
    is_member && !lanes.is_ready(lane)
}

/// A session's subprotocol; every session of this dialect has one.
fn wire_of(session: &Session) -> Option<webpubsub::PubSubWire> {
    match session.wire {
        Wire::WebPubSub(wire) => Some(wire),
        Wire::Streams => None,
    }
}

/// Appends a control message, unless the connection is closing.
fn say(message: &Downstream<'_>, talk: &mut Conversation<'_>) {
    let Some(wire) = talk.session().and_then(|session| wire_of(session)) else { return };
    if let Some(answer) = talk.answer() {
        wire.append(message, answer);
    }
}

/// Executes a request unless its ack id was executed with success before.
fn once(
    ack_id: Option<u64>,
    talk: &mut Conversation<'_>,
    execute: impl FnOnce(&mut Conversation<'_>) -> Result<(), AckFailure>,
) -> Result<(), AckFailure> {
    let is_duplicate = |ack_id| talk.sessions.get(talk.key).is_some_and(|session| session.is_duplicate(ack_id));
    if ack_id.is_some_and(is_duplicate) {
        return Err(AckFailure::Duplicate);
    }
    execute(talk)?;
    if let (Some(ack_id), Some(session)) = (ack_id, talk.session()) {
        session.remember_ack(ack_id);
    }
    Ok(())
}
