//! Faults about frames: those of the clients that are struck are taken out of the rings, changed, and put into lines.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use bytes::Bytes;

use super::connection_faults::stall;
use super::held_line::{HeldFrame, HeldLine};
use super::plan_run::PlanRun;
use super::{Outbox, hub_of, mangle, now_ms};
use crate::engine::hub::wire_name;
use crate::faults::batch_notes::{ClockPlace, NotedHub, PlannedBatch};
use crate::faults::draw::{ClientIdentity, DrawFor};
use crate::faults::fault_entry::{FaultEntry, StreamPlace, StruckFrame};
use crate::faults::fault_plan::{FaultAction, FaultClass, FaultKind, STREAMS_NAME};
use crate::faults::schedule::InForce;
use crate::server::shard::connection::Connection;
use crate::server::shard::lanes::Lanes;
use crate::server::shard::marks::Mark;
use crate::server::shard::outbox::send_batch::frame;
use crate::server::shard::session::{Extent, Pick, Session};
use crate::server::shard::sessions::{Report, Sessions};
use crate::wire::{Wire, websocket};

/// What is due for one client, and how.
struct Fate {
    bytes: Bytes,
    /// How often: not at all, once, or twice.
    copies: u8,
    due_ms: u64,
    is_split: bool,
    waits: bool,
}

/// A fault that means a client, and the batch for whose frames it is in force.
#[derive(Clone, Copy)]
struct MeantFault<'a> {
    batch: &'a PlannedBatch,
    found: InForce,
}

/// What everybody misses.
struct ForEveryone {
    place: ClockPlace,
    entry: FaultEntry,
    /// By id.
    frames: BTreeMap<u64, StruckFrame>,
}

/// What was done in one pass over the clients.
#[derive(Default)]
struct Struck {
    entries: Vec<(ClockPlace, FaultEntry)>,
    /// Those about everybody, by fault and tick.
    everyone: BTreeMap<(usize, u64), ForEveryone>,
    /// Clients whose lines have something new.
    touched: Vec<u32>,
    /// Clients that get the first part of a frame, and nothing more.
    halves: Vec<(u32, Bytes)>,
}

impl Outbox {
    /// Takes the frames of those who are struck out of the rings.
    pub(super) fn divert(&mut self, batches: &[(NotedHub, PlannedBatch)], sessions: &mut Sessions, lanes: &Lanes) {
        let Some(keys) = self.meant_keys(batches, sessions) else { return };
        let mut struck = Struck::default();
        // Out of `self` meanwhile: the plan is read while lines change.
        let mut run = self.faults.run.take();
        let mut picks = mem::take(&mut self.picks);
        for key in keys {
            self.divert_one(key, run.as_mut(), batches, &mut picks, &mut struck, sessions, lanes);
        }
        self.picks = picks;
        if let Some(run) = &run {
            self.enter_frames(run, &mut struck);
        }
        self.faults.run = run;
        for (key, half) in mem::take(&mut struck.halves) {
            self.send_half(key, &half, sessions);
        }
        for key in struck.touched {
            self.pump(key, sessions, lanes);
        }
        self.faults.count_held();
    }

    /// The clients that must be looked at. `None`: nobody.
    fn meant_keys(&self, batches: &[(NotedHub, PlannedBatch)], sessions: &Sessions) -> Option<Vec<u32>> {
        if !batches.is_empty() {
            return Some(sessions.keys());
        }
        let armed = self.faults.run.iter().flat_map(|run| run.armed.keys());
        let keys: BTreeSet<u32> = self.faults.lines.keys().chain(armed).copied().collect();
        (!keys.is_empty()).then(|| keys.into_iter().collect())
    }

