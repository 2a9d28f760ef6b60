//! What a worker counts over the whole run, beside frames and latencies.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::client::ClientReceipts;
use crate::orders::outcome::OrderFacts;
use crate::plan::Class;
use crate::stats::epoch_copies::EpochTable;
use crate::stats::histogram;
use crate::stats::ticks::Ticks;
use crate::verify::fault::Faults;
use crate::verify::slot::Slot;

/// The most different causes that are told apart.
const MAX_CAUSES: usize = 64;

/// Counts by cause.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Causes(BTreeMap<String, u64>);

impl Causes {
    /// Counts one.
    pub fn add(&mut self, cause: &str) {
        self.add_many(cause, 1);
    }

    /// Takes another worker's counts.
    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(cause, &count)| self.add_many(cause, count));
    }

    fn add_many(&mut self, cause: &str, count: u64) {
        if let Some(known) = self.0.get_mut(cause) {
            *known += count;
        } else if self.0.len() < MAX_CAUSES {
            self.0.insert(cause.to_owned(), count);
        } else {
            *self.0.entry("other causes".to_owned()).or_default() += count;
        }
    }

    /// How many in all.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// By cause.
    pub fn into_map(self) -> BTreeMap<String, u64> {
        self.0
    }
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Connections that are connecting, upgrading or joining now.
    pub in_setup: u32,
    /// Connections that are up now.
    pub up: u32,
    /// Connections that have come up once, or have failed to.
    pub arrived: u32,
    /// From the start of connecting to the last join's ack.
    pub setup: Histogram<u64>,
    /// Why connections did not come up.
    pub failures: Causes,
    /// Why connections of attentive clients that were up ended.
    pub drops: Causes,
    /// Sessions recovered.
    pub recovered: u64,
    /// New connections after a drop.
    pub reconnected: u64,
    /// Resets done by resetting clients.
    pub resets: u64,
    /// Frames that came again after a recovery, as they may.
    pub resent: u64,
    /// Messages that the server told slow clients it left out for them.
    pub skipped: u64,
    /// From coming up to being dropped by the server, for stalled and slow clients.
    pub shed: Histogram<u64>,
    /// How connections of stalled and slow clients ended.
    pub shed_causes: Causes,
    /// Messages of the stream protocol without a number.
    pub stream_messages: u64,
    /// The ledger could not be read up to the end of the run.
    pub ledger_incomplete: bool,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            in_setup: 0,
            up: 0,
            arrived: 0,
            setup: histogram::new(),
            failures: Causes::default(),
            drops: Causes::default(),
            recovered: 0,
            reconnected: 0,
            resets: 0,
            resent: 0,
            skipped: 0,
            shed: histogram::new(),
            shed_causes: Causes::default(),
            stream_messages: 0,
            ledger_incomplete: false,
        }
    }
}

impl Tally {
    /// Takes another worker's tally.
    pub fn merge(&mut self, other: &Self) {
        self.up += other.up;
        self.arrived += other.arrived;
        // All histograms of the swarm have the same bounds, so adding cannot fail.
        let _ = self.setup.add(&other.setup);
        let _ = self.shed.add(&other.shed);
        self.failures.merge(&other.failures);
        self.drops.merge(&other.drops);
        self.shed_causes.merge(&other.shed_causes);
        self.recovered += other.recovered;
        self.reconnected += other.reconnected;
        self.resets += other.resets;
        self.resent += other.resent;
        self.skipped += other.skipped;
        self.stream_messages += other.stream_messages;
        self.ledger_incomplete |= other.ledger_incomplete;
    }
}

/// What is kept of publications that are settled.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// Spread per tick.
    pub ticks: Ticks,
    /// What was received of each epoch.
    pub epochs: EpochTable,
    /// Copies of publications whose ledger entry has no hash for our profile.
    pub unhashed: u64,
}

impl Settled {
    /// Takes a publication that is settled.
    pub fn add_slot(&mut self, slot: &Slot) {
        self.ticks.add_slot(slot);
        self.epochs.add_slot(slot);
        // What was published before anybody was there to receive it needs no hash.
        if slot.times.is_some() && slot.identity.hash.is_none() {
            self.unhashed += slot.copies;
        }
    }

    /// Takes another worker's.
    pub fn merge(&mut self, other: &Self) {
        self.ticks.merge(&other.ticks);
        self.epochs.merge(&other.epochs);
        self.unhashed += other.unhashed;
    }
}

/// What a worker hands over at the end.
#[derive(Debug)]
pub struct WorkerResult {
    /// Copies found right.
    pub verified: u64,
    /// Copies that could not be judged.
    pub unjudged: u64,
    /// What was wrong.
    pub faults: Faults,
    /// Everything else that was counted.
    pub tally: Tally,
    /// What is kept of the publications.
    pub settled: Settled,
    /// What became of the faults that were ordered, where they are expected.
    pub orders: Option<OrderFacts>,
    /// Latencies of the measured time.
    pub latency: Histogram<u64>,
    /// What each client received while measuring.
    pub receipts: Vec<(u32, Class, ClientReceipts)>,
    /// Groups in which nothing was published.
    pub silent: Vec<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_bounded_in_number_and_not_in_count() {
        let mut causes = Causes::default();
        (0..MAX_CAUSES * 2).for_each(|number| causes.add(&format!("cause {number}")));
        assert_eq!(causes.total(), MAX_CAUSES as u64 * 2);
        assert_eq!(causes.into_map().len(), MAX_CAUSES + 1);
    }
}
