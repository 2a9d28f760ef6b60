//! Judges the frames of one worker's clients. It holds the worker's logs, the frames that have to wait
//! for the ledger, and the faults.
//!
//! The worker owns the clients; the verifier reaches their places in the groups through [`Members`].

use std::collections::VecDeque;

use super::correction::Correction;
use super::fault::{Fault, FaultKind, Faults};
use super::log::{Arrival, GroupLog, Reconciled, Verdict};
use super::member::Member;
use super::slot::{LedgerEntry, LedgerTimes, Slot};
use super::{Identity, Key};

/// The most frames that may wait for the ledger in one worker; more, and the run is not verified.
const MAX_PARKED: usize = 200_000;

/// What is said of a fault at a jump.
const FIRST_OF_EPOCH: &str = "the first tick of its epoch";

/// The worker's clients, as far as the verifier needs them.
pub trait Members {
    /// The place of a client in a group, if that client's session is still the same.
    fn member(&mut self, member_id: MemberId) -> Option<&mut Member>;

    /// Visits every place in groups of `log`, with the client's number.
    fn for_each_in(&mut self, log: u32, visit: &mut dyn FnMut(u32, &mut Member));
}

/// Which place, of which session, of which client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberId {
    /// The connection's number in the run. A client with several may be in one group more than once.
    pub client: u32,
    /// The session; joins after a reconnect are new places.
    pub session: u32,
    /// The place among the client's groups.
    pub place: u32,
    /// Whether the client counts for latency: it reads as fast as it can.
    pub is_measured: bool,
}

/// The latency of one copy, ready to be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencySample {
    /// Who received it.
    pub client: u32,
    /// When it was due.
    pub times: LedgerTimes,
    /// When it was read.
    pub at_ns: u64,
}

#[derive(Debug)]
struct Parked {
    member_id: MemberId,
    identity: Identity,
    frame: Box<[u8]>,
    at_ns: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Verifier {
    /// One per wire form and group.
    pub logs: Vec<GroupLog>,
    /// What was wrong.
    pub faults: Faults,
    /// Copies that were found right.
    pub verified: u64,
    /// Latencies that became known; the worker drains them.
    pub timed: Vec<LatencySample>,
    /// Right copies (client, log, slot, time), if they are asked for; the worker drains them.
    pub accepted: Vec<(u32, u32, u64, u64)>,
    /// Whether they are.
    pub notes_accepted: bool,
    /// Frames that could not be judged: too many waited, their session ended, or the client was too
    /// far behind for the log. A run with any of them is not verified.
    pub unjudged: u64,
    parked: Vec<VecDeque<Parked>>,
    parked_count: usize,
    has_ledger: bool,
    heard_ns: u64,
    error_ns: u64,
}

impl Verifier {
    /// A verifier for `forms × groups` logs; `keys` holds how each form tells publications apart, and
    /// `error_ns` is the uncertainty of ledger times in the client's clock.
    pub fn new(keys: &[Key], groups: u32, has_ledger: bool, error_ns: u64) -> Self {
        let logs: Vec<GroupLog> =
            keys.iter().flat_map(|&key| (0..groups).map(move |group| GroupLog::new(group, key, has_ledger))).collect();
        let parked = logs.iter().map(|_| VecDeque::new()).collect();
        Self {
            logs,
            faults: Faults::default(),
            verified: 0,
            timed: Vec::new(),
            accepted: Vec::new(),
            notes_accepted: false,
            unjudged: 0,
            parked,
            parked_count: 0,
            has_ledger,
            heard_ns: 0,
            error_ns,
        }
    }

    /// Takes a decoded data frame that is not simply the next one of its group. Returns whether it was
    /// the next one after all.
    pub fn receive(&mut self, members: &mut dyn Members, member_id: MemberId, arrival: &Arrival<'_>) -> bool {
        let Some(member) = members.member(member_id) else { return false };
        let log = member.log;
        if member.has_started() && member.cursor < self.logs[log as usize].base() {
            self.unjudged += 1;
            return false;
        }
        if member.parked > 0 {
            member.parked += 1;
            self.park(log, member_id, arrival);
            return false;
        }
        let verdict = self.logs[log as usize].receive(member, arrival, self.heard_ns);
        if verdict == Verdict::MustWait {
            member.parked = 1;
            self.park(log, member_id, arrival);
        } else {
            self.enter(members, log, member_id, arrival, verdict);
        }
        matches!(verdict, Verdict::Accepted(_) | Verdict::Inserted { .. })
    }