    #[expect(clippy::too_many_arguments, reason = "parts of the shard that are lent for one pass over its clients")]
    fn divert_one(
        &mut self,
        key: u32,
        run: Option<&mut PlanRun>,
        batches: &[(NotedHub, PlannedBatch)],
        picks: &mut Vec<Pick>,
        struck: &mut Struck,
        sessions: &mut Sessions,
        lanes: &Lanes,
    ) {
        let mut run = run;
        let open = sessions.get(key).filter(|session| session.connection.as_ref().is_some_and(Connection::is_open));
        // One that closes gets the rest of a frame of which it has a part.
        let is_of_this =
            |line: &HeldLine| sessions.serial(key) == line.serial && (open.is_some() || line.is_splitting());
        if !self.faults.lines.get(&key).is_none_or(is_of_this) {
            self.faults.lines.remove(&key);
        }
        let Some(session) = open else {
            run.map(|run| run.armed.remove(&key));
            return;
        };
        let serial = session.serial;
        let wanted = run.as_deref_mut().map_or_else(Vec::new, |run| self.wanted(key, run, session, batches));
        let armed = run.as_deref().and_then(|run| run.armed.get(&key)).is_some_and(|(of, _)| *of == serial);
        if wanted.is_empty() && !armed && !self.faults.lines.contains_key(&key) {
            return;
        }
        picks.clear();
        if session.due(lanes, usize::MAX, picks) == Extent::FellOff {
            return sessions.report(key, Report::Lagging);
        }
        if picks.is_empty() {
            return;
        }
        if let (true, Some(run)) = (armed, run.as_deref_mut()) {
            return self.halve(key, run, picks[0], struck, sessions, lanes);
        }
        let line = self.faults.lines.remove(&key);
        let mut is_touched = line.is_some();
        let mut line = line.unwrap_or_else(|| HeldLine::new(serial));
        match run {
            Some(run) => is_touched |= self.fill_line(key, run, &wanted, picks, &mut line, struck, session, lanes),
            // What is left of a plan that has ended goes before what comes now.
            None => {
                for pick in picks.iter() {
                    line.push(whole(frame(lanes, pick).clone()));
                }
            }
        }
        if is_touched {
            self.took_out(key, line, picks, sessions);
            struck.touched.push(key);
        }
    }

