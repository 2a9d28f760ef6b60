//! What was received of each epoch of a replay's clock.

use std::collections::BTreeMap;

use crate::verify::slot::Slot;

/// The most epochs that are told apart.
const MAX_EPOCHS: usize = 4_096;

/// One epoch, as the clients saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EpochCopies {
    /// Copies found right.
    pub frames: u64,
    /// When the first copy of the epoch's first tick arrived; 0 if none did.
    pub first_ns: u64,
    /// When the last one arrived.
    pub last_ns: u64,
}

/// Epochs by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochTable(BTreeMap<u64, EpochCopies>);

impl EpochTable {
    /// Takes a settled publication into its epoch.
    pub fn add_slot(&mut self, slot: &Slot) {
        let Some(times) = slot.times.filter(|times| times.epoch > 0) else { return };
        let mut copies = EpochCopies { frames: slot.copies, ..EpochCopies::default() };
        if times.opens_epoch {
            (copies.first_ns, copies.last_ns) = (slot.first_ns, slot.last_ns);
        }
        self.add(times.epoch, copies);
    }

    /// Takes another worker's epochs.
    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(&epoch, &copies)| self.add(epoch, copies));
    }

    /// What was received of an epoch.
    pub fn of(&self, epoch: u64) -> EpochCopies {
        self.0.get(&epoch).copied().unwrap_or_default()
    }

    fn add(&mut self, epoch: u64, copies: EpochCopies) {
        if self.0.len() >= MAX_EPOCHS && !self.0.contains_key(&epoch) {
            return;
        }
        let sum = self.0.entry(epoch).or_default();
        sum.frames += copies.frames;
        sum.last_ns = sum.last_ns.max(copies.last_ns);
        let earliest = [sum.first_ns, copies.first_ns].into_iter().filter(|&at_ns| at_ns > 0).min();
        sum.first_ns = earliest.unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Identity;
    use crate::verify::slot::LedgerTimes;

    fn slot(epoch: u64, opens_epoch: bool, first_ns: u64, last_ns: u64) -> Slot {
        let mut slot = Slot::new(Identity { sequence_id: 1, hash: None, timestamp: 1 });
        slot.times = Some(LedgerTimes { epoch, opens_epoch, ..LedgerTimes::default() });
        (slot.first_ns, slot.last_ns, slot.copies) = (first_ns, last_ns, 2);
        slot
    }

    #[test]
    fn the_first_tick_of_an_epoch_says_when_the_jump_reached_the_clients() {
        let (mut one, mut other) = (EpochTable::default(), EpochTable::default());
        one.add_slot(&slot(3, true, 20, 30));
        one.add_slot(&slot(3, false, 90, 95));
        one.add_slot(&slot(0, true, 1, 2));
        other.add_slot(&slot(3, true, 25, 40));
        one.merge(&other);
        assert_eq!(one.of(3), EpochCopies { frames: 6, first_ns: 20, last_ns: 40 });
        assert_eq!(one.of(0), EpochCopies::default());
    }
}
