//! What operators ask of a shard: who is behind, who is a certain client, close it.
//!
//! The sessions are gone through in pieces, between two turns of the sweep and mostly when there is nothing to send, so
//! that nobody waits for an answer but who asked. Nothing is counted for it: how far a session is behind lies in its
//! cursors.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use super::connection::{Connection, ConnectionState};
use super::lanes::Lanes;
use super::marks::Mark;
use super::question::{ConnectionGroups, Question, SeenConnection, SweepTimes, WorstConnections};
use super::session::Session;
use super::sessions::{Report, Sessions};
use crate::engine::system_clock::monotonic_ms;
use crate::wire::Wire;

/// Sessions that are looked at in one turn.
const TURN: u32 = 256;

/// Marks that are looked at in one turn, a byte each: most sessions have everything, and no more of them is looked at.
const MARKS: u32 = 4096;

/// Questions that may wait; further ones are dropped, which whoever asks notices.
const WAITING: usize = 64;

/// After so long a question is worked on even if there is always something to send, ms.
const PATIENCE_MS: u64 = 200;

/// Memberships that are told of one connection.
const MEMBERSHIPS: usize = 1000;

/// The questions that wait, and how far the first one is.
#[derive(Default)]
pub struct Looks {
    waiting: VecDeque<(u64, Question)>,
    /// The key of the session that is next.
    next: u32,
    worst: BinaryHeap<Reverse<(u64, u32)>>,
    lags: HashMap<u32, u64>,
}

impl Looks {
    /// Takes a question.
    pub fn push(&mut self, look: Question) {
        if self.waiting.len() < WAITING {
            self.waiting.push_back((monotonic_ms(), look));
        }
    }

    /// Whether a turn would be of use; when there is something to send, only if somebody has waited for long.
    fn is_due(&self, has_queued: bool) -> bool {
        self.waiting.front().is_some_and(|(since_ms, _)| !has_queued || monotonic_ms() >= since_ms + PATIENCE_MS)
    }

    /// Whether a question waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Works on the first question for a moment, if that is due.
    pub fn turn(
        &mut self,
        has_queued: bool,
        sessions: &mut Sessions,
        lanes: &Lanes,
        sweeps: impl FnOnce() -> SweepTimes,
    ) {
        let Some((_, look)) = self.waiting.front().filter(|_| self.is_due(has_queued)) else { return };
        let first = self.next;
        let end = |count: u32| first.saturating_add(count).min(sessions.key_end());
        let is_over = match look {
            Question::Sweeps { .. } => true,
            Question::Worst { limit, .. } => {
                let (end, mut left) = (end(MARKS), TURN);
                self.next = first;
                while self.next < end && left > 0 {
                    left -= u32::from(weigh(self.next, *limit, sessions, lanes, &mut self.worst, &mut self.lags));
                    self.next += 1;
                }
                self.next == sessions.key_end()
            }
            Question::One { id, .. } | Question::Close { id, .. } => {
                let end = end(TURN);
                self.next = end;
                match (first..end).find(|&key| is(sessions, key, *id)) {
                    Some(key) => {
                        self.next = key;
                        true
                    }
                    None => end == sessions.key_end(),
                }
            }
        };
        if is_over && let Some((_, look)) = self.waiting.pop_front() {
            let key = std::mem::take(&mut self.next);
            // Fails if nobody waits for the answer any more.
            match look {
                Question::Sweeps { reply } => {
                    let _ = reply.send(sweeps());
                }
                Question::Worst { reply, .. } => {
                    let _ = reply.send(self.worst(sessions, lanes, sweeps()));
                }
                Question::One { id, reply } => {
                    let found = sessions.get(key).filter(|session| session.id == id);
                    let _ = reply.send(found.and_then(|session| with_groups(session, sessions.mark(key), lanes)));
                }
                Question::Close { id, frame, reply } => {
                    let found = is(sessions, key, id);
                    if found {
                        sessions.report(key, Report::Close(frame));
                    }
                    let _ = reply.send(found);
                }
            }
        }
    }

