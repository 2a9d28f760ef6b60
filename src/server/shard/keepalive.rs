//! Keep-alive: who is pinged when, and who left a ping unanswered.

use super::close::Close;
use super::sessions::{Report, Sessions};
use super::timers::Timeouts;
use crate::wire::websocket::{self, Opcode};

/// The pings of one dialect's connections.
pub struct Keepalive {
    /// Key and serial of who is pinged next.
    due: Timeouts<(u32, u32)>,
    answers: Timeouts<SentPing>,
}

/// A ping that was sent, waiting for its answer.
#[derive(Debug)]
pub struct SentPing {
    key: u32,
    serial: u32,
    /// When it was sent, ms.
    at_ms: u64,
}

impl SentPing {
    /// The session that was pinged.
    pub fn key(&self) -> u32 {
        self.key
    }

    /// Whether a client that was last heard at `heard_ms` has said nothing since the ping. What was heard
    /// in the ping's own millisecond counts as an answer: it may be one.
    fn is_unanswered(&self, heard_ms: u64) -> bool {
        heard_ms < self.at_ms
    }

    /// Whether the connection that was pinged is still open and has said nothing since. A connection that is
    /// closing is left alone.
    pub fn is_overdue(&self, sessions: &mut Sessions) -> bool {
        sessions
            .current(self.key, self.serial)
            .is_some_and(|connection| connection.is_open() && self.is_unanswered(connection.heard_ms))
    }
}

impl Keepalive {
    /// A ping every `interval_ms`, to be answered within `grace_ms`.
    pub fn new(interval_ms: u64, grace_ms: u64) -> Self {
        Self { due: Timeouts::new(interval_ms), answers: Timeouts::new(grace_ms) }
    }

    /// A new connection: its first ping is an interval away.
    pub fn start(&mut self, now_ms: u64, key: u32, serial: u32) {
        self.due.push(now_ms, (key, serial));
    }

    /// Appends a ping for the next one whose turn it is. Returns its key, so that the ping can be sent. A client whose
    /// message is unfinished since the ping before is reported instead.
    pub fn next_pinged(&mut self, now_ms: u64, sessions: &mut Sessions) -> Option<u32> {
        loop {
            let (key, serial) = self.due.pop(now_ms)?;
            let Some(connection) = sessions.current(key, serial).filter(|connection| connection.is_open()) else {
                continue;
            };
            if connection.inbound.unfinished_since_ms().is_some_and(|since_ms| since_ms + self.due.delay_ms() <= now_ms)
            {
                sessions.report(key, Report::Close(Close::Unfinished.into()));
                continue;
            }
            self.due.push(now_ms, (key, serial));
            self.answers.push(now_ms, SentPing { key, serial, at_ms: now_ms });
            // Control frames go before data, so a client that reads slowly answers all the same. One
            // that takes not even those has one waiting already.
            if connection.control_bytes() == 0 {
                websocket::append(Opcode::Ping, &[], connection.control());
                return Some(key);
            }
        }
    }

    /// The next ping whose answer is overdue.
    pub fn next_overdue(&mut self, now_ms: u64, sessions: &mut Sessions) -> Option<SentPing> {
        loop {
            let ping = self.answers.pop(now_ms)?;
            if ping.is_overdue(sessions) {
                return Some(ping);
            }
        }
    }

    /// When there is something to do next, ms.
    pub fn next_ms(&self) -> Option<u64> {
        self.due.next_ms().into_iter().chain(self.answers.next_ms()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_is_heard_at_the_ping_or_after_it_has_answered_whenever_the_shard_looks() {
        let mut answers = Timeouts::new(1000);
        answers.push(5000, SentPing { key: 0, serial: 0, at_ms: 5000 });
        // The shard looks 37 ms late, which makes no answer late.
        let ping = answers.pop(6037).unwrap();
        assert!([4000, 4999].into_iter().all(|heard_ms| ping.is_unanswered(heard_ms)));
        assert!(![5000, 5001, 5036, 6037].into_iter().any(|heard_ms| ping.is_unanswered(heard_ms)));
    }
}
