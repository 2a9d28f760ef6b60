//! One publication of a group: what the ledger says of it, and what its copies were like.

use super::Identity;
use super::fault::FaultKind;

/// What the ledger says about one publication, in the client's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerTimes {
    /// The replay clock's tick.
    pub tick: u64,
    /// When the tick was due.
    pub scheduled_ns: u64,
    /// When it was published.
    pub published_ns: u64,
    /// The epoch of the replay clock; 0 where no replay publishes.
    pub epoch: u64,
    /// Whether it is the first tick of its epoch: how late it is says what the jump cost, not how far away the
    /// client is, so it is no latency.
    pub opens_epoch: bool,
}

/// One publication from the ledger.
#[derive(Clone, Copy, Debug)]
pub struct LedgerEntry {
    /// What it is.
    pub identity: Identity,
    /// When it was.
    pub times: LedgerTimes,
}

/// One publication, and what is known about its copies.
#[derive(Debug)]
pub struct Slot {
    /// What it is.
    pub identity: Identity,
    /// The bytes of its frame, once a copy has been decoded and found right.
    pub frame: Option<Box<[u8]>>,
    /// The ledger's word, once it has come.
    pub times: Option<LedgerTimes>,
    /// When the first copy arrived; 0 before.
    pub first_ns: u64,
    /// When the last copy arrived at a client that counts for latency.
    pub last_ns: u64,
    /// Copies received.
    pub copies: u64,
    /// Receipts (client, time) whose latency cannot be told before the ledger entry is here.
    pub waiting: Vec<(u32, u64)>,
    /// Faults (kind, client, time) that cannot name their publication before the ledger has.
    pub blamed: Vec<(FaultKind, u32, u64)>,
}

impl Slot {
    /// A publication of which nothing else is known.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            frame: None,
            times: None,
            first_ns: 0,
            last_ns: 0,
            copies: 0,
            waiting: Vec::new(),
            blamed: Vec::new(),
        }
    }

    /// The clients that are known to have missed it.
    pub fn missed_by(&self) -> Vec<u32> {
        self.blamed.iter().filter(|(kind, ..)| *kind == FaultKind::Missing).map(|&(_, client, _)| client).collect()
    }

    /// When it was published, as far as that is known: by the ledger, else at its first receipt.
    pub fn published_ns(&self) -> u64 {
        self.times.map_or(self.first_ns, |times| times.published_ns)
    }
}