    fn worst(&mut self, sessions: &Sessions, lanes: &Lanes, sweeps: SweepTimes) -> WorstConnections {
        let now_ms = monotonic_ms();
        let seen = |Reverse((_, key)): Reverse<(u64, u32)>| seen(sessions.get(key)?, sessions.mark(key), lanes, now_ms);
        let name = |(lane, lag): (u32, u64)| {
            // A lane may have been closed since, and its number may belong to another: then that one's lag is wrong for
            // a second.
            let (group, wire) = lanes.group_of(lane)?;
            Some(((Arc::clone(group.name()), wire == Wire::Streams), lag))
        };
        let mut lags = HashMap::new();
        for (group, lag) in self.lags.drain().filter_map(name) {
            let largest: &mut u64 = lags.entry(group).or_default();
            *largest = lag.max(*largest);
        }
        let connections = self.worst.drain().filter_map(seen).collect();
        WorstConnections { connections, blocked: sessions.blocked(), lags, sweeps }
    }
}

/// Adds a session to the worst ones if it is one of them; returns whether it was touched. One whose socket takes bytes and
/// that is not queued has everything: its mark says so.
fn weigh(
    key: u32,
    limit: usize,
    sessions: &Sessions,
    lanes: &Lanes,
    worst: &mut BinaryHeap<Reverse<(u64, u32)>>,
    lags: &mut HashMap<u32, u64>,
) -> bool {
    let mark = sessions.mark(key);
    let behind = match mark {
        Mark::Away => return false,
        Mark::Ready => 0,
        Mark::Queued | Mark::Blocked | Mark::Stalled => {
            let Some(session) = sessions.get(key) else { return false };
            for (lane, lag) in session.lags(lanes).filter(|(_, lag)| *lag > 0) {
                let largest = lags.entry(lane).or_default();
                *largest = lag.max(*largest);
            }
            session.behind(lanes).0
        }
    };
    if worst.len() < limit {
        worst.push(Reverse((behind, key)));
    } else if worst.peek().is_some_and(|Reverse((least, _))| *least < behind) {
        worst.pop();
        worst.push(Reverse((behind, key)));
    }
    mark != Mark::Ready
}

fn is(sessions: &Sessions, key: u32, id: Uuid) -> bool {
    sessions
        .get(key)
        .is_some_and(|session| session.id == id && session.connection.as_ref().is_some_and(Connection::is_open))
}

fn seen(session: &Session, mark: Mark, lanes: &Lanes, now_ms: u64) -> Option<SeenConnection> {
    let connection = session.connection.as_ref()?;
    let state = match (connection.state, mark) {
        (ConnectionState::Open, Mark::Blocked) => "blocked",
        (ConnectionState::Open, _) => "open",
        _ => "closing",
    };
    Some(SeenConnection {
        id: session.id,
        wire: session.wire,
        hub: session.hub,
        user: session.shown_user(),
        agent: connection.agent,
        session: session.clock.as_ref().map(|seat| seat.name().to_owned()),
        address: connection.peer(),
        groups: session.memberships.len(),
        behind: session.behind(lanes),
        frames: session.use_of_socket.frames,
        bytes: session.use_of_socket.bytes,
        age_ms: now_ms.saturating_sub(session.use_of_socket.opened_ms),
        quiet_ms: now_ms.saturating_sub(connection.heard_ms),
        state,
    })
}

fn with_groups(session: &Session, mark: Mark, lanes: &Lanes) -> Option<ConnectionGroups> {
    let connection = seen(session, mark, lanes, monotonic_ms())?;
    let named = |(lane, lag): (u32, u64)| Some((Arc::clone(lanes.group_of(lane)?.0.name()), lag));
    Some(ConnectionGroups { connection, groups: session.lags(lanes).filter_map(named).take(MEMBERSHIPS).collect() })
}
