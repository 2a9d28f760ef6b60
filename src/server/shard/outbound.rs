//! What a connection has to send before any data: the rest of a frame, control frames, states.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

/// Unsent bytes that are not data in a ring.
#[derive(Default)]
pub struct Outbound {
    /// The rest of what was sent in part; goes before anything else.
    tail: Bytes,
    /// Finished control frames; they go at the next frame boundary, before data.
    pub control: Vec<u8>,
    /// The latest state of groups that were joined, with their lanes; they go before the groups' data. Each is shared
    /// by all who join at the time, and there is one per group.
    states: VecDeque<(u32, Bytes)>,
}

impl Outbound {
    /// The answer to the request with which the client came goes before anything else.
    pub fn answer(answer: Vec<u8>) -> Self {
        Self { control: answer, ..Self::default() }
    }

    /// Queues the latest state of a group that was joined: one finished frame.
    pub fn push_state(&mut self, lane: u32, frame: Bytes) {
        self.states.push_back((lane, frame));
    }

    /// Drops the states of all lanes but those that are to be kept, unless a part of one was sent.
    pub fn retain_states(&mut self, keep: impl Fn(u32) -> bool) {
        self.states.retain(|(lane, _)| keep(*lane));
    }

    /// Keeps the rest of a data frame that went in part. It is copied, because a slice would keep the whole block in
    /// which the frame lies.
    pub fn keep_tail(&mut self, rest: &[u8]) {
        debug_assert!(self.tail.is_empty(), "nothing is sent past a tail");
        self.tail = Bytes::copy_from_slice(rest);
    }

    /// Appends everything to `out`, but of states only up to `limit` bytes in all. Returns whether that was everything.
    pub fn copy(&self, limit: usize, out: &mut Vec<u8>) -> bool {
        let tail = self.tail.len().min(limit);
        out.extend_from_slice(&self.tail[..tail]);
        if tail < self.tail.len() {
            return false;
        }
        out.extend_from_slice(&self.control);
        for (_, state) in &self.states {
            let part = state.len().min(limit.saturating_sub(out.len()));
            out.extend_from_slice(&state[..part]);
            if part < state.len() {
                return false;
            }
        }
        true
    }

    /// Removes the first `sent` bytes. What is left of a frame that went in part becomes the tail, because it must
    /// be finished before any other. Returns how many of `sent` were more than there was.
    pub fn taken(&mut self, sent: usize) -> usize {
        let mut left = sent;
        let of_tail = left.min(self.tail.len());
        self.tail.advance(of_tail);
        left -= of_tail;
        if left > 0 && !self.control.is_empty() {
            let rest = self.control.split_off(left.min(self.control.len()));
            left -= self.control.len();
            (self.tail, self.control) = (rest.into(), Vec::new());
        }
        while left > 0
            && let Some((_, mut state)) = self.states.pop_front()
        {
            let of_state = left.min(state.len());
            state.advance(of_state);
            left -= of_state;
            self.tail = state;
        }
        left
    }

    /// Whether something was sent in part.
    pub fn is_partial(&self) -> bool {
        !self.tail.is_empty()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.tail.is_empty() && self.control.is_empty() && self.states.is_empty()
    }
}
