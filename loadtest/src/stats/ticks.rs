//! From the first to the last subscriber of each tick.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::verify::slot::Slot;

/// The most ticks that are kept; later ones are only counted.
const MAX_TICKS: usize = 200_000;

/// One tick as its subscribers saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TickSpread {
    /// When it was due.
    pub scheduled_ns: u64,
    /// When it was published.
    pub published_ns: u64,
    /// When the first copy arrived.
    pub first_ns: u64,
    /// When the last copy arrived.
    pub last_ns: u64,
    /// Copies received.
    pub copies: u64,
}

/// Ticks by their ordinal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticks {
    rows: BTreeMap<u64, TickSpread>,
    /// Ticks beyond the bound.
    pub dropped: u64,
}

impl Ticks {
    /// Takes a settled publication into its tick. The first tick of an epoch is as late as the jump made it.
    pub fn add_slot(&mut self, slot: &Slot) {
        let Some(times) = slot.times.filter(|times| !times.opens_epoch) else { return };
        if slot.last_ns == 0 {
            return;
        }
        self.add(
            times.tick,
            TickSpread {
                scheduled_ns: times.scheduled_ns,
                published_ns: times.published_ns,
                first_ns: slot.first_ns,
                last_ns: slot.last_ns,
                copies: slot.copies,
            },
        );
    }

    /// Takes another worker's ticks.
    pub fn merge(&mut self, other: &Self) {
        other.rows.iter().for_each(|(&tick, &spread)| self.add(tick, spread));
        self.dropped += other.dropped;
    }

    fn add(&mut self, tick: u64, spread: TickSpread) {
        let is_full = self.rows.len() >= MAX_TICKS;
        match self.rows.entry(tick) {
            std::collections::btree_map::Entry::Occupied(mut row) => {
                let row = row.get_mut();
                row.first_ns = row.first_ns.min(spread.first_ns);
                row.last_ns = row.last_ns.max(spread.last_ns);
                row.copies += spread.copies;
            }
            std::collections::btree_map::Entry::Vacant(_) if is_full => self.dropped += 1,
            std::collections::btree_map::Entry::Vacant(row) => drop(row.insert(spread)),
        }
    }

    /// The ticks due in `from_ns..until_ns`.
    pub fn due_in(&self, from_ns: u64, until_ns: u64) -> impl Iterator<Item = &TickSpread> {
        self.rows.values().filter(move |row| (from_ns..until_ns).contains(&row.scheduled_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_reaches_from_its_first_to_its_last_copy_anywhere() {
        let spread =
            |first_ns, last_ns| TickSpread { scheduled_ns: 10, published_ns: 11, first_ns, last_ns, copies: 2 };
        let (mut one, mut other) = (Ticks::default(), Ticks::default());
        one.add(5, spread(20, 30));
        one.add(5, spread(25, 35));
        other.add(5, spread(15, 22));
        one.merge(&other);
        let row = one.due_in(0, 100).next().unwrap();
        assert_eq!((row.first_ns, row.last_ns, row.copies), (15, 35, 6));
        assert_eq!(one.due_in(11, 100).count(), 0);
    }
}
