//! The sessions of a shard: which there are, which are connected, and how they begin and end.
//!
//! ```text
//! add ─▶ connect ─▶ … ─▶ close (we say why) ─▶ depart ─┬▶ end
//!           ▲                  lose (reset) ───────────┴▶ detach ─▶ expire ─▶ end
//!           └──── resume ◀── claim ◀─────────────────────────┘
//! ```
//!
//! Only the loop ends a connection or a session. What other parts find out about one while they work on
//! it they [`report`](Sessions::report), so that none disappears under their hands.

mod endings;
mod pull_timers;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::TcpStream;
use std::num::NonZeroU64;
use std::sync::Arc;

use pull_timers::PullTimers;
use slab::Slab;
use uuid::Uuid;

use crate::engine::hub::TooManySilentGroups;
use crate::engine::policy::LagOptions;
use crate::engine::system_clock::monotonic_ms;
use crate::health::log_limit;
use crate::server::shard::assignment::FollowedAssignment;
use crate::server::shard::close::{Close, CloseFrame};
use crate::server::shard::closed_log::{ClosedLog, Ending};
use crate::server::shard::connection::{Connection, ConnectionState};
use crate::server::shard::connection_id::connection_id;
use crate::server::shard::dialect::stream_client::StreamClient;
use crate::server::shard::lanes::Lanes;
use crate::server::shard::mailbox::{Admitted, ClientProtocol, RestoredSession, SessionClaim, UpgradedSocket};
use crate::server::shard::marks::{Mark, Marks};
use crate::server::shard::poller::Interest;
use crate::server::shard::session::{Membership, Session, SocketUse};
use crate::server::shard::shard_options::ShardOptions;
use crate::server::shard::stats::{ShardStats, hub_index};
use crate::server::shard::timers::Timeouts;
use crate::server::shard::user_agents::AgentId;
use crate::wire::gexbot::HubName;
use crate::wire::webpubsub::PubSubWire;
use crate::wire::{Wire, webpubsub};

/// What should happen to a session's connection. The loop acts on it when the part at work is done.
#[derive(Debug)]
pub enum Report {
    /// What is asked of the kernel about its socket from now on. Writing: it took less than it was given. Only reading,
    /// though it is blocked: a plan of faults has stalled it.
    Awaits(Interest),
    /// The client is too far behind.
    Lagging,
    /// Close it, and say why.
    Close(CloseFrame),
    /// Everything is sent; the connection can end.
    Finished(Close),
    /// The socket cannot be used any more: reset it.
    Lost(Close),
}

/// All sessions of a shard, by key. A key is used again when its session has ended.
pub struct Sessions {
    shard: u8,
    lag: LagOptions,
    stats: Arc<ShardStats>,
    slab: Slab<Session>,
    marks: Marks,
    /// Sessions that can be recovered, by connection id.
    ids: HashMap<Uuid, u32>,
    next_serial: u32,
    /// Until when a closing connection may take its close frame. Entries of this and of `detached` carry a
    /// key and its session's serial at the time.
    closing: Timeouts<(u32, u32)>,
    detached: Timeouts<(u32, u32)>,
    /// Assignments by id, with the keys of their sessions.
    assigned: BTreeSet<(u64, u32)>,
    /// When tokens of open connections expire, ms; an entry goes with its connection.
    expiries: BTreeSet<(u64, u32)>,
    /// When sessions whose rate is limited read from histories again.
    pub pull_timers: PullTimers,
    reports: VecDeque<(u32, Report)>,
    /// What clients were told that are being closed, by key; an entry goes with its connection.
    endings: HashMap<u32, Ending>,
    closed: Arc<ClosedLog>,
    /// Clients of groups that have joined one at least.
    members: u64,
    /// The server stops: nobody may come, or come back.
    is_draining: bool,
}

