//! What a plan of faults does to the clients of a shard (`docs/faults.md`).
//!
//! ```text
//! drain ─▶ strike ─┬▶ connections: reset, close, stall, pings
//!                  └▶ frames: out of the rings, changed, into the client's own line ─▶ pump ─▶ its connection
//! ```
//!
//! Between the drain and the sweep the frames of the clients that are struck leave the shared path: their cursors move to
//! the head, and what they are to get stands in a line of their own. So the sweep finds nothing due for them, and nobody
//! else's bytes or order change. Without a plan the shard does one relaxed load and looks at one flag.

mod ack_faults;
mod connection_faults;
mod frame_faults;
mod held_line;
mod mangle;
mod plan_run;
mod strike_counts;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

pub use self::ack_faults::AckFault;
use self::held_line::HeldLine;
use self::plan_run::PlanRun;
use super::Outbox;
use crate::engine::hub::Hub;
use crate::engine::system_clock::monotonic_ms;
use crate::faults::batch_notes::{ClockPlace, NotedHub, PlannedBatch};
use crate::faults::fault_board::{FaultBoard, NotedSoFar};
use crate::faults::fault_entry::FaultEntry;
use crate::faults::fault_plan::FaultClass;
use crate::server::shard::close::Close;
use crate::server::shard::lanes::Lanes;
use crate::server::shard::marks::Mark;
use crate::server::shard::sessions::{Report, Sessions};
use crate::wire::Wire;

/// Clients whose lines move on in a turn of the loop. One whose frame leaves byte by byte counts as eight.
const PUMPED: usize = 64;

/// The faults of a shard's clients.
pub struct ShardFaults {
    board: Arc<FaultBoard>,
    /// The shard's number there.
    shard: usize,
    /// Its ledger has the entries.
    hub: Arc<Hub>,
    /// The plan, as this shard has seen it.
    run: Option<PlanRun>,
    /// Clients whose frames are held back or changed.
    lines: HashMap<u32, HeldLine>,
    /// When stalls end, ms, with key and serial.
    stalls: BTreeSet<(u64, u32, u32)>,
    /// When connections are reset that got half a frame, likewise.
    resets: BTreeSet<(u64, u32, u32)>,
    /// Clients with something to send at a time, ms; an entry may be stale.
    timers: BTreeSet<(u64, u32)>,
    /// Bytes in all lines.
    held_bytes: u64,
    /// The lanes' revision when frames were taken out last.
    revision: u64,
}

impl ShardFaults {
    /// The board tells which plan runs.
    pub fn new(board: Arc<FaultBoard>, hub: Arc<Hub>) -> Self {
        let (lines, stalls, resets, timers) = (HashMap::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let shard = board.join();
        Self { board, shard, hub, run: None, lines, stalls, resets, timers, held_bytes: 0, revision: 0 }
    }

    /// Whether there is a plan, or something left of one.
    fn is_at_work(&self) -> bool {
        self.board.running() != 0 || self.run.is_some() || self.has_timers() || !self.lines.is_empty()
    }

    fn has_timers(&self) -> bool {
        !self.stalls.is_empty() || !self.resets.is_empty() || !self.timers.is_empty()
    }

    /// Enters what was done into the ledger.
    fn enter(&self, entries: Vec<(ClockPlace, FaultEntry)>) {
        let mut entries = entries.into_iter().peekable();
        while let Some((place, entry)) = entries.next() {
            let mut of_tick = vec![entry];
            while let Some((_, entry)) = entries.next_if(|(other, _)| *other == place) {
                of_tick.push(entry);
            }
            self.hub.sequencer().enter_faults(place, of_tick);
        }
    }

    /// Tells how many bytes are held back now.
    fn count_held(&mut self) {
        let now = self.lines.values().map(HeldLine::bytes).sum();
        self.board.count_held(std::mem::replace(&mut self.held_bytes, now), now);
    }
}

impl Outbox {
    /// Strikes whom the plan says, after a drain and before anything is sent.
    pub(super) fn strike(&mut self, sessions: &mut Sessions, lanes: &Lanes) {
        if !self.faults.is_at_work() {
            return;
        }
        self.follow_plan(sessions, lanes);
        let mut frames = Vec::new();
        let (batches, reached) = self.take_batches(lanes);
        for batch in batches {
            let is_of_frames = self.strike_batch(&batch, sessions, lanes);
            if is_of_frames && batch.1.first_id <= batch.1.last_id {
                frames.push(batch);
            }
        }
        if std::mem::replace(&mut self.faults.revision, lanes.revision()) != lanes.revision() || !frames.is_empty() {
            self.divert(&frames, sessions, lanes);
        }
        if let Some(reached) = reached {
            self.faults.board.has_struck(self.faults.shard, reached);
        }
    }

    /// Begins or ends a plan, if the board has another one.
    fn follow_plan(&mut self, sessions: &mut Sessions, lanes: &Lanes) {
        let number = self.faults.board.running();
        if number == self.faults.run.as_ref().map_or(0, |run| run.number) {
            return;
        }
        let plan = self.faults.board.plan(number);
        self.faults.run = plan.map(|plan| PlanRun::new(number, plan, &self.faults.board, sessions));
        // What is held back leaves at once, and stalls end.
        for (_, key, serial) in std::mem::take(&mut self.faults.stalls) {
            self.end_stall(key, serial, sessions, lanes);
        }
        let keys: Vec<u32> = self.faults.lines.keys().copied().collect();
        for key in keys {
            if let Some(line) = self.faults.lines.get_mut(&key) {
                line.release();
            }
            self.pump(key, sessions, lanes);
        }
    }

