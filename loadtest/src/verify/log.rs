//! The publications of one group in one wire form, in order, as one worker knows them.

use std::collections::VecDeque;

use super::correction::Correction;
use super::member::Member;
use super::slot::{LedgerEntry, Slot};
use super::{Identity, Key};

/// How far behind the cursor a repeated payload counts as a duplicate when there is no ledger to ask.
const DUPLICATE_WINDOW: u64 = 16;

/// The most slots a log keeps for clients that are behind.
const MAX_SLOTS: usize = 16 * 1024;

/// A decoded data frame on its way to judgement.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// What it claims to be.
    pub identity: Identity,
    /// Its bytes, header included.
    pub frame: &'a [u8],
    /// When it was read.
    pub at_ns: u64,
}

/// What an arrival turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The publication that had to come next (or a legal first one); the member has moved on.
    Accepted(u64),
    /// A later publication than the next one: `missing..accepted` did not come.
    Skipped {
        /// The first slot that did not come.
        missing: u64,
        /// The slot that came.
        accepted: u64,
    },
    /// A publication the member has already passed.
    Repeated(u64),
    /// The publication that had to come next, with another content; the member has moved on.
    Corrupted(u64),
    /// Nothing that was published.
    Unknown,
    /// Cannot be judged before the ledger has caught up.
    MustWait,
    /// Unknown so far, now a slot of its own, after slots that did not come. The other members must be
    /// corrected.
    Inserted {
        /// The first slot that did not come.
        missing: u64,
        /// The new slot.
        at: u64,
    },
}

/// The outcome of one step of [`GroupLog::reconcile`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reconciled {
    /// The order was wrong and has been corrected: apply to all members, then call again.
    Corrected(Correction),
    /// The entry now has its slot.
    Confirmed(u64),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct GroupLog {
    /// The group, by its number in the plan.
    pub group: u32,
    key: Key,
    has_ledger: bool,
    base: u64,
    // Slots below are confirmed by the ledger (or lie in a gap of it).
    confirmed: u64,
    slots: VecDeque<Slot>,
    // Ledger entries that have no place yet.
    held: VecDeque<LedgerEntry>,
    // The ledger has lost entries; what is provisional now may be among them.
    in_gap: bool,
}

impl GroupLog {
    /// An empty log. Without a ledger nothing is ever confirmed and clients are compared with each other.
    pub fn new(group: u32, key: Key, has_ledger: bool) -> Self {
        Self {
            group,
            key,
            has_ledger,
            base: 0,
            confirmed: 0,
            slots: VecDeque::new(),
            held: VecDeque::new(),
            in_gap: false,
        }
    }

