//! The ramp: clients are started at the rate asked for, as fast as negotiation allows.

use super::Worker;
use super::client::Phase;
use super::ending::Ending;
use crate::clock::SECOND;

/// Negotiations asked for ahead of their time.
const LOOKAHEAD: u64 = 64;

/// The most clients of one worker between connecting and coming up: more would only queue in the
/// server's backlog, where the kernel drops them.
const MAX_SETUP: u32 = 1_024;

impl Worker {
    /// Starts the clients that are due.
    pub(super) fn ramp(&mut self, now: u64) {
        let total = self.clients.list.len() as u64;
        let elapsed_ns = now.saturating_sub(self.shared.start_ns);
        // Workers share the rate; each starts its share of what is due in all.
        let rate = u64::from(self.plan.ramp);
        let due = (elapsed_ns.saturating_mul(rate) / SECOND / u64::from(self.plan.workers)).min(total);
        while u64::from(self.ramped) < (due + LOOKAHEAD).min(total) {
            self.to_start.push_back(self.ramped);
            self.negotiations.request();
            self.ramped += 1;
        }
        let not_due = u64::from(self.ramped) - due;
        self.start_waiting(not_due as usize, now);
    }

    /// Starts waiting clients whose negotiation is done, all but the last `keep`.
    fn start_waiting(&mut self, keep: usize, now: u64) {
        while self.to_start.len() > keep && self.tally.in_setup < MAX_SETUP {
            let Some(answer) = self.negotiations.take() else { return };
            let Some(index) = self.to_start.pop_front() else { return };
            let index = index as usize;
            match answer {
                Ok(grant) => {
                    let is_known_prefix = grant.prefix == self.plan.prefix;
                    self.renew(index);
                    if is_known_prefix {
                        self.connect(index, &grant.socket, now);
                    } else {
                        self.end(index, &Ending::broken(format!("negotiate: the prefix is now {:?}", grant.prefix)));
                    }
                }
                Err(error) => self.end(index, &Ending::broken(error.to_string())),
            }
        }
    }

    /// Lets a client wait for a negotiation.
    pub(super) fn queue(&mut self, index: usize) {
        self.clients.list[index].phase = Phase::Idle;
        self.to_start.push_back(index as u32);
        self.negotiations.request();
    }

    /// Begins a new session: nothing of the old one counts any more.
    fn renew(&mut self, index: usize) {
        let client = &mut self.clients.list[index];
        for member in &mut client.members {
            if client.class == crate::plan::Class::Attentive {
                self.verifier.judge_first(client.number, member);
            }
        }
        client.session_number += 1;
        client.members = Vec::new();
        client.hint = 0;
        client.last_sequence = 0;
        client.acked_sequence = 0;
        client.resent_until = 0;
        client.session = None;
    }
}