    /// Puts a ledger entry into `log`.
    pub fn offer(&mut self, members: &mut dyn Members, log: u32, entry: LedgerEntry) {
        self.logs[log as usize].offer(entry);
        self.reconcile(members, log);
    }

    /// Notes that the ledger has been read up to `published_ns`, and decides what waited for that.
    pub fn heard(&mut self, members: &mut dyn Members, published_ns: u64) {
        if !self.has_ledger {
            return;
        }
        self.heard_ns = self.heard_ns.max(published_ns.saturating_sub(self.error_ns));
        for log in 0..self.logs.len() {
            if self.logs[log].has_open() {
                self.reconcile(members, log as u32);
            }
            if self.parked_count > 0 {
                self.judge_parked(members, log as u32);
            }
        }
    }

    /// Notes that the ledger has lost entries.
    pub fn enter_gap(&mut self) {
        self.logs.iter_mut().for_each(GroupLog::enter_gap);
    }

    /// Applies the rule for the first frame: nothing published after the join's ack may be missing
    /// before it. Does nothing while ack, first frame or ledger entry are still to come.
    pub fn judge_first(&mut self, client: u32, member: &mut Member) {
        let log = &self.logs[member.log as usize];
        if member.first_judged || !self.has_ledger || member.acked_ns == 0 || !member.has_started() {
            return;
        }
        if member.first >= log.confirmed() {
            return;
        }
        member.first_judged = true;
        let due_ns = member.acked_ns + self.error_ns;
        let missing = (log.base()..member.first)
            .rev()
            .take_while(|&index| log.slot(index).map_or(0, Slot::published_ns) > due_ns)
            .collect::<Vec<_>>();
        self.miss(client, member.log, missing, member.acked_ns);
    }

    /// Applies the rule for the end of a session that lived to the end of the run: everything
    /// published until `cut_ns` must be there.
    pub fn judge_end(&mut self, client: u32, member: &mut Member, cut_ns: u64, now_ns: u64) {
        self.judge_first(client, member);
        let missing = self.due(member, cut_ns).collect::<Vec<_>>();
        self.miss(client, member.log, missing, now_ns);
    }

    /// Whether everything published until `cut_ns` has arrived.
    pub fn is_complete(&self, member: &Member, cut_ns: u64) -> bool {
        member.parked == 0 && self.due(member, cut_ns).next().is_none()
    }

    /// Slots a member must still receive of what was published until `cut_ns`.
    fn due<'a>(&'a self, member: &'a Member, cut_ns: u64) -> impl Iterator<Item = u64> + 'a {
        let log = &self.logs[member.log as usize];
        let (from, after_ns) = match (member.has_started(), member.acked_ns) {
            (true, _) => (member.cursor.max(log.base()), 0),
            // No first frame: due is what was published after the ack. Without a ledger only what was
            // received elsewhere is known, not when it was published: leave a generous second.
            (false, 0) => (log.end(), 0),
            (false, acked_ns) => {
                (log.base(), acked_ns + self.error_ns + if self.has_ledger { 0 } else { 1_000_000_000 })
            }
        };
        let end = if self.has_ledger { log.confirmed() } else { log.end() };
        (from..end).filter(move |&index| {
            let published_ns = log.slot(index).map_or(0, Slot::published_ns);
            published_ns > after_ns && published_ns <= cut_ns
        })
    }

    /// Everything published until then is known.
    pub fn heard_ns(&self) -> u64 {
        self.heard_ns
    }

    /// How many frames wait for the ledger.
    pub fn parked(&self) -> usize {
        self.parked_count
    }

    /// The first slot of `log` that may not be trimmed for the sake of `member`.
    pub fn keep_from(&self, member: &Member) -> u64 {
        let log = &self.logs[member.log as usize];
        if member.has_started() {
            return member.cursor.min(if member.first_judged { u64::MAX } else { member.first });
        }
        // Slots are in publish order, and only those after the join matter.
        (log.base()..log.end())
            .find(|&index| log.slot(index).map_or(0, Slot::published_ns) >= member.asked_ns)
            .unwrap_or(log.end())
    }

    /// Drops the slots of `log` below `keep_from` that were published before `before_ns`, and the
    /// oldest when there are too many.
    pub fn trim(&mut self, log: u32, keep_from: u64, before_ns: u64, retire: &mut dyn FnMut(&Slot)) {
        self.logs[log as usize].trim(keep_from, |slot| slot.published_ns() < before_ns, retire);
    }

