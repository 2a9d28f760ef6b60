//! The handle that travels from a source to the shards, and which forms of it anybody uses.
//!
//! A record's frames exist once, in its source's store. What is sent through a group is a
//! [`Frames`]: a reference to the store and the record's number. Cloning it counts a reference and
//! copies no byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender, bounded};
use tokio::sync::watch;

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

    const fn bit(self) -> u8 {
        1 << self.0
    }
}

/// Where frames live: a source's arena, or one message just received.
pub trait FrameStore: Send + Sync {
    /// The finished frame of `record` in `form`: ready to write, the same bytes for every subscriber. Empty if
    /// the record was lost: the store has logged that, and no subscriber gets anything.
    ///
    /// Cheap if the form is prepared; otherwise the frame is encoded on the spot, once per caller.
    fn frame(&self, record: u32, form: Form) -> Bytes;

    /// The payload in `form`'s frame, if that form was prepared.
    fn payload(&self, record: u32, form: Form) -> Option<Bytes>;

    /// The record's own time, Unix seconds.
    fn timestamp(&self, record: u32) -> i64;
}

/// One record in every form: a handle of 24 bytes, cloned per publication, never per subscriber.
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

    /// See [`FrameStore::frame`].
    pub fn frame(&self, form: Form) -> Bytes {
        self.store.frame(self.record, form)
    }

    /// See [`FrameStore::payload`].
    pub fn payload(&self, form: Form) -> Option<Bytes> {
        self.store.payload(self.record, form)
    }

    /// See [`FrameStore::timestamp`].
    pub fn timestamp(&self) -> i64 {
        self.store.timestamp(self.record)
    }
}

/// Which forms clients use, and which are ready. An upgrade orders a form here, and the source prepares it.
///
/// A form that nobody uses costs nothing: it is prepared when its first client connects, and that client's
/// upgrade waits until the source is ahead of the clock.
pub struct Forms {
    wanted: AtomicU8,
    ready: watch::Sender<u8>,
    orders: Sender<Form>,
    taken: Receiver<Form>,
}

impl Default for Forms {
    fn default() -> Self {
        // Each form is ordered at most once, so the channel never fills.
        let (orders, taken) = bounded(Form::MAX);
        Self { wanted: AtomicU8::new(0), ready: watch::Sender::new(0), orders, taken }
    }
}

impl Forms {
    /// Orders `form` if nobody has, and waits until it is ready.
    pub async fn prepare(&self, form: Form) {
        // Relaxed: the channel carries the order; the bit only keeps a second one out.
        if self.wanted.fetch_or(form.bit(), Ordering::Relaxed) & form.bit() == 0 && !self.is_ready(form) {
            let _ = self.orders.try_send(form);
        }
        // Fails only if the sender is gone, and `self` owns it.
        let _ = self.ready.subscribe().wait_for(|ready| ready & form.bit() != 0).await;
    }

    /// Whether the next frames of `form` are built.
    pub fn is_ready(&self, form: Form) -> bool {
        *self.ready.borrow() & form.bit() != 0
    }

    /// Marks `form` as ready: at least its next frames are built.
    pub fn set_ready(&self, form: Form) {
        self.ready.send_modify(|ready| *ready |= form.bit());
    }

    /// The ordered forms, in the order of their orders. Only the one source that prepares them reads this.
    pub fn orders(&self) -> Receiver<Form> {
        self.taken.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_at_most_32_bytes() {
        assert!(size_of::<Frames>() <= 32);
    }

    #[tokio::test]
    async fn a_form_is_ordered_once_and_waited_for() {
        let forms = Arc::new(Forms::default());
        let form = Form::new(3);
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                tokio::spawn({
                    let forms = Arc::clone(&forms);
                    async move { forms.prepare(form).await }
                })
            })
            .collect();
        let orders = forms.orders();
        let order = tokio::task::spawn_blocking(move || (orders.recv().unwrap(), orders)).await.unwrap();
        assert_eq!(order.0, form);
        forms.set_ready(form);
        for waiter in waiting {
            waiter.await.unwrap();
        }
        assert!(order.1.try_recv().is_err(), "one order for three waiters");
        forms.prepare(form).await;
    }
}
