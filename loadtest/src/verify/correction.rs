//! A correction of a log's provisional order, and what it means for each member.
//!
//! A member has received the slots `first..cursor`. A correction changes what those indexes mean, so it is
//! applied to every member of the log, and decides who is to blame.

use super::Identity;
use super::fault::FaultKind;
use super::member::Member;

/// One change of a log that its members must follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Correction {
    /// A publication nobody had received was put in at `at`: who is past it has missed it.
    Inserted {
        /// Its slot.
        at: u64,
    },
    /// A publication moved forward in the order: who had both received them the wrong way round.
    Moved {
        /// Where it was.
        from: u64,
        /// Where it is; before `from`.
        to: u64,
    },
    /// What was at `at` was never published: who is past it received something unexpected.
    Expelled {
        /// Where it was.
        at: u64,
        /// What it claimed to be.
        claimed: Identity,
        /// Clients that are past it without having received it.
        excused: Vec<u32>,
    },
    /// What was received as slot `at` has another content than published.
    Refuted {
        /// Its slot.
        at: u64,
        /// What it claimed to be.
        claimed: Identity,
        /// Clients that are past it without having received it.
        excused: Vec<u32>,
    },
}

impl Correction {
    /// Moves a member's indexes along and reports what the member did not receive as it should.
    ///
    /// `blame` gets the slot *after* the correction; for [`Correction::Expelled`] the slot is gone.
    pub fn apply(&self, member: &mut Member, mut blame: impl FnMut(FaultKind, u64)) {
        if !member.has_started() {
            return;
        }
        let (first, cursor) = (member.first, member.cursor);
        match *self {
            Self::Inserted { at } => {
                if first >= at {
                    member.first += 1;
                    member.cursor += 1;
                } else if cursor > at {
                    member.cursor += 1;
                    blame(FaultKind::Missing, at);
                }
            }
            Self::Refuted { at, .. } => {
                if first <= at && at < cursor {
                    blame(FaultKind::Corrupted, at);
                }
            }
            Self::Expelled { at, .. } => {
                if first > at {
                    member.first -= 1;
                    member.cursor -= 1;
                } else if cursor > at {
                    member.cursor -= 1;
                    blame(FaultKind::Unexpected, at);
                    if member.cursor == member.first {
                        member.first = Member::NOT_STARTED;
                        member.cursor = Member::NOT_STARTED;
                    }
                }
            }
            Self::Moved { from, to } => Self::moved(member, from, to, blame),
        }
    }

    fn moved(member: &mut Member, from: u64, to: u64, mut blame: impl FnMut(FaultKind, u64)) {
        let (first, cursor) = (member.first, member.cursor);
        let has_moved_one = first <= from && from < cursor;
        if !has_moved_one {
            // The slots to..from have become to+1..=from.
            if first > from || cursor <= to {
                return;
            }
            member.cursor += 1;
            if first >= to {
                member.first += 1;
            } else {
                blame(FaultKind::Missing, to);
            }
        } else if first == from {
            // It was the member's first frame, so it had nothing of what now follows the moved one.
            member.first = to;
            if cursor == from + 1 {
                member.cursor = to + 1;
            } else {
                (to + 1..=from).for_each(|index| blame(FaultKind::Missing, index));
            }
        } else {
            if first > to {
                member.first += 1;
            }
            blame(FaultKind::Reordered, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(first: u64, cursor: u64) -> Member {
        Member { first, cursor, ..Member::new(0, 0) }
    }

    /// Applies a correction to a member with slots `first..cursor`; returns its slots after, and the blame.
    fn apply(correction: &Correction, first: u64, cursor: u64) -> (u64, u64, Vec<(FaultKind, u64)>) {
        let mut member = member(first, cursor);
        let mut blamed = Vec::new();
        correction.apply(&mut member, |kind, slot| blamed.push((kind, slot)));
        (member.first, member.cursor, blamed)
    }

    const CLAIMED: Identity = Identity { sequence_id: 1, hash: None, timestamp: 1 };

    #[test]
    fn who_is_past_an_insertion_missed_it_and_nobody_else() {
        let correction = Correction::Inserted { at: 5 };
        assert_eq!(apply(&correction, 2, 5), (2, 5, vec![]));
        assert_eq!(apply(&correction, 2, 6), (2, 7, vec![(FaultKind::Missing, 5)]));
        assert_eq!(apply(&correction, 5, 6), (6, 7, vec![]));
        assert_eq!(apply(&correction, 8, 9), (9, 10, vec![]));
    }

    #[test]
    fn who_had_both_received_them_the_wrong_way_round() {
        let correction = Correction::Moved { from: 6, to: 5 };
        assert_eq!(apply(&correction, 2, 7), (2, 7, vec![(FaultKind::Reordered, 5)]));
        assert_eq!(apply(&correction, 2, 6), (2, 7, vec![(FaultKind::Missing, 5)]));
        assert_eq!(apply(&correction, 2, 5), (2, 5, vec![]));
        // First frame is the one that stays: what moved before it was not due.
        assert_eq!(apply(&correction, 5, 6), (6, 7, vec![]));
        // First frame is the one that moved.
        assert_eq!(apply(&correction, 6, 7), (5, 6, vec![]));
        assert_eq!(apply(&correction, 6, 8), (5, 8, vec![(FaultKind::Missing, 6)]));
        assert_eq!(apply(&correction, 7, 9), (7, 9, vec![]));
    }

    #[test]
    fn what_was_never_published_is_blamed_on_who_received_it() {
        let correction = Correction::Expelled { at: 5, claimed: CLAIMED, excused: vec![] };
        assert_eq!(apply(&correction, 2, 6), (2, 5, vec![(FaultKind::Unexpected, 5)]));
        assert_eq!(apply(&correction, 2, 5), (2, 5, vec![]));
        assert_eq!(apply(&correction, 6, 8), (5, 7, vec![]));
        let never = Member::NOT_STARTED;
        assert_eq!(apply(&correction, 5, 6), (never, never, vec![(FaultKind::Unexpected, 5)]));
    }

    #[test]
    fn a_refuted_copy_is_blamed_on_who_received_it() {
        let correction = Correction::Refuted { at: 5, claimed: CLAIMED, excused: vec![] };
        assert_eq!(apply(&correction, 5, 6), (5, 6, vec![(FaultKind::Corrupted, 5)]));
        assert_eq!(apply(&correction, 2, 5), (2, 5, vec![]));
        assert_eq!(apply(&correction, 6, 7), (6, 7, vec![]));
    }

    #[test]
    fn a_member_without_a_first_frame_is_left_alone() {
        let never = Member::NOT_STARTED;
        assert_eq!(apply(&Correction::Inserted { at: 0 }, never, never), (never, never, vec![]));
    }
}
