//! The tick ledger: what was published when, so that a load test can prove what was lost.
//!
//! A bounded ring of ticks. It keeps hashes of the payloads, made when they were built: no frame is held in
//! memory for it. Appending takes one short mutex, which only a reader contends for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::frames::PayloadHashes;
use super::system_clock;
use crate::faults::fault_entry::FaultEntry;
use crate::replay::snapshot::Epoch;

/// Size of the tick ledger.
#[derive(Debug, Clone, clap::Args)]
pub struct LedgerOptions {
    /// Publications the tick ledger remembers
    #[arg(long, env = "FLOWCAST_LEDGER_PUBLICATIONS", default_value_t = 65_536, value_name = "PUBLICATIONS")]
    pub ledger_publications: usize,
}

/// The publications of one batch, and when it ran; or a new epoch of a clock, or faults, without publications.
pub struct Tick {
    /// The source's own count of its ticks.
    pub ordinal: u64,
    /// The epoch of the clock that published it; 0 if no replay did.
    pub epoch: u64,
    /// The session whose clock that is; `None` for the common one.
    pub session: Option<Arc<str>>,
    /// The epoch that begins here.
    pub opens: Option<Epoch>,
    /// When it was due, monotonic ns.
    pub scheduled_ns: u64,
    /// When it began, monotonic ns.
    pub published_ns: u64,
    /// When it began, Unix ns.
    pub published_unix_ns: u64,
    /// What was published, in id order.
    pub publications: Box<[TickPublication]>,
    /// What a plan of faults has done at this tick.
    pub faults: Box<[FaultEntry]>,
}

impl Tick {
    /// An entry of this moment, without publications.
    pub fn now(ordinal: u64, epoch: u64) -> Self {
        let published_ns = system_clock::monotonic_ns();
        Self {
            ordinal,
            epoch,
            session: None,
            opens: None,
            scheduled_ns: published_ns,
            published_ns,
            published_unix_ns: system_clock::unix_ns(),
            publications: Box::default(),
            faults: Box::default(),
        }
    }

    /// What it counts for in the ring: an epoch, or a client that is struck, as much as a publication.
    pub fn weight(&self) -> usize {
        let faults: usize = self.faults.iter().map(FaultEntry::weight).sum();
        (self.publications.len() + faults).max(1)
    }
}

/// One publication of a tick.
pub struct TickPublication {
    /// The full name of the group it was sent to.
    pub group: Arc<str>,
    /// Its id in the hub's sequence, which reliable clients see as sequence id.
    pub id: u64,
    /// The record's own time, Unix seconds.
    pub record_timestamp: i64,
    /// Hashes of its payload.
    pub hashes: PayloadHashes,
    /// How many subscribers the group had at that moment.
    pub subscribers: usize,
}

/// The ledger: a ring of ticks. Positions count from 1 and are never reused.
pub struct Ledger {
    limit: usize,
    ring: Mutex<TickRing>,
    newest: watch::Sender<u64>,
}

#[derive(Default)]
struct TickRing {
    ticks: VecDeque<Arc<Tick>>,
    /// Position of the last tick in `ticks`.
    newest: u64,
    publications: usize,
}

impl Ledger {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, ring: Mutex::default(), newest: watch::Sender::new(0) }
    }

    /// Whether it remembers anything.
    pub(super) fn is_kept(&self) -> bool {
        self.limit > 0
    }

    pub(super) fn append(&self, tick: Tick) {
        if self.limit == 0 {
            return;
        }
        let newest = {
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            ring.publications += tick.weight();
            ring.ticks.push_back(Arc::new(tick));
            ring.newest += 1;
            // The newest tick stays, however large.
            while ring.publications > self.limit && ring.ticks.len() > 1 {
                let oldest = ring.ticks.pop_front().map_or(0, |tick| tick.weight());
                ring.publications -= oldest;
            }
            ring.newest
        };
        self.newest.send_replace(newest);
    }

    /// Up to `limit` ticks after position `after`, oldest first, each with its position.
    ///
    /// If the first position is above `after + 1`, the ring no longer reaches back that far.
    pub fn after(&self, after: u64, limit: usize) -> Vec<(u64, Arc<Tick>)> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = ring.oldest();
        let skip = after.saturating_add(1).saturating_sub(oldest);
        let ticks = ring.ticks.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)).take(limit);
        ticks.enumerate().map(|(at, tick)| (oldest + skip + at as u64, Arc::clone(tick))).collect()
    }

    /// Positions of the oldest and the newest tick; both 0 while there is none.
    pub fn span(&self) -> (u64, u64) {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.ticks.is_empty() { (0, 0) } else { (ring.oldest(), ring.newest) }
    }

    /// Receives the newest position whenever it changes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }
}

impl TickRing {
    fn oldest(&self) -> u64 {
        self.newest + 1 - self.ticks.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(limit: usize, ticks: u64) -> Ledger {
        let ledger = Ledger::new(limit);
        for ordinal in 1..=ticks {
            let publications = (0..2).map(|_| publication()).collect();
            ledger.append(Tick {
                ordinal,
                epoch: 0,
                session: None,
                opens: None,
                scheduled_ns: 0,
                published_ns: 0,
                published_unix_ns: 0,
                publications,
                faults: Box::default(),
            });
        }
        ledger
    }

    fn publication() -> TickPublication {
        TickPublication { group: "g".into(), id: 1, record_timestamp: 0, hashes: [0; 2], subscribers: 0 }
    }

    fn positions(ledger: &Ledger, after: u64, limit: usize) -> Vec<(u64, u64)> {
        ledger.after(after, limit).into_iter().map(|(position, tick)| (position, tick.ordinal)).collect()
    }

    #[test]
    fn readers_go_on_where_they_were() {
        let ledger = ledger(100, 5);
        assert_eq!(positions(&ledger, 0, 2), [(1, 1), (2, 2)]);
        assert_eq!(positions(&ledger, 2, 9), [(3, 3), (4, 4), (5, 5)]);
        assert_eq!(positions(&ledger, 5, 9), []);
        assert_eq!(positions(&ledger, 99, 9), []);
        assert_eq!(positions(&ledger, u64::MAX - 1, 9), []);
        assert_eq!(positions(&ledger, u64::MAX, 9), []);
    }

    #[test]
    fn the_ring_is_bounded_and_a_gap_is_visible() {
        let ledger = ledger(6, 5);
        assert_eq!(ledger.span(), (3, 5));
        assert_eq!(positions(&ledger, 0, 9), [(3, 3), (4, 4), (5, 5)]);
    }

    #[test]
    fn an_empty_ledger_has_no_span() {
        assert_eq!(ledger(6, 0).span(), (0, 0));
        assert_eq!(ledger(0, 3).span(), (0, 0));
    }
}