impl Sessions {
    /// No sessions yet. The number of the shard goes into every connection id.
    pub fn new(shard: u8, options: &ShardOptions, closed: Arc<ClosedLog>, stats: Arc<ShardStats>) -> Self {
        Self {
            shard,
            lag: options.lag,
            stats,
            slab: Slab::new(),
            marks: Marks::default(),
            ids: HashMap::new(),
            next_serial: 0,
            closing: Timeouts::new(options.keepalive.write_timeout_seconds * 1000),
            detached: Timeouts::new(options.lag.session_timeout_seconds * 1000),
            assigned: BTreeSet::new(),
            expiries: BTreeSet::new(),
            pull_timers: PullTimers::default(),
            reports: VecDeque::new(),
            endings: HashMap::new(),
            closed,
            members: 0,
            is_draining: false,
        }
    }

    /// Whether the shard has no session, connected or detached.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// The session with this key; `None` if it has ended.
    pub fn get(&self, key: u32) -> Option<&Session> {
        self.slab.get(key as usize)
    }

    /// A session, to be changed.
    pub fn get_mut(&mut self, key: u32) -> Option<&mut Session> {
        self.slab.get_mut(key as usize)
    }

    /// The key after the largest one that a connected session has had.
    pub fn key_end(&self) -> u32 {
        self.marks.end()
    }

    /// The keys of all sessions, detached ones included.
    pub fn keys(&self) -> Vec<u32> {
        self.slab.iter().map(|(key, _)| key as u32).collect()
    }

    /// A session's socket; `None` while it is detached.
    pub fn connection(&self, key: u32) -> Option<&Connection> {
        self.get(key)?.connection.as_ref()
    }

    /// What the kernel knows of a session; `None` while it is detached.
    pub fn socket(&self, key: u32) -> Option<&TcpStream> {
        self.connection(key).map(Connection::socket)
    }

    /// A session's connection, to be changed.
    pub fn connection_mut(&mut self, key: u32) -> Option<&mut Connection> {
        self.get_mut(key)?.connection.as_mut()
    }

    /// The connection that a timer was set for; `None` if the session has another socket by now.
    pub fn current(&mut self, key: u32, serial: u32) -> Option<&mut Connection> {
        self.get_mut(key).filter(|session| session.serial == serial)?.connection.as_mut()
    }

    /// Whether a session may be sent to.
    pub fn mark(&self, key: u32) -> Mark {
        self.marks.get(key)
    }

    /// Clients of groups that have joined one at least.
    pub fn members(&self) -> u64 {
        self.members
    }

    /// How many sockets took less than they were offered.
    pub fn blocked(&self) -> u64 {
        self.marks.blocked()
    }

    /// Says whether a session may be sent to.
    pub fn set_mark(&mut self, key: u32, mark: Mark) {
        self.marks.set(key, mark);
    }

    /// Lets a blocked session be sent to again; `false` if it was not blocked.
    pub fn unblock(&mut self, key: u32) -> bool {
        let was_blocked = self.marks.get(key) == Mark::Blocked;
        if was_blocked {
            self.marks.set(key, Mark::Ready);
        }
        was_blocked
    }

    /// Tells the loop what is to become of a session's connection.
    pub fn report(&mut self, key: u32, report: Report) {
        self.reports.push_back((key, report));
    }

    /// The report that has waited longest.
    pub fn next_report(&mut self) -> Option<(u32, Report)> {
        self.reports.pop_front()
    }

    /// A session of a client, without a socket yet, and its place among the streams' connections if it has one. Drain
    /// before: what was published with smaller ids than a restored session's client has seen is not for it.
    pub fn arrive(
        &mut self,
        user: Box<str>,
        protocol: ClientProtocol,
        restored: Option<RestoredSession>,
        lanes: &mut Lanes,
    ) -> (u32, Option<Admitted>) {
        match restored {
            Some(restored) => (self.restore(restored, user, protocol, lanes), None),
            None => self.add(connection_id(self.shard), user, protocol),
        }
    }

