//! The handle on a clock: whoever has one can ask and change it, from any thread.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::{oneshot, watch};

use super::change::{Change, Refused};
use super::moment::Resolved;
use super::seat::Seats;
use super::snapshot::{Epoch, Snapshot};

/// Changes that may wait for the clock.
const WAITING: usize = 64;

/// Epochs that are remembered for those who follow the clock.
const EPOCHS: usize = 256;

/// What the clock did.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The clock afterwards.
    pub snapshot: Snapshot,
    /// Where a seek went.
    pub resolved: Option<Resolved>,
}

/// The handle on a clock.
#[derive(Clone)]
pub struct Remote {
    changes: Sender<Request>,
    view: Arc<View>,
    seats: Seats,
}

/// What the clock's thread has of it.
pub struct Console {
    /// Changes, in the order in which they came.
    pub requests: Receiver<Request>,
    view: Arc<View>,
}

/// A change and who waits for the answer.
pub struct Request {
    /// What is asked for.
    pub change: Change,
    /// Where the answer goes. Nobody may listen any more.
    pub reply: oneshot::Sender<Result<Answer, Refused>>,
}

struct View {
    now: Mutex<Snapshot>,
    /// Counts changes; ticks are none.
    changed: watch::Sender<u64>,
    epochs: Mutex<VecDeque<Epoch>>,
}

/// A clock's two ends.
pub fn remote(first: Snapshot) -> (Remote, Console) {
    let (changes, requests) = bounded(WAITING);
    let view = Arc::new(View { now: Mutex::new(first), changed: watch::Sender::new(0), epochs: Mutex::default() });
    (Remote { changes, view: Arc::clone(&view), seats: Seats::default() }, Console { requests, view })
}

impl Remote {
    /// The clock as of its last tick or change.
    pub fn snapshot(&self) -> Snapshot {
        self.view.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has a change executed, between two ticks. A step is answered when its ticks are published.
    pub async fn change(&self, change: Change) -> Result<Answer, Refused> {
        let (reply, answer) = oneshot::channel();
        self.changes.try_send(Request { change, reply }).map_err(|error| match error {
            TrySendError::Full(_) => Refused::Busy { waiting: WAITING },
            TrySendError::Disconnected(_) => Refused::Ending,
        })?;
        answer.await.unwrap_or(Err(Refused::Ending))
    }

    /// Told whenever the clock was changed or has changed itself; a tick is no change.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.view.changed.subscribe()
    }

    /// The clients on it, if it is a session's: those of the common clock are all others.
    pub fn seats(&self) -> &Seats {
        &self.seats
    }

    /// Whether both are handles on one clock.
    pub fn is_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.view, &other.view)
    }

    /// The epochs after `number`, oldest first, as far as they are remembered (256).
    pub fn epochs_after(&self, number: u64) -> Vec<Epoch> {
        let epochs = self.view.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        epochs.iter().filter(|epoch| epoch.number > number).copied().collect()
    }
}

impl Console {
    /// Shows the clock as it is now.
    pub fn show(&self, snapshot: Snapshot) {
        *self.view.now.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }

    /// Tells those who follow the clock that something was changed. Call it after [`Console::show`].
    pub fn tell(&self) {
        self.view.changed.send_modify(|count| *count += 1);
    }

    /// Remembers an epoch.
    pub fn open(&self, epoch: Epoch) {
        let mut epochs = self.view.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        if epochs.len() == EPOCHS {
            epochs.pop_front();
        }
        epochs.push_back(epoch);
    }
}
