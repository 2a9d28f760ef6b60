//! How a client comes up: connect, upgrade, connected message, joins, acks.

use std::io::ErrorKind;
use std::mem;
use std::os::fd::AsFd as _;

use rustix::event::epoll::{self, EventFlags};

use super::Worker;
use super::client::{Client, Phase, Reconnect, Session};
use super::ending::Ending;
use super::receive::READ_BYTES;
use super::transport::Transport;
use crate::clock::now_ns;
use crate::negotiate::{SocketUrl, stream_client_id};
use crate::plan::Class;
use crate::stats::histogram;
use crate::verify::member::Member;
use crate::wire::form::Protocol;
use crate::wire::upgrade::Upgrade;
use crate::wire::upstream;

impl Worker {
    /// Begins to connect a client.
    pub(super) fn connect(&mut self, index: usize, socket: &SocketUrl, now: u64) {
        let sources = &self.plan.source_addresses;
        let source = sources.get(self.next_source % sources.len().max(1)).copied();
        self.next_source += 1;
        let client = &mut self.clients.list[index];
        let is_reluctant = matches!(client.class, Class::Stalled | Class::Slow);
        let mut path = socket.path.clone();
        if self.plan.expects_faults && client.protocol == Protocol::Streams {
            let separator = if path.contains('?') { '&' } else { '?' };
            path = format!("{path}{separator}client_id={}", stream_client_id(client.number));
        }
        let (upgrade, request) = Upgrade::new(&socket.host, &path, client.protocol.subprotocol());
        client.phase = Phase::Connecting;
        client.since_ns = now;
        client.upgrade = Some(Box::new(upgrade));
        client.outbox = request;
        if client.session.is_none() {
            let session = Session { socket: socket.clone(), connection_id: String::new(), token: None };
            let comes_back = self.plan.reconnects || (self.plan.server_joins && client.class == Class::Resetting);
            client.session = comes_back.then(|| Box::new(session));
        }
        self.tally.in_setup += 1;
        let opened = self.connector.connect(socket, source, is_reluctant).and_then(|transport| {
            let data = Self::epoll_data(index, client.socket_number);
            epoll::add(&self.epoll, transport.as_fd(), data, EventFlags::OUT)?;
            client.watches_write = true;
            client.transport = Some(transport);
            Ok(())
        });
        if let Err(error) = opened {
            self.end(index, &Ending::broken(format!("connect: {error}")));
        }
    }

    /// The socket is connected, or has failed to.
    pub(super) fn on_connected(&mut self, index: usize) {
        let client = &mut self.clients.list[index];
        let Some(transport) = &client.transport else { return };
        match transport.take_error() {
            Ok(None) => {
                client.phase = Phase::Upgrading;
                self.watch(index, EventFlags::IN);
                self.flush(index);
            }
            Ok(Some(error)) | Err(error) => self.end(index, &Ending::broken(format!("connect: {error}"))),
        }
    }

    /// Reads the answer to the upgrade; returns the length of its head once it is complete.
    pub(super) fn check_upgrade(&mut self, index: usize, bytes: &[u8], now: u64) -> Result<Option<usize>, Ending> {
        let client = &mut self.clients.list[index];
        let Some(upgrade) = &client.upgrade else { return Ok(None) };
        let Some(head_len) =
            upgrade.check(bytes).map_err(|error| Ending::refused(error.to_string(), error.status()))?
        else {
            return Ok(None);
        };
        client.upgrade = None;
        if let Some(Reconnect::Recover { .. }) = client.reconnect {
            // The session goes on: its groups are still joined.
            client.resent_until = client.last_sequence;
            self.arrive(index, now);
        } else if client.protocol == Protocol::Streams {
            self.subscribe(index, now);
        } else {
            client.phase = Phase::Greeting;
        }
        Ok(Some(head_len))
    }

    /// The first message of a connection, or a fresh token later.
    pub(super) fn on_greeted(&mut self, index: usize, connection_id: &str, token: Option<String>, now: u64) {
        let client = &mut self.clients.list[index];
        if let Some(session) = &mut client.session {
            connection_id.clone_into(&mut session.connection_id);
            // Plain wires may have an empty one.
            session.token = token.filter(|token| !token.is_empty());
        }
        self.note_greeting(index, connection_id);
        let client = &mut self.clients.list[index];
        if client.phase != Phase::Greeting {
            return;
        }
        let groups = self.plan.groups_at(client.number);
        if groups.is_empty() {
            return self.arrive(index, now);
        }
        let first_log = client.form * self.plan.groups.len() as u32;
        client.members.reserve_exact(groups.len());
        if self.plan.server_joins {
            // The connected message stands for the acks: the server has joined the groups by then.
            let joined = |group| Member { acked_ns: now, ..Member::new(first_log + group, client.since_ns) };
            client.members.extend(groups.into_iter().map(joined));
            return self.arrive(index, now);
        }
        client.phase = Phase::Joining(groups.len() as u32);
        self.scratch.clear();
        for (ack_id, group) in (1..).zip(groups) {
            upstream::join(&mut self.scratch, client.protocol, &self.plan.groups[group as usize], ack_id);
            client.members.push(Member::new(first_log + group, now));
        }
        self.send_scratch(index);
        self.miss_acks(index, now);
    }

