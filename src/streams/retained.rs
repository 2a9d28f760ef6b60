//! Messages kept for clients that subscribe later, one per group, until the state changes.

use std::collections::HashMap;

use crate::engine::frames::{Form, Frames};

/// Bytes kept at most. Without a limit this would grow without end while no price moves, if clients subscribed
/// to ever new sets of symbols.
const BYTES: usize = 64 << 20;

/// The messages of one channel's current state, by group. Bounded: when a message no longer fits, all others
/// are dropped, and encoded again when somebody wants them.
#[derive(Default)]
pub struct RetainedMessages {
    messages: HashMap<Box<str>, Frames>,
    bytes: usize,
}

impl RetainedMessages {
    /// The message kept for `group`.
    pub fn get(&self, group: &str) -> Option<Frames> {
        self.messages.get(group).cloned()
    }

    /// Keeps a message for the next clients that join `group`.
    pub fn keep(&mut self, group: &str, message: &Frames) {
        let bytes = group.len() + message.frame(Form::new(0)).len();
        if self.bytes + bytes > BYTES {
            self.forget();
        }
        self.bytes += bytes;
        self.messages.insert(group.into(), message.clone());
    }

    /// Forgets all messages, since the state has changed.
    pub fn forget(&mut self) {
        self.messages.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::encoded::frames;

    #[test]
    fn what_is_kept_is_bounded_and_forgotten_with_the_state() {
        let mut retained = RetainedMessages::default();
        let message = frames(vec![0; BYTES / 4 - 1].into(), 0);
        for group in ["a", "b", "c", "d"] {
            retained.keep(group, &message);
        }
        assert_eq!((retained.messages.len(), retained.bytes), (4, BYTES));
        retained.keep("e", &message);
        assert!(retained.get("e").is_some() && retained.get("a").is_none());
        assert_eq!(retained.bytes, BYTES / 4);
        retained.forget();
        assert!(retained.get("e").is_none() && retained.bytes == 0);
    }
}
