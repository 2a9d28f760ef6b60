//! Sends that leave together: one io_uring call, or a `send(2)` each.

use std::io;
use std::mem;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::slice;

use bytes::Bytes;

use crate::server::shard::connection::Connection;
use crate::server::shard::lanes::Lanes;
use crate::server::shard::session::{Extent, Membership, Pick, Session};
use crate::server::shard::sessions::Sessions;
use crate::server::shard::uring::Uring;

/// Sends in one system call: as many as are over before the clock's next tick. A kernel that does not preempt itself
/// lets nobody else on the core meanwhile, the clock least of all; 32 take up to 0.3 ms.
const SENDS: RangeInclusive<usize> = 32..=128;

/// What one send takes at most, as a rule, ns: to one of 5,000 sockets some 9 µs.
const SEND_NS: u64 = 10_000;

/// Most bytes of frames joined for one send.
pub const JOINED_BYTES: usize = 64 << 10;

/// Different joined frames in one batch; a batch with more of them is sent early.
const JOINS: usize = 16;

/// What is due for the sessions that have the same groups and stand at the same frames in them: found and
/// joined once for all of them. Such sessions mostly follow one another in the sweep.
struct JoinedFrames {
    /// The lanes' revision when this was found.
    revision: u64,
    /// Lane and cursor of each membership.
    from: Vec<(u32, u64)>,
    /// The cursors when everything joined is sent.
    to: Vec<u64>,
    extent: Extent,
    picks: Vec<Pick>,
    /// How many of the picks are in the bytes.
    picked: usize,
    bytes: Vec<u8>,
}

impl JoinedFrames {
    fn new() -> Self {
        let (from, to, picks, bytes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { revision: 0, from, to, extent: Extent::All, picks, picked: 0, bytes }
    }

    fn is_for(&self, lanes: &Lanes, session: &Session) -> bool {
        let same = |(here, there): (&Membership, &(u32, u64))| (here.lane, here.cursor) == *there;
        self.revision == lanes.revision()
            && self.from.len() == session.memberships.len()
            && session.memberships.iter().zip(&self.from).all(same)
    }

    /// Takes the picks of a session, and joins their frames up to [`JOINED_BYTES`].
    fn join(&mut self, lanes: &Lanes, session: &Session, extent: Extent, picks: &mut Vec<Pick>) {
        (self.revision, self.extent) = (lanes.revision(), extent);
        mem::swap(&mut self.picks, picks);
        self.bytes.clear();
        self.picked = append_frames(lanes, &self.picks, &mut self.bytes);
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
pub fn append_frames(lanes: &Lanes, picks: &[Pick], out: &mut Vec<u8>) -> usize {
    let mut picked = 0;
    for pick in picks {
        let frame = frame(lanes, pick);
        if picked > 0 && out.len() + frame.len() > JOINED_BYTES {
            break;
        }
        out.extend_from_slice(frame);
        picked += 1;
    }
    picked
}

/// The bytes of a pick.
pub fn frame<'a>(lanes: &'a Lanes, pick: &Pick) -> &'a Bytes {
    &lanes.lane(pick.lane).ring.get(pick.position).expect("picked from the ring just now").frame
}

/// The sends of a part of a turn, which leave together.
#[derive(Default)]
pub struct SendBatch {
    sends: Vec<Send>,
    /// The first `joins` of them are this batch's; the others are only room.
    joined: Vec<JoinedFrames>,
    joins: usize,
    taken: Vec<io::Result<usize>>,
    /// How many sends may leave together now.
    most: usize,
    uring: Option<Uring>,
}

/// What one session is given to send.
struct Send {
    key: u32,
    bytes: SendBytes,
}

enum SendBytes {
    /// One frame, as it lies in the arena.
    Frame(Pick, Extent),
    /// One of the batch's joined frames, by index.
    Joined(usize),
}

impl Send {
    fn bytes<'a>(&self, lanes: &'a Lanes, joined: &'a [JoinedFrames]) -> &'a [u8] {
        match &self.bytes {
            SendBytes::Frame(pick, _) => frame(lanes, pick),
            SendBytes::Joined(at) => &joined[*at].bytes,
        }
    }
}

/// What a session was given to send: bytes that were unsent, and frames.
pub struct Sending<'a> {
    /// What is due for it.
    pub picks: &'a [Pick],
    /// How many of them are in the bytes.
    pub picked: usize,
    /// Whether more is due than the picks.
    pub extent: Extent,
    /// Its cursors when all bytes are taken, if they are known.
    pub to: Option<&'a [u64]>,
    /// The number of bytes, unsent ones and frames together.
    pub length: usize,
}

