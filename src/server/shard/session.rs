//! A session: what a client is to the hub, with or without a socket.
//!
//! On the plain wires it lives and ends with its connection. On the reliable ones it outlives the
//! socket for a while: memberships and their cursors stay, frames collect in the rings, and a
//! client that comes back with the token continues where it was.

use std::borrow::Cow;
use std::collections::VecDeque;

use uuid::Uuid;

use super::assignment::FollowedAssignment;
use super::connection::Connection;
use super::dialect::stream_client::StreamClient;
use super::lanes::Lanes;
use super::pull::Pull;
use super::session_token::{SessionTicket, SessionTokens};
use super::shown_text::{shown, shown_key};
use super::stats::HubCounts;
use crate::engine::hub::session_group;
use crate::engine::policy::{self, LagOptions};
use crate::engine::system_clock;
use crate::replay::seat::Seat;
use crate::wire::Wire;
use crate::wire::gexbot::{HubName, HubTopic};
use crate::wire::streams::Channels;

/// Ack ids remembered per session, as Azure's service does (`docs/protocols/webpubsub.md`, "Acks").
const REMEMBERED_ACKS: u32 = 1000;

/// Characters of a client's name that are shown.
const SHOWN_USER: usize = 64;

/// A subscription as its session sees it.
#[derive(Debug, Clone, Copy)]
pub struct Membership {
    /// The lane of the group.
    pub lane: u32,
    /// This session's place among the lane's subscribers.
    pub place: u32,
    /// Position of the next frame to send; [`Membership::HELD`]: the session reads its channel's history instead.
    pub cursor: u64,
    /// The hub's last id at the join: what was published before is not for this subscriber.
    pub since: u64,
}

impl Membership {
    /// The cursor of a membership that gets nothing from its ring: no position is larger.
    pub const HELD: u64 = u64::MAX;
}

/// What a client is to its hub, with or without a socket.
pub struct Session {
    /// The connection id of the wire.
    pub id: Uuid,
    /// Allows a recovery; 0 on the plain wires.
    pub token: u128,
    /// Who the client says it is. A credential: never logged.
    pub user: Box<str>,
    /// The protocol, chosen at the upgrade.
    pub wire: Wire,
    /// The hub that a Web PubSub client connected to: it decides which groups may be joined. Without meaning on
    /// `/ws`.
    pub hub: HubName,
    /// Channels, filters and errors of a client of `/ws`; `None` on Web PubSub.
    pub client: Option<Box<StreamClient>>,
    /// The session clock that it is on; `None` for the common one. Boxed: hardly anybody has one.
    pub clock: Option<Box<Seat>>,
    /// The groups that the server joins for it; `None` if the client joins.
    pub followed: Option<Box<FollowedAssignment>>,
    /// Its groups, by lane: sessions with the same groups have them in the same order.
    pub memberships: Vec<Membership>,
    /// The socket, unless the session is detached.
    pub connection: Option<Connection>,
    /// What this socket, or the last one, was used for.
    pub use_of_socket: SocketUse,
    /// Changes whenever the socket does, so that timers of an earlier socket are ignored.
    pub serial: u32,
    /// Whether its last socket was reset for lag.
    pub lagged: bool,
    /// Whether it reads from histories.
    pub is_pulling: bool,
    /// Whether it is in the queue of those that do.
    pub is_pull_queued: bool,
    /// Whether its client's token has the groups that it is in.
    pub token_state: TokenState,
    /// What it may be behind while it catches up after a recovery, more than configured: frames in a group, and bytes in
    /// all its groups.
    raised_allowance: Option<Box<(u64, u64)>>,
    /// The largest sequence id the client confirmed.
    pub acked: u64,
    acks: AckIds,
}

/// What the token that a client has says of its groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenState {
    /// All of them, or nothing.
    Current,
    /// Those that it was in before: it gets a new one.
    Outdated,
}

/// What a socket was used for, as operators see it.
#[derive(Debug, Clone, Copy, Default)]
pub struct SocketUse {
    /// When it was upgraded, ms.
    pub opened_ms: u64,
    /// Data frames handed to the kernel.
    pub frames: u64,
    /// Bytes handed to the kernel.
    pub bytes: u64,
}

impl SocketUse {
    /// Counts what the kernel has taken, here and for the client's hub.
    pub fn count(&mut self, frames: u64, bytes: u64, hub: &HubCounts) {
        self.frames += frames;
        self.bytes += bytes;
        hub.frames.add(frames);
        hub.bytes.add(bytes);
    }
}