    /// Hands every slot that is left to `retire` and takes back what was counted as right without the
    /// ledger's word.
    pub fn retire_all(&mut self, retire: &mut dyn FnMut(&Slot)) {
        for log in &mut self.logs {
            let unconfirmed: u64 = if self.has_ledger {
                (log.confirmed()..log.end()).filter_map(|index| log.slot(index)).map(|slot| slot.copies).sum()
            } else {
                0
            };
            self.verified = self.verified.saturating_sub(unconfirmed);
            log.retire_all(&mut *retire);
        }
    }

    fn miss(&mut self, client: u32, log: u32, missing: Vec<u64>, at_ns: u64) {
        for index in missing {
            self.blame(FaultKind::Missing, client, log, index, at_ns);
        }
    }

    fn park(&mut self, log: u32, member_id: MemberId, arrival: &Arrival<'_>) {
        let parked =
            Parked { member_id, identity: arrival.identity, frame: arrival.frame.into(), at_ns: arrival.at_ns };
        self.parked[log as usize].push_back(parked);
        self.parked_count += 1;
    }

    fn reconcile(&mut self, members: &mut dyn Members, log: u32) {
        while let Some(step) = self.logs[log as usize].reconcile(self.heard_ns) {
            match step {
                Reconciled::Corrected(correction) => self.correct(members, log, &correction, self.heard_ns, None),
                Reconciled::Confirmed(index) => self.release(log, index),
            }
        }
    }

    /// What could not be said of a publication before the ledger named it.
    fn release(&mut self, log: u32, index: u64) {
        let Some(slot) = self.logs[log as usize].slot_mut(index) else { return };
        let Some(times) = slot.times else { return };
        let waiting = std::mem::take(&mut slot.waiting).into_iter();
        let blamed = std::mem::take(&mut slot.blamed);
        self.timed.extend(waiting.map(|(client, at_ns)| LatencySample { client, times, at_ns }));
        for (kind, client, at_ns) in blamed {
            self.blame(kind, client, log, index, at_ns);
        }
    }

    /// Judges what waits in `log`, oldest first, until something must wait on.
    fn judge_parked(&mut self, members: &mut dyn Members, log: u32) {
        while let Some(parked) = self.parked[log as usize].pop_front() {
            self.parked_count -= 1;
            let Some(member) = members.member(parked.member_id) else {
                self.unjudged += 1;
                continue;
            };
            let arrival = Arrival { identity: parked.identity, frame: &parked.frame, at_ns: parked.at_ns };
            let verdict = self.logs[log as usize].receive(member, &arrival, self.heard_ns);
            if verdict == Verdict::MustWait && self.parked_count < MAX_PARKED {
                self.parked[log as usize].push_front(parked);
                self.parked_count += 1;
                return;
            }
            member.parked -= 1;
            if verdict == Verdict::MustWait {
                self.unjudged += 1;
            } else {
                self.enter(members, log, parked.member_id, &arrival, verdict);
            }
        }
    }

    /// Books a final verdict.
    fn enter(
        &mut self,
        members: &mut dyn Members,
        log: u32,
        member_id: MemberId,
        arrival: &Arrival<'_>,
        verdict: Verdict,
    ) {
        let (client, at_ns) = (member_id.client, arrival.at_ns);
        match verdict {
            Verdict::Accepted(index) => self.count(log, member_id, index, at_ns),
            Verdict::Skipped { missing, accepted } => {
                self.miss(client, log, (missing..accepted).collect(), at_ns);
                self.count(log, member_id, accepted, at_ns);
            }
            Verdict::Inserted { missing, at } => {
                self.miss(client, log, (missing..at).collect(), at_ns);
                // The receiver has moved on already.
                self.correct(members, log, &Correction::Inserted { at }, at_ns, Some(client));
                self.count(log, member_id, at, at_ns);
            }
            Verdict::Repeated(index) if self.was_missing(client, log, index) => {
                self.count(log, member_id, index, at_ns);
            }
            Verdict::Repeated(index) => self.blame(FaultKind::Duplicate, client, log, index, at_ns),
            Verdict::Corrupted(index) => self.blame(FaultKind::Corrupted, client, log, index, at_ns),
            Verdict::Unknown => self.blame_claim(FaultKind::Unexpected, client, log, arrival.identity, at_ns),
            Verdict::MustWait => {}
        }
    }

    /// Whether a frame the client has passed was missing; it is a reordered one then.
    fn was_missing(&mut self, client: u32, log: u32, index: u64) -> bool {
        let group = self.logs[log as usize].group;
        let Some(slot) = self.logs[log as usize].slot_mut(index) else { return false };
        let blame = slot.blamed.iter_mut().find(|(kind, who, _)| *kind == FaultKind::Missing && *who == client);
        if let Some((kind, ..)) = blame {
            *kind = FaultKind::Reordered;
            return true;
        }
        let sequence_id = slot.identity.sequence_id;
        self.faults.amend_missing(client, group, sequence_id, FaultKind::Reordered)
    }

