//! How connections and sessions begin and end.
//!
//! ```text
//! open ─▶ connect ─▶ … ─▶ close (we say why) ─▶ depart ─┬▶ end
//!            ▲                 lose (socket is gone) ───┴▶ detach ─▶ expire ─▶ end
//!            └───── attach ◀── claim ◀─────────────────────────┘
//! ```

use std::net::TcpStream;

use rustix::event::epoll;
use uuid::Uuid;

use super::connection::{Connection, Phase, Watch};
use super::marks::Mark;
use super::session::Session;
use super::stats::Ending;
use super::subscriptions::{Client, Grant};
use crate::engine::clock;
use crate::server::shard::{Arrival, Protocol, Shard, now_ms};
use crate::wire::Wire;
use crate::wire::webpubsub::{self, Downstream};
use crate::wire::websocket::{self, Opcode};

/// Seconds a token is good for after its end, since clocks differ (`docs/streams.md`).
pub const LEEWAY_SECONDS: u64 = 60;

/// A fresh connection id that names its shard: a random UUID whose last byte is the shard's number,
/// so that a recovery finds its session without a table over all shards.
pub fn connection_id(shard: u8) -> Uuid {
    let mut bytes = Uuid::new_v4().into_bytes();
    bytes[15] = shard;
    Uuid::from_bytes(bytes)
}

/// The shard a connection id names; whether it exists is another question.
pub fn shard_of(id: Uuid) -> u8 {
    id.as_bytes()[15]
}

impl Shard {
    /// A new client: a session and its connection.
    pub(super) fn open(&mut self, arrival: Arrival) {
        if self.draining {
            return;
        }
        let Arrival { socket, read, user, protocol, admitted } = arrival;
        let (wire, client, admitted_stream) = match protocol {
            Protocol::WebPubSub(wire) => (Wire::WebPubSub(wire), None, None),
            Protocol::Streams { grant, admitted } => {
                (Wire::Streams, Some(Box::new(Client::new(grant))), Some(admitted))
            }
        };
        let id = connection_id(self.index);
        let token = if wire.is_reliable() { Uuid::new_v4().as_u128() } else { 0 };
        let mut session = Session::new(id, token, user, wire, &self.options.lag);
        session.client = client;
        let key = self.sessions.insert(session) as u32;
        if wire.is_reliable() {
            self.ids.insert(id, key);
        }
        self.connect(key, socket, &read);
        drop((admitted, admitted_stream));
    }

    /// Whether a session can be recovered. Its old socket, if it has one, is aborted at once, and
    /// the session waits anew, for the socket that is being upgraded.
    pub(super) fn claim(&mut self, id: Uuid, token: u128) -> Option<webpubsub::PubSubWire> {
        let key = *self.ids.get(&id)?;
        let session = &self.sessions[key as usize];
        if session.token != token || self.draining {
            return None;
        }
        let Wire::WebPubSub(wire) = session.wire else { return None };
        if session.connection.is_some() {
            self.lose(key, Ending::Recovered);
        } else {
            let serial = self.new_serial(key);
            self.timers.detached.push(now_ms(), (key, serial));
        }
        // No session may wait at all if the settings say so.
        let waits = self.ids.contains_key(&id) && self.options.lag.session_timeout_seconds > 0;
        waits.then_some(wire)
    }

    /// A recovered session gets its new socket and goes on where the client was.
    pub(super) fn attach(&mut self, id: Uuid, socket: TcpStream, read: &[u8]) {
        // Unknown: it expired between claim and upgrade, or the server drains. The client sees the
        // socket close and asks again.
        let Some(&key) = self.ids.get(&id) else { return };
        if self.sessions[key as usize].connection.is_some() {
            self.lose(key, Ending::Recovered);
            if !self.ids.contains_key(&id) {
                return;
            }
        }
        self.stats.detached.subtract(1);
        let session = &mut self.sessions[key as usize];
        let gap = session.resume(&self.groups, &self.options.lag);
        self.stats.recoveries.add(1);
        self.stats.recovery_gap_frames.add(gap);
        tracing::info!(connection = %id, gap, "session recovered");
        self.connect(key, socket, read);
    }