    /// The session of a client that comes from another node, or from before a restart. What there is of it here is older,
    /// and ends.
    fn restore(
        &mut self,
        RestoredSession { id, groups }: RestoredSession,
        user: Box<str>,
        protocol: ClientProtocol,
        lanes: &mut Lanes,
    ) -> u32 {
        if let Some(&old) = self.ids.get(&id) {
            self.lose(old, Close::Recovered, lanes);
            self.end_detached(old, lanes);
        }
        let (key, _) = self.add(id, user, protocol);
        let refused = groups.iter().filter(|group| self.join(key, group, lanes).is_err()).count();
        self.stats.restored.add(1);
        self.stats.refused.add(refused as u64);
        if log_limit::client_line(tracing::Level::INFO) {
            tracing::info!(connection = %id, groups = groups.len(), refused, "session taken back by its token");
        }
        key
    }

    fn add(&mut self, id: Uuid, user: Box<str>, protocol: ClientProtocol) -> (u32, Option<Admitted>) {
        let wire = match protocol {
            ClientProtocol::WebPubSub { wire, .. } => Wire::WebPubSub(wire),
            ClientProtocol::Streams { .. } => Wire::Streams,
        };
        let token = if wire.is_reliable() { Uuid::new_v4().as_u128() } else { 0 };
        let mut session = Session::new(id, token, user, wire);
        let admitted = match protocol {
            ClientProtocol::WebPubSub { hub, assignment, session: clock, .. } => {
                session.hub = hub;
                session.clock = clock;
                session.followed = assignment.map(|assignment| Box::new(FollowedAssignment::new(assignment)));
                None
            }
            ClientProtocol::Streams { grant, admitted } => {
                session.client = Some(Box::new(StreamClient::new(grant)));
                Some(admitted)
            }
        };
        let assignment = session.assignment_id();
        let key = self.slab.insert(session) as u32;
        self.assigned.extend(assignment.map(|assignment| (assignment, key)));
        if wire.is_reliable() {
            self.ids.insert(id, key);
        }
        (key, admitted)
    }

    /// Gives a session its socket.
    pub fn connect(&mut self, key: u32, socket: UpgradedSocket, agent: AgentId, now_ms: u64) {
        self.renew_serial(key);
        let session = &mut self.slab[key as usize];
        session.connection = Some(Connection::new(socket, agent, now_ms));
        session.use_of_socket = SocketUse { opened_ms: now_ms, ..SocketUse::default() };
        self.marks.set(key, Mark::Ready);
        self.stats.connections.add(1);
        self.stats.opened.add(1);
        self.stats.hub(hub_index(session.wire, session.hub)).connections.add(1);
    }

    /// A session for a client that asked for one which cannot be recovered. Nobody can recover what it has until it is
    /// closed.
    pub fn add_refused(&mut self, hub: HubName, wire: PubSubWire) -> u32 {
        let wire = PubSubWire { reliable: false, ..wire };
        let protocol = ClientProtocol::WebPubSub { wire, hub, assignment: None, session: None };
        self.add(connection_id(self.shard), "".into(), protocol).0
    }

    /// The clock of a replay session has ended: ends the sessions on it.
    pub fn end_clock(&mut self, clock: &str, lanes: &mut Lanes) {
        let is_on = |session: &Session| session.clock.as_ref().is_some_and(|seat| seat.name() == clock);
        let ended: Vec<u32> =
            self.slab.iter().filter(|(_, session)| is_on(session)).map(|(key, _)| key as u32).collect();
        for key in ended {
            self.report(key, Report::Close(Close::ClockEnded.into()));
            self.end_detached(key, lanes);
        }
    }

    /// Ends a session whose client has negotiated again; others stay.
    pub fn end_replaced(&mut self, key: u32, lanes: &mut Lanes) {
        if self.get(key).is_some_and(Session::is_replaced) {
            self.report(key, Report::Close(Close::Replaced.into()));
            self.end_detached(key, lanes);
        }
    }

