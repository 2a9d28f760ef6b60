//! Sending to the sessions that read from histories: a few at a time, so that they delay nobody.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use super::Outbox;
use super::send_batch::JOINED_BYTES;
use crate::engine::frames::Form;
use crate::engine::policy::LagOptions;
use crate::engine::system_clock::monotonic_ms;
use crate::server::shard::close::Close;
use crate::server::shard::lanes::Lanes;
use crate::server::shard::marks::Mark;
use crate::server::shard::poller::Interest;
use crate::server::shard::pull::{FellOff, PullView, PulledFrames};
use crate::server::shard::session::{Membership, Session};
use crate::server::shard::sessions::{Report, Sessions};
use crate::server::shard::stats::STREAMS;
use crate::streams::Streams;
use crate::wire::Wire;
use crate::wire::streams::Filter;
use crate::wire::streams::slow_policy::SlowPolicy;

/// Bytes sent to such sessions per round of the loop, while nobody else waits.
const ROUND_BYTES: usize = 4 * JOINED_BYTES;

/// The same between two rounds of a sweep, of which each serves 128 others.
const BESIDE_BYTES: usize = JOINED_BYTES;

/// Sessions served per round.
const ROUND: usize = 64;

/// The sessions with something to pull.
pub struct PullQueue {
    streams: Arc<Streams>,
    ready: VecDeque<u32>,
    /// Those that wait until the shard has drained what was on its way when they joined.
    waiting: Vec<u32>,
    found: PulledFrames,
}

impl PullQueue {
    /// Nobody pulls yet.
    pub fn new(streams: Arc<Streams>) -> Self {
        let (ready, waiting) = (VecDeque::new(), Vec::new());
        Self { streams, ready, waiting, found: PulledFrames::default() }
    }

    /// Queues a session, unless it is queued, or has nothing to pull.
    pub fn push(&mut self, key: u32, session: &mut Session) {
        if session.is_pulling && !mem::replace(&mut session.is_pull_queued, true) {
            self.ready.push_back(key);
        }
    }

    /// Whether a round would find a session to serve.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The shard has drained more.
    pub fn drained(&mut self, sessions: &mut Sessions) {
        for key in mem::take(&mut self.waiting) {
            if let Some(session) = sessions.get_mut(key) {
                self.push(key, session);
            }
        }
    }

    fn expire(&mut self, now_ms: u64, sessions: &mut Sessions) {
        while let Some(key) = sessions.pull_timers.pop(now_ms) {
            if let Some(session) = sessions.get_mut(key) {
                self.push(key, session);
            }
        }
    }

    /// Looks what is due for a session. `Err`: it was promised messages that are gone.
    fn find(&mut self, session: &mut Session, lag: &LagOptions, lanes: &Lanes, now_ms: u64) -> Result<(), FellOff> {
        self.found.clear();
        let Session { client: Some(client), connection: Some(connection), memberships, .. } = session else {
            return Ok(());
        };
        let (form, drained) = (Form::new(Wire::Streams.form()), lanes.drained(Wire::Streams));
        let (filters, pulls) = client.filters_and_pulls();
        for (at, pull) in pulls.iter_mut().enumerate() {
            let Some((_, filter)) = filters.iter().find(|(number, _)| *number == pull.channel) else { continue };
            let channel = &self.streams.channels().all()[pull.channel];
            if channel.kind.is_conflated() {
                if pull.due_ms > now_ms {
                    self.found.complete(at, pull.next, None);
                    continue;
                }
                let groups = filter.groups(channel);
                let (seq, state) = groups.first().map_or((0, None), |group| self.streams.state(pull.channel, group));
                let Some(frame) = state.filter(|_| seq > pull.next).map(|state| state.frame(form)) else {
                    self.found.complete(at, seq.max(pull.next), None);
                    continue;
                };
                let lane = groups.first().and_then(|group| lanes.find(group, Wire::Streams));
                match lane.filter(|_| frame.len() > JOINED_BYTES) {
                    // It is sent a part at a time, and what is left of it is shared by all who get it.
                    Some(lane) => {
                        connection.outbound().push_state(lane, frame);
                        pull.took_state(seq, now_ms);
                        self.found.has_more = true;
                    }
                    None => self.found.push(at, seq, None, &frame),
                }
                self.found.complete(at, seq, None);
                continue;
            }
            let is_asked = pull.policy == SlowPolicy::Skip && *filter != Filter::All;
            let carried = is_asked.then(|| carried(memberships, &filter.groups(channel), lanes));
            let (channel, room) = (&*channel.name, JOINED_BYTES);
            let view = PullView { at, channel, filter, lag, drained, carried, room, now_ms };
            pull.read(&self.streams.history(pull.channel), &view, &mut self.found)?;
        }
        Ok(())
    }
}

/// How many messages a session's lanes of these groups have carried.
fn carried(memberships: &[Membership], groups: &[String], lanes: &Lanes) -> u64 {
    let lanes_of = groups.iter().filter_map(|group| lanes.find(group, Wire::Streams));
    let own = lanes_of.filter(|lane| memberships.binary_search_by_key(lane, |membership| membership.lane).is_ok());
    own.map(|lane| lanes.lane(lane).ring.head()).sum()
}

