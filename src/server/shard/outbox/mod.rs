//! Sending: what is due for a session, joined and written once.
//!
//! ```text
//! drain (publications ▸ rings ▸ queue)
//! sweep ─▶ add (what is due, as bytes) ×32 or more ─▶ one io_uring call, or a send(2) each ─▶ settle (cursors)
//! flush: the same for one session, at once
//! ```

mod faults;
mod pulls;
mod send_batch;

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use super::connection::{Connection, ConnectionState};
use super::context::ShardContext;
use super::lanes::Lanes;
use super::marks::Mark;
use super::poller::Interest;
use super::question::SweepTimes;
use super::session::{Extent, Pick};
use super::sessions::{Report, Sessions};
use super::stats::{ShardStats, hub_index};
use crate::engine::hub::Hub;
use crate::engine::policy::LagOptions;
use crate::engine::sweep_report::SweepReport;
use crate::engine::system_clock;
use crate::server::shard::close::Close;
pub use faults::AckFault;
use faults::ShardFaults;
use pulls::PullQueue;
use send_batch::{JOINED_BYTES, SendBatch, Sending, append_frames, frame};

/// Sessions served per turn of the sweep.
const TURN: usize = 128;

/// Frames considered for one send: 64 KiB of the smallest that occur.
const PICKS: usize = 512;

/// How far the start of the sweep moves back from tick to tick: 1/494 of the way round, so that every
/// subscriber is early as often as late. One that is served more than a retransmission timeout (200 ms
/// or more) after the last time makes its TCP acknowledge the next sixteen segments at once, each with a
/// packet of its own (`tcp_event_data_recv` in the kernel's `net/ipv4/tcp_input.c`). So nobody waits
/// noticeably longer than a tick: a small step back makes all a little later, and those that come
/// from the end to the front earlier.
const STEP: u32 = 0x0084_8fd4;

/// Which sessions have something to send, and the sending itself.
pub struct Outbox {
    lag: LagOptions,
    stats: Arc<ShardStats>,
    report: Arc<SweepReport>,
    /// Knows when the clock's next tick is due.
    hub: Arc<Hub>,
    /// Sessions with something to send, in the order of the sweep.
    queue: VecDeque<u32>,
    /// Where the next sweep starts, as a fraction of 2^32.
    rotation: u32,
    batch: SendBatch,
    pulls: PullQueue,
    /// When the first session was queued that waits now, ns.
    began_ns: u64,
    sweeps: SweepTimes,
    /// What a plan of faults does to clients.
    faults: ShardFaults,
    /// Room for what is due for one session, and for its bytes.
    picks: Vec<Pick>,
    bytes: Vec<u8>,
}

impl Outbox {
    /// An outbox in which no session has anything to send.
    pub fn new(context: &ShardContext, stats: Arc<ShardStats>, report: Arc<SweepReport>) -> Self {
        let lag = context.options.lag;
        let faults = ShardFaults::new(Arc::clone(&context.faults), Arc::clone(&context.hubs.orderflow));
        let (queue, picks, bytes) = (VecDeque::new(), Vec::new(), Vec::new());
        let (batch, pulls) = (SendBatch::default(), PullQueue::new(Arc::clone(&context.streams)));
        Self {
            lag,
            stats,
            report,
            hub: Arc::clone(&context.hubs.orderflow),
            queue,
            rotation: 0,
            batch,
            pulls,
            began_ns: 0,
            sweeps: SweepTimes::default(),
            faults,
            picks,
            bytes,
        }
    }

    /// Looks for io_uring, if it is `wanted`. Called on the shard's own thread.
    pub fn prepare(&mut self, wanted: bool, shard: u8) {
        self.batch.prepare(wanted, shard);
    }

    /// Whether a turn of the sweep would find a session to serve.
    pub fn has_queued(&self) -> bool {
        !self.queue.is_empty() || self.pulls.has_ready()
    }

    /// How long the sweeps took since this was asked last.
    pub fn take_sweeps(&mut self) -> SweepTimes {
        mem::take(&mut self.sweeps)
    }

    /// When a session whose frames are held is due next, ms.
    pub fn next_ms(&self) -> Option<u64> {
        self.faults_next_ms()
    }

