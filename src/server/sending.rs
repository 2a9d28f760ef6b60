//! Sending: what is due for a session, joined and written once.

use super::connection::{Connection, Phase, Watch};
use super::session::{Due, Pick};
use super::shard::{JOINED_BYTES, Shard};
use super::stats::Ending;

/// Frames considered for one send: 64 KiB of the smallest that occur.
const PICKS: usize = 512;

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
            session.allowance = self.options.lag.client_buffer;
            return;
        }

        let frame = |pick: &Pick| {
            let lane = session.memberships[pick.membership as usize].lane;
            &self.groups.lane(lane).ring.get(pick.position).expect("picked from the ring just now").frame
        };
        // A single frame goes as it lies in the arena; several are joined, because one send of
        // copied bytes costs a tenth of many sends.
        let alone = self.picks.len() == 1 && !connection.has_unsent();
        let (result, given, picked) = if alone {
            let frame = frame(&self.picks[0]);
            (connection.send(frame), frame.len(), 1)
        } else {
            self.scratch.clear();
            connection.copy_unsent(&mut self.scratch);
            let mut picked = 0;
            for pick in &self.picks {
                let frame = frame(pick);
                if picked > 0 && self.scratch.len() + frame.len() > JOINED_BYTES {
                    break;
                }
                self.scratch.extend_from_slice(frame);
                picked += 1;
            }
            (connection.send(&self.scratch), self.scratch.len(), picked)
        };
        let Ok(sent) = result else {
            return self.lose(key, Ending::Gone);
        };
        self.stats.sends.add(1);
        self.stats.bytes.add(sent as u64);

        let mut rest = connection.unsent_taken(sent);
        let mut frames = 0;
        for pick in &self.picks[..picked] {
            if rest == 0 {
                break;
            }
            let membership = &mut session.memberships[pick.membership as usize];
            let frame = &self.groups.lane(membership.lane).ring.get(pick.position).expect("still there").frame;
            membership.cursor = pick.position + 1;
            if rest < frame.len() {
                connection.keep_tail(&frame[rest..]);
                break;
            }
            rest -= frame.len();
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
                _ => session.allowance = self.options.lag.client_buffer,
            }
        }
    }

    /// Judges a blocked session after new frames arrived for it.
    pub(super) fn check_lag(&mut self, key: u32) {
        let Some(session) = self.sessions.get(key as usize) else { return };
        let open = session.connection.as_ref().is_some_and(Connection::is_open);
        if open && session.is_lagging(&self.groups, &self.options.lag) {
            self.drop_lagging(key);
        }
    }

    /// Too far behind: a plain connection is told and closed, a reliable one is reset and its
    /// session waits for the client to come back (`wire/webpubsub.md` §1.7).
    fn drop_lagging(&mut self, key: u32) {
        let session = &mut self.sessions[key as usize];
        tracing::info!(connection = %session.id, "too slow: further behind than --client-buffer allows");
        if session.wire.reliable {
            session.lagged = true;
            self.lose(key, Ending::Lag);
        } else {
            self.close(key, 1008, "slow consumer", Ending::Lag);
        }
    }
}
