//! Sending: what is due for a session, joined and written once.
//!
//! ```text
//! sweep ─▶ offer (what is due, as bytes) ×32 ─▶ one io_uring call, or a send(2) each ─▶ settle (cursors)
//! flush: the same for one session, at once
//! ```

use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::slice;

use bytes::Bytes;
use slab::Slab;

use super::connection::{Connection, Phase, Watch};
use super::lanes::Groups;
use super::marks::Mark;
use super::session::{Due, Membership, Pick, Session};
use super::stats::Ending;
use super::uring::Uring;
use crate::server::shard::Shard;

/// Sessions served per turn of the sweep.
const TURN: usize = 128;

/// Sends in one system call. A kernel that does not preempt itself lets nobody else on the core
/// meanwhile, the replay's clock least of all: 32 take about 0.1 ms.
const BATCH: usize = 32;

/// Most bytes of frames joined for one send.
const JOINED_BYTES: usize = 64 << 10;

/// Frames considered for one send: 64 KiB of the smallest that occur.
const PICKS: usize = 512;

/// Different joined frames in one batch; a batch with more of them is sent early.
const JOINS: usize = 16;

/// What is due for the sessions that have the same groups and stand at the same frames in them: found
/// and joined once for all of them. They mostly stand one behind the other in the sweep.
struct Joined {
    /// Of the groups when this was found.
    revision: u64,
    /// Lane and cursor of each membership.
    from: Vec<(u32, u64)>,
    /// The cursors when everything joined is sent.
    to: Vec<u64>,
    due: Due,
    picks: Vec<Pick>,
    /// How many of the picks are in the bytes.
    picked: usize,
    bytes: Vec<u8>,
}

impl Joined {
    fn new() -> Self {
        let (from, to, picks, bytes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { revision: 0, from, to, due: Due::All, picks, picked: 0, bytes }
    }

    fn is_for(&self, groups: &Groups, session: &Session) -> bool {
        let same = |(here, there): (&Membership, &(u32, u64))| (here.lane, here.cursor) == *there;
        self.revision == groups.revision()
            && self.from.len() == session.memberships.len()
            && session.memberships.iter().zip(&self.from).all(same)
    }

    /// Takes the picks of a session, and joins their frames up to [`JOINED_BYTES`].
    fn join(&mut self, groups: &Groups, session: &Session, due: Due, picks: &mut Vec<Pick>) {
        (self.revision, self.due) = (groups.revision(), due);
        mem::swap(&mut self.picks, picks);
        self.bytes.clear();
        self.picked = append_frames(groups, &self.picks, &mut self.bytes);
        self.from.clear();
        self.from.extend(session.memberships.iter().map(|membership| (membership.lane, membership.cursor)));
        self.to.clear();
        self.to.extend(session.memberships.iter().map(|membership| membership.cursor));
        for pick in &self.picks[..self.picked] {
            self.to[pick.membership as usize] = pick.position + 1;
        }
    }
}

/// Appends frames up to [`JOINED_BYTES`], and at least one; returns how many.
fn append_frames(groups: &Groups, picks: &[Pick], out: &mut Vec<u8>) -> usize {
    let mut picked = 0;
    for pick in picks {
        let frame = frame(groups, pick);
        if picked > 0 && out.len() + frame.len() > JOINED_BYTES {
            break;
        }
        out.extend_from_slice(frame);
        picked += 1;
    }
    picked
}

fn frame<'a>(groups: &'a Groups, pick: &Pick) -> &'a Bytes {
    &groups.lane(pick.lane).ring.get(pick.position).expect("picked from the ring just now").frame
}

/// The sends of a part of a turn, which leave together.
#[derive(Default)]
pub(super) struct Batch {
    offers: Vec<Offer>,
    /// The first `joins` of them are this batch's; the others are only room.
    joined: Vec<Joined>,
    joins: usize,
    /// Of the session that is looked at.
    picks: Vec<Pick>,
    sent: Vec<io::Result<usize>>,
    uring: Option<Uring>,
}

/// Bytes for one session.
struct Offer {
    key: u32,
    what: Offered,
}

/// What an offer offers.
enum Offered {
    /// One frame, as it lies in the arena.
    Frame(Pick, Due),
    /// One of the batch's joined ones.
    Joined(usize),
}

impl Offer {
    fn bytes<'a>(&self, groups: &'a Groups, joined: &'a [Joined]) -> &'a [u8] {
        match &self.what {
            Offered::Frame(pick, _) => frame(groups, pick),
            Offered::Joined(at) => &joined[*at].bytes,
        }
    }
}

impl Batch {
    /// Looks for io_uring. Called on the shard's own thread: a ring is its thread's alone.
    pub(super) fn prepare(&mut self, wanted: bool, shard: u8) {
        if wanted {
            match Uring::new(BATCH as u32) {
                Ok(uring) => {
                    self.uring = Some(uring);
                    tracing::debug!(shard, "sending through io_uring");
                }
                Err(error) => tracing::info!(shard, %error, "io_uring is not available; sending with send(2)"),
            }
        }
    }

