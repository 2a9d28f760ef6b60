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
}

/// The marks of a shard's sessions, by key.
#[derive(Debug, Default)]
pub struct Marks(Vec<Mark>);

impl Marks {
    /// The mark of a session.
    pub fn get(&self, key: u32) -> Mark {
        self.0.get(key as usize).copied().unwrap_or(Mark::Away)
    }

    /// Marks a session; keys that were never marked are [`Mark::Away`].
    pub fn set(&mut self, key: u32, mark: Mark) {
        let key = key as usize;
        if key >= self.0.len() {
            self.0.resize(key + 1, Mark::Away);
        }
        self.0[key] = mark;
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
    }
}
