//! What went wrong, where: the list that turns a run into a failed run.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

/// How many faults are kept with their place; all are counted.
const MAX_LISTED: usize = 10_000;

/// What is wrong with a frame, or with its absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Published while the client was a member, never received.
    Missing,
    /// Received twice.
    Duplicate,
    /// Received after a later publication.
    Reordered,
    /// Received with another content than published, or unreadable.
    Corrupted,
    /// Received, but never published, or not in a group the client had joined.
    Unexpected,
}

impl FaultKind {
    /// All kinds, in the order of the report.
    pub const ALL: [Self; 5] = [Self::Missing, Self::Duplicate, Self::Reordered, Self::Corrupted, Self::Unexpected];

    /// The word in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Duplicate => "duplicate",
            Self::Reordered => "reordered",
            Self::Corrupted => "corrupted",
            Self::Unexpected => "unexpected",
        }
    }
}

/// One fault with its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What is wrong.
    pub kind: FaultKind,
    /// The connection's number in the run; in reports its client's number.
    pub client: u32,
    /// The hub it was connected to, in reports of runs with several.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hub: String,
    /// The group's number in the plan; reports resolve it.
    pub group: u32,
    /// The replay tick, if the ledger knows the publication.
    pub tick: Option<u64>,
    /// The epoch of the replay's clock, if the ledger knows the publication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The hub's counter, if known.
    pub sequence_id: Option<u64>,
    /// The record's own time, if known.
    pub record_timestamp: Option<i64>,
    /// When it was noticed, on the monotonic clock.
    pub at_ns: u64,
    /// What was seen, where the place does not say it all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// The faults of a worker, or of a whole run.
#[derive(Debug)]
pub struct Faults {
    // How many are listed.
    limit: usize,
    counts: BTreeMap<FaultKind, u64>,
    listed: Vec<Fault>,
    // (client, group, hub sequence id) of listed missing frames, for those that come after all.
    missing: HashMap<(u32, u32, u64), usize>,
    // (client, group, record time) of listed frames nobody published, and of listed missing frames:
    // one of each is one corrupted frame.
    unexpected: HashMap<(u32, u32, i64), usize>,
    missing_records: HashMap<(u32, u32, i64), usize>,
}

impl Default for Faults {
    fn default() -> Self {
        Self::listing(MAX_LISTED)
    }
}

impl Faults {
    /// Lists so many.
    pub fn listing(limit: usize) -> Self {
        Self {
            limit,
            counts: BTreeMap::new(),
            listed: Vec::new(),
            missing: HashMap::new(),
            unexpected: HashMap::new(),
            missing_records: HashMap::new(),
        }
    }

    /// Keeps the listed faults for which `is_kept`, and forgets that the others were any.
    pub fn retain(&mut self, mut is_kept: impl FnMut(&Fault) -> bool) {
        let Self { counts, listed, .. } = self;
        listed.retain(|fault| {
            let stays = is_kept(fault);
            if !stays && let Some(count) = counts.get_mut(&fault.kind) {
                *count = count.saturating_sub(1);
            }
            stays
        });
        // They hold places in the list.
        self.missing.clear();
        self.unexpected.clear();
        self.missing_records.clear();
    }

    /// Counts a fault and lists it while there is room.
    ///
    /// A missing frame and an unexpected one of the same client, group and record time are one
    /// corrupted frame, whichever is noticed first.
    pub fn add(&mut self, fault: Fault) {
        if self.pair(&fault) {
            return;
        }
        *self.counts.entry(fault.kind).or_default() += 1;
        if self.listed.len() >= self.limit {
            return;
        }
        let (position, client, group) = (self.listed.len(), fault.client, fault.group);
        if fault.kind == FaultKind::Missing {
            self.missing.extend(fault.sequence_id.map(|id| ((client, group, id), position)));
            self.missing_records.extend(fault.record_timestamp.map(|time| ((client, group, time), position)));
        }
        if fault.kind == FaultKind::Unexpected {
            self.unexpected.extend(fault.record_timestamp.map(|time| ((client, group, time), position)));
        }
        self.listed.push(fault);
    }

    fn pair(&mut self, fault: &Fault) -> bool {
        let Some(time) = fault.record_timestamp else { return false };
        let key = (fault.client, fault.group, time);
        let (partner, position) = match fault.kind {
            FaultKind::Missing => (FaultKind::Unexpected, self.unexpected.remove(&key)),
            FaultKind::Unexpected => (FaultKind::Missing, self.missing_records.remove(&key)),
            _ => return false,
        };
        let Some(listed) = position.and_then(|position| self.listed.get_mut(position)) else { return false };
        if listed.kind != partner {
            return false;
        }
        if let Some(sequence_id) = listed.sequence_id {
            self.missing.remove(&(fault.client, fault.group, sequence_id));
        }
        listed.kind = FaultKind::Corrupted;
        listed.tick = listed.tick.or(fault.tick);
        listed.epoch = listed.epoch.or(fault.epoch);
        listed.sequence_id = listed.sequence_id.or(fault.sequence_id);
        "another payload than published".clone_into(&mut listed.detail);
        self.recount(partner, FaultKind::Corrupted);
        true
    }

    fn recount(&mut self, from: FaultKind, to: FaultKind) {
        if let Some(count) = self.counts.get_mut(&from) {
            *count = count.saturating_sub(1);
        }
        *self.counts.entry(to).or_default() += 1;
    }

    /// Corrects the kind of a missing frame that came after all: late, or with another content.
    /// Returns whether it was known as missing.
    pub fn amend_missing(&mut self, client: u32, group: u32, sequence_id: u64, kind: FaultKind) -> bool {
        let Some(position) = self.missing.remove(&(client, group, sequence_id)) else { return false };
        self.listed[position].kind = kind;
        self.recount(FaultKind::Missing, kind);
        true
    }

    /// How many of one kind.
    pub fn count(&self, kind: FaultKind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or_default()
    }

    /// How many in all.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// The faults with their places, as many as are listed.
    pub fn listed(&self) -> &[Fault] {
        &self.listed
    }

    /// Counts per kind and the list.
    pub fn into_parts(self) -> (BTreeMap<FaultKind, u64>, Vec<Fault>) {
        (self.counts, self.listed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(kind: FaultKind, client: u32, sequence_id: u64) -> Fault {
        Fault {
            kind,
            client,
            hub: String::new(),
            group: 0,
            tick: Some(1),
            epoch: None,
            sequence_id: Some(sequence_id),
            record_timestamp: None,
            at_ns: 0,
            detail: String::new(),
        }
    }

    #[test]
    fn a_missing_frame_that_comes_late_is_reordered_once() {
        let mut faults = Faults::default();
        faults.add(fault(FaultKind::Missing, 3, 70));
        assert!(faults.amend_missing(3, 0, 70, FaultKind::Reordered));
        assert!(!faults.amend_missing(3, 0, 70, FaultKind::Reordered));
        assert!(!faults.amend_missing(4, 0, 70, FaultKind::Reordered));
        assert_eq!(faults.count(FaultKind::Missing), 0);
        assert_eq!(faults.count(FaultKind::Reordered), 1);
        assert_eq!(faults.listed()[0].kind, FaultKind::Reordered);
    }

    #[test]
    fn the_list_is_bounded_and_the_counts_are_not() {
        let mut faults = Faults::default();
        for number in 0..MAX_LISTED as u64 + 5 {
            faults.add(fault(FaultKind::Duplicate, 0, number));
        }
        assert_eq!(faults.listed().len(), MAX_LISTED);
        assert_eq!(faults.total(), MAX_LISTED as u64 + 5);
    }
}