    fn is_full(&self) -> bool {
        self.offers.len() == BATCH || self.joins == JOINS
    }

    /// Offers a session what its neighbour was offered, if that is what it needs.
    fn offers_the_same(&mut self, key: u32, groups: &Groups, session: &Session) -> bool {
        let Some(last) = self.joins.checked_sub(1) else { return false };
        let same = self.joined[last].is_for(groups, session);
        if same {
            self.offers.push(Offer { key, what: Offered::Joined(last) });
        }
        same
    }

    /// Offers a session the picks.
    fn offer_picks(&mut self, key: u32, groups: &Groups, session: &Session, due: Due) {
        let what = if let [alone] = self.picks[..] {
            Offered::Frame(alone, due)
        } else {
            if self.joined.len() == self.joins {
                self.joined.push(Joined::new());
            }
            self.joined[self.joins].join(groups, session, due, &mut self.picks);
            self.joins += 1;
            Offered::Joined(self.joins - 1)
        };
        self.offers.push(Offer { key, what });
    }

    /// Sends every offer; what became of each stands in `sent`.
    fn send(&mut self, groups: &Groups, sessions: &Slab<Session>) {
        let Self { offers, joined, sent, .. } = self;
        let connected = |offer: &Offer| sessions[offer.key as usize].connection.as_ref().expect("offered just now");
        if let Some(uring) = &mut self.uring {
            let offered = offers.iter().map(|offer| (connected(offer).socket().as_fd(), offer.bytes(groups, joined)));
            if let Err(error) = uring.send_all(offered, sent) {
                tracing::warn!(%error, "io_uring fails; sending with send(2) from now on");
                self.uring = None;
            }
            return;
        }
        sent.clear();
        sent.extend(offers.iter().map(|offer| connected(offer).send(offer.bytes(groups, joined))));
    }

    /// Ready for the next one. What was joined last is kept: the next sessions may need the same.
    fn clear(&mut self) {
        self.offers.clear();
        if self.joins > 1 {
            self.joined.swap(0, self.joins - 1);
            self.joins = 1;
        }
    }
}

/// What a session was given to send: bytes that were unsent, and frames.
struct Given<'a> {
    /// What is due for it.
    picks: &'a [Pick],
    /// How many of them were given.
    picked: usize,
    due: Due,
    /// Its cursors when all of it is taken, if they are known.
    to: Option<&'a [u64]>,
    /// Bytes, all together.
    length: usize,
}

impl Shard {
    /// One turn of the sweep: what is due for the next sessions of the queue.
    pub(super) fn sweep(&mut self) {
        // Out of `self`, since settling may end sessions and flush others.
        let mut batch = mem::take(&mut self.batch);
        for _ in 0..TURN {
            let Some(key) = self.queue.pop_front() else { break };
            // Otherwise a stale entry: the session ended, and another may have its key by now.
            if self.marks.get(key) == Mark::Queued {
                self.marks.set(key, Mark::Ready);
                self.offer(key, &mut batch);
            }
            if batch.is_full() {
                self.send_batch(&mut batch);
            }
        }
        self.send_batch(&mut batch);
        self.batch = batch;
    }

    fn send_batch(&mut self, batch: &mut Batch) {
        if batch.offers.is_empty() {
            return;
        }
        batch.send(&self.groups, &self.sessions);
        for (offer, sent) in batch.offers.iter().zip(batch.sent.drain(..)) {
            let (picks, picked, due, to) = match &offer.what {
                Offered::Frame(pick, due) => (slice::from_ref(pick), 1, *due, None),
                Offered::Joined(at) => {
                    let Joined { picks, picked, due, to, .. } = &batch.joined[*at];
                    (&picks[..], *picked, *due, Some(&to[..]))
                }
            };
            let length = offer.bytes(&self.groups, &batch.joined).len();
            self.settle(offer.key, &Given { picks, picked, due, to, length }, sent.ok());
        }
        batch.clear();
    }

    /// Adds what is due for a session to the batch. Control frames leave at once, before data.
    fn offer(&mut self, key: u32, batch: &mut Batch) {
        let Some(session) = self.sessions.get(key as usize) else { return };
        let Some(connection) = &session.connection else { return };
        if connection.has_unsent() {
            return self.flush(key);
        }
        if connection.is_open() && batch.offers_the_same(key, &self.groups, session) {
            return;
        }
        batch.picks.clear();
        if let Some(due) = self.due(key, &mut batch.picks) {
            batch.offer_picks(key, &self.groups, &self.sessions[key as usize], due);
        }
    }