/// How much of what is due [`Session::due`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Everything that is due.
    All,
    /// A part; there is more behind it.
    More,
    /// A frame it needs is no longer in its ring: it lags.
    FellOff,
}

/// A frame that is due, in the order of ids over all groups.
#[derive(Debug, Clone, Copy)]
pub struct Pick {
    /// The publication's id, which orders the frames of all groups.
    pub id: u64,
    /// Position in its lane's ring.
    pub position: u64,
    /// The lane whose ring holds it.
    pub lane: u32,
    /// The membership it is due for.
    pub membership: u32,
}

impl Session {
    /// A session without memberships and without a socket.
    pub fn new(id: Uuid, token: u128, user: Box<str>, wire: Wire) -> Self {
        Self {
            id,
            token,
            user,
            wire,
            hub: HubTopic::Orderflow.hub(false),
            client: None,
            clock: None,
            followed: None,
            memberships: Vec::new(),
            connection: None,
            use_of_socket: SocketUse::default(),
            serial: 0,
            lagged: false,
            is_pulling: false,
            is_pull_queued: false,
            token_state: TokenState::Current,
            raised_allowance: None,
            acked: 0,
            acks: AckIds::default(),
        }
    }

    /// Adds a membership. Most sessions have one or a few: no room is kept for more.
    pub fn add(&mut self, membership: Membership) {
        if self.memberships.len() == self.memberships.capacity() {
            self.memberships.reserve_exact(self.memberships.len().max(1));
        }
        let at = self.memberships.partition_point(|other| other.lane < membership.lane);
        self.memberships.insert(at, membership);
    }

    /// Takes a membership out, and with half of them gone the room that they took: a client of `/ws` is subscribed to
    /// four channels that it never asked for until it asks for one.
    pub fn remove(&mut self, at: usize) -> Membership {
        let removed = self.memberships.remove(at);
        if self.memberships.len() * 2 <= self.memberships.capacity() {
            self.memberships.shrink_to_fit();
        }
        removed
    }

    /// The membership in a lane.
    pub fn membership(&mut self, lane: u32) -> Option<&mut Membership> {
        let at = self.memberships.binary_search_by_key(&lane, |membership| membership.lane).ok()?;
        Some(&mut self.memberships[at])
    }