    /// Moves publications into the rings, and queues every session that has something to send.
    pub fn drain(&mut self, sessions: &mut Sessions, lanes: &mut Lanes) {
        let Self { queue, rotation, .. } = self;
        let mut blocked = Vec::new();
        let mut moved = false;
        // If the queue is empty now, a session that a later lane finds in it had everything until now.
        let all_caught_up = queue.is_empty();
        lanes.drain(|lane_key, lane, first_new| {
            moved = true;
            let mut all_had_the_rest = true;
            // From another start each time, or the same subscribers would always be last.
            let start = ((u64::from(*rotation) * lane.subscribers.len() as u64) >> 32) as usize;
            let (last, first) = lane.subscribers.split_at(start);
            for &key in first.iter().chain(last) {
                match sessions.mark(key) {
                    Mark::Ready => {
                        sessions.set_mark(key, Mark::Queued);
                        queue.push_back(key);
                        continue;
                    }
                    Mark::Queued if all_caught_up => continue,
                    Mark::Blocked | Mark::Stalled => blocked.push(key),
                    Mark::Queued | Mark::Away => {}
                }
                // Behind, but perhaps in another group only.
                let membership = sessions.get_mut(key).and_then(|session| session.membership(lane_key));
                all_had_the_rest &= membership.is_some_and(|here| here.cursor >= first_new);
            }
            all_had_the_rest
        });
        self.pulls.drained(sessions);
        if all_caught_up && !queue.is_empty() {
            self.began_ns = system_clock::monotonic_ns();
        }
        if moved {
            *rotation = rotation.wrapping_sub(STEP);
        }
        // Once per session, not once per lane.
        blocked.sort_unstable();
        blocked.dedup();
        for key in blocked {
            // Its cursors stand still while new frames arrive.
            let Some(session) = sessions.get(key) else { continue };
            if session.connection.as_ref().is_some_and(Connection::is_open) && session.is_lagging(lanes, &self.lag) {
                sessions.report(key, Report::Lagging);
            }
        }
        // Before anything of it is sent.
        self.strike(sessions, lanes);
    }

    /// One turn of the sweep: what is due for the next sessions of the queue.
    pub fn sweep(&mut self, sessions: &mut Sessions, lanes: &Lanes) {
        self.expire_faults(sessions, lanes);
        let was_queued = !self.queue.is_empty();
        if was_queued {
            self.batch
                .allow(self.hub.sequencer().audience().next_tick_ns().saturating_sub(system_clock::monotonic_ns()));
        }
        for _ in 0..TURN {
            let Some(key) = self.queue.pop_front() else { break };
            // Otherwise the entry is stale: the session ended, and another may have its key by now.
            if sessions.mark(key) == Mark::Queued {
                sessions.set_mark(key, Mark::Ready);
                self.add(key, sessions, lanes);
            }
            if self.batch.is_full() {
                self.send_batch(sessions, lanes);
            }
        }
        self.send_batch(sessions, lanes);
        self.pull(sessions, lanes);
        if self.queue.is_empty() {
            if was_queued {
                self.sweeps.count(system_clock::monotonic_ns().saturating_sub(self.began_ns) / 1000);
            }
            self.report.report(lanes.drained_groups(), sessions.blocked(), sessions.members());
        }
    }

    /// Adds what is due for a session to the batch. Control frames leave at once, before data.
    fn add(&mut self, key: u32, sessions: &mut Sessions, lanes: &Lanes) {
        let Some(session) = sessions.get_mut(key) else { return };
        self.pulls.push(key, session);
        let Some(connection) = &session.connection else { return };
        if connection.has_unsent() {
            return self.flush(key, sessions, lanes);
        }
        if connection.is_open() && self.batch.repeats(key, lanes, session) {
            return;
        }
        self.picks.clear();
        if let Some(extent) = self.due(key, sessions, lanes)
            && let Some(session) = sessions.get(key)
        {
            self.batch.add(key, lanes, session, extent, &mut self.picks);
        }
    }