    /// Counts a copy that is right.
    fn count(&mut self, log: u32, member_id: MemberId, index: u64, at_ns: u64) {
        self.verified += 1;
        if self.notes_accepted {
            self.accepted.push((member_id.client, log, index, at_ns));
        }
        let Some(slot) = self.logs[log as usize].slot_mut(index) else { return };
        slot.copies += 1;
        if member_id.is_measured {
            slot.last_ns = slot.last_ns.max(at_ns);
            match slot.times {
                Some(times) => self.timed.push(LatencySample { client: member_id.client, times, at_ns }),
                None if self.has_ledger => slot.waiting.push((member_id.client, at_ns)),
                None => {}
            }
        }
    }

    fn correct(
        &mut self,
        members: &mut dyn Members,
        log: u32,
        correction: &Correction,
        at_ns: u64,
        except: Option<u32>,
    ) {
        members.for_each_in(log, &mut |client, member| {
            if except == Some(client) {
                return;
            }
            correction.apply(member, |kind, index| match correction {
                Correction::Expelled { excused, .. } | Correction::Refuted { excused, .. }
                    if excused.contains(&client) => {}
                Correction::Expelled { claimed, .. } => {
                    self.verified = self.verified.saturating_sub(1);
                    self.blame_claim(kind, client, log, *claimed, at_ns);
                }
                Correction::Refuted { .. } => {
                    self.verified = self.verified.saturating_sub(1);
                    self.blame(kind, client, log, index, at_ns);
                }
                Correction::Inserted { .. } | Correction::Moved { .. } => self.blame(kind, client, log, index, at_ns),
            });
        });
    }

    /// A frame that is the next one of its group, but came after a later one of another group: within
    /// a connection, `sequenceId` must rise over all groups, or the SDKs drop the frame.
    pub fn blame_order(
        &mut self,
        member_id: MemberId,
        group: u32,
        identity: Identity,
        tick: Option<u64>,
        after: u64,
        at_ns: u64,
    ) {
        self.faults.add(Fault {
            kind: FaultKind::Reordered,
            client: member_id.client,
            hub: String::new(),
            group,
            tick,
            epoch: None,
            sequence_id: Some(identity.sequence_id),
            record_timestamp: Some(identity.timestamp),
            at_ns,
            detail: format!("came after sequence id {after}, of another group"),
        });
    }

    /// A frame that cannot be read, or that no rule of the wire allows.
    pub fn blame_frame(&mut self, kind: FaultKind, client: u32, group: u32, detail: String, at_ns: u64) {
        self.faults.add(Fault {
            kind,
            client,
            hub: String::new(),
            group,
            tick: None,
            epoch: None,
            sequence_id: None,
            record_timestamp: None,
            at_ns,
            detail,
        });
    }

    fn blame(&mut self, kind: FaultKind, client: u32, log: u32, index: u64, at_ns: u64) {
        let log = &mut self.logs[log as usize];
        let group = log.group;
        let Some(slot) = log.slot_mut(index) else { return };
        if self.has_ledger && slot.times.is_none() {
            slot.blamed.push((kind, client, at_ns));
            return;
        }
        self.faults.add(Fault {
            kind,
            client,
            hub: String::new(),
            group,
            tick: slot.times.map(|times| times.tick),
            epoch: slot.times.map(|times| times.epoch).filter(|&epoch| epoch > 0),
            sequence_id: Some(slot.identity.sequence_id).filter(|&id| id != 0),
            record_timestamp: Some(slot.identity.timestamp),
            at_ns,
            detail: if slot.times.is_some_and(|times| times.opens_epoch) {
                FIRST_OF_EPOCH.to_owned()
            } else {
                String::new()
            },
        });
    }

    fn blame_claim(&mut self, kind: FaultKind, client: u32, log: u32, claimed: Identity, at_ns: u64) {
        self.faults.add(Fault {
            kind,
            client,
            hub: String::new(),
            group: self.logs[log as usize].group,
            tick: None,
            epoch: None,
            sequence_id: Some(claimed.sequence_id).filter(|&id| id != 0),
            record_timestamp: Some(claimed.timestamp),
            at_ns,
            detail: "no such publication in the ledger".to_owned(),
        });
    }
}

#[cfg(test)]
#[path = "verifier_tests.rs"]
mod tests;