    /// The key of a group in its hub: a clock of its own has groups of its own.
    pub fn group_key<'a>(&self, group: &'a str) -> Cow<'a, str> {
        match &self.clock {
            Some(seat) => session_group(seat.name(), group).into(),
            None => group.into(),
        }
    }

    /// The id of its assignment, if it has one.
    pub fn assignment_id(&self) -> Option<u64> {
        self.followed.as_ref().map(|followed| followed.assignment.id())
    }

    /// Whether another node could take it back: slots and session clocks are of one node.
    pub fn is_portable(&self) -> bool {
        self.wire.is_reliable() && self.clock.is_none() && self.followed.is_none()
    }

    /// Its token with everything that another node needs to take it back; `None` if that would be too long, or in vain.
    pub fn signed_token(&self, tokens: &SessionTokens, lanes: &Lanes) -> Option<String> {
        let Wire::WebPubSub(wire) = self.wire else { return None };
        if !self.is_portable() {
            return None;
        }
        let groups = self.memberships.iter().map(|membership| lanes.group_name(membership.lane).into()).collect();
        let (id, secret, hub, user) = (self.id, self.token, self.hub, Cow::from(&*self.user));
        tokens.seal(&SessionTicket { id, secret, hub, wire, user, groups }, system_clock::unix_ns() / 1_000_000_000)
    }

    /// Whether its client has negotiated again, so that its assignment holds no more.
    pub fn is_replaced(&self) -> bool {
        self.followed.as_ref().is_some_and(|followed| followed.assignment.is_replaced())
    }

    /// Whether a request with this id was executed before.
    pub fn is_duplicate(&self, ack_id: u64) -> bool {
        self.acks.contains(ack_id)
    }

    /// Remembers a request that was executed with success.
    pub fn remember_ack(&mut self, ack_id: u64) {
        self.acks.push(ack_id);
    }

    /// Appends the frames that are due, in id order, at most about `limit` of them.
    pub fn due(&self, lanes: &Lanes, limit: usize, picks: &mut Vec<Pick>) -> Extent {
        let first = picks.len();
        let share = (limit / self.memberships.len().max(1)).max(1) as u64;
        // Ids above this one may have smaller ones, not picked, before them.
        let mut complete_to = u64::MAX;
        for (at, membership) in self.memberships.iter().enumerate() {
            let ring = &lanes.lane(membership.lane).ring;
            let end = ring.head().min(membership.cursor.saturating_add(share));
            for position in membership.cursor..end {
                let Some(entry) = ring.get(position) else { return Extent::FellOff };
                picks.push(Pick { id: entry.id, position, lane: membership.lane, membership: at as u32 });
            }
            if end < ring.head()
                && let Some(last) = picks.last()
            {
                complete_to = complete_to.min(last.id);
            }
        }
        if self.memberships.len() > 1 {
            // Groups are published in a fixed order, so this is mostly sorted already.
            picks[first..].sort_unstable_by_key(|pick| pick.id);
        }
        if complete_to == u64::MAX {
            return Extent::All;
        }
        picks.truncate(first + picks[first..].partition_point(|pick| pick.id <= complete_to));
        Extent::More
    }

    /// What it may be behind: frames in a group, and bytes in all its groups.
    pub fn allowance(&self, options: &LagOptions) -> (u64, u64) {
        self.raised_allowance.as_deref().copied().unwrap_or((options.client_buffer, options.client_buffer_bytes))
    }

    /// Whether it is further behind than it may be, in one group or in all together.
    pub fn is_lagging(&self, lanes: &Lanes, options: &LagOptions) -> bool {
        let (frames, bytes) = self.allowance(options);
        let rings = || self.memberships.iter().map(|membership| (&lanes.lane(membership.lane).ring, membership.cursor));
        rings().any(|(ring, cursor)| ring.head().saturating_sub(cursor) > frames || cursor < ring.oldest())
            || rings().map(|(ring, cursor)| ring.bytes_from(cursor)).sum::<u64>() > bytes
    }

    /// How many frames are due in each of its groups, by lane. Nothing is where it reads a channel's history.
    pub fn lags(&self, lanes: &Lanes) -> impl Iterator<Item = (u32, u64)> {
        let lag = |membership: &Membership| lanes.lane(membership.lane).ring.head().saturating_sub(membership.cursor);
        self.memberships.iter().map(move |membership| (membership.lane, lag(membership)))
    }

    /// Frames that are due in all its groups, and their bytes.
    pub fn behind(&self, lanes: &Lanes) -> (u64, u64) {
        let bytes = |membership: &Membership| lanes.lane(membership.lane).ring.bytes_from(membership.cursor);
        (self.lags(lanes).map(|(_, lag)| lag).sum(), self.memberships.iter().map(bytes).sum())
    }

    /// Who the client says it is, as an operator may see it. A key of Web PubSub is a credential.
    pub fn shown_user(&self) -> String {
        match self.wire {
            Wire::WebPubSub(_) => shown_key(&self.user),
            Wire::Streams => shown(&self.user, SHOWN_USER),
        }
    }

    /// The channel's memberships get nothing from the rings any more; or, with a cursor at the head, everything
    /// from now on.
    fn set_cursors(&mut self, channel: usize, channels: &Channels, lanes: &Lanes, is_held: bool) {
        let Some(filter) = self.client.as_ref().and_then(|client| client.filter(channel)) else { return };
        for group in filter.groups(&channels.all()[channel]) {
            if let Some(lane) = lanes.find(&group, self.wire)
                && let Some(membership) = self.membership(lane)
            {
                membership.cursor = if is_held { Membership::HELD } else { lanes.lane(lane).ring.head() };
            }
        }
    }

    /// The channel's memberships get nothing from the rings any more.
    pub fn hold_lanes(&mut self, channel: usize, channels: &Channels, lanes: &Lanes) {
        self.set_cursors(channel, channels, lanes, true);
    }

    /// The client reads a channel's history from now on, as `pull` says.
    pub fn hold(&mut self, pull: Pull, channels: &Channels, lanes: &Lanes) {
        self.set_cursors(pull.channel, channels, lanes, true);
        if let Some(client) = &mut self.client {
            client.set_pull(pull);
            self.is_pulling = true;
        }
    }

    /// The client has read everything up to what is drained: the lanes have the rest.
    pub fn go_live(&mut self, channel: usize, channels: &Channels, lanes: &Lanes) {
        self.set_cursors(channel, channels, lanes, false);
        if let Some(client) = &mut self.client {
            client.remove_pull(channel);
            self.is_pulling = !client.pulls().is_empty();
        }
    }

    /// Called when it has caught up: the usual allowance applies again.
    pub fn caught_up(&mut self) {
        self.raised_allowance = None;
    }

    /// Sets the cursors for a client that came back. Returns how many frames it will not get.
    pub fn resume(&mut self, lanes: &Lanes, options: &LagOptions) -> u64 {
        let (mut gap, mut behind, mut behind_bytes) = (0, 0, 0);
        for membership in &mut self.memberships {
            let ring = &lanes.lane(membership.lane).ring;
            let confirmed = ring.position_after(self.acked.max(membership.since)).min(membership.cursor);
            let resumed =
                policy::resume(options, confirmed, membership.cursor, ring.oldest(), ring.head(), self.lagged);
            membership.cursor = resumed.position;
            gap += resumed.gap;
            behind = behind.max(ring.head() - resumed.position);
            behind_bytes += ring.bytes_from(resumed.position);
        }
        let allowance = (options.client_buffer + behind, options.client_buffer_bytes + behind_bytes);
        self.raised_allowance = Some(Box::new(allowance));
        self.lagged = false;
        gap
    }
}

