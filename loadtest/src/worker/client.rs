//! One connection of a client: what it is doing, and what it remembers from one socket to the next.

use crate::negotiate::SocketUrl;
use crate::plan::Class;
use crate::verify::member::Member;
use crate::verify::verifier::{MemberId, Members};
use crate::wire::form::Protocol;
use crate::wire::frame::Opcode;
use crate::wire::upgrade::Upgrade;

use super::followed::Followed;
use super::held::Held;
use super::transport::Transport;

/// Where a client is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waits for the ramp, or for a negotiation.
    Idle,
    /// TCP connects.
    Connecting,
    /// The upgrade has been asked for.
    Upgrading,
    /// Waits for the connected message.
    Greeting,
    /// Joins have been sent; so many acks are missing.
    Joining(u32),
    /// Receives.
    Up,
    /// Will come back at this time.
    Pausing(u64),
    /// Does not come back.
    Gone,
}

impl Phase {
    /// Whether the client has a socket that is not up yet.
    pub fn is_setup(self) -> bool {
        matches!(self, Self::Connecting | Self::Upgrading | Self::Greeting | Self::Joining(_))
    }
}

/// How a client comes back (as Azure's Python SDK does).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnect {
    /// To the same session: at once, then every second, for 30 s.
    Recover {
        /// When the connection was lost.
        lost_ns: u64,
    },
    /// As a new connection: at once, then after 0.8, 1.6 and 3.2 s, then never.
    Fresh {
        /// Attempts so far.
        attempts: u8,
    },
}

/// What a reliable client needs to recover its session.
#[derive(Clone, Debug)]
pub struct Session {
    /// The socket URL it came from.
    pub socket: SocketUrl,
    /// The name of the connection.
    pub connection_id: String,
    /// The secret; `None` on wires that cannot recover.
    pub token: Option<String>,
}

/// A message in several frames.
#[derive(Debug)]
pub struct Fragments {
    /// Of the first frame.
    pub opcode: Opcode,
    /// What has come so far.
    pub bytes: Vec<u8>,
}

/// What is known about the frames and the latency of one client, or of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientReceipts {
    /// Data frames received.
    pub frames: u64,
    /// Frames with a known latency.
    pub timed: u64,
    /// The sum of those latencies.
    pub latency_sum_ns: u64,
    /// The largest.
    pub latency_max_ns: u64,
}

impl ClientReceipts {
    /// Adds `count` frames with one latency.
    #[inline]
    pub fn add(&mut self, latency_ns: u64, count: u64) {
        self.timed += count;
        self.latency_sum_ns = self.latency_sum_ns.saturating_add(latency_ns.saturating_mul(count));
        self.latency_max_ns = self.latency_max_ns.max(latency_ns);
    }

    /// Adds another connection of the same client.
    pub fn merge(&mut self, other: &Self) {
        self.frames += other.frames;
        self.timed += other.timed;
        self.latency_sum_ns = self.latency_sum_ns.saturating_add(other.latency_sum_ns);
        self.latency_max_ns = self.latency_max_ns.max(other.latency_max_ns);
    }
}

/// One connection of a client. A client of several hubs has as many, one after the other in the table.
#[derive(Debug)]
pub struct Client {
    /// The connection's number in the run ([`crate::plan::Plan::connection`]).
    pub number: u32,
    /// Index of its protocol in the plan.
    pub form: u32,
    /// Its protocol.
    pub protocol: Protocol,
    /// How it behaves.
    pub class: Class,
    /// What it is doing.
    pub phase: Phase,
    /// Its socket, in the phases that have one.
    pub transport: Option<Transport>,
    /// Counts sockets, so that late events of an old one are recognised.
    pub socket_number: u32,
    /// Counts sessions.
    pub session_number: u32,
    /// Whether the socket is watched for writability.
    pub watches_write: bool,
    /// The handshake under way.
    pub upgrade: Option<Box<Upgrade>>,
    /// Its places in groups, in the order of the plan's groups.
    pub members: Vec<Member>,
    /// The place whose frame is expected next.
    pub hint: usize,
    /// The beginning of a frame whose rest has not come.
    pub inbox: Vec<u8>,
    /// What the socket did not take.
    pub outbox: Vec<u8>,
    /// A fragmented message under way.
    pub fragments: Option<Box<Fragments>>,
    /// When setup began, and later: when the client came up.
    pub since_ns: u64,
    /// The largest sequence id received.
    pub last_sequence: u64,
    /// The largest acknowledged.
    pub acked_sequence: u64,
    /// When something is due: an acknowledgement, a slow read, a reset.
    pub next_due_ns: u64,
    /// Frames up to this sequence id may come again after a recovery.
    pub resent_until: u64,
    /// For recovery; only kept when the plan reconnects.
    pub session: Option<Box<Session>>,
    /// What it has heard of the channels, for a client with a policy; by group.
    pub followed: Vec<Followed>,
    /// Whether its subscription named what it has.
    pub asked_since: bool,
    /// A return under way.
    pub reconnect: Option<Reconnect>,
    /// Messages that wait for the ledger, where faults are expected.
    pub held: Held,
    /// Whether it has come up once.
    pub has_arrived: bool,
    /// What it received since measuring began.
    pub receipts: ClientReceipts,
}