impl Sending<'_> {
    /// Moves the cursors past the frames that were taken: past all, or past those that the first `part` bytes of them
    /// reach into. The rest of the last of these is kept. Returns how many frames were taken.
    pub fn move_cursors(
        &self,
        memberships: &mut [Membership],
        connection: &mut Connection,
        lanes: &Lanes,
        part: Option<usize>,
    ) -> usize {
        let picks = &self.picks[..self.picked];
        if let (Some(to), None) = (self.to, part) {
            memberships.iter_mut().zip(to).for_each(|(membership, &to)| membership.cursor = to);
            return picks.len();
        }
        let mut left = part.unwrap_or(usize::MAX);
        for (at, pick) in picks.iter().enumerate() {
            if left == 0 {
                return at;
            }
            if part.is_some() {
                let frame = frame(lanes, pick);
                if left < frame.len() {
                    connection.outbound().keep_tail(&frame[left..]);
                }
                left = left.saturating_sub(frame.len());
            }
            memberships[pick.membership as usize].cursor = pick.position + 1;
        }
        picks.len()
    }
}

impl SendBatch {
    /// Looks for io_uring. Called on the shard's own thread: a ring is its thread's alone.
    pub fn prepare(&mut self, wanted: bool, shard: u8) {
        if wanted {
            match Uring::new(*SENDS.end() as u32) {
                Ok(uring) => {
                    self.uring = Some(uring);
                    tracing::debug!(shard, "sending through io_uring");
                }
                Err(error) => tracing::info!(shard, %error, "io_uring is not available; sending with send(2)"),
            }
        }
    }

    /// Says how many sends may leave together while the clock's next tick is so far away.
    pub fn allow(&mut self, left_ns: u64) {
        let fitting = usize::try_from(left_ns / SEND_NS).unwrap_or(usize::MAX);
        self.most = fitting.clamp(*SENDS.start(), *SENDS.end());
    }

    /// Whether the batch must be sent before anything is added.
    pub fn is_full(&self) -> bool {
        self.sends.len() >= self.most || self.joins == JOINS
    }

    /// Whether it has nothing to send.
    pub fn is_empty(&self) -> bool {
        self.sends.is_empty()
    }

    /// Gives a session the same bytes as the one before it, if it needs the same.
    pub fn repeats(&mut self, key: u32, lanes: &Lanes, session: &Session) -> bool {
        let Some(last) = self.joins.checked_sub(1) else { return false };
        let same = self.joined[last].is_for(lanes, session);
        if same {
            self.sends.push(Send { key, bytes: SendBytes::Joined(last) });
        }
        same
    }

    /// Gives a session the picks.
    pub fn add(&mut self, key: u32, lanes: &Lanes, session: &Session, extent: Extent, picks: &mut Vec<Pick>) {
        let bytes = if let [alone] = picks[..] {
            SendBytes::Frame(alone, extent)
        } else {
            if self.joined.len() == self.joins {
                self.joined.push(JoinedFrames::new());
            }
            self.joined[self.joins].join(lanes, session, extent, picks);
            self.joins += 1;
            SendBytes::Joined(self.joins - 1)
        };
        self.sends.push(Send { key, bytes });
    }

    /// Sends everything; [`SendBatch::for_each`] tells what became of it.
    pub fn send(&mut self, lanes: &Lanes, sessions: &Sessions) {
        let Self { sends, joined, taken, .. } = self;
        let connected = |send: &Send| sessions.connection(send.key).expect("added to the batch just now");
        if let Some(uring) = &mut self.uring {
            let offers = sends.iter().map(|send| (connected(send).socket().as_fd(), send.bytes(lanes, joined)));
            if let Err(error) = uring.send_all(offers, taken) {
                tracing::warn!(%error, "io_uring failed; this shard sends with send(2) from now on");
                self.uring = None;
            }
            return;
        }
        taken.clear();
        taken.extend(sends.iter().map(|send| connected(send).send(send.bytes(lanes, joined))));
    }

    /// Each session, what it was given, and how many bytes of that were taken; `None`: its socket failed.
    /// Afterwards the batch is ready for the next ones. What was joined last is kept: they may need the same.
    pub fn for_each(&mut self, lanes: &Lanes, mut settle: impl FnMut(u32, &Sending<'_>, Option<usize>)) {
        for (send, taken) in self.sends.iter().zip(self.taken.drain(..)) {
            let (picks, picked, extent, to) = match &send.bytes {
                SendBytes::Frame(pick, extent) => (slice::from_ref(pick), 1, *extent, None),
                SendBytes::Joined(at) => {
                    let JoinedFrames { picks, picked, extent, to, .. } = &self.joined[*at];
                    (&picks[..], *picked, *extent, Some(&to[..]))
                }
            };
            let length = send.bytes(lanes, &self.joined).len();
            settle(send.key, &Sending { picks, picked, extent, to, length }, taken.ok());
        }
        self.sends.clear();
        if self.joins > 1 {
            self.joined.swap(0, self.joins - 1);
            self.joins = 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_as_large_as_the_clock_allows() {
        let mut batch = SendBatch::default();
        for (left_ns, most) in [(0, 32), (300_000, 32), (750_000, 75), (2_000_000, 128), (u64::MAX, 128)] {
            batch.allow(left_ns);
            assert_eq!(batch.most, most, "{left_ns} ns");
        }
    }
}