    /// Gives a session its socket; `connected` is the first message on it.
    fn connect(&mut self, key: u32, socket: TcpStream, read: &[u8]) {
        let now = now_ms();
        let serial = self.new_serial(key);
        // The listener's limit is for HTTP clients that do not read; here the lag rule judges.
        // Fails only on a socket that is gone, which the first read tells.
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&socket, 0);
        let connection = Connection::new(socket, now);
        let data = epoll::EventData::new_u64(u64::from(key));
        let watched = epoll::add(&self.epoll, connection.socket(), data, Watch::Read.flags());
        self.stats.connections.add(1);
        self.stats.opened.add(1);

        let session = &mut self.sessions[key as usize];
        let (id, wire) = (session.id, session.wire);
        session.connection = Some(connection);
        self.marks.set(key, Mark::Ready);
        self.timers.pings(wire).due.push(now, (key, serial));
        match wire {
            Wire::WebPubSub(wire) => self.greet(key, wire),
            Wire::Streams => {
                self.stats.stream_connections.add(1);
                tracing::info!(connection = %id, "stream connection opened");
            }
        }
        if let Err(error) = watched {
            tracing::error!(%error, "expected the kernel to watch one more socket, it refused");
            return self.lose(key, Ending::Gone);
        }
        if wire == Wire::Streams {
            self.set_expiry(key);
            self.subscribe_unasked(key);
        }
        if !read.is_empty() && self.sessions.contains(key as usize) {
            self.hear(key, &mut read.to_vec());
        }
        self.flush(key);
    }

    /// `connected`, the first message of every Web PubSub connection.
    fn greet(&mut self, key: u32, wire: webpubsub::PubSubWire) {
        let session = &mut self.sessions[key as usize];
        let Some(connection) = session.connection.as_mut() else { return };
        let (mut id, mut token) = (Uuid::encode_buffer(), Uuid::encode_buffer());
        let token = &*Uuid::from_u128(session.token).simple().encode_lower(&mut token);
        let connected = Downstream::Connected {
            connection_id: session.id.hyphenated().encode_lower(&mut id),
            user_id: &session.user,
            reconnection_token: wire.reliable.then_some(token),
        };
        wire.append(&connected, connection.control());
        let (subprotocol, profile) = (wire.subprotocol(), wire.profile.name());
        tracing::info!(connection = %session.id, subprotocol, profile, "connection opened");
    }

    /// A connection ends with its token.
    fn set_expiry(&mut self, key: u32) {
        let Some(client) = self.sessions[key as usize].client.as_mut() else { return };
        let Grant { expires_unix_s: Some(expires), .. } = client.grant else { return };
        let left_ns =
            expires.saturating_add(LEEWAY_SECONDS).saturating_mul(1_000_000_000).saturating_sub(clock::unix_ns());
        let expires_ms = now_ms().saturating_add(left_ns / 1_000_000);
        client.expires_ms = Some(expires_ms);
        self.timers.expiries.insert((expires_ms, key));
    }

    fn new_serial(&mut self, key: u32) -> u32 {
        self.next_serial = self.next_serial.wrapping_add(1);
        self.sessions[key as usize].serial = self.next_serial;
        self.next_serial
    }

    /// Sets what the kernel tells about a session's socket.
    pub(super) fn watch(&self, key: u32, watch: Watch) {
        if let Some(connection) = &self.sessions[key as usize].connection {
            let data = epoll::EventData::new_u64(u64::from(key));
            // Cannot fail: the socket was added when it was connected and leaves with its descriptor.
            let _ = epoll::modify(&self.epoll, connection.socket(), data, watch.flags());
        }
    }

    /// Closes a connection and ends its session: finish the frame in flight, say why, wait for the
    /// client's end for as long as the write timeout.
    pub(super) fn close(&mut self, key: u32, code: u16, reason: &str, ending: Ending) {
        self.leave_all(key);
        let session = &mut self.sessions[key as usize];
        self.ids.remove(&session.id);
        let Some(connection) = session.connection.as_mut().filter(|connection| connection.is_open()) else { return };
        if ending == Ending::Shutdown
            && let Wire::WebPubSub(wire) = session.wire
        {
            wire.append(&Downstream::Disconnected { reason }, connection.control());
        }
        websocket::append_close(code, reason, connection.control());
        connection.phase = Phase::Closing { ending, answered: false };
        self.timers.closes.push(now_ms(), (key, session.serial));
        self.flush(key);
    }

    /// Takes a client's close frame. Code 1000 ends the session; after any other a reliable client
    /// may come back for it.
    pub(super) fn closed_by_client(&mut self, key: u32, code: Option<u16>) {
        let session = &mut self.sessions[key as usize];
        let Some(connection) = session.connection.as_mut() else { return };
        match connection.phase {
            Phase::Lingering { ending } => return self.depart(key, ending),
            // Our own close is under way; it still has to leave.
            Phase::Closing { ending, .. } => connection.phase = Phase::Closing { ending, answered: true },
            Phase::Open => {
                match code {
                    Some(code) => websocket::append_close(code, "", connection.control()),
                    None => websocket::append(Opcode::Close, &[], connection.control()),
                }
                connection.phase = Phase::Closing { ending: Ending::Client, answered: true };
                self.timers.closes.push(now_ms(), (key, session.serial));
                if code == Some(1000) {
                    self.ids.remove(&session.id);
                    self.leave_all(key);
                }
            }
        }
        self.flush(key);
    }

    /// The socket is of no use any more and is reset.
    pub(super) fn lose(&mut self, key: u32, ending: Ending) {
        if let Some(connection) = self.sessions.get(key as usize).and_then(|session| session.connection.as_ref()) {
            connection.abort_on_drop();
        }
        self.depart(key, ending);
    }

    /// Drops the socket; the session waits for its client, or ends.
    pub(super) fn depart(&mut self, key: u32, ending: Ending) {
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        let Some(connection) = session.connection.take() else { return };
        drop(connection);
        self.marks.set(key, Mark::Away);
        if let Some(client) = &mut session.client {
            self.stats.stream_connections.subtract(1);
            if let Some(expires_ms) = client.expires_ms.take() {
                self.timers.expiries.remove(&(expires_ms, key));
            }
        }
        self.stats.ended(ending);
        tracing::info!(connection = %session.id, reason = ending.name(), "connection closed");
        if self.ids.contains_key(&session.id) && !self.draining {
            self.detach(key);
        } else {
            self.end(key);
        }
    }

    /// A session waits for its client, for a bounded time and among a bounded number.
    fn detach(&mut self, key: u32) {
        let serial = self.new_serial(key);
        self.timers.detached.push(now_ms(), (key, serial));
        self.stats.detached.add(1);
        while self.stats.detached.get() > self.options.lag.max_detached_sessions as u64
            && let Some((oldest, serial)) = self.timers.detached.pop_oldest()
        {
            self.expire_session(oldest, serial);
        }
    }

    /// A detached session's time is over, unless its client came or claimed it meanwhile.
    pub(super) fn expire_session(&mut self, key: u32, serial: u32) {
        let Some(session) = self.sessions.get(key as usize).filter(|session| session.serial == serial) else { return };
        tracing::debug!(connection = %session.id, "session expired");
        self.stats.detached.subtract(1);
        self.end(key);
    }

    /// Forgets a session.
    fn end(&mut self, key: u32) {
        self.leave_all(key);
        let session = self.sessions.remove(key as usize);
        self.ids.remove(&session.id);
    }

    /// The server stops: every client is told, every session ends.
    pub(super) fn close_all(&mut self) {
        self.draining = true;
        let keys: Vec<u32> = self.sessions.iter().map(|(key, _)| key as u32).collect();
        for key in keys {
            if self.sessions[key as usize].connection.is_some() {
                self.close(key, 1001, "the server is shutting down", Ending::Shutdown);
            } else {
                self.stats.detached.subtract(1);
                self.end(key);
            }
        }
    }
}