impl Client {
    /// A client before its first connection.
    pub fn new(number: u32, form: u32, protocol: Protocol, class: Class) -> Self {
        Self {
            number,
            form,
            protocol,
            class,
            phase: Phase::Idle,
            transport: None,
            socket_number: 0,
            session_number: 0,
            watches_write: false,
            upgrade: None,
            members: Vec::new(),
            hint: 0,
            inbox: Vec::new(),
            outbox: Vec::new(),
            fragments: None,
            since_ns: 0,
            last_sequence: 0,
            acked_sequence: 0,
            next_due_ns: 0,
            resent_until: 0,
            session: None,
            followed: Vec::new(),
            asked_since: false,
            reconnect: None,
            held: Held::default(),
            has_arrived: false,
            receipts: ClientReceipts::default(),
        }
    }

    /// Whether it counts for latency and for "0 lost".
    pub fn is_attentive(&self) -> bool {
        self.class == Class::Attentive
    }

    /// Its place number `place`.
    pub fn member_id(&self, place: usize) -> MemberId {
        MemberId {
            client: self.number,
            session: self.session_number,
            place: place as u32,
            is_measured: self.is_attentive(),
        }
    }
}

/// The connections of one worker, by number.
#[derive(Debug)]
pub struct Clients {
    /// In the order of their numbers.
    pub list: Vec<Client>,
}

impl Clients {
    /// The place in the table of a connection, by its number.
    #[inline]
    pub fn index_of(&self, number: u32) -> Option<usize> {
        // Numbers are spread evenly unless clients need different hubs, so the first guess is usually right.
        let (first, last) = (self.list.first()?.number, self.list.last()?.number);
        let guess =
            u64::from(number.checked_sub(first)?) * (self.list.len() as u64 - 1) / u64::from(last - first).max(1);
        if self.list.get(guess as usize).is_some_and(|client| client.number == number) {
            return Some(guess as usize);
        }
        self.list.binary_search_by_key(&number, |client| client.number).ok()
    }
}

impl Members for Clients {
    fn member(&mut self, member_id: MemberId) -> Option<&mut Member> {
        let index = self.index_of(member_id.client)?;
        let client = self.list.get_mut(index)?;
        if client.session_number != member_id.session {
            return None;
        }
        client.members.get_mut(member_id.place as usize)
    }

    fn for_each_in(&mut self, log: u32, visit: &mut dyn FnMut(u32, &mut Member)) {
        for client in &mut self.list {
            if let Ok(place) = client.members.binary_search_by_key(&log, |member| member.log) {
                visit(client.number, &mut client.members[place]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_belongs_to_one_session() {
        let mut client = Client::new(7, 0, Protocol::Json, Class::Attentive);
        client.members.push(Member::new(3, 1));
        let member_id = client.member_id(0);
        let mut clients = Clients { list: vec![Client::new(5, 0, Protocol::Json, Class::Slow), client] };
        assert!(clients.member(member_id).is_some());
        assert!(clients.member(MemberId { client: 5, ..member_id }).is_none());
        clients.list[1].session_number += 1;
        assert!(clients.member(member_id).is_none());
        let mut visited = Vec::new();
        clients.for_each_in(3, &mut |number, _| visited.push(number));
        assert_eq!(visited, [7]);
    }

    #[test]
    fn a_connection_is_found_by_its_number_however_numbers_are_spread() {
        for numbers in [&[4][..], &[0, 1, 2, 3], &[10, 11, 12, 25, 26, 27], &[0, 2, 3, 40, 41], &[5, 1_000]] {
            let list = numbers.iter().map(|&number| Client::new(number, 0, Protocol::Json, Class::Attentive)).collect();
            let clients = Clients { list };
            for (index, &number) in numbers.iter().enumerate() {
                assert_eq!(clients.index_of(number), Some(index), "{numbers:?}");
            }
            assert_eq!((clients.index_of(9), clients.index_of(2_000)), (None, None), "{numbers:?}");
        }
    }
}