    /// The slot at an absolute index, unless it is trimmed or not there yet.
    #[inline]
    pub fn slot(&self, index: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(index.wrapping_sub(self.base)).ok()?)
    }

    /// The same, to be changed.
    #[inline]
    pub fn slot_mut(&mut self, index: u64) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(index.wrapping_sub(self.base)).ok()?)
    }

    /// The slot of a publication, by its number in the hub.
    pub fn find_sequence(&self, sequence_id: u64) -> Option<&Slot> {
        let confirmed = self.slots.range(..self.slots.len().min((self.confirmed - self.base) as usize));
        // Confirmed slots are in the order in which they were published.
        let place = self.slots.partition_point(|slot| slot.times.is_some() && slot.identity.sequence_id < sequence_id);
        confirmed.len().gt(&place).then(|| &self.slots[place]).filter(|slot| slot.identity.sequence_id == sequence_id)
    }

    /// The index after the last slot.
    pub fn end(&self) -> u64 {
        self.base + self.slots.len() as u64
    }

    /// The index of the oldest slot that is still here.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// The index after the last confirmed slot.
    pub fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// The usual case: `bytes` begin with the frame that must come next. The member moves on; returns
    /// the slot and the length of the frame.
    #[inline]
    pub fn take_next(&mut self, member: &mut Member, bytes: &[u8]) -> Option<(&mut Slot, usize)> {
        if member.parked > 0 {
            return None;
        }
        let slot = self.slot_mut(member.cursor)?;
        let len = match &slot.frame {
            Some(frame) if bytes.starts_with(frame) => frame.len(),
            _ => return None,
        };
        member.cursor += 1;
        slot.copies += 1;
        Some((slot, len))
    }

    /// Takes a decoded frame. `heard_ns` is the publish time up to which the ledger has been read; the
    /// frames of a member must come in the order in which they were received.
    pub fn receive(&mut self, member: &mut Member, arrival: &Arrival<'_>, heard_ns: u64) -> Verdict {
        // Entries without a place yet may be the very one this frame is a copy of.
        let placed_ns = self.held.front().map_or(heard_ns, |entry| heard_ns.min(entry.times.published_ns));
        let is_covered = self.has_ledger && placed_ns > arrival.at_ns;
        let cursor = member.cursor;
        let is_next = member.has_started()
            && self.holds(cursor, arrival.identity)
            && self.slot(cursor).is_some_and(|slot| slot.identity.has_same_content(&arrival.identity));
        if is_next {
            return self.accept(member, cursor, arrival);
        }
        match (self.key, self.has_ledger) {
            (Key::Sequence, _) => self.by_sequence(member, arrival, is_covered),
            (Key::Payload, true) => self.by_payload(member, arrival, is_covered),
            (Key::Payload, false) => self.by_comparison(member, arrival),
        }
    }

    /// Takes the next ledger entry; [`GroupLog::reconcile`] puts it into its place.
    pub fn offer(&mut self, entry: LedgerEntry) {
        self.held.push_back(entry);
    }

    /// Whether entries or slots wait for a decision.
    pub fn has_open(&self) -> bool {
        !self.held.is_empty() || self.confirmed < self.end()
    }

    /// Puts ledger entries into their places, one step at a time: call until it returns `None`.
    ///
    /// When the first provisional slot is not what the ledger has next, either the order is wrong or
    /// that slot was never published. The ledger decides, if need be later: once it has been read past
    /// the time at which the slot's first copy arrived (`heard_ns`), it must have named it.
    pub fn reconcile(&mut self, heard_ns: u64) -> Option<Reconciled> {
        loop {
            let Some(&entry) = self.held.front() else {
                return self.overdue(heard_ns).map(|at| Reconciled::Corrected(self.expel(at)));
            };
            let at = self.confirmed;
            let Some(slot) = self.slot(at) else {
                let index = self.append(entry.identity);
                return Some(self.confirm(index, &entry));
            };
            let (claimed, first_ns, key) = (slot.identity, slot.first_ns, self.key);
            if claimed.is_same_publication(&entry.identity, key) {
                if claimed.has_same_content(&entry.identity) {
                    return Some(self.confirm(at, &entry));
                }
                return Some(Reconciled::Corrected(self.refute(at, entry.identity)));
            }
            if self.held.iter().any(|held| held.identity.is_same_publication(&claimed, key)) {
                return Some(Reconciled::Corrected(self.bring_forward(entry.identity, at)));
            }
            if heard_ns <= first_ns {
                return None;
            }
            if !self.in_gap {
                return Some(Reconciled::Corrected(self.expel(at)));
            }
            self.confirmed += 1;
        }
    }

    /// A provisional slot that the ledger should have named by now, and has not.
    fn overdue(&self, heard_ns: u64) -> Option<u64> {
        let is_overdue = |index: &u64| self.slot(*index).is_some_and(|slot| slot.first_ns < heard_ns);
        (self.confirmed..self.end()).find(is_overdue).filter(|_| !self.in_gap)
    }

    /// Notes that the ledger has lost entries.
    pub fn enter_gap(&mut self) {
        self.in_gap = true;
    }

    /// Drops settled slots below `keep_from` that are old enough, and the oldest when there are too
    /// many; hands each to `retire`.
    pub fn trim(&mut self, keep_from: u64, is_old: impl Fn(&Slot) -> bool, retire: &mut dyn FnMut(&Slot)) {
        while let Some(slot) = self.slots.front() {
            let is_settled = self.base < self.confirmed || !self.has_ledger;
            let is_done = is_settled && self.base < keep_from && is_old(slot);
            if !is_done && self.slots.len() <= MAX_SLOTS {
                break;
            }
            retire(slot);
            self.slots.pop_front();
            self.base += 1;
            self.confirmed = self.confirmed.max(self.base);
        }
    }

    /// Hands every slot to `retire`.
    pub fn retire_all(&mut self, mut retire: impl FnMut(&Slot)) {
        self.slots.iter().for_each(&mut retire);
    }

    /// Sequence ids are the order: whatever nobody has shown yet has one place only.
    fn by_sequence(&mut self, member: &mut Member, arrival: &Arrival<'_>, is_covered: bool) -> Verdict {
        let place = self.slots.binary_search_by_key(&arrival.identity.sequence_id, |slot| slot.identity.sequence_id);
        let (Ok(place) | Err(place)) = place;
        let index = self.base + place as u64;
        let Some(slot) = self.slot(index).filter(|slot| slot.identity.sequence_id == arrival.identity.sequence_id)
        else {
            return self.insert_by_sequence(member, index, arrival, is_covered);
        };
        if !slot.identity.has_same_content(&arrival.identity) && slot.times.is_none() {
            // Two payloads under one id, and only the ledger knows which is right.
            return Verdict::MustWait;
        }
        if member.has_started() {
            self.settle(member, index, arrival)
        } else {
            self.settle_start(member, index, arrival)
        }
    }

    fn insert_by_sequence(
        &mut self,
        member: &mut Member,
        index: u64,
        arrival: &Arrival<'_>,
        is_covered: bool,
    ) -> Verdict {
        if index < self.confirmed {
            return Verdict::Unknown;
        }
        if !member.has_started() {
            member.start_before(index);
        }
        if index != member.cursor {
            // Unknown, and out of turn: the ledger must say whether it exists.
            return if is_covered { Verdict::Unknown } else { Verdict::MustWait };
        }
        self.insert(index, arrival.identity);
        self.accept(member, index, arrival);
        Verdict::Inserted { missing: index, at: index }
    }

    /// Payloads have no order of their own: what does not follow must wait for the ledger.
    fn by_payload(&mut self, member: &mut Member, arrival: &Arrival<'_>, is_covered: bool) -> Verdict {
        if !member.has_started() {
            return self.start_by_payload(member, arrival, is_covered);
        }
        let cursor = member.cursor;
        if cursor == self.end() && self.find(arrival.identity, cursor, cursor).is_none() {
            let index = self.append(arrival.identity);
            return self.accept(member, index, arrival);
        }
        if !is_covered {
            return Verdict::MustWait;
        }
        if let Some(index) = self.find(arrival.identity, cursor, self.confirmed) {
            return self.settle(member, index, arrival);
        }
        match self.slot(cursor) {
            Some(slot) if cursor < self.confirmed && slot.identity.timestamp == arrival.identity.timestamp => {
                member.cursor += 1;
                Verdict::Corrupted(cursor)
            }
            _ => Verdict::Unknown,
        }
    }

    fn start_by_payload(&mut self, member: &mut Member, arrival: &Arrival<'_>, is_covered: bool) -> Verdict {
        if let Some(index) = self.find_start(member.asked_ns, arrival.identity) {
            return self.settle_start(member, index, arrival);
        }
        // A newcomer cannot tell how its frame stands to what others have received.
        if self.slots.is_empty() {
            let index = self.append(arrival.identity);
            return self.settle_start(member, index, arrival);
        }
        match self.find_before(member.asked_ns, arrival.identity) {
            _ if !is_covered => Verdict::MustWait,
            Some(index) => self.settle_start(member, index, arrival),
            None => Verdict::Unknown,
        }
    }

    /// Without a ledger, a frame is compared with what the other clients have shown.
    fn by_comparison(&mut self, member: &mut Member, arrival: &Arrival<'_>) -> Verdict {
        let end = self.end();
        if !member.has_started() {
            let known = self.find_start(member.asked_ns, arrival.identity);
            let known = known.or_else(|| self.find_before(member.asked_ns, arrival.identity));
            let index = known.unwrap_or_else(|| self.append(arrival.identity));
            return self.settle_start(member, index, arrival);
        }
        let cursor = member.cursor;
        match self.find(arrival.identity, cursor, end) {
            // So far behind, it is the replay that has come round.
            Some(index) if cursor == end && cursor - index > DUPLICATE_WINDOW => {
                let index = self.append(arrival.identity);
                self.accept(member, index, arrival)
            }
            Some(index) => self.settle(member, index, arrival),
            None => self.insert_by_time(member, arrival),
        }
    }

    /// Only record times can tell whether a publication no other client has shown yet comes before
    /// those the member has not received, or after them.
    fn insert_by_time(&mut self, member: &mut Member, arrival: &Arrival<'_>) -> Verdict {
        let missing = member.cursor;
        let is_later =
            |index: &u64| self.slot(*index).is_some_and(|slot| slot.identity.timestamp > arrival.identity.timestamp);
        let at = (missing..self.end()).find(is_later).unwrap_or(self.end());
        self.insert(at, arrival.identity);
        self.accept(member, at, arrival);
        Verdict::Inserted { missing, at }
    }

    /// The earliest publication that a member who asked to join at `asked_ns` can have received first.
    fn find_start(&self, asked_ns: u64, identity: Identity) -> Option<u64> {
        (self.base..self.end()).find(|&index| {
            let slot = &self.slots[(index - self.base) as usize];
            slot.published_ns() >= asked_ns && self.holds(index, identity)
        })
    }

    /// The last publication before `asked_ns` that this can be. A server that is behind with its
    /// deliveries may serve a newcomer with what was published just before it asked.
    fn find_before(&self, asked_ns: u64, identity: Identity) -> Option<u64> {
        (self.base..self.end()).rev().find(|&index| {
            let slot = &self.slots[(index - self.base) as usize];
            slot.published_ns() < asked_ns && self.holds(index, identity)
        })
    }

    fn settle_start(&mut self, member: &mut Member, index: u64, arrival: &Arrival<'_>) -> Verdict {
        member.start_before(index);
        self.settle(member, index, arrival)
    }

    /// The verdict on a frame that is the publication in slot `index`.
    fn settle(&mut self, member: &mut Member, index: u64, arrival: &Arrival<'_>) -> Verdict {
        let cursor = member.cursor;
        if index < cursor {
            return Verdict::Repeated(index);
        }
        let is_intact = self.slot(index).is_some_and(|slot| slot.identity.has_same_content(&arrival.identity));
        if index == cursor && !is_intact {
            member.cursor = index + 1;
            return Verdict::Corrupted(index);
        }
        if !is_intact {
            // Both missing frames and a corrupted one: the next frame will show what is missing.
            return Verdict::Unknown;
        }
        self.accept(member, index, arrival);
        if index == cursor { Verdict::Accepted(index) } else { Verdict::Skipped { missing: cursor, accepted: index } }
    }

    fn accept(&mut self, member: &mut Member, index: u64, arrival: &Arrival<'_>) -> Verdict {
        member.cursor = index + 1;
        // What came in fragments, or beside others in one frame, has no bytes of its own to compare with.
        let keeps_frames = self.has_ledger && !arrival.frame.is_empty();
        if let Some(slot) = self.slot_mut(index) {
            if keeps_frames && slot.frame.is_none() {
                slot.frame = Some(arrival.frame.into());
            }
            if slot.first_ns == 0 || arrival.at_ns < slot.first_ns {
                slot.first_ns = arrival.at_ns;
            }
        }
        Verdict::Accepted(index)
    }

    /// The slot below `end` that holds this publication and is nearest to `cursor`; of two equally near
    /// the later one.
    fn find(&self, identity: Identity, cursor: u64, end: u64) -> Option<u64> {
        let ahead = self.find_in(identity, cursor.max(self.base)..end);
        let behind = (self.base..cursor.min(end)).rev().find(|&index| self.holds(index, identity));
        match (ahead, behind) {
            (Some(ahead), Some(behind)) => Some(if ahead - cursor <= cursor - behind { ahead } else { behind }),
            (one, other) => one.or(other),
        }
    }

    fn find_in(&self, identity: Identity, mut range: std::ops::Range<u64>) -> Option<u64> {
        range.find(|&index| self.holds(index, identity))
    }

    fn holds(&self, index: u64, identity: Identity) -> bool {
        self.slot(index).is_some_and(|slot| slot.identity.is_same_publication(&identity, self.key))
    }

    fn append(&mut self, identity: Identity) -> u64 {
        self.slots.push_back(Slot::new(identity));
        self.end() - 1
    }

    fn insert(&mut self, index: u64, identity: Identity) {
        self.slots.insert((index - self.base) as usize, Slot::new(identity));
    }

    fn confirm(&mut self, index: u64, entry: &LedgerEntry) -> Reconciled {
        self.in_gap = false;
        self.held.pop_front();
        self.confirmed = index + 1;
        if let Some(slot) = self.slot_mut(index) {
            slot.identity = entry.identity;
            slot.times = Some(entry.times);
        }
        Reconciled::Confirmed(index)
    }

    /// The first copy was a corrupted one: forget its bytes and believe the ledger.
    fn refute(&mut self, index: u64, identity: Identity) -> Correction {
        let mut refuted = Slot::new(identity);
        if let Some(slot) = self.slot_mut(index) {
            refuted = std::mem::replace(slot, refuted);
            slot.blamed = std::mem::take(&mut refuted.blamed);
        }
        let excused = self.slot(index).map(Slot::missed_by).unwrap_or_default();
        Correction::Refuted { at: index, claimed: refuted.identity, excused }
    }

    /// Moves the slot that holds `identity` to `to`, or makes one there.
    fn bring_forward(&mut self, identity: Identity, to: u64) -> Correction {
        if let Some(from) = self.find_in(identity, to..self.end())
            && let Some(slot) = self.slots.remove((from - self.base) as usize)
        {
            self.slots.insert((to - self.base) as usize, slot);
            return Correction::Moved { from, to };
        }
        self.insert(to, identity);
        Correction::Inserted { at: to }
    }

    /// Nothing like it was published.
    fn expel(&mut self, index: u64) -> Correction {
        let unknown = || Slot::new(Identity { sequence_id: 0, hash: None, timestamp: 0 });
        let slot = self.slots.remove((index - self.base) as usize).unwrap_or_else(unknown);
        Correction::Expelled { at: index, claimed: slot.identity, excused: slot.missed_by() }
    }
}