    /// Sets when the connection ends, whatever the client does.
    pub fn set_expiry(&mut self, key: u32, expires_ms: u64) {
        if let Some(client) = self.get_mut(key).and_then(|session| session.client.as_mut()) {
            client.expires_ms = NonZeroU64::new(expires_ms);
            self.expiries.insert((expires_ms, key));
        }
    }

    /// Answers whether a session can be recovered. The old socket of one that can, if it has one, is aborted
    /// immediately, and the session waits again, for the socket that is being upgraded.
    pub fn claim(&mut self, SessionClaim { id, token, hub, reply }: SessionClaim, lanes: &mut Lanes) {
        // Fails if the upgrade was given up; the session keeps waiting for its client.
        let _ = reply.send(self.claimed(id, token, hub, lanes));
    }

    fn claimed(&mut self, id: Uuid, token: u128, hub: HubName, lanes: &mut Lanes) -> Option<webpubsub::PubSubWire> {
        let key = *self.ids.get(&id)?;
        let session = &self.slab[key as usize];
        if session.token != token || session.hub != hub || self.is_draining {
            return None;
        }
        let Wire::WebPubSub(wire) = session.wire else { return None };
        if session.connection.is_some() {
            self.lose(key, Close::Recovered, lanes);
        } else {
            self.wait_anew(key);
        }
        // No session may wait at all if the settings say so.
        let waits = self.ids.contains_key(&id) && self.lag.session_timeout_seconds > 0;
        waits.then_some(wire)
    }

    fn wait_anew(&mut self, key: u32) {
        let serial = self.renew_serial(key);
        self.detached.push(monotonic_ms(), (key, serial));
    }

    /// The client of a session is back: sets the cursors to where it continues, and returns its key. `None` if
    /// the session expired between claim and upgrade, or the server drains; the client sees the socket close
    /// and asks again.
    pub fn resume(&mut self, id: Uuid, lanes: &mut Lanes) -> Option<u32> {
        self.lose(*self.ids.get(&id)?, Close::Recovered, lanes);
        let key = *self.ids.get(&id)?;
        self.stats.detached.subtract(1);
        let gap = self.slab[key as usize].resume(lanes, &self.lag);
        self.stats.recoveries.add(1);
        self.stats.recovery_gap_frames.add(gap);
        if log_limit::client_line(tracing::Level::INFO) {
            tracing::info!(connection = %id, gap, "session recovered");
        }
        Some(key)
    }

    /// Subscribes a session to a group, whatever its name. Returns the lane, unless the session had joined
    /// before.
    pub fn join(&mut self, key: u32, group: &str, lanes: &mut Lanes) -> Result<Option<u32>, TooManySilentGroups> {
        let Some(session) = self.slab.get_mut(key as usize) else { return Ok(None) };
        let group = &*session.group_key(group);
        if let Some(lane) = lanes.find(group, session.wire)
            && session.membership(lane).is_some()
        {
            return Ok(None);
        }
        let (lane, place) = lanes.join(group, session.wire, key)?;
        self.members += u64::from(session.memberships.is_empty() && session.client.is_none());
        let cursor = lanes.lane(lane).ring.head();
        session.add(Membership { lane, place, cursor, since: lanes.drained(session.wire) });
        self.stats.subscribers.add(1);
        tracing::debug!(connection = %session.id, group, "joined");
        Ok(Some(lane))
    }

    /// Ends a subscription. Frames that were not sent are dropped; one that was sent in part is finished.
    /// Leaving a group that was never joined does nothing.
    pub fn leave(&mut self, key: u32, group: &str, lanes: &mut Lanes) {
        let Some(session) = self.get_mut(key) else { return };
        let Some(lane) = lanes.find(&session.group_key(group), session.wire) else { return };
        let Some(at) = session.memberships.iter().position(|membership| membership.lane == lane) else { return };
        tracing::debug!(connection = %session.id, group, "left");
        self.leave_at(key, at, lanes);
        if let Some(connection) = self.connection_mut(key) {
            connection.retain_states(|of| of != lane);
        }
    }

