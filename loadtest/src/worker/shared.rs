//! What main and the workers tell each other while the run goes on.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

/// The end of the run, as main sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finish {
    /// What was published until then must have arrived.
    pub cut_ns: u64,
    /// The ledger position that covers the cut; 0 without a ledger.
    pub ledger_seq: u64,
    /// Nobody waits longer.
    pub deadline_ns: u64,
}

/// How a worker is doing; for the live line and the end of the ramp only.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Connections that are up.
    pub up: AtomicU32,
    /// Connections that have come up once, or have failed to.
    pub arrived: AtomicU32,
    /// Connections that have failed to come up.
    pub failed: AtomicU64,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Shared {
    /// The start of the run, from which seconds are counted.
    pub start_ns: u64,
    /// The measured time; set once, before it begins.
    pub window_ns: OnceLock<(u64, u64)>,
    /// Set once, to end the run.
    pub finish: OnceLock<Finish>,
    /// Ends the run without judging anything.
    pub abort: AtomicBool,
    /// One per worker.
    pub gauges: Vec<Gauges>,
}

impl Shared {
    /// For so many workers.
    pub fn new(workers: u32, start_ns: u64) -> Self {
        Self {
            start_ns,
            window_ns: OnceLock::new(),
            finish: OnceLock::new(),
            abort: AtomicBool::new(false),
            gauges: (0..workers).map(|_| Gauges::default()).collect(),
        }
    }
}