    /// The faults that mean a client, with the batches of its hub.
    fn wanted<'a>(
        &self,
        key: u32,
        run: &mut PlanRun,
        session: &Session,
        batches: &'a [(NotedHub, PlannedBatch)],
    ) -> Vec<MeantFault<'a>> {
        let hub = hub_of(session.wire);
        let mut wanted = Vec::new();
        for (_, batch) in batches.iter().filter(|(of, _)| *of == hub) {
            for found in batch.in_force.iter().copied() {
                let class = run.plan.faults[found.fault].action.kind().class();
                if class == FaultClass::Frames && run.means(found, key, session, &self.faults.board) {
                    wanted.push(MeantFault { batch, found });
                }
            }
        }
        wanted
    }

    /// Puts what is due for a client into its line. Says whether any of it was struck.
    #[expect(clippy::too_many_arguments, reason = "parts of the shard that are lent for one pass over its clients")]
    fn fill_line(
        &self,
        key: u32,
        run: &mut PlanRun,
        wanted: &[MeantFault<'_>],
        picks: &[Pick],
        line: &mut HeldLine,
        struck: &mut Struck,
        session: &Session,
        lanes: &Lanes,
    ) -> bool {
        let identity = run.identity(key, session, &self.faults.board);
        let plan = Arc::clone(&run.plan);
        let mut of_client: Vec<(ClockPlace, FaultEntry)> = Vec::new();
        // Where the entry is of the frame that waits.
        let mut waiting = None;
        let mut is_struck = false;
        for pick in picks {
            let held = whole(frame(lanes, pick).clone());
            let mut fate = Fate { bytes: held.bytes, copies: 1, due_ms: held.due_ms, is_split: false, waits: false };
            let group = wire_name(lanes.group_name(pick.lane)).0;
            for MeantFault { batch, found } in wanted.iter().copied() {
                let fault = &plan.faults[found.fault];
                let is_of_batch = (batch.first_id..=batch.last_id).contains(&pick.id);
                let is_meant = is_of_batch
                    && fate.copies > 0
                    && fault.who.group.as_ref().is_none_or(|glob| glob.matches(group))
                    && !(line.is_waiting() && fault.action == FaultAction::Reorder)
                    && run.counts(found, session.id, identity);
                if !is_meant {
                    continue;
                }
                is_struck = true;
                let told = StruckFrame { group: group.into(), sequence_id: pick.id, ..StruckFrame::default() };
                let told = StruckFrame { place: place_in_stream(session.wire, group, &fate.bytes), ..told };
                let entry = entry_of(run, found, batch, session, identity, &mut of_client);
                let count = of_client[entry].1.frames.len() as u64;
                let told = strike(run, found, batch.tick, identity, count, &mut fate, told);
                if fate.waits {
                    waiting = Some((entry, count as usize));
                }
                if fault.is_for_everyone() && fault.action == FaultAction::Silence {
                    struck.tell_everyone(of_client[entry].0, &of_client[entry].1, told);
                } else {
                    of_client[entry].1.frames.push(told);
                }
            }
            for copy in 0..fate.copies {
                let Fate { due_ms, is_split, .. } = fate;
                let waits = fate.waits && copy + 1 == fate.copies;
                let overtakes = line.push(HeldFrame { bytes: fate.bytes.clone(), due_ms, is_split, waits });
                if let (true, Some((entry, at))) = (overtakes, waiting.take_if(|_| overtakes)) {
                    of_client[entry].1.frames[at].after = Some(pick.id);
                }
            }
        }
        struck.entries.extend(of_client.into_iter().filter(|(_, entry)| !entry.frames.is_empty()));
        is_struck
    }

    /// The cursors move past what was taken out. A line that grows too long is a client that is too slow.
    fn took_out(&mut self, key: u32, line: HeldLine, picks: &[Pick], sessions: &mut Sessions) {
        let Some(session) = sessions.get_mut(key) else { return };
        for pick in picks {
            session.memberships[pick.membership as usize].cursor = pick.position + 1;
        }
        let (frames, bytes) = session.allowance(&self.lag);
        if line.len() as u64 > frames || line.bytes() > bytes {
            sessions.report(key, Report::Lagging);
        }
        self.faults.lines.insert(key, line);
    }

    /// A client gets half of its next frame, as soon as nothing stands before it.
    fn halve(
        &mut self,
        key: u32,
        run: &mut PlanRun,
        next: Pick,
        struck: &mut Struck,
        sessions: &Sessions,
        lanes: &Lanes,
    ) {
        let Some(session) = sessions.get(key) else { return };
        let is_free = session.connection.as_ref().is_some_and(|connection| !connection.has_unsent());
        if !is_free || !matches!(sessions.mark(key), Mark::Ready | Mark::Queued) || self.faults.lines.contains_key(&key)
        {
            return;
        }
        let Some((_, found)) = run.armed.remove(&key) else { return };
        let whole = frame(lanes, &next);
        let kept = whole.len().div_ceil(2);
        let group = wire_name(lanes.group_name(next.lane)).0;
        let told = StruckFrame {
            group: group.into(),
            sequence_id: next.id,
            place: place_in_stream(session.wire, group, whole),
            kept: Some(kept as u64),
            bytes: Some(whole.len() as u64),
            ..StruckFrame::default()
        };
        let identity = run.identity(key, session, &self.faults.board);
        let entry = FaultEntry { frames: vec![told], ..run.entry(found, run.tick, session, identity) };
        struck.entries.push((run.place, entry));
        struck.halves.push((key, whole.slice(..kept)));
    }

    fn send_half(&mut self, key: u32, half: &[u8], sessions: &mut Sessions) {
        /// So that the half arrives before the reset, which would throw it away.
        const ARRIVES_MS: u64 = 20;
        if let Some(connection) = sessions.connection(key) {
            // What the socket does not take is lost with the connection.
            let _ = connection.send(half);
        }
        stall(key, sessions);
        self.faults.resets.insert((now_ms() + ARRIVES_MS, key, sessions.serial(key)));
    }

    /// Counts what was done, and enters it into the ledger.
    fn enter_frames(&self, run: &PlanRun, struck: &mut Struck) {
        for ForEveryone { place, mut entry, frames } in mem::take(&mut struck.everyone).into_values() {
            entry.frames = frames.into_values().collect();
            struck.entries.push((place, entry));
        }
        let mut counts = BTreeMap::<usize, (u64, u64)>::new();
        for (_, entry) in &struck.entries {
            let frames = if entry.kind == FaultKind::ResetMidFrame { 0 } else { entry.frames.len() as u64 };
            let count = counts.entry(entry.fault - 1).or_default();
            *count = (count.0 + 1, count.1 + frames);
        }
        for (fault, (clients, frames)) in counts {
            let kind = run.plan.faults[fault].action.kind();
            self.faults.board.count(run.number, fault, kind, clients, frames);
        }
        self.faults.enter(mem::take(&mut struck.entries));
    }
}

