//! What clients say, and the answers.

use rustix::event::epoll::EventFlags;

use super::connection::{Connection, Phase, Watch};
use super::marks::Mark;
use super::refusal::{HeldAck, Refusal};
use super::session::Membership;
use super::stats::Ending;
use crate::engine::hub::TooManySilentGroups;
use crate::server::shard::{Pinged, Shard, now_ms};
use crate::wire::Wire;
use crate::wire::gexbot;
use crate::wire::webpubsub::{Downstream, Upstream};
use crate::wire::websocket::{self, Message, Opcode};

impl Shard {
    /// The kernel says a socket can be read, or written, or is gone.
    pub(super) fn ready(&mut self, key: u32, flags: EventFlags) {
        if flags.intersects(EventFlags::IN | EventFlags::ERR | EventFlags::HUP) {
            self.receive(key);
        }
        if self.marks.get(key) == Mark::Blocked && flags.contains(EventFlags::OUT) {
            self.marks.set(key, Mark::Ready);
            self.watch(key, Watch::Read);
            self.flush(key);
        }
    }

    fn receive(&mut self, key: u32) {
        let connection = self.sessions.get_mut(key as usize).and_then(|session| session.connection.as_mut());
        let Some(connection) = connection else { return };
        match connection.receive(&mut self.read_buffer) {
            Ok(None) => {}
            Ok(Some(0)) => match connection.phase {
                Phase::Lingering { ending } | Phase::Closing { ending, .. } => self.depart(key, ending),
                Phase::Open => self.depart(key, Ending::Gone),
            },
            Ok(Some(length)) => {
                // Out of `self` while it is heard, so that the hearing may use `self`.
                let mut buffer = std::mem::take(&mut self.read_buffer);
                self.hear(key, &mut buffer[..length]);
                self.read_buffer = buffer;
            }
            Err(_) => self.lose(key, Ending::Gone),
        }
    }

    /// Understands what a client sent, and answers.
    pub(super) fn hear(&mut self, key: u32, bytes: &mut [u8]) {
        let Some(connection) = self.sessions[key as usize].connection.as_mut() else { return };
        connection.heard_ms = now_ms();
        let mut inbound = std::mem::take(&mut connection.inbound);
        let limit = self.options.max_message_bytes;
        let read = inbound.read(bytes, limit, |message| self.message(key, &message));
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        let Some(connection) = session.connection.as_mut() else { return };
        connection.inbound = inbound;
        if let Err(violation) = read {
            return self.violated(key, violation.code(), &violation);
        }
        if connection.control_bytes() > self.options.max_reply_bytes {
            return self.close(key, 1008, "too many answers were not read", Ending::Replies);
        }
        if connection.has_unsent() {
            self.flush(key);
        }
    }

    /// One message. False: nothing more is wanted from this client.
    fn message(&mut self, key: u32, message: &Message<'_>) -> bool {
        let Some(session) = self.sessions.get_mut(key as usize) else { return false };
        let wire = session.wire;
        let Some(connection) = session.connection.as_mut() else { return false };
        match message {
            Message::Close(code) => {
                self.closed_by_client(key, *code);
                return false;
            }
            // Closing: only the client's close frame still matters.
            _ if !connection.is_open() => {}
            Message::Ping(payload) => websocket::append(Opcode::Pong, payload, connection.control()),
            Message::Pong => {}
            Message::Text(_) | Message::Binary(_) => match wire {
                Wire::WebPubSub(wire) => match wire.parse(message) {
                    Ok(request) => self.request(key, request),
                    Err(malformed) => {
                        self.violated(key, malformed.code(), &malformed);
                        return false;
                    }
                },
                Wire::Streams => return self.stream_message(key, message),
            },
        }
        true
    }

    /// Closes a connection whose client broke the rules.
    fn violated(&mut self, key: u32, code: u16, reason: &dyn std::fmt::Display) {
        if let Some(suppressed) = self.warnings.pass(now_ms()) {
            let connection = self.sessions[key as usize].id;
            tracing::warn!(%connection, code, %reason, suppressed, "a client broke the protocol and is closed");
        }
        self.close(key, code, &reason.to_string(), Ending::Protocol);
    }

