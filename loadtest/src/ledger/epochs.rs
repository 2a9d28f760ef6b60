//! The epochs of a replay's clock, as the ledger tells them: which there were, and what was published in each.

use super::{EpochOpening, Tick};

/// The most epochs that are told apart.
const MAX_EPOCHS: usize = 4_096;

/// One epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochRecord {
    /// Its number.
    pub number: u64,
    /// How it began; `None` if that was before the run.
    pub opening: Option<EpochOpening>,
    /// When it began, in the client's clock; 0 if that was before the run.
    pub opened_ns: u64,
    /// Ticks with publications in the run's groups.
    pub ticks: u64,
    /// Publications in the run's groups.
    pub publications: u64,
}

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Epochs {
    /// In the order in which they began.
    pub list: Vec<EpochRecord>,
    /// Epochs beyond the bound.
    pub dropped: u64,
    // An epoch has begun, and nothing has been published in it.
    is_fresh: bool,
}

impl Epochs {
    /// Takes a tick in, and marks it if it is the first one of its epoch.
    pub fn see(&mut self, tick: &mut Tick) {
        if let Some(opening) = tick.opens.clone() {
            self.is_fresh = true;
            return self.open(opening.epoch, Some(opening), tick.times.published_ns);
        }
        if tick.times.epoch == 0 || tick.publications.is_empty() {
            return;
        }
        tick.times.opens_epoch = std::mem::take(&mut self.is_fresh);
        if self.list.last().is_none_or(|last| last.number != tick.times.epoch) {
            self.open(tick.times.epoch, None, 0);
        }
        if let Some(last) = self.list.last_mut().filter(|last| last.number == tick.times.epoch) {
            last.ticks += 1;
            last.publications += tick.publications.len() as u64;
        }
    }

    fn open(&mut self, number: u64, opening: Option<EpochOpening>, opened_ns: u64) {
        if self.list.len() < MAX_EPOCHS {
            self.list.push(EpochRecord { number, opening, opened_ns, ticks: 0, publications: 0 });
        } else if opening.is_some() {
            self.dropped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Publication;
    use crate::verify::slot::LedgerTimes;

    fn tick(epoch: u64, publications: usize, opens: Option<&str>) -> Tick {
        let publication = Publication { group: 0, sequence_id: 1, record_timestamp: 1, hashes: [None; 2] };
        Tick {
            seq: 1,
            times: LedgerTimes { epoch, published_ns: 5, ..LedgerTimes::default() },
            publications: vec![publication; publications],
            heard_ns: 5,
            orders: Vec::new(),
            opens: opens.map(|cause| EpochOpening { epoch, cause: cause.to_owned(), from: None, to: None }),
        }
    }

    #[test]
    fn the_first_tick_with_publications_after_a_jump_is_marked() {
        let mut epochs = Epochs::default();
        let is_first = |epochs: &mut Epochs, mut tick: Tick| {
            epochs.see(&mut tick);
            tick.times.opens_epoch
        };
        assert!(!is_first(&mut epochs, tick(1, 2, None)), "the epoch began before the run");
        assert!(!is_first(&mut epochs, tick(2, 0, Some("seek"))));
        assert!(!is_first(&mut epochs, tick(0, 1, None)), "what no clock published");
        assert!(!is_first(&mut epochs, tick(2, 0, None)), "nothing in the run's groups");
        assert!(is_first(&mut epochs, tick(2, 3, None)));
        assert!(!is_first(&mut epochs, tick(2, 3, None)));
        let seen: Vec<_> =
            epochs.list.iter().map(|one| (one.number, one.opened_ns, one.ticks, one.publications)).collect();
        assert_eq!(seen, [(1, 0, 1, 2), (2, 5, 2, 6)]);
    }

    #[test]
    fn epochs_are_bounded_in_number() {
        let mut epochs = Epochs::default();
        for number in 1..=MAX_EPOCHS as u64 + 3 {
            epochs.see(&mut tick(number, 0, Some("step_back")));
        }
        assert_eq!((epochs.list.len(), epochs.dropped), (MAX_EPOCHS, 3));
    }
}
