//! The line of a client whose frames are held back or changed, and how it moves on.

use std::collections::VecDeque;

use bytes::Bytes;

use super::connection_faults::stall;
use super::{Outbox, now_ms};
use crate::server::shard::close::Close;
use crate::server::shard::connection::Connection;
use crate::server::shard::lanes::Lanes;
use crate::server::shard::marks::Mark;
use crate::server::shard::outbox::send_batch::JOINED_BYTES;
use crate::server::shard::sessions::{Report, Sessions};
use crate::server::shard::stats::hub_index;

/// The lane of frames that came out of a line: no lane has this key, so no leave takes them away.
const NO_LANE: u32 = u32::MAX;

/// Bytes sent one by one in a turn of the loop: some hundred microseconds.
const DRIP: usize = 64;

/// How long to wait for a socket that does not take a single byte, ms.
const DRIP_PAUSE_MS: u64 = 2;

/// A frame in a line.
#[derive(Debug)]
pub struct HeldFrame {
    /// What will be sent.
    pub bytes: Bytes,
    /// Not earlier, ms.
    pub due_ms: u64,
    /// Byte by byte.
    pub is_split: bool,
    /// Only behind the next frame.
    pub waits: bool,
}

/// What a client is to get before anything else, in this order.
#[derive(Debug)]
pub struct HeldLine {
    /// Of the connection that it is for.
    pub serial: u32,
    frames: VecDeque<HeldFrame>,
    bytes: u64,
    /// A frame that is on its way byte by byte, and how much of it is gone.
    splitting: Option<(Bytes, usize)>,
}

impl HeldLine {
    /// An empty line.
    pub fn new(serial: u32) -> Self {
        Self { serial, frames: VecDeque::new(), bytes: 0, splitting: None }
    }

    /// Appends a frame: behind the last one, or before it if that one waits for it. Says whether it did.
    pub fn push(&mut self, mut frame: HeldFrame) -> bool {
        self.bytes += frame.bytes.len() as u64;
        let waiting = self.frames.pop_back_if(|last| last.waits);
        // Nothing overtakes what is held longer.
        frame.due_ms = frame.due_ms.max(self.frames.back().map_or(0, |last| last.due_ms));
        let due_ms = frame.due_ms;
        self.frames.push_back(frame);
        let Some(last) = waiting else { return false };
        self.frames.push_back(HeldFrame { waits: false, due_ms: last.due_ms.max(due_ms), ..last });
        true
    }

    /// Whether its last frame waits for the next.
    pub fn is_waiting(&self) -> bool {
        self.frames.back().is_some_and(|last| last.waits)
    }

    /// Whether a frame of it is under way byte by byte.
    pub fn is_splitting(&self) -> bool {
        self.splitting.is_some()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.splitting.is_none()
    }

    /// How many frames are in it.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// How many bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Lets everything go now, in its order.
    pub fn release(&mut self) {
        for frame in &mut self.frames {
            (frame.due_ms, frame.waits, frame.is_split) = (0, false, false);
        }
    }

    /// The next frame, if it is due.
    fn due(&self, now_ms: u64) -> Option<&HeldFrame> {
        self.frames.front().filter(|frame| !frame.waits && frame.due_ms <= now_ms)
    }

    fn pop(&mut self) -> Option<HeldFrame> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.bytes.len() as u64;
        Some(frame)
    }
}

impl Outbox {
    /// Sends what is due of a client's line, as far as its socket takes it.
    pub(super) fn pump(&mut self, key: u32, sessions: &mut Sessions, lanes: &Lanes) {
        let Some(mut line) = self.faults.lines.remove(&key) else { return };
        // Out of `self` meanwhile, since sending uses it.
        let is_kept = self.move_on(key, &mut line, sessions, lanes);
        if is_kept && !line.is_empty() {
            self.faults.lines.insert(key, line);
        }
        self.faults.count_held();
    }