    fn request(&mut self, key: u32, request: Upstream<'_>) {
        match request {
            Upstream::Join { group, ack_id } => {
                let result = self.once(key, ack_id, |shard| shard.join(key, &group));
                self.hold_ack(key, ack_id, result);
            }
            Upstream::Leave { group, ack_id } => {
                let result = self.once(key, ack_id, |shard| {
                    shard.leave(key, &group);
                    Ok(())
                });
                self.hold_ack(key, ack_id, result);
            }
            Upstream::SendToGroup { ack_id } => self.hold_ack(key, ack_id, Err(Refusal::Publishing)),
            Upstream::Event { ack_id } => self.hold_ack(key, ack_id, Err(Refusal::NoEventHandler)),
            Upstream::SequenceAck(id) => {
                let session = &mut self.sessions[key as usize];
                let published = self.groups.drained(session.wire);
                // An id that was never sent would lose frames in a recovery.
                if session.wire.is_reliable() && id <= published {
                    session.acked = session.acked.max(id);
                }
            }
            Upstream::Ping => {
                let session = &mut self.sessions[key as usize];
                if let (Wire::WebPubSub(wire), Some(connection)) = (session.wire, session.connection.as_mut()) {
                    wire.append(&Downstream::Pong, connection.control());
                }
            }
        }
    }

    /// Executes a request unless its ack id was executed with success before.
    fn once(
        &mut self,
        key: u32,
        ack_id: Option<u64>,
        execute: impl FnOnce(&mut Self) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        if let Some(ack_id) = ack_id
            && self.sessions[key as usize].is_duplicate(ack_id)
        {
            return Err(Refusal::Duplicate);
        }
        execute(self)?;
        if let Some(ack_id) = ack_id {
            self.sessions[key as usize].remember_ack(ack_id);
        }
        Ok(())
    }

    /// Makes a session a subscriber. Joining twice does nothing.
    fn join(&mut self, key: u32, group: &str) -> Result<(), Refusal> {
        gexbot::check_orderflow_group(group, &self.prefix)?;
        let session = &mut self.sessions[key as usize];
        let joined = self.groups.find(group, session.wire).is_some_and(|lane| session.membership(lane).is_some());
        if !joined && session.memberships.len() >= self.options.max_groups_per_connection {
            return Err(Refusal::TooManyGroups);
        }
        self.enter(key, group).map(drop).map_err(|_| Refusal::TooManySilentGroups)
    }

    /// Makes a session a subscriber, whatever the group. Returns the lane, unless it was there before.
    pub(super) fn enter(&mut self, key: u32, group: &str) -> Result<Option<u32>, TooManySilentGroups> {
        let session = &mut self.sessions[key as usize];
        if let Some(lane) = self.groups.find(group, session.wire)
            && session.membership(lane).is_some()
        {
            return Ok(None);
        }
        let (lane, place) = self.groups.join(group, session.wire, key)?;
        let cursor = self.groups.lane(lane).ring.head();
        session.add(Membership { lane, place, cursor, since: self.groups.drained(session.wire) });
        self.stats.subscribers.add(1);
        tracing::debug!(connection = %session.id, group, "joined");
        Ok(Some(lane))
    }

    /// Ends a subscription: whole frames that were not sent are dropped, one sent in part is
    /// finished. Leaving what was never joined does nothing.
    pub(super) fn leave(&mut self, key: u32, group: &str) {
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        let Some(lane) = self.groups.find(group, session.wire) else { return };
        let Some(at) = session.memberships.iter().position(|membership| membership.lane == lane) else { return };
        tracing::debug!(connection = %session.id, group, "left");
        self.leave_at(key, at);
    }

    fn leave_at(&mut self, key: u32, at: usize) {
        let Membership { lane, place, .. } = self.sessions[key as usize].memberships.remove(at);
        self.stats.subscribers.subtract(1);
        if let Some(moved) = self.groups.leave(lane, place)
            && let Some(membership) = self.sessions[moved as usize].membership(lane)
        {
            membership.place = place;
        }
    }

    /// Ends all subscriptions of a session.
    pub(super) fn leave_all(&mut self, key: u32) {
        while let Some(last) = self.sessions[key as usize].memberships.len().checked_sub(1) {
            self.leave_at(key, last);
        }
    }

