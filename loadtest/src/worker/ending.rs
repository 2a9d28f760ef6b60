//! How connections end, and how clients come back.
//!
//! A reliable client whose connection is lost recovers its session for 30 s, first at once, then every
//! second; a close with 1008 ends the session. Everybody else, and who could not recover, connects
//! anew: at once, then after 0.8, 1.6 and 3.2 s, then never. This is what Azure's Python SDK does.

use std::fmt::Write as _;

use super::Worker;
use super::client::{Phase, Reconnect};
use crate::clock::{MILLISECOND, SECOND, now_ns};
use crate::plan::Class;
use crate::stats::histogram;
use crate::wire::upstream;

/// How long a session can be recovered.
const RECOVERY_NS: u64 = 30 * SECOND;

/// Between two attempts to recover.
const RECOVERY_PAUSE_NS: u64 = SECOND;

/// Before the attempts to connect anew.
const FRESH_PAUSES_NS: [u64; 4] = [0, 800 * MILLISECOND, 1_600 * MILLISECOND, 3_200 * MILLISECOND];

/// Attempts to connect anew where faults are expected: refusals may last longer than the SDK is patient.
const PATIENT_ATTEMPTS: usize = 60;

/// How long a resetting client stays away.
const RESET_PAUSE_NS: u64 = SECOND;

/// RFC 6455: a policy was violated; Azure's services say so to end a session.
const POLICY_VIOLATION: u16 = 1008;

/// Why a connection is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// For people, and to count by.
    cause: String,
    /// The code of the close frame, if there was one.
    code: Option<u16>,
    /// The status of an answer that refuses.
    status: Option<u16>,
}

impl Ending {
    /// The connection is gone without a close.
    pub fn lost(cause: &str) -> Self {
        Self { cause: cause.to_owned(), code: None, status: None }
    }

    /// The socket says so.
    pub fn from_io(error: &std::io::Error) -> Self {
        Self { cause: error.to_string(), code: None, status: None }
    }

    /// What the server sent makes no sense; the client ends the connection.
    pub fn broken(cause: String) -> Self {
        Self { cause, code: None, status: None }
    }

    /// The server refuses with a status.
    pub fn refused(cause: String, status: Option<u16>) -> Self {
        Self { cause, code: None, status }
    }

    /// For people.
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// The code of the close frame, if there was one.
    pub fn code(&self) -> Option<u16> {
        self.code
    }

    /// The status of an answer that refuses.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// The server sent a close frame.
    pub fn closed(code: u16, reason: &str) -> Self {
        let cause = if reason.is_empty() {
            format!("closed by the server with {code}")
        } else {
            format!("closed by the server with {code} {reason}")
        };
        Self { cause, code: Some(code), status: None }
    }
}

impl Worker {
    /// Ends a client's connection and decides what becomes of the client.
    pub(super) fn end(&mut self, index: usize, ending: &Ending) {
        let now = now_ns();
        self.close_socket(index);
        let client = &mut self.clients.list[index];
        let (phase, class) = (client.phase, client.class);
        self.tally.in_setup -= u32::from(phase.is_setup());
        if self.plan.expects_faults && matches!(class, Class::Attentive | Class::Resetting) {
            return self.end_as_ordered(index, phase, ending, now);
        }
        if phase.is_setup() || phase == Phase::Idle {
            return match client.reconnect {
                None => self.fail(index, &ending.cause),
                Some(reconnect) => self.try_again(index, reconnect, ending, now),
            };
        }
        self.tally.up -= 1;
        match class {
            Class::Stalled | Class::Slow => {
                let lasted_ns = now.saturating_sub(client.since_ns);
                client.phase = Phase::Gone;
                histogram::record(&mut self.tally.shed, lasted_ns, 1);
                self.tally.shed_causes.add(&ending.cause);
            }
            Class::Attentive | Class::Resetting => {
                self.tally.drops.add(&ending.cause);
                if !self.plan.reconnects && class == Class::Attentive {
                    client.phase = Phase::Gone;
                    return;
                }
                let can_recover = client.session.as_ref().is_some_and(|session| session.token.is_some());
                let reconnect = if can_recover && ending.code != Some(POLICY_VIOLATION) {
                    Reconnect::Recover { lost_ns: now }
                } else {
                    Reconnect::Fresh { attempts: 0 }
                };
                self.reconnect(index, reconnect, now);
            }
        }
    }

    /// Where faults are expected, the orders say later whether this was one; the client comes back in any case.
    fn end_as_ordered(&mut self, index: usize, phase: Phase, ending: &Ending, now: u64) {
        self.note_ending(index, ending, now);
        let client = &self.clients.list[index];
        if phase.is_setup() || phase == Phase::Idle {
            let reconnect = client.reconnect.unwrap_or(Reconnect::Fresh { attempts: 0 });
            return match client.reconnect {
                None => self.reconnect(index, reconnect, now),
                Some(reconnect) => self.try_again(index, reconnect, ending, now),
            };
        }
        self.tally.up -= 1;
        let can_recover = client.session.as_ref().is_some_and(|session| session.token.is_some());
        let is_over = matches!(ending.code, Some(1000 | POLICY_VIOLATION));
        let reconnect = if can_recover && !is_over {
            Reconnect::Recover { lost_ns: now }
        } else {
            Reconnect::Fresh { attempts: 0 }
        };
        self.reconnect(index, reconnect, now);
    }