    /// A join has been answered.
    pub(super) fn on_ack(
        &mut self,
        index: usize,
        ack_id: u64,
        outcome: Result<(), String>,
        now: u64,
    ) -> Result<(), Ending> {
        let client = &mut self.clients.list[index];
        let Phase::Joining(missing) = client.phase else { return Ok(()) };
        let place = ack_id.checked_sub(1).and_then(|place| usize::try_from(place).ok());
        let Some(member) = place.and_then(|place| client.members.get_mut(place)) else {
            return Err(Ending::broken(format!("an ack for {ack_id}, which was never sent")));
        };
        if let Err(reason) = outcome {
            let group = &self.plan.groups[self.verifier.logs[member.log as usize].group as usize];
            return Err(Ending::broken(format!("join of {group} refused: {reason}")));
        }
        if member.acked_ns == 0 && !member.is_unacked {
            member.acked_ns = now;
            client.phase = Phase::Joining(missing - 1);
            if missing == 1 {
                self.arrive(index, now);
            }
        }
        Ok(())
    }

    /// A client is up.
    pub(super) fn arrive(&mut self, index: usize, now: u64) {
        let next_reset_ns = self.next_reset_ns(now);
        let client = &mut self.clients.list[index];
        let took_ns = now.saturating_sub(client.since_ns);
        client.phase = Phase::Up;
        client.since_ns = now;
        self.tally.in_setup -= 1;
        self.tally.up += 1;
        histogram::record(&mut self.tally.setup, took_ns, 1);
        if !std::mem::replace(&mut client.has_arrived, true) {
            self.tally.arrived += 1;
        }
        match client.reconnect.take() {
            None => {}
            Some(Reconnect::Recover { .. }) => self.tally.recovered += 1,
            Some(Reconnect::Fresh { .. }) if self.plan.resumes => self.tally.recovered += 1,
            Some(Reconnect::Fresh { .. }) => self.tally.reconnected += 1,
        }
        match client.class {
            Class::Stalled | Class::Slow => {
                client.next_due_ns = now;
                self.watch(index, EventFlags::RDHUP);
            }
            Class::Resetting => client.next_due_ns = next_reset_ns,
            Class::Attentive => client.next_due_ns = first_ack_ns(client, self.plan.sequence_ack_ns, now),
        }
    }

    /// Sends what has been written into the scratch buffer.
    pub(super) fn send_scratch(&mut self, index: usize) {
        let client = &mut self.clients.list[index];
        if client.outbox.is_empty()
            && let Some(transport) = &mut client.transport
        {
            // An error shows again at the next read, where it is dealt with.
            let written = transport.write(&self.scratch).unwrap_or_default();
            if written == self.scratch.len() {
                return;
            }
            client.outbox.extend_from_slice(&self.scratch[written..]);
        } else {
            client.outbox.extend_from_slice(&self.scratch);
        }
        self.watch(index, EventFlags::IN | EventFlags::OUT);
    }

    /// Sends what the socket did not take before.
    pub(super) fn flush(&mut self, index: usize) {
        let client = &mut self.clients.list[index];
        let Some(transport) = &mut client.transport else { return };
        let mut sent = 0;
        while sent < client.outbox.len() {
            match transport.write(&client.outbox[sent..]) {
                Ok(0) => break,
                Ok(written) => sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return self.end(index, &Ending::from_io(&error)),
            }
        }
        client.outbox.drain(..sent);
        if client.outbox.is_empty() {
            client.outbox = Vec::new();
        }
        self.flush_if_wanted(index);
    }

    /// Watches for writability exactly while there is something to write.
    pub(super) fn flush_if_wanted(&mut self, index: usize) {
        let client = &self.clients.list[index];
        let Some(transport) = &client.transport else { return };
        let wants = !client.outbox.is_empty() || transport.wants_write();
        if wants != client.watches_write && !is_reluctant_and_up(client) {
            let write = if wants { EventFlags::OUT } else { EventFlags::empty() };
            self.watch(index, EventFlags::IN | write);
        }
    }

    /// Ends setups that take too long.
    pub(super) fn check_setup(&mut self, index: usize, now: u64) {
        let client = &self.clients.list[index];
        if now < client.since_ns + self.plan.setup_timeout_ns {
            return;
        }
        let phase = client.phase;
        // A busy worker comes here late: the answer may have arrived in time and lie in the kernel.
        match phase {
            Phase::Connecting if client.transport.as_ref().is_some_and(Transport::is_connected) => {
                self.on_connected(index);
            }
            Phase::Connecting => {}
            _ => self.on_readable(index, READ_BYTES),
        }
        let client = &self.clients.list[index];
        if mem::discriminant(&client.phase) != mem::discriminant(&phase) {
            return;
        }
        let stage = match phase {
            Phase::Connecting => "connecting",
            Phase::Upgrading => "waiting for the upgrade",
            Phase::Greeting => "waiting for the connected message",
            _ if client.protocol == Protocol::Streams => "waiting for the answer to its subscription",
            _ => "waiting for the acks of its joins",
        };
        let seconds = (now_ns() - client.since_ns) / crate::clock::SECOND;
        self.end(index, &Ending::broken(format!("timed out after {seconds} s {stage}")));
    }
}

/// Clients acknowledge once per interval, each at its own moment.
fn first_ack_ns(client: &Client, interval_ns: u64, now: u64) -> u64 {
    if interval_ns == 0 || !client.protocol.is_reliable() {
        return u64::MAX;
    }
    now + fastrand::u64(0..interval_ns)
}

fn is_reluctant_and_up(client: &Client) -> bool {
    client.phase == Phase::Up && matches!(client.class, Class::Stalled | Class::Slow)
}
