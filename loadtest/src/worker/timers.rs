//! Whatever is due at some time rather than on an event: acks, slow reads, resets, setup timeouts, pauses.
//! Every client is visited four times a second, a few at each turn of the loop, so no client needs a
//! timer of its own.

use rustix::event::epoll::EventFlags;

use super::Worker;
use super::client::Phase;
use crate::clock::{MILLISECOND, SECOND};
use crate::plan::Class;
use crate::wire::upstream;

/// How long a round over all clients takes.
const ROUND_NS: u64 = 250 * MILLISECOND;

/// Slots of the logs are kept for this long, for joins that are under way.
const KEEP_NS: u64 = 3 * SECOND;

/// Which client is visited next.
#[derive(Debug, Default)]
pub struct Timers {
    last_ns: u64,
    next: usize,
    rounds: u64,
    // Clients owed to the time passed, in fractions of a client times ROUND_NS.
    owed: u64,
}

impl Worker {
    /// Visits the clients whose turn it is.
    pub(super) fn run_timers(&mut self, now: u64) {
        let count = self.clients.list.len();
        if self.timers.last_ns == 0 {
            self.timers.last_ns = now;
        }
        let passed_ns = now - self.timers.last_ns;
        self.timers.last_ns = now;
        self.timers.owed += passed_ns.min(ROUND_NS) * count as u64;
        let visits = self.timers.owed / ROUND_NS;
        self.timers.owed %= ROUND_NS;
        for _ in 0..visits.min(count as u64) {
            self.visit(self.timers.next, now);
            self.timers.next += 1;
            if self.timers.next == count {
                self.timers.next = 0;
                self.timers.rounds += 1;
                if self.timers.rounds.is_multiple_of(4) {
                    self.trim(now);
                }
            }
        }
    }

    fn visit(&mut self, index: usize, now: u64) {
        if !self.clients.list[index].held.is_empty() {
            self.release(index, now, false);
        }
        let client = &mut self.clients.list[index];
        match client.phase {
            Phase::Idle | Phase::Gone => {}
            Phase::Pausing(until_ns) => {
                // What it had received belongs to the connection that is over.
                if now >= until_ns && client.held.is_empty() {
                    self.end_pause(index, now);
                }
            }
            Phase::Up => {
                if client.class == Class::Attentive {
                    for member in client.members.iter_mut().filter(|member| !member.first_judged) {
                        self.verifier.judge_first(client.number, member);
                    }
                }
                if now >= client.next_due_ns {
                    self.on_due(index, now);
                }
            }
            _ => self.check_setup(index, now),
        }
    }

    fn on_due(&mut self, index: usize, now: u64) {
        let client = &mut self.clients.list[index];
        match client.class {
            Class::Attentive => {
                client.next_due_ns = now + self.plan.sequence_ack_ns;
                if client.last_sequence > client.acked_sequence {
                    client.acked_sequence = client.last_sequence;
                    self.scratch.clear();
                    upstream::sequence_ack(&mut self.scratch, client.protocol, client.last_sequence);
                    self.send_scratch(index);
                }
            }
            Class::Slow => {
                client.next_due_ns = now + ROUND_NS;
                let share = u64::from(self.plan.slow_rate) * ROUND_NS / SECOND;
                self.on_readable(index, (share as usize).clamp(1, super::receive::READ_BYTES));
                if self.clients.list[index].transport.is_some() {
                    self.watch(index, EventFlags::RDHUP);
                }
            }
            Class::Resetting => self.reset(index, now),
            Class::Stalled => client.next_due_ns = u64::MAX,
        }
    }

    /// Drops what every client has passed.
    fn trim(&mut self, now: u64) {
        let Self { clients, verifier, settled, plan, .. } = self;
        let mut keep_from = vec![u64::MAX; verifier.logs.len()];
        for client in &clients.list {
            let reads_on = client.class != Class::Stalled && !matches!(client.phase, Phase::Gone);
            for member in client.members.iter().filter(|_| reads_on) {
                let keep = &mut keep_from[member.log as usize];
                // One that comes back says which message it had last.
                let last = u64::from(plan.resumes);
                *keep = (*keep).min(verifier.keep_from(member).saturating_sub(last));
            }
        }
        for (log, keep_from) in (0..).zip(keep_from) {
            verifier.trim(log, keep_from, now.saturating_sub(KEEP_NS), &mut |slot| settled.add_slot(slot));
        }
    }
}