    /// The batches that were drained since the last look, those that are ticks first; and how far that goes, if there
    /// could be any.
    fn take_batches(&mut self, lanes: &Lanes) -> (Vec<(NotedHub, PlannedBatch)>, Option<NotedSoFar>) {
        let ShardFaults { board, run: Some(run), .. } = &mut self.faults else { return Default::default() };
        let hubs = [NotedHub::Groups, NotedHub::Streams];
        let look = (board.news(), hubs.map(|hub| lanes.drained_of(hub)));
        if std::mem::replace(&mut run.looked, look) == look {
            return Default::default();
        }
        let mut found = Vec::new();
        for hub in hubs {
            let mut batches = Vec::new();
            let position = &mut run.positions[hub as usize];
            *position = board.take(run.number, hub, *position, lanes.drained_of(hub), &mut batches);
            found.extend(batches.into_iter().map(|batch| (hub, batch)));
        }
        (found, Some(NotedSoFar { plan: run.number, positions: run.positions }))
    }

    /// Strikes connections at a tick. Says whether faults about frames are in force.
    fn strike_batch(&mut self, batch: &(NotedHub, PlannedBatch), sessions: &mut Sessions, lanes: &Lanes) -> bool {
        let Some(run) = &mut self.faults.run else { return false };
        let batch = &batch.1;
        if batch.is_tick {
            (run.tick, run.place) = (batch.tick, batch.place);
            run.in_force = batch.in_force.iter().copied().collect();
        }
        let plan = Arc::clone(&run.plan);
        let mut is_of_frames = false;
        for found in batch.in_force.iter().copied() {
            match plan.faults[found.fault].action.kind().class() {
                FaultClass::Frames => is_of_frames = true,
                FaultClass::Connection if batch.is_tick => self.strike_connections(found, sessions, lanes),
                _ => {}
            }
        }
        is_of_frames
    }

    /// A client has come: it is numbered in the order in which clients come.
    pub fn arrived(&mut self, key: u32, sessions: &Sessions) {
        let ShardFaults { board, run: Some(run), .. } = &mut self.faults else { return };
        if let Some(session) = sessions.get(key) {
            run.identity(key, session, board);
        }
    }

    /// Whether a turn of the loop would find something to do for a client that is struck, and when, ms.
    pub(super) fn faults_next_ms(&self) -> Option<u64> {
        let ShardFaults { stalls, resets, timers, .. } = &self.faults;
        let first = [stalls.first(), resets.first()].into_iter().flatten().map(|(due_ms, ..)| *due_ms);
        first.chain(timers.first().map(|(due_ms, _)| *due_ms)).min()
    }

    /// Ends stalls, resets connections in the middle of a frame, and sends what was held back until now.
    pub(super) fn expire_faults(&mut self, sessions: &mut Sessions, lanes: &Lanes) {
        if !self.faults.has_timers() {
            return;
        }
        let now_ms = now_ms();
        while let Some(&(due_ms, key, serial)) = self.faults.stalls.first()
            && due_ms <= now_ms
        {
            self.faults.stalls.pop_first();
            self.end_stall(key, serial, sessions, lanes);
        }
        while let Some(&(due_ms, key, serial)) = self.faults.resets.first()
            && due_ms <= now_ms
        {
            self.faults.resets.pop_first();
            if sessions.current(key, serial).is_some() {
                sessions.report(key, Report::Lost(Close::FaultReset));
            }
        }
        let mut pumped = 0;
        while pumped < PUMPED
            && let Some(&(due_ms, key)) = self.faults.timers.first()
            && due_ms <= now_ms
        {
            self.faults.timers.pop_first();
            pumped += if self.faults.lines.get(&key).is_some_and(HeldLine::is_splitting) { 8 } else { 1 };
            self.pump(key, sessions, lanes);
        }
    }

    /// Lets a stalled connection be sent to again.
    fn end_stall(&mut self, key: u32, serial: u32, sessions: &mut Sessions, lanes: &Lanes) {
        let is_splitting = self.faults.lines.get(&key).is_some_and(HeldLine::is_splitting);
        if sessions.current(key, serial).is_none() || sessions.mark(key) != Mark::Stalled || is_splitting {
            return;
        }
        sessions.set_mark(key, Mark::Ready);
        self.flush(key, sessions, lanes);
        self.queue_pull(key, sessions);
        self.pump(key, sessions, lanes);
    }

    /// A client's socket takes bytes again: sends what waits for it, and what stands in its line.
    pub fn unblocked(&mut self, key: u32, sessions: &mut Sessions, lanes: &Lanes) {
        self.flush(key, sessions, lanes);
        self.queue_pull(key, sessions);
        if !self.faults.lines.is_empty() {
            self.pump(key, sessions, lanes);
        }
    }
}

/// The hub whose batches a client gets.
fn hub_of(wire: Wire) -> NotedHub {
    match wire {
        Wire::WebPubSub(_) => NotedHub::Groups,
        Wire::Streams => NotedHub::Streams,
    }
}

/// Now, for what is held.
fn now_ms() -> u64 {
    monotonic_ms()
}