    /// Answers a request, later: the Python SDK loses an ack that comes before its caller waits. No
    /// ack id, no answer.
    fn hold_ack(&mut self, key: u32, ack_id: Option<u64>, result: Result<(), Refusal>) {
        if result.is_err() {
            self.stats.refused.add(1);
        }
        let serial = self.sessions[key as usize].serial;
        if let Some(ack_id) = ack_id {
            self.timers.acks.push(now_ms(), HeldAck { key, serial, ack_id, result });
        }
    }

    /// Appends an answer whose time has come.
    fn ack(&mut self, HeldAck { key, serial, ack_id, result }: HeldAck) {
        let words = result.err().map(|refusal| refusal.words(&self.prefix, self.options.max_groups_per_connection));
        let result = result.map_err(|refusal| (refusal.name(), words.as_deref().unwrap_or_default()));
        let Some(session) = self.sessions.get_mut(key as usize).filter(|session| session.serial == serial) else {
            return;
        };
        if let Some(connection) = session.connection.as_mut().filter(|connection| connection.is_open())
            && let Wire::WebPubSub(wire) = session.wire
        {
            wire.append(&Downstream::Ack { ack_id, result }, connection.control());
        }
    }

    /// Does what is due.
    pub(super) fn expire(&mut self, now_ms: u64) {
        while let Some(ack) = self.timers.acks.pop(now_ms) {
            let key = ack.key;
            self.ack(ack);
            // Acks of the same moment leave in one send.
            if self.timers.acks.front().is_none_or(|next| next.key != key) {
                self.flush(key);
            }
        }
        for protocol in 0..self.timers.pings.len() {
            self.keep_alive(protocol, now_ms);
        }
        while let Some(&(due_ms, key)) = self.timers.expiries.first()
            && due_ms <= now_ms
        {
            self.timers.expiries.pop_first();
            self.close(key, 4401, "token expired", Ending::Expired);
        }
        while let Some((key, serial)) = self.timers.closes.pop(now_ms) {
            match self.current(key, serial).map(|connection| connection.phase) {
                Some(Phase::Closing { ending: Ending::Lag, .. }) => self.lose(key, Ending::Lag),
                Some(Phase::Closing { .. }) => self.lose(key, Ending::WriteTimeout),
                Some(Phase::Lingering { ending }) => self.lose(key, ending),
                Some(Phase::Open) | None => {}
            }
        }
        while let Some((key, serial)) = self.timers.detached.pop(now_ms) {
            self.expire_session(key, serial);
        }
    }

    /// Pings whose turn it is, and gives up who did not answer. What is closing is left alone.
    fn keep_alive(&mut self, protocol: usize, now_ms: u64) {
        while let Some((key, serial)) = self.timers.pings[protocol].due.pop(now_ms) {
            let Some(connection) = self.current(key, serial).filter(|connection| connection.is_open()) else {
                continue;
            };
            // Control frames go before data, so a client that reads slowly answers all the same. One
            // that takes not even those has one waiting already.
            if connection.control_bytes() == 0 {
                websocket::append(Opcode::Ping, &[], connection.control());
                self.flush(key);
            }
            self.timers.pings[protocol].due.push(now_ms, (key, serial));
            self.timers.pings[protocol].answers.push(now_ms, Pinged { key, serial, at_ms: now_ms });
        }
        while let Some(ping) = self.timers.pings[protocol].answers.pop(now_ms) {
            if self.is_silent_since(&ping) {
                // A shard that was busy, or a machine that slept, may have an answer lying in the socket.
                self.receive(ping.key);
                if self.is_silent_since(&ping) {
                    self.lose(ping.key, Ending::PongTimeout);
                }
            }
        }
    }

    /// Whether the connection that was pinged is still open and has said nothing since.
    fn is_silent_since(&mut self, ping: &Pinged) -> bool {
        self.current(ping.key, ping.serial)
            .is_some_and(|connection| connection.is_open() && ping.is_unanswered(connection.heard_ms))
    }

    /// The connection a timer was set for, if it is still that one.
    fn current(&mut self, key: u32, serial: u32) -> Option<&mut Connection> {
        let session = self.sessions.get_mut(key as usize).filter(|session| session.serial == serial)?;
        session.connection.as_mut()
    }
}
