//! What one shard keeps of one group in one form: the frames its subscribers still need.
//!
//! Positions count frames from the ring's beginning and are never reused; a subscriber's cursor is
//! the position of its next frame. The ring is bounded in frames and bytes, oldest first. A cursor
//! that falls off its end belongs to a subscriber that lags.

use std::collections::VecDeque;

use bytes::Bytes;

/// One frame and where it stands.
#[derive(Debug)]
pub struct RingFrame {
    /// The publication's id in the hub's sequence.
    pub id: u64,
    /// Ready to write, and shared by all subscribers.
    pub frame: Bytes,
    /// Bytes of all frames up to and including this one, since the ring began.
    end: u64,
}

/// A bounded queue of frames with stable positions.
#[derive(Debug)]
pub struct Ring {
    entries: VecDeque<RingFrame>,
    /// Position of `entries[0]`.
    oldest: u64,
    /// Id of the newest frame that was dropped; 0 if none was.
    fallen_id: u64,
    /// Bytes of all frames that were ever pushed.
    end: u64,
    max_frames: u64,
    max_bytes: u64,
}

impl Ring {
    /// An empty ring. Whichever bound is reached first, the oldest frames are dropped.
    pub fn new(max_frames: u64, max_bytes: u64) -> Self {
        Self { entries: VecDeque::new(), oldest: 0, fallen_id: 0, end: 0, max_frames, max_bytes }
    }

    /// Appends a frame, whose id must be larger than the last one's. Frames beyond the bounds are dropped,
    /// oldest first.
    pub fn push(&mut self, id: u64, frame: Bytes) {
        debug_assert!(self.entries.back().is_none_or(|newest| newest.id < id));
        self.end += frame.len() as u64;
        self.entries.push_back(RingFrame { id, frame, end: self.end });
        while self.entries.len() as u64 > self.max_frames || self.bytes() > self.max_bytes {
            let Some(fallen) = self.entries.pop_front() else { break };
            self.fallen_id = fallen.id;
            self.oldest += 1;
        }
    }

    /// Drops the frames before `position`: nobody needs them any more.
    pub fn forget_before(&mut self, position: u64) {
        while self.oldest < position
            && let Some(fallen) = self.entries.pop_front()
        {
            self.fallen_id = fallen.id;
            self.oldest += 1;
        }
    }

    /// The position behind the newest frame: where a joiner's cursor starts.
    pub fn head(&self) -> u64 {
        self.oldest + self.entries.len() as u64
    }

    /// The position of the oldest frame that is still there; [`Ring::head`] if none is.
    pub fn oldest(&self) -> u64 {
        self.oldest
    }

    /// The frame at `position`; `None` if it was dropped, or has not come yet.
    pub fn get(&self, position: u64) -> Option<&RingFrame> {
        self.entries.get(usize::try_from(position.checked_sub(self.oldest)?).ok()?)
    }

    /// The position of the first frame whose id is larger than `id`. If such a frame was dropped, this is a
    /// position before [`Ring::oldest`]: the newest that it can have had.
    pub fn position_after(&self, id: u64) -> u64 {
        if self.fallen_id > id {
            return self.oldest - 1;
        }
        self.oldest + self.entries.partition_point(|entry| entry.id <= id) as u64
    }

    /// Bytes from `position` to the head. Frames that were dropped are not counted.
    pub fn bytes_from(&self, position: u64) -> u64 {
        match self.get(position.max(self.oldest)) {
            Some(entry) => self.end - entry.end + entry.frame.len() as u64,
            None => 0,
        }
    }

    /// Bytes of all frames that are still there.
    pub fn bytes(&self) -> u64 {
        self.bytes_from(self.oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ring(max_frames: u64, max_bytes: u64, lengths: &[usize]) -> Ring {
        let mut ring = Ring::new(max_frames, max_bytes);
        for (at, &length) in lengths.iter().enumerate() {
            ring.push(10 * (at as u64 + 1), Bytes::from(vec![at as u8; length]));
        }
        ring
    }

    #[test]
    fn positions_stay_when_old_frames_fall_off() {
        let ring = ring(2, 1000, &[5, 5, 5]);
        assert_eq!((ring.oldest(), ring.head()), (1, 3));
        assert!(ring.get(0).is_none());
        assert_eq!(ring.get(2).unwrap().id, 30);
        assert!(ring.get(3).is_none());
    }

    #[test]
    fn the_position_after_an_id_need_not_have_that_id() {
        let ring = ring(9, 1000, &[1, 1, 1]);
        assert_eq!([9, 10, 11, 30, 31].map(|id| ring.position_after(id)), [0, 1, 1, 3, 3]);
    }

    #[test]
    fn a_position_that_fell_off_is_told() {
        let ring = ring(2, 1000, &[1, 1, 1, 1]);
        assert_eq!([9, 10, 19, 20, 30].map(|id| ring.position_after(id)), [1, 1, 1, 2, 3]);
        assert_eq!(ring.oldest(), 2);
    }

    #[test]
    fn what_nobody_needs_can_be_forgotten() {
        let mut ring = ring(9, 1000, &[5, 5, 5]);
        ring.forget_before(2);
        assert_eq!((ring.oldest(), ring.head(), ring.bytes_from(0)), (2, 3, 5));
        ring.forget_before(9);
        assert_eq!((ring.oldest(), ring.head()), (3, 3), "positions of frames to come stay theirs");
    }

    #[test]
    fn bytes_bound_it_too() {
        let ring = ring(9, 10, &[4, 4, 4]);
        assert_eq!((ring.oldest(), ring.bytes_from(0), ring.bytes_from(2)), (1, 8, 4));
        assert_eq!(ring.bytes_from(3), 0);
    }

    #[test]
    fn a_frame_over_the_byte_bound_is_not_kept() {
        let ring = ring(9, 10, &[4, 11]);
        assert_eq!((ring.oldest(), ring.head(), ring.bytes_from(0)), (2, 2, 0));
    }

    proptest! {
        #[test]
        fn its_bounds_always_hold(lengths in prop::collection::vec(0usize..20, 0..60), frames in 1u64..10, bytes in 0u64..60) {
            let ring = ring(frames, bytes, &lengths);
            prop_assert!(ring.head() - ring.oldest() <= frames);
            prop_assert!(ring.bytes_from(0) <= bytes);
            prop_assert_eq!(ring.head(), lengths.len() as u64);
            let kept: u64 = (ring.oldest()..ring.head()).map(|at| ring.get(at).unwrap().frame.len() as u64).sum();
            prop_assert_eq!(kept, ring.bytes_from(0));
        }
    }
}
