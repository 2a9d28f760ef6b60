//! What the sweep must know of every session: one byte each, side by side.
//!
//! A tick looks at all subscribers of its group. Ten thousand sessions do not fit into a core's
//! caches beside what the kernel touches to send; ten thousand bytes do.

/// Whether a session may be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// The session is detached: there is no socket.
    Away,
    /// The socket takes bytes, and the session is not in the queue.
    Ready,
    /// The socket takes bytes, and the session is in the shard's queue of those with something to send.
    Queued,
    /// The kernel took less than it was given: nothing is tried until the socket is writable again.
    Blocked,
    /// A plan of faults lets nothing be sent to it for now.
    Stalled,
}

/// The marks of a shard's sessions, by key.
#[derive(Debug, Default)]
pub struct Marks {
    marks: Vec<Mark>,
    /// How many are [`Mark::Blocked`].
    blocked: u64,
}

impl Marks {
    /// The mark of a session.
    pub fn get(&self, key: u32) -> Mark {
        self.marks.get(key as usize).copied().unwrap_or(Mark::Away)
    }

    /// Marks a session; keys that were never marked are [`Mark::Away`].
    pub fn set(&mut self, key: u32, mark: Mark) {
        let key = key as usize;
        if key >= self.marks.len() {
            self.marks.resize(key + 1, Mark::Away);
        }
        let before = std::mem::replace(&mut self.marks[key], mark);
        self.blocked = self.blocked + u64::from(mark == Mark::Blocked) - u64::from(before == Mark::Blocked);
    }

    /// The key after the largest one that was ever marked.
    pub fn end(&self) -> u32 {
        self.marks.len() as u32
    }

    /// How many sessions are [`Mark::Blocked`].
    pub fn blocked(&self) -> u64 {
        self.blocked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_was_never_marked_is_away() {
        let mut marks = Marks::default();
        marks.set(2, Mark::Ready);
        assert_eq!([0, 2, 9].map(|key| marks.get(key)), [Mark::Away, Mark::Ready, Mark::Away]);
        assert_eq!(size_of::<Mark>(), 1);
        for (mark, blocked) in [(Mark::Blocked, 1), (Mark::Blocked, 1), (Mark::Queued, 0), (Mark::Away, 0)] {
            marks.set(2, mark);
            assert_eq!(marks.blocked(), blocked);
        }
    }
}