impl Outbox {
    /// Serves some of the sessions that read from histories.
    pub fn pull(&mut self, sessions: &mut Sessions, lanes: &Lanes) {
        let now_ms = monotonic_ms();
        self.pulls.expire(now_ms, sessions);
        let most = if self.queue.is_empty() { ROUND_BYTES } else { BESIDE_BYTES };
        let (mut bytes, mut served) = (0, 0);
        while bytes < most
            && served < ROUND
            && let Some(key) = self.pulls.ready.pop_front()
        {
            served += 1;
            bytes += self.pull_for(key, now_ms, sessions, lanes);
        }
    }

    /// Sends what one session has to pull, up to [`JOINED_BYTES`] and a frame. Returns the bytes taken.
    fn pull_for(&mut self, key: u32, now_ms: u64, sessions: &mut Sessions, lanes: &Lanes) -> usize {
        let mark = sessions.mark(key);
        let Some(session) = sessions.get_mut(key) else { return 0 };
        session.is_pull_queued = false;
        // A blocked one is queued again when its socket is writable.
        if !session.is_pulling || matches!(mark, Mark::Away | Mark::Blocked | Mark::Stalled) {
            return 0;
        }
        let Some(connection) = session.connection.as_ref().filter(|connection| connection.is_open()) else { return 0 };
        self.bytes.clear();
        if !connection.copy_unsent(JOINED_BYTES, &mut self.bytes) {
            // States go first, a part at a time.
            session.is_pull_queued = true;
            self.pulls.ready.push_back(key);
            self.flush(key, sessions, lanes);
            return JOINED_BYTES;
        }
        if self.pulls.find(session, &self.lag, lanes, now_ms).is_err() {
            sessions.report(key, Report::Lagging);
            return 0;
        }
        let Some(connection) = session.connection.as_ref() else { return 0 };
        self.bytes.extend_from_slice(&self.pulls.found.bytes);
        if self.bytes.is_empty() {
            self.pulled(key, now_ms, sessions, lanes);
            return 0;
        }
        let Ok(taken) = connection.send(&self.bytes) else {
            sessions.report(key, Report::Lost(Close::Gone));
            return 0;
        };
        self.stats.sends.add(1);
        self.settle_pulled(key, taken, now_ms, sessions, lanes);
        taken
    }

    /// Moves the pulls past what was taken.
    fn settle_pulled(&mut self, key: u32, taken: usize, now_ms: u64, sessions: &mut Sessions, lanes: &Lanes) {
        let found = &self.pulls.found;
        let Some(session) = sessions.get_mut(key) else { return };
        let (Some(connection), Some(client)) = (session.connection.as_mut(), session.client.as_mut()) else { return };
        let rest = connection.unsent_taken(taken);
        let is_partly = taken < self.bytes.len();
        let (mut begin, mut frames) = (0, 0);
        for frame in &found.frames {
            // Numbers that count as sent with a notice have no bytes of their own.
            if is_partly && rest <= begin && begin < frame.end {
                break;
            }
            if rest < frame.end {
                connection.outbound().keep_tail(&found.bytes[rest..frame.end]);
            }
            begin = frame.end;
            if frame.is_notice {
                self.stats.skipped.add(frame.messages);
            }
            client.pulls_mut()[frame.pull].took(frame, now_ms);
            frames += 1;
        }
        session.use_of_socket.count(frames, taken as u64, self.stats.hub(STREAMS));
        if is_partly {
            sessions.set_mark(key, Mark::Blocked);
            sessions.report(key, Report::Awaits(Interest::ReadAndWrite));
        } else {
            self.pulled(key, now_ms, sessions, lanes);
        }
    }

    /// A session has taken all that was found for it: what has caught up changes over to the lanes.
    fn pulled(&mut self, key: u32, now_ms: u64, sessions: &mut Sessions, lanes: &Lanes) {
        let drained = lanes.drained(Wire::Streams);
        let Some(session) = sessions.get_mut(key) else { return };
        let Some(client) = session.client.as_mut() else { return };
        let (mut live, mut is_waiting, mut due_ms) = (Vec::new(), false, None);
        for complete in &self.pulls.found.complete {
            let pull = &mut client.pulls_mut()[complete.pull];
            pull.completed(complete);
            if pull.due_ms > now_ms {
                // What comes until then must not wait for what comes after it.
                due_ms = due_ms.into_iter().chain([pull.due_ms]).min();
            }
            if drained < pull.live_after {
                is_waiting = true;
            } else if pull.policy == SlowPolicy::Drop {
                live.push(pull.channel);
            }
        }
        for channel in live {
            session.go_live(channel, self.pulls.streams.channels(), lanes);
        }
        if self.pulls.found.has_more {
            self.pulls.push(key, session);
        } else if is_waiting {
            self.pulls.waiting.push(key);
        }
        if let Some(due_ms) = due_ms {
            sessions.pull_timers.set(key, due_ms);
        }
    }

    /// Queues a session that reads from histories.
    pub fn queue_pull(&mut self, key: u32, sessions: &mut Sessions) {
        if let Some(session) = sessions.get_mut(key) {
            self.pulls.push(key, session);
        }
    }
}