/// The last executed ack ids. SDKs count upwards, so runs are kept, not numbers, and nearly every
/// session has just one.
#[derive(Debug, Default)]
struct AckIds {
    /// The newest run: its first id, and its length.
    newest: u64,
    newest_length: u32,
    count: u32,
    /// Runs of ids, oldest first.
    #[expect(clippy::box_collection, reason = "a pointer where there is none, in ten thousand sessions")]
    older: Option<Box<VecDeque<Run>>>,
}

/// Consecutive ids.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    first: u64,
    length: u64,
}

impl Run {
    fn contains(self, id: u64) -> bool {
        id >= self.first && id - self.first < self.length
    }
}

impl AckIds {
    fn newest(&self) -> Run {
        Run { first: self.newest, length: u64::from(self.newest_length) }
    }

    fn contains(&self, id: u64) -> bool {
        self.newest().contains(id) || self.older.iter().flat_map(|runs| runs.iter()).any(|run| run.contains(id))
    }

    fn push(&mut self, id: u64) {
        let Run { first, length } = self.newest();
        if length == 0 || first.checked_add(length) != Some(id) {
            if length > 0 {
                self.older.get_or_insert_default().push_back(Run { first, length });
            }
            (self.newest, self.newest_length) = (id, 0);
        }
        self.newest_length += 1;
        self.count += 1;
        if self.count > REMEMBERED_ACKS {
            self.count -= 1;
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.older.as_mut().and_then(|runs| runs.front_mut()) else {
            (self.newest, self.newest_length) = (self.newest.wrapping_add(1), self.newest_length - 1);
            return;
        };
        (oldest.first, oldest.length) = (oldest.first.wrapping_add(1), oldest.length - 1);
        if oldest.length == 0
            && let Some(runs) = &mut self.older
        {
            runs.pop_front();
            if runs.is_empty() {
                self.older = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_thousand_ack_ids_are_remembered() {
        let mut acks = AckIds::default();
        for id in [7, 5, 6, u64::MAX, 0].into_iter().chain(100..=1095) {
            assert!(!acks.contains(id), "{id}");
            acks.push(id);
        }
        // 1001 were pushed: the oldest is forgotten.
        assert!(!acks.contains(7));
        for id in [5, 6, u64::MAX, 0, 100, 1095] {
            assert!(acks.contains(id), "{id}");
        }
        assert_eq!(acks.older.as_ref().unwrap().len() + 1, 4, "runs: 5-6, MAX, 0, 100-1095");
    }

    #[test]
    fn ack_ids_that_count_upwards_take_no_memory_of_their_own() {
        let mut acks = AckIds::default();
        for id in 1..=3000 {
            acks.push(id);
        }
        assert!(acks.older.is_none());
        assert!(!acks.contains(2000) && acks.contains(2001) && acks.contains(3000) && !acks.contains(3001));
        acks.push(1);
        for id in 4000..5000 {
            acks.push(id);
        }
        assert!(acks.older.is_none() && !acks.contains(1) && acks.contains(4000), "older runs are forgotten whole");
    }

    #[test]
    fn an_idle_session_is_small() {
        assert!(size_of::<Session>() <= 208, "{}", size_of::<Session>());
        assert!(size_of::<Membership>() <= 24);
    }

    #[test]
    fn memberships_take_no_more_room_than_twice_their_number() {
        let mut session = Session::new(Uuid::nil(), 0, "".into(), Wire::Streams);
        let membership = |lane| Membership { lane, place: 0, cursor: 0, since: 0 };
        (0..9).for_each(|lane| session.add(membership(lane)));
        while !session.memberships.is_empty() {
            session.remove(0);
            assert!(session.memberships.capacity() <= 2 * session.memberships.len());
        }
        assert_eq!(session.memberships.capacity(), 0);
    }
}
