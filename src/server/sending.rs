//! Sending: what is due for a session, joined and written once.

use bytes::Bytes;

use super::connection::{Connection, Phase, Watch};
use super::groups::Groups;
use super::session::{Due, Pick};
use super::shard::Shard;
use super::stats::Ending;

/// Most bytes of frames joined for one send.
const JOINED_BYTES: usize = 64 << 10;

/// Frames considered for one send: 64 KiB of the smallest that occur.
const PICKS: usize = 512;

/// The frames that were joined last. Sessions with the same groups need the very same bytes, and
/// stand one behind the other in the sweep.
#[derive(Default)]
pub(super) struct Joined {
    picks: Vec<Pick>,
    bytes: Vec<u8>,
    picked: usize,
}

impl Joined {
    /// The frames of `picks`, up to [`JOINED_BYTES`], and how many they are.
    fn of(&mut self, groups: &Groups, picks: &[Pick]) -> (&[u8], usize) {
        // An id is published once, and a lane that takes another's key starts with later ids: equal
        // ids in equal lanes are equal frames.
        let same = |(one, other): (&Pick, &Pick)| one.id == other.id && one.lane == other.lane;
        if picks.len() != self.picks.len() || !picks.iter().zip(&self.picks).all(same) {
            self.picks.clear();
            self.picks.extend_from_slice(picks);
            self.bytes.clear();
            self.picked = append_frames(groups, picks, &mut self.bytes);
        }
        (&self.bytes, self.picked)
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

impl Shard {
    /// Writes what waits for a session: the rest of a frame, control frames, then data in id order.
    ///
    /// One `send` of everything due, up to [`JOINED_BYTES`]; if there is more, the session queues
    /// behind the others. A connection that takes less than it is given is blocked: it keeps its
    /// cursors and is asked again when its socket is writable.
    pub(super) fn flush(&mut self, key: u32) {
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        let Some(connection) = session.connection.as_mut().filter(|connection| !connection.blocked) else { return };
        let due = match connection.phase {
            Phase::Open => session.due(&self.groups, PICKS, &mut self.picks),
            Phase::Closing { .. } => {
                self.picks.clear();
                Due::All
            }
            Phase::Lingering { .. } => return,
        };
        if due == Due::FellOff {
            return self.drop_lagging(key);
        }
        let connection = session.connection.as_mut().expect("checked above");
        if self.picks.is_empty() && !connection.has_unsent() {
            session.caught_up(&self.options.lag);
            return;
        }

        // A single frame goes as it lies in the arena. Several are joined, because one send of copied
        // bytes costs a tenth of many sends.
        let (result, given, picked) = match &self.picks[..] {
            [alone] if !connection.has_unsent() => {
                let frame = frame(&self.groups, alone);
                (connection.send(frame), frame.len(), 1)
            }
            _ if connection.has_unsent() => {
                self.scratch.clear();
                connection.copy_unsent(&mut self.scratch);
                let picked = append_frames(&self.groups, &self.picks, &mut self.scratch);
                (connection.send(&self.scratch), self.scratch.len(), picked)
            }
            picks => {
                let (bytes, picked) = self.joined.of(&self.groups, picks);
                (connection.send(bytes), bytes.len(), picked)
            }
        };
        let Ok(sent) = result else {
            return self.lose(key, Ending::Gone);
        };
        self.stats.sends.add(1);
        self.stats.bytes.add(sent as u64);

        let mut rest = connection.unsent_taken(sent);
        let mut frames = 0;
        for pick in &self.picks[..picked] {
            if sent < given {
                let frame = frame(&self.groups, pick);
                if rest == 0 {
                    break;
                }
                if rest < frame.len() {
                    connection.keep_tail(&frame[rest..]);
                }
                rest = rest.saturating_sub(frame.len());
            }
            session.memberships[pick.membership as usize].cursor = pick.position + 1;
            frames += 1;
        }
        self.stats.frames.add(frames);

        if sent < given {
            connection.blocked = true;
            self.watch(key, Watch::ReadAndWrite);
        } else if picked < self.picks.len() || due == Due::More {
            session.queued = true;
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
    /// session waits for the client to come back (`wire/webpubsub.md` §1.7).
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