    fn send_batch(&mut self, sessions: &mut Sessions, lanes: &Lanes) {
        if self.batch.is_empty() {
            return;
        }
        self.batch.send(lanes, sessions);
        // Out of `self`, since settling queues who has more to send.
        let mut batch = mem::take(&mut self.batch);
        batch.for_each(lanes, |key, sending, taken| self.settle(key, sending, taken, sessions, lanes));
        self.batch = batch;
    }

    /// Picks the frames that are due for a session. `None` if there is nothing to send, or it cannot be sent
    /// to.
    fn due(&mut self, key: u32, sessions: &mut Sessions, lanes: &Lanes) -> Option<Extent> {
        if matches!(sessions.mark(key), Mark::Away | Mark::Blocked | Mark::Stalled) {
            return None;
        }
        let session = sessions.get_mut(key)?;
        let connection = session.connection.as_ref()?;
        let has_unsent = connection.has_unsent();
        let extent = match connection.state {
            ConnectionState::Open => session.due(lanes, PICKS, &mut self.picks),
            ConnectionState::Closing { .. } => Extent::All,
            ConnectionState::Lingering { .. } => return None,
        };
        if extent == Extent::FellOff {
            sessions.report(key, Report::Lagging);
            return None;
        }
        if self.picks.is_empty() && !has_unsent {
            session.caught_up();
            return None;
        }
        Some(extent)
    }

    /// Writes what waits for a session: the rest of a frame, control frames, states, then data in id order.
    ///
    /// One `send` of everything due, up to [`send_batch::JOINED_BYTES`]; if there is more, the session queues
    /// behind the others. A connection that takes less than it is given is blocked: it keeps its
    /// cursors and is asked again when its socket is writable.
    pub fn flush(&mut self, key: u32, sessions: &mut Sessions, lanes: &Lanes) {
        self.picks.clear();
        let Some(mut extent) = self.due(key, sessions, lanes) else { return };
        let Some(connection) = sessions.connection(key) else { return };
        // A single frame is sent as it lies in the arena. Several are joined, because one send of copied bytes
        // costs a tenth of many sends.
        let (result, length, picked) = match &self.picks[..] {
            [alone] if !connection.has_unsent() => {
                let frame = frame(lanes, alone);
                (connection.send(frame), frame.len(), 1)
            }
            picks => {
                self.bytes.clear();
                // Data goes behind everything else.
                let picked = if connection.copy_unsent(JOINED_BYTES, &mut self.bytes) {
                    append_frames(lanes, picks, &mut self.bytes)
                } else {
                    extent = Extent::More;
                    0
                };
                (connection.send(&self.bytes), self.bytes.len(), picked)
            }
        };
        let picks = mem::take(&mut self.picks);
        self.settle(key, &Sending { picks: &picks, picked, extent, to: None, length }, result.ok(), sessions, lanes);
        self.picks = picks;
    }

    /// After a send: moves the cursors past what was taken, and decides about the rest. `taken` is `None` if
    /// the socket failed.
    fn settle(
        &mut self,
        key: u32,
        sending: &Sending<'_>,
        taken: Option<usize>,
        sessions: &mut Sessions,
        lanes: &Lanes,
    ) {
        let Some(taken) = taken else {
            return sessions.report(key, Report::Lost(Close::Gone));
        };
        self.stats.sends.add(1);

        let Some(session) = sessions.get_mut(key) else { return };
        let Some(connection) = session.connection.as_mut() else { return };
        let of_frames = connection.unsent_taken(taken);
        let is_partial = taken < sending.length;
        let frames = sending.move_cursors(&mut session.memberships, connection, lanes, is_partial.then_some(of_frames));
        session.use_of_socket.count(frames as u64, taken as u64, self.stats.hub(hub_index(session.wire, session.hub)));

        if is_partial {
            sessions.set_mark(key, Mark::Blocked);
            sessions.report(key, Report::Awaits(Interest::ReadAndWrite));
        } else if sending.picked < sending.picks.len() || sending.extent == Extent::More {
            sessions.set_mark(key, Mark::Queued);
            self.queue.push_back(key);
        } else {
            match connection.state {
                ConnectionState::Closing { close, answered: true } => sessions.report(key, Report::Finished(close)),
                ConnectionState::Closing { close, answered: false } => connection.linger(close),
                _ => session.caught_up(),
            }
        }
    }
}
