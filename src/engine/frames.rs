//! The handle that travels from a source to the shards.
//!
//! A record's frames exist once, in its source's store. What is sent through a group is a
//! [`Frames`]: a reference to the store and the record's number. Cloning it counts a reference and
//! copies no byte.

use std::sync::Arc;

use bytes::Bytes;

/// A way to encode a record, as a small number. What each number means is up to the hub's wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Form(u8);

impl Form {
    /// How many forms a hub can have.
    pub const MAX: usize = 8;

    /// The form with this number. Panics at [`Form::MAX`] and above, which no wire has.
    pub const fn new(index: usize) -> Self {
        assert!(index < Self::MAX, "a hub has at most Form::MAX forms");
        Self(index as u8)
    }

    /// The number it was made from, below [`Form::MAX`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// A set of this form alone, for sets of forms in a byte.
    pub const fn bit(self) -> u8 {
        1 << self.0
    }
}

/// xxh3-64 of a record's payload, by the index of its wire's profile; 0 where no frame of that profile was built.
pub type PayloadHashes = [u64; 2];

/// Where frames live: a block of a source's window, or one message just received.
pub trait FrameStore: Send + Sync {
    /// The finished frame of `record` in `form`: ready to write, the same bytes for every subscriber. Cheap: a
    /// reference to what was built before. Empty if that form was not built.
    fn frame(&self, record: u32, form: Form) -> Bytes;

    /// The record's own time, Unix seconds.
    fn timestamp(&self, record: u32) -> i64;

    /// Hashes of the record's payload, for the tick ledger.
    fn hashes(&self, _record: u32) -> PayloadHashes {
        PayloadHashes::default()
    }
}

/// One record in every form that was built: a handle of 24 bytes, cloned per publication, never per subscriber.
#[derive(Clone)]
pub struct Frames {
    store: Arc<dyn FrameStore>,
    record: u32,
}

impl Frames {
    /// The frames of `record` in `store`.
    pub fn new(store: Arc<dyn FrameStore>, record: u32) -> Self {
        Self { store, record }
    }

    /// The record as one whole WebSocket message of `form`; empty if it is not built in this form.
    pub fn frame(&self, form: Form) -> Bytes {
        self.store.frame(self.record, form)
    }

    /// The time of the record, Unix seconds.
    pub fn timestamp(&self) -> i64 {
        self.store.timestamp(self.record)
    }

    /// The hashes of its payload, by which a client can prove what it received.
    pub fn hashes(&self) -> PayloadHashes {
        self.store.hashes(self.record)
    }
}