    /// False if the line is for a connection that is gone.
    fn move_on(&mut self, key: u32, line: &mut HeldLine, sessions: &mut Sessions, lanes: &Lanes) -> bool {
        let now_ms = now_ms();
        loop {
            if sessions.current(key, line.serial).is_none() {
                return false;
            }
            if line.is_splitting() && !self.drip(key, line, now_ms, sessions, lanes) {
                return true;
            }
            if matches!(sessions.mark(key), Mark::Away | Mark::Blocked | Mark::Stalled) {
                return true;
            }
            let Some(session) = sessions.get_mut(key) else { return false };
            let hub = hub_index(session.wire, session.hub);
            let Some(connection) = session.connection.as_mut().filter(|connection| connection.is_open()) else {
                return false;
            };
            let Some(next) = line.due(now_ms) else {
                if let Some(front) = line.frames.front().filter(|front| !front.waits) {
                    self.faults.timers.insert((front.due_ms, key));
                }
                return true;
            };
            if !next.is_split {
                let frames = fill(connection, line, now_ms);
                // The bytes are counted when they are sent.
                session.use_of_socket.count(frames, 0, self.stats.hub(hub));
            } else if !connection.has_unsent() {
                line.splitting = line.pop().map(|frame| (frame.bytes, 0));
                stall(key, sessions);
                continue;
            }
            self.flush(key, sessions, lanes);
            if sessions.connection(key).is_some_and(Connection::has_unsent) {
                // Blocked, which `unblocked` ends; or in the queue, as there is more than one send takes.
                if sessions.mark(key) != Mark::Blocked {
                    self.faults.timers.insert((now_ms, key));
                }
                return true;
            }
        }
    }

    /// Sends some bytes of a frame one by one. True when all of it is gone.
    fn drip(&mut self, key: u32, line: &mut HeldLine, now_ms: u64, sessions: &mut Sessions, lanes: &Lanes) -> bool {
        let (Some((bytes, at)), Some(connection)) = (&mut line.splitting, sessions.connection(key)) else {
            return true;
        };
        for _ in 0..DRIP {
            let Some(byte) = bytes.get(*at..*at + 1) else { break };
            match connection.send_apart(byte) {
                Ok(0) => {
                    self.faults.timers.insert((now_ms + DRIP_PAUSE_MS, key));
                    return false;
                }
                Ok(_) => *at += 1,
                Err(_) => {
                    sessions.report(key, Report::Lost(Close::Gone));
                    return false;
                }
            }
        }
        if *at < bytes.len() {
            self.faults.timers.insert((now_ms, key));
            return false;
        }
        let length = bytes.len() as u64;
        self.stats.sends.add(length);
        if let Some(session) = sessions.get_mut(key) {
            session.use_of_socket.count(1, length, self.stats.hub(hub_index(session.wire, session.hub)));
        }
        line.splitting = None;
        if !self.faults.stalls.iter().any(|(_, stalled, serial)| (*stalled, *serial) == (key, line.serial)) {
            sessions.set_mark(key, Mark::Ready);
            // What had to wait: answers, a close frame.
            self.flush(key, sessions, lanes);
            self.queue_pull(key, sessions);
        }
        true
    }
}

/// Hands due frames to a connection, about as many as one send takes. Returns how many.
fn fill(connection: &mut Connection, line: &mut HeldLine, now_ms: u64) -> u64 {
    let (mut bytes, mut frames) = (0, 0);
    while bytes < JOINED_BYTES && line.due(now_ms).is_some_and(|frame| !frame.is_split) {
        let Some(frame) = line.pop() else { break };
        bytes += frame.bytes.len();
        frames += 1;
        connection.outbound().push_state(NO_LANE, frame.bytes);
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(name: &'static str, due_ms: u64, waits: bool) -> HeldFrame {
        HeldFrame { bytes: Bytes::from_static(name.as_bytes()), due_ms, is_split: false, waits }
    }

    fn order(line: &HeldLine) -> Vec<(&[u8], u64)> {
        line.frames.iter().map(|frame| (&*frame.bytes, frame.due_ms)).collect()
    }

    #[test]
    fn a_frame_that_waits_leaves_behind_the_next() {
        let mut line = HeldLine::new(1);
        assert!(!line.push(frame("a", 0, false)) && !line.push(frame("b", 0, true)));
        assert!(line.is_waiting());
        assert!(line.push(frame("c", 5, false)), "it was waited for");
        assert!(!line.push(frame("d", 0, false)));
        assert_eq!(order(&line), [(&b"a"[..], 0), (b"c", 5), (b"b", 5), (b"d", 5)], "and nothing overtakes");
        assert_eq!((line.len(), line.bytes()), (4, 4));
    }

    #[test]
    fn what_is_released_is_due_at_once() {
        let mut line = HeldLine::new(1);
        line.push(frame("a", 900, false));
        line.push(frame("b", 900, true));
        assert!(line.due(0).is_none());
        line.release();
        assert_eq!([line.pop(), line.pop()].map(|frame| frame.unwrap().bytes), [&b"a"[..], b"b"]);
        assert!(line.is_empty() && line.bytes() == 0);
    }
}