    /// The first connection of a client has failed: it does not come back.
    fn fail(&mut self, index: usize, cause: &str) {
        self.tally.failures.add(cause);
        self.tally.arrived += 1;
        self.clients.list[index].phase = Phase::Gone;
    }

    /// An attempt to come back has failed.
    fn try_again(&mut self, index: usize, reconnect: Reconnect, ending: &Ending, now: u64) {
        match reconnect {
            Reconnect::Recover { lost_ns } if now < lost_ns + RECOVERY_NS && ending.code != Some(POLICY_VIOLATION) => {
                self.clients.list[index].phase = Phase::Pausing(now + RECOVERY_PAUSE_NS);
            }
            Reconnect::Recover { .. } => self.reconnect(index, Reconnect::Fresh { attempts: 0 }, now),
            Reconnect::Fresh { attempts } if usize::from(attempts) + 1 < self.fresh_attempts() => {
                self.reconnect(index, Reconnect::Fresh { attempts: attempts + 1 }, now);
            }
            Reconnect::Fresh { .. } => {
                self.tally.drops.add(&format!("gave up reconnecting: {}", ending.cause));
                self.clients.list[index].phase = Phase::Gone;
            }
        }
    }

    /// A connection does not come about, for a reason that is told of another one.
    pub(super) fn end_beside(&mut self, index: usize, ending: &Ending, now: u64) {
        if self.plan.expects_faults && !matches!(self.clients.list[index].class, Class::Stalled | Class::Slow) {
            let attempts = match self.clients.list[index].reconnect {
                Some(Reconnect::Fresh { attempts }) => attempts.saturating_add(1),
                _ => 0,
            };
            return self.reconnect(index, Reconnect::Fresh { attempts }, now);
        }
        self.end(index, ending);
    }

    fn fresh_attempts(&self) -> usize {
        if self.plan.expects_faults { PATIENT_ATTEMPTS } else { FRESH_PAUSES_NS.len() }
    }

    fn reconnect(&mut self, index: usize, reconnect: Reconnect, now: u64) {
        let pause_ns = match reconnect {
            Reconnect::Recover { .. } => 0,
            Reconnect::Fresh { attempts } => FRESH_PAUSES_NS.get(usize::from(attempts)).copied().unwrap_or(SECOND),
        };
        let client = &mut self.clients.list[index];
        client.reconnect = Some(reconnect);
        client.phase = Phase::Pausing(now + pause_ns);
    }

    /// The pause of a client is over.
    pub(super) fn end_pause(&mut self, index: usize, now: u64) {
        let client = &mut self.clients.list[index];
        match client.reconnect {
            Some(Reconnect::Recover { .. }) => {
                let Some(session) = client.session.clone() else { return };
                let mut socket = session.socket;
                let separator = if socket.path.contains('?') { '&' } else { '?' };
                socket.path = format!(
                    "{}{separator}awps_connection_id={}&awps_reconnection_token={}",
                    socket.path,
                    percent_encode(&session.connection_id),
                    percent_encode(session.token.as_deref().unwrap_or_default()),
                );
                self.connect(index, &socket, now);
            }
            _ => self.begin_anew(index, now),
        }
    }

    /// Resets a resetting client's connection.
    pub(super) fn reset(&mut self, index: usize, now: u64) {
        if let Some(transport) = &self.clients.list[index].transport {
            transport.reset_on_close();
        }
        self.close_socket(index);
        self.tally.up -= 1;
        self.tally.resets += 1;
        let client = &mut self.clients.list[index];
        client.reconnect = Some(Reconnect::Fresh { attempts: 0 });
        client.phase = Phase::Pausing(now + RESET_PAUSE_NS);
    }

    /// When a resetting client resets next: half to one and a half of the mean stay.
    pub(super) fn next_reset_ns(&self, now: u64) -> u64 {
        now + self.plan.reset_after_ns / 2 + fastrand::u64(0..=self.plan.reset_after_ns)
    }

    /// A stalled or slow client's socket shows its end without being read.
    pub(super) fn on_hangup(&mut self, index: usize) {
        self.end(index, &Ending::lost("closed by the server"));
    }

    fn close_socket(&mut self, index: usize) {
        let client = &mut self.clients.list[index];
        // Dropping the socket takes it out of the epoll descriptor.
        client.transport = None;
        client.socket_number = client.socket_number.wrapping_add(1);
        client.inbox = Vec::new();
        client.outbox = Vec::new();
        client.fragments = None;
        client.upgrade = None;
        client.watches_write = false;
    }

    /// Closes every connection as a client that is done.
    pub(super) fn say_goodbye(&mut self) {
        for client in &mut self.clients.list {
            if let Some(transport) = &mut client.transport {
                let mut frame = Vec::new();
                upstream::close(&mut frame, 1000);
                // A full socket or a dead one: closing it is all that is left.
                let _ = transport.write(&frame);
            }
            client.transport = None;
        }
    }
}

/// Percent-encodes what is not unreserved (RFC 3986 §2.3).
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_query() {
        assert_eq!(percent_encode("a-b.c~d_9"), "a-b.c~d_9");
        assert_eq!(percent_encode("a+b/c=&"), "a%2Bb%2Fc%3D%26");
    }

    #[test]
    fn a_close_keeps_its_code_and_reason() {
        assert_eq!(Ending::closed(1008, "slow").cause, "closed by the server with 1008 slow");
        assert_eq!(Ending::closed(1001, "").cause, "closed by the server with 1001");
    }
}