    /// Appends the frames that are due for a session. `None`: there is nothing to send, or no way.
    fn due(&mut self, key: u32, picks: &mut Vec<Pick>) -> Option<Due> {
        if matches!(self.marks.get(key), Mark::Away | Mark::Blocked) {
            return None;
        }
        let session = self.sessions.get_mut(key as usize)?;
        let connection = session.connection.as_ref()?;
        let (first, has_unsent) = (picks.len(), connection.has_unsent());
        let due = match connection.phase {
            Phase::Open => session.due(&self.groups, PICKS, picks),
            Phase::Closing { .. } => Due::All,
            Phase::Lingering { .. } => return None,
        };
        if due == Due::FellOff {
            self.drop_lagging(key);
            return None;
        }
        if picks.len() == first && !has_unsent {
            session.caught_up(&self.options.lag);
            return None;
        }
        Some(due)
    }

    /// Writes what waits for a session: the rest of a frame, control frames, then data in id order.
    ///
    /// One `send` of everything due, up to [`JOINED_BYTES`]; if there is more, the session queues
    /// behind the others. A connection that takes less than it is given is blocked: it keeps its
    /// cursors and is asked again when its socket is writable.
    pub(super) fn flush(&mut self, key: u32) {
        let mut picks = mem::take(&mut self.picks);
        picks.clear();
        if let Some(due) = self.due(key, &mut picks)
            && let Some(connection) = &self.sessions[key as usize].connection
        {
            // A single frame goes as it lies in the arena. Several are joined, because one send of
            // copied bytes costs a tenth of many sends.
            let (result, length, picked) = match &picks[..] {
                [alone] if !connection.has_unsent() => {
                    let frame = frame(&self.groups, alone);
                    (connection.send(frame), frame.len(), 1)
                }
                picks => {
                    self.scratch.clear();
                    connection.copy_unsent(&mut self.scratch);
                    let picked = append_frames(&self.groups, picks, &mut self.scratch);
                    (connection.send(&self.scratch), self.scratch.len(), picked)
                }
            };
            self.settle(key, &Given { picks: &picks, picked, due, to: None, length }, result.ok());
        }
        self.picks = picks;
    }

    /// After a send: moves the cursors behind what was taken, and sees to the rest. Nothing `sent`: the
    /// socket failed.
    fn settle(&mut self, key: u32, given: &Given, sent: Option<usize>) {
        let Some(sent) = sent else {
            return self.lose(key, Ending::Gone);
        };
        self.stats.sends.add(1);
        self.stats.bytes.add(sent as u64);

        let session = &mut self.sessions[key as usize];
        let Some(connection) = session.connection.as_mut() else { return };
        let mut rest = connection.unsent_taken(sent);
        let (partly, picks) = (sent < given.length, &given.picks[..given.picked]);
        let mut frames = picks.len();
        match given.to {
            Some(to) if !partly => {
                session.memberships.iter_mut().zip(to).for_each(|(membership, &to)| membership.cursor = to);
            }
            _ => {
                for (at, pick) in picks.iter().enumerate() {
                    if partly {
                        let frame = frame(&self.groups, pick);
                        if rest == 0 {
                            frames = at;
                            break;
                        }
                        if rest < frame.len() {
                            connection.keep_tail(&frame[rest..]);
                        }
                        rest = rest.saturating_sub(frame.len());
                    }
                    session.memberships[pick.membership as usize].cursor = pick.position + 1;
                }
            }
        }
        self.stats.frames.add(frames as u64);

        if partly {
            self.marks.set(key, Mark::Blocked);
            self.watch(key, Watch::ReadAndWrite);
        } else if given.picked < given.picks.len() || given.due == Due::More {
            self.marks.set(key, Mark::Queued);
            self.queue.push_back(key);
        } else {
            match connection.phase {
                Phase::Closing { ending, answered: true } => self.depart(key, ending),
                Phase::Closing { ending, answered: false } => connection.linger(ending),
                _ => session.caught_up(&self.options.lag),
            }
        }
    }

    /// Judges a blocked session after new frames arrived for it.
    pub(super) fn check_lag(&mut self, key: u32) {
        let Some(session) = self.sessions.get(key as usize) else { return };
        let open = session.connection.as_ref().is_some_and(Connection::is_open);
        if open && session.is_lagging(&self.groups) {
            self.drop_lagging(key);
        }
    }

    /// Too far behind: a plain connection is told and closed, a reliable one is reset and its
    /// session waits for the client to come back (`docs/protocols/webpubsub.md`, "Slow clients").
    fn drop_lagging(&mut self, key: u32) {
        let session = &mut self.sessions[key as usize];
        tracing::info!(connection = %session.id, "too slow: further behind than --client-buffer allows");
        if session.wire.is_reliable() {
            session.lagged = true;
            self.lose(key, Ending::Lag);
        } else {
            let reason = session.wire.slow_reason();
            self.close(key, 1008, reason, Ending::Lag);
        }
    }
}
