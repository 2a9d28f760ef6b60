//! How often each fault has met and struck each client in a firing.

use std::collections::HashMap;

use uuid::Uuid;

use crate::faults::schedule::InForce;

/// Clients whose frames and acks are counted, for faults with `times`. Further ones are not struck by these.
const COUNTED: usize = 65_536;

/// How often a fault has met a client in a firing.
#[derive(Debug, Clone, Copy, Default)]
pub struct StrikeCount {
    fired: u64,
    /// Frames or acks that the fault could have struck.
    pub met: u64,
    /// Those that it has struck.
    pub struck: u32,
}

/// The counts of all faults of a plan, by session.
#[derive(Debug, Default)]
pub struct StrikeCounts {
    counts: HashMap<(usize, Uuid), StrikeCount>,
    /// For which firing of a fault the counts of its earlier ones were thrown away last.
    cleared: HashMap<usize, u64>,
}

impl StrikeCounts {
    /// The count of a client in this firing; `None` if there are too many clients.
    pub fn of(&mut self, found: InForce, session: Uuid) -> Option<&mut StrikeCount> {
        let place = (found.fault, session);
        if self.counts.len() >= COUNTED && !self.counts.contains_key(&place) {
            self.clear_earlier(found);
            if self.counts.len() >= COUNTED {
                return None;
            }
        }
        let count = self.counts.entry(place).or_default();
        if count.fired != found.fired {
            *count = StrikeCount { fired: found.fired, ..StrikeCount::default() };
        }
        Some(count)
    }

    /// Sessions come and go while a plan runs: what was counted in earlier firings means nothing any more. Once for each
    /// firing, since it goes through all counts.
    fn clear_earlier(&mut self, found: InForce) {
        if self.cleared.insert(found.fault, found.fired) != Some(found.fired) {
            self.counts.retain(|(fault, _), count| *fault != found.fault || count.fired >= found.fired);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firing(fault: usize, fired: u64) -> InForce {
        InForce { fault, fired, is_new: true }
    }

    #[test]
    fn a_firing_begins_with_nothing_counted() {
        let mut counts = StrikeCounts::default();
        counts.of(firing(0, 1), Uuid::nil()).unwrap().struck = 3;
        assert_eq!(counts.of(firing(0, 1), Uuid::nil()).unwrap().struck, 3);
        assert_eq!(counts.of(firing(1, 1), Uuid::nil()).unwrap().struck, 0);
        assert_eq!(counts.of(firing(0, 2), Uuid::nil()).unwrap().struck, 0);
    }

    #[test]
    fn sessions_of_earlier_firings_make_room_for_those_of_this_one() {
        let mut counts = StrikeCounts::default();
        for session in 0..COUNTED as u128 {
            assert!(counts.of(firing(0, 1), Uuid::from_u128(session)).is_some());
        }
        let late = Uuid::from_u128(1 << 100);
        assert!(counts.of(firing(0, 1), late).is_none(), "too many in one firing");
        assert!(counts.of(firing(1, 1), late).is_none(), "the other fault's are still in force");
        assert!(counts.of(firing(0, 2), late).is_some());
        assert!(counts.of(firing(1, 1), late).is_some());
    }
}
