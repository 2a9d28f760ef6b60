//! One client's place in one group.

/// Where a client's run through a [`super::log::GroupLog`] began and where it is.
///
/// Indexes are absolute positions in the log; they survive trimming.
#[derive(Clone, Debug)]
pub struct Member {
    /// The log, in the worker's table of logs.
    pub log: u32,
    /// Frames of this group that wait for the ledger before they can be judged. While there are any,
    /// later ones must wait too, so that they are judged in the order in which they came.
    pub parked: u32,
    /// The slot of the first frame received, or [`Member::NOT_STARTED`].
    pub first: u64,
    /// The slot that must come next; meaningless before the first frame.
    pub cursor: u64,
    /// When the join was sent.
    pub asked_ns: u64,
    /// When its ack arrived; 0 before.
    pub acked_ns: u64,
    /// Whether its ack was not sent, as ordered.
    pub is_unacked: bool,
    /// Whether the rule for the first frame has been applied.
    pub first_judged: bool,
}

impl Member {
    /// [`Member::first`] of a client that has received nothing in this group yet.
    pub const NOT_STARTED: u64 = u64::MAX;

    /// A member whose join was sent at `asked_ns`.
    pub fn new(log: u32, asked_ns: u64) -> Self {
        Self {
            log,
            parked: 0,
            first: Self::NOT_STARTED,
            cursor: Self::NOT_STARTED,
            asked_ns,
            acked_ns: 0,
            is_unacked: false,
            first_judged: false,
        }
    }

    /// Whether a first frame has been received.
    pub fn has_started(&self) -> bool {
        self.first != Self::NOT_STARTED
    }

    /// Begins the run: slot `index` is the first frame and must come next.
    pub fn start_before(&mut self, index: u64) {
        self.first = index;
        self.cursor = index;
    }
}
