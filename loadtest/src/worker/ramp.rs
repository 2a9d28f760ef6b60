//! The ramp: clients are started at the rate asked for, as fast as negotiation allows.

use super::Worker;
use super::client::Phase;
use super::ending::Ending;
use crate::clock::SECOND;
use crate::wire::form::Protocol;

/// Connections negotiated for ahead of their time.
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
            let first = self.ramped as usize;
            let client = self.plan.client_of(self.clients.list[first].number);
            let hubs = self.plan.hubs_of(client);
            self.ramped += hubs.len() as u32;
            self.negotiations.request(self.plan.wish(client, first, &hubs));
        }
        let not_due = u64::from(self.ramped).saturating_sub(due);
        self.start_waiting(not_due as usize, now);
    }

    /// Starts connections whose negotiation is done, while more than `keep` are asked for.
    fn start_waiting(&mut self, keep: usize, now: u64) {
        while self.negotiations.outstanding() > keep && self.tally.in_setup < MAX_SETUP {
            let Some((wish, answer)) = self.negotiations.take() else { return };
            let connections = wish.first..wish.first + wish.hubs.len();
            match answer {
                Ok(grant) if grant.prefix == self.plan.prefix => {
                    for (index, socket) in connections.zip(&grant.sockets) {
                        self.renew(index);
                        self.connect(index, socket, now);
                    }
                }
                Ok(grant) => {
                    let ending = Ending::broken(format!("negotiate: the prefix is now {:?}", grant.prefix));
                    connections.for_each(|index| self.end(index, &ending));
                }
                Err(error) => {
                    // One request was refused, however many connections wait for it.
                    let (ending, followed) =
                        (Ending::refused(error.to_string(), error.status()), connections.start + 1);
                    self.end(connections.start, &ending);
                    (followed..connections.end).for_each(|index| self.end_beside(index, &ending, now));
                }
            }
        }
    }

    /// Connects anew. A server that joins for its clients takes the same URL again while its token lasts: to
    /// negotiate again would end the client's other connections.
    pub(super) fn begin_anew(&mut self, index: usize, now: u64) {
        let connection = &mut self.clients.list[index];
        connection.phase = Phase::Idle;
        if let (true, Some(session)) = (self.plan.server_joins, &connection.session) {
            let socket = session.socket.clone();
            self.renew(index);
            return self.connect(index, &socket, now);
        }
        let number = connection.number;
        let (client, hub) = (self.plan.client_of(number), self.plan.hub_of(number));
        self.negotiations.request(self.plan.wish(client, index, &[hub]));
    }

    /// Begins a new session: nothing of the old one counts any more, unless the client asks for what it missed.
    fn renew(&mut self, index: usize) {
        let client = &mut self.clients.list[index];
        for member in &mut client.members {
            if client.class == crate::plan::Class::Attentive {
                self.verifier.judge_first(client.number, member);
            }
        }
        client.session = None;
        if self.plan.resumes && client.protocol == Protocol::Streams {
            return;
        }
        client.session_number += 1;
        client.members = Vec::new();
        client.hint = 0;
        client.last_sequence = 0;
        client.acked_sequence = 0;
        client.resent_until = 0;
    }
}