impl Struck {
    /// Notes a frame that everybody in its group misses: once for all.
    fn tell_everyone(&mut self, place: ClockPlace, of_client: &FaultEntry, frame: StruckFrame) {
        let entry = || FaultEntry {
            // Several hubs may carry a group.
            hub: of_client.hub.filter(|hub| *hub == STREAMS_NAME),
            connection: None,
            user: None,
            nth: 0,
            everyone: true,
            frames: Vec::new(),
            ..of_client.clone()
        };
        let told = self.everyone.entry((of_client.fault, of_client.tick));
        let told = told.or_insert_with(|| ForEveryone { place, entry: entry(), frames: BTreeMap::new() });
        told.frames.insert(frame.sequence_id, frame);
    }
}

/// The entry of a fault and a tick among those of a client; it is made if there is none.
fn entry_of(
    run: &PlanRun,
    found: InForce,
    batch: &PlannedBatch,
    session: &Session,
    identity: ClientIdentity,
    of_client: &mut Vec<(ClockPlace, FaultEntry)>,
) -> usize {
    let same = |(_, entry): &(ClockPlace, FaultEntry)| (entry.fault, entry.tick) == (found.fault + 1, batch.tick);
    of_client.iter().position(same).unwrap_or_else(|| {
        of_client.push((batch.place, run.entry(found, batch.tick, session, identity)));
        of_client.len() - 1
    })
}

/// Does to a frame what a fault says. `count` frames of the client were struck by it at this tick.
fn strike(
    run: &PlanRun,
    found: InForce,
    tick: u64,
    identity: ClientIdentity,
    count: u64,
    fate: &mut Fate,
    told: StruckFrame,
) -> StruckFrame {
    let draws = run.plan.draws_of(found.fault);
    match &run.plan.faults[found.fault].action {
        FaultAction::Drop | FaultAction::Silence => fate.copies = 0,
        FaultAction::Duplicate => fate.copies = 2,
        FaultAction::Reorder => fate.waits = true,
        FaultAction::Split => fate.is_split = true,
        FaultAction::Delay { by_ms, jitter_ms } => {
            let ms = by_ms + draws.below(jitter_ms + 1, tick, DrawFor::Jitter, identity, count);
            fate.due_ms += ms;
            return StruckFrame { ms: Some(ms), ..told };
        }
        FaultAction::Corrupt => {
            let chosen = draws.bits(tick, DrawFor::Bit, identity, count);
            if let Some((broken, bit)) = mangle::corrupted(&fate.bytes, chosen) {
                fate.bytes = broken;
                return StruckFrame { bit: Some(bit), ..told };
            }
        }
        FaultAction::Truncate => {
            let bytes = websocket::payload(&fate.bytes).len() as u64;
            let (short, kept) = mangle::truncated(&fate.bytes);
            fate.bytes = short;
            return StruckFrame { kept: Some(kept as u64), bytes: Some(bytes), ..told };
        }
        // Not about frames.
        _ => {}
    }
    told
}

/// A frame as it is, due now.
fn whole(bytes: Bytes) -> HeldFrame {
    HeldFrame { bytes, due_ms: now_ms(), is_split: false, waits: false }
}

/// Where a message of `/ws` stands: its channel is the first part of the group's name.
fn place_in_stream(wire: Wire, group: &str, frame: &[u8]) -> Option<StreamPlace> {
    let channel = group.split(':').next().filter(|_| wire == Wire::Streams)?;
    let said: StreamPlace = serde_json::from_slice(websocket::payload(frame)).unwrap_or_default();
    Some(StreamPlace { channel: channel.into(), ..said })
}
