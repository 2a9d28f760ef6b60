//! How connections end, by us, by the client or by the network, and what then becomes of their sessions.

use std::borrow::Cow;

use super::{Report, Sessions};
use crate::engine::system_clock::{self, monotonic_ms};
use crate::health::log_limit;
use crate::server::shard::close::{Close, CloseFrame};
use crate::server::shard::closed_log::{ClosedConnection, Ending};
use crate::server::shard::connection::{Connection, ConnectionState};
use crate::server::shard::lanes::Lanes;
use crate::server::shard::marks::Mark;
use crate::server::shard::session::Session;
use crate::server::shard::stats::hub_index;
use crate::wire::websocket::{self, Opcode};

impl Sessions {
    /// Ends a session, unless it may be recovered, and begins to close its connection: nothing but the rest of a frame sent in part,
    /// `farewell`, and the close frame will be sent; the client has as long as the write timeout to take them.
    pub fn close(&mut self, key: u32, frame: &CloseFrame, farewell: &[u8], lanes: &mut Lanes) {
        let Some(session) = self.get(key) else { return };
        let is_open = session.connection.as_ref().is_some_and(Connection::is_open);
        if is_open {
            let behind = session.behind(lanes).0;
            let reason = frame.reason().to_owned().into();
            self.endings.insert(key, Ending { code: Some(frame.code()), reason, behind });
        }
        if matches!(frame.close(), Close::Slow | Close::SlowStream) {
            self.count_dropped(key, lanes);
        }
        if frame.ends_session() {
            self.leave_all(key, lanes);
            self.ids.remove(&self.slab[key as usize].id);
        }
        let session = &mut self.slab[key as usize];
        let Some(connection) = session.connection.as_mut().filter(|_| is_open) else { return };
        connection.retain_states(|_| false);
        connection.control().extend_from_slice(farewell);
        websocket::append_close(frame.code(), frame.reason(), connection.control());
        connection.state = ConnectionState::Closing { close: frame.close(), answered: false };
        self.closing.push(monotonic_ms(), (key, session.serial));
    }

    /// Takes a client's close frame. Code 1000 ends the session; after any other a reliable client
    /// may come back for it.
    pub fn closed_by_client(&mut self, key: u32, code: Option<u16>, lanes: &mut Lanes) {
        let Some(session) = self.slab.get_mut(key as usize) else { return };
        let behind = session.behind(lanes).0;
        let Some(connection) = session.connection.as_mut() else { return };
        match connection.state {
            ConnectionState::Lingering { close } => self.report(key, Report::Finished(close)),
            // Our own close is under way: the rest of it must still be sent.
            ConnectionState::Closing { close, .. } => {
                connection.state = ConnectionState::Closing { close, answered: true };
            }
            ConnectionState::Open => {
                self.endings.insert(key, Ending { code, reason: Cow::default(), behind });
                connection.retain_states(|_| false);
                match code {
                    Some(code) => websocket::append_close(code, "", connection.control()),
                    None => websocket::append(Opcode::Close, &[], connection.control()),
                }
                connection.state = ConnectionState::Closing { close: Close::ByClient, answered: true };
                self.closing.push(monotonic_ms(), (key, session.serial));
                if code == Some(1000) {
                    self.ids.remove(&session.id);
                    self.leave_all(key, lanes);
                }
            }
        }
    }

    /// Counts what a client that is dropped for lag does not get any more.
    fn count_dropped(&self, key: u32, lanes: &Lanes) {
        let lags = self.get(key).into_iter().flat_map(|session| session.lags(lanes));
        for (lane, lag) in lags.filter(|(_, lag)| *lag > 0) {
            if let Some((group, _)) = lanes.group_of(lane) {
                group.count_dropped(lag);
            }
        }
    }

    /// Writes down how a connection has ended.
    fn log_closed(&self, session: &Session, connection: &Connection, close: Close, ending: Ending) {
        self.closed.push(ClosedConnection {
            at_unix_ms: system_clock::unix_ns() / 1_000_000,
            id: session.id,
            wire: session.wire,
            hub: session.hub,
            user: session.shown_user(),
            agent: connection.agent,
            address: connection.peer(),
            close,
            ending,
            lived_ms: monotonic_ms().saturating_sub(session.use_of_socket.opened_ms),
            frames: session.use_of_socket.frames,
        });
    }

    /// Resets a connection whose socket cannot be used any more.
    pub fn lose(&mut self, key: u32, close: Close, lanes: &mut Lanes) {
        if let Some(connection) = self.connection(key) {
            connection.abort_on_drop();
        }
        self.depart(key, close, lanes);
    }

    /// Drops the socket; the session waits for its client, or ends.
    pub fn depart(&mut self, key: u32, close: Close, lanes: &mut Lanes) {
        let Some(session) = self.slab.get_mut(key as usize) else { return };
        let Some(connection) = session.connection.take() else { return };
        let ending = self.endings.remove(&key);
        // A server that stops closes everybody, and nobody looks any more.
        if !self.is_draining {
            let session = &self.slab[key as usize];
            let behind = || Ending { behind: session.behind(lanes).0, ..Ending::default() };
            self.log_closed(session, &connection, close, ending.unwrap_or_else(behind));
        }
        let session = &mut self.slab[key as usize];
        let (id, hub) = (session.id, hub_index(session.wire, session.hub));
        self.marks.set(key, Mark::Away);
        if let Some(expires_ms) = session.client.as_mut().and_then(|client| client.expires_ms.take()) {
            self.expiries.remove(&(expires_ms.get(), key));
        }
        if self.ids.contains_key(&id) && !self.is_draining {
            self.detach(key, lanes);
        } else {
            self.end(key, lanes);
        }
        // Last: whoever sees its socket closed, or it counted, finds its place free and its session waiting.
        self.stats.hub(hub).connections.subtract(1);
        self.stats.closed(close);
        if log_limit::client_line(tracing::Level::INFO) {
            tracing::info!(connection = %id, reason = close.counter(), "connection closed");
        }
        drop(connection);
    }

    /// Lets a session wait for its client, for a limited time and among a limited number.
    fn detach(&mut self, key: u32, lanes: &mut Lanes) {
        self.wait_anew(key);
        self.stats.detached.add(1);
        while self.stats.detached.get() > self.lag.max_detached_sessions as u64
            && let Some((oldest, serial)) = self.detached.pop_oldest()
        {
            self.expire_session(oldest, serial, lanes);
        }
    }

    /// Ends a detached session whose time is over, unless its client has come back or claimed it meanwhile.
    pub(super) fn expire_session(&mut self, key: u32, serial: u32, lanes: &mut Lanes) {
        if let Some(session) = self.get(key).filter(|session| session.serial == serial) {
            tracing::debug!(connection = %session.id, "session expired");
            self.stats.detached.subtract(1);
            self.end(key, lanes);
        }
    }

    /// Forgets a session.
    pub(super) fn end(&mut self, key: u32, lanes: &mut Lanes) {
        self.leave_all(key, lanes);
        self.pull_timers.remove(key);
        let session = self.slab.remove(key as usize);
        self.ids.remove(&session.id);
        if let Some(assignment) = session.assignment_id() {
            self.assigned.remove(&(assignment, key));
        }
    }
}
