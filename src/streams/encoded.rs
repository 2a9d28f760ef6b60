//! A finished message: one text frame, the same for all its subscribers.

use std::sync::Arc;

use bytes::Bytes;

use crate::engine::frames::{Form, FrameStore, Frames};

struct EncodedMessage {
    frame: Bytes,
    unix_s: i64,
}

impl FrameStore for EncodedMessage {
    fn frame(&self, _: u32, _: Form) -> Bytes {
        self.frame.clone()
    }

    fn timestamp(&self, _: u32) -> i64 {
        self.unix_s
    }
}

/// A finished frame as the engine takes it; `unix_ms` is when it was made.
pub fn frames(frame: Bytes, unix_ms: i64) -> Frames {
    Frames::new(Arc::new(EncodedMessage { frame, unix_s: unix_ms.div_euclid(1000) }), 0)
}