    fn leave_at(&mut self, key: u32, at: usize, lanes: &mut Lanes) {
        let session = &mut self.slab[key as usize];
        let Membership { lane, place, .. } = session.remove(at);
        self.members -= u64::from(session.memberships.is_empty() && session.client.is_none());
        self.stats.subscribers.subtract(1);
        if let Some(moved) = lanes.leave(lane, place)
            && let Some(membership) = self.slab[moved as usize].membership(lane)
        {
            membership.place = place;
        }
    }

    fn leave_all(&mut self, key: u32, lanes: &mut Lanes) {
        while let Some(last) = self.slab[key as usize].memberships.len().checked_sub(1) {
            self.leave_at(key, last, lanes);
        }
    }

    /// Stops taking clients, new or returning, and ends the sessions without a socket.
    pub fn drain(&mut self, lanes: &mut Lanes) {
        self.is_draining = true;
        for key in self.keys() {
            self.report(key, Report::Close(Close::Shutdown.into()));
            self.end_detached(key, lanes);
        }
    }

    /// The keys of the sessions with one of these assignments, detached ones included.
    pub fn assigned(&self, assignments: &[u64]) -> Vec<u32> {
        let of = |&id: &u64| self.assigned.range((id, 0)..=(id, u32::MAX)).map(|(_, key)| *key);
        assignments.iter().flat_map(of).collect()
    }

    /// Ends a session that waits for its client; one with a socket stays.
    pub fn end_detached(&mut self, key: u32, lanes: &mut Lanes) {
        if self.get(key).is_some_and(|session| session.connection.is_none()) {
            self.stats.detached.subtract(1);
            self.end(key, lanes);
        }
    }

    /// Whether [`Sessions::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// Ends sessions that have waited long enough, and reports connections whose time is over.
    pub fn expire(&mut self, now_ms: u64, lanes: &mut Lanes) {
        while let Some(&(due_ms, key)) = self.expiries.first()
            && due_ms <= now_ms
        {
            self.expiries.pop_first();
            self.report(key, Report::Close(Close::TokenExpired.into()));
        }
        while let Some((key, serial)) = self.closing.pop(now_ms) {
            let close = match self.current(key, serial).map(|connection| connection.state) {
                Some(
                    ConnectionState::Closing { close: close @ (Close::Slow | Close::SlowStream), .. }
                    | ConnectionState::Lingering { close },
                ) => close,
                Some(ConnectionState::Closing { .. }) => Close::WriteTimeout,
                Some(ConnectionState::Open) | None => continue,
            };
            self.report(key, Report::Lost(close));
        }
        while let Some((key, serial)) = self.detached.pop(now_ms) {
            self.expire_session(key, serial, lanes);
        }
    }

    /// When [`Sessions::expire`] has something to do next, or a session reads from histories again, ms.
    pub fn next_ms(&self) -> Option<u64> {
        let expiry_ms = self.expiries.first().map(|(due_ms, _)| *due_ms);
        let pulls_ms = self.pull_timers.next_ms();
        [self.closing.next_ms(), self.detached.next_ms(), expiry_ms, pulls_ms].into_iter().flatten().min()
    }

    /// The serial that a timer for this session must carry; it changes with the socket.
    pub fn serial(&self, key: u32) -> u32 {
        self.get(key).map_or(0, |session| session.serial)
    }

    fn renew_serial(&mut self, key: u32) -> u32 {
        self.next_serial = self.next_serial.wrapping_add(1);
        self.slab[key as usize].serial = self.next_serial;
        self.next_serial
    }
}
