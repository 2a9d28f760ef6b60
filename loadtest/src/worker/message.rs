//! Frames that are not simply the next one: control frames, answers, first copies, surprises.

use super::Worker;
use super::client::{Fragments, Phase};
use super::ending::Ending;
use crate::verify::Identity;
use crate::verify::fault::FaultKind;
use crate::verify::log::Arrival;
use crate::verify::verifier::MemberId;
use crate::wire::downstream::{Data, Message};
use crate::wire::form::Protocol;
use crate::wire::frame::{Header, MAX_MESSAGE_BYTES, Opcode, parse_close};
use crate::wire::group::GroupName;
use crate::wire::upstream;

/// A fault that belongs to no group of the plan.
pub const NO_GROUP: u32 = u32::MAX;

impl Worker {
    /// Takes one whole frame.
    pub(super) fn on_frame(&mut self, index: usize, header: Header, frame: &[u8], now: u64) -> Result<(), Ending> {
        let payload = &frame[header.header_len..];
        match header.opcode {
            Opcode::Ping => {
                if self.plan.expects_faults {
                    self.book.pinged(self.clients.list[index].number);
                }
                self.scratch.clear();
                upstream::pong(&mut self.scratch, payload);
                self.send_scratch(index);
                Ok(())
            }
            Opcode::Pong => Ok(()),
            Opcode::Close => {
                let (code, reason) = parse_close(payload);
                // The close is answered (RFC 6455 §5.5.1) as far as the socket takes it.
                self.scratch.clear();
                upstream::close(&mut self.scratch, if code == 1005 { 1000 } else { code });
                self.send_scratch(index);
                Err(Ending::closed(code, &reason))
            }
            opcode => self.on_data_frame(index, opcode, header.is_final, payload, frame, now),
        }
    }

    fn on_data_frame(
        &mut self,
        index: usize,
        opcode: Opcode,
        is_final: bool,
        payload: &[u8],
        frame: &[u8],
        now: u64,
    ) -> Result<(), Ending> {
        let fragments = &mut self.clients.list[index].fragments;
        match (opcode, fragments.take(), is_final) {
            (Opcode::Continuation, Some(mut open), _) => {
                if open.bytes.len() + payload.len() > MAX_MESSAGE_BYTES {
                    return Err(Ending::broken(format!("a fragmented message is over {MAX_MESSAGE_BYTES} bytes")));
                }
                open.bytes.extend_from_slice(payload);
                if is_final {
                    return self.on_message(index, open.opcode, &open.bytes, &[], now);
                }
                *fragments = Some(open);
                Ok(())
            }
            (Opcode::Continuation, None, _) => Err(Ending::broken("a continuation frame continues nothing".to_owned())),
            (_, Some(_), _) => Err(Ending::broken("a message begins within another".to_owned())),
            (_, None, true) => self.on_message(index, opcode, payload, frame, now),
            (_, None, false) => {
                *fragments = Some(Box::new(Fragments { opcode, bytes: payload.to_vec() }));
                Ok(())
            }
        }
    }

    /// Takes one message; `frame` are its bytes with header, or nothing if it came in fragments.
    fn on_message(
        &mut self,
        index: usize,
        opcode: Opcode,
        message: &[u8],
        frame: &[u8],
        now: u64,
    ) -> Result<(), Ending> {
        let client = &self.clients.list[index];
        let protocol = client.protocol;
        if let Some(dialect) = self.plan.dialect {
            self.on_foreign_message(index, dialect, message, frame, now);
            return Ok(());
        }
        let expected = if protocol.is_protobuf() { Opcode::Binary } else { Opcode::Text };
        if opcode != expected {
            return Err(Ending::broken(format!("a {opcode:?} message on {}", protocol.name())));
        }
        if protocol == Protocol::Streams {
            return self.on_stream_message(index, message, frame, now);
        }
        let is_welcome = client.phase != Phase::Greeting;
        match self.reader.read(protocol, message) {
            Ok(Message::Connected { connection_id, reconnection_token }) => {
                self.on_greeted(index, &connection_id, reconnection_token, now);
                Ok(())
            }
            Ok(_) if !is_welcome => Err(Ending::broken("the first message is not the connected message".to_owned())),
            Ok(Message::Ack { ack_id, outcome }) => self.on_ack(index, ack_id, outcome, now),
            Ok(Message::Data(data)) => {
                self.on_data(index, &data, frame, now);
                Ok(())
            }
            // The close frame that follows says the same to us.
            Ok(Message::Disconnected { .. } | Message::Pong | Message::Unknown(_)) => Ok(()),
            Err(error) if !is_welcome => Err(Ending::broken(error.to_string())),
            Err(error) => {
                self.count_decoded(index, now);
                let number = self.clients.list[index].number;
                self.verifier.blame_frame(FaultKind::Corrupted, number, NO_GROUP, error.to_string(), now);
                Ok(())
            }
        }
    }

    fn on_data(&mut self, index: usize, data: &Data, frame: &[u8], now: u64) {
        self.count_decoded(index, now);
        let client = &mut self.clients.list[index];
        let number = client.number;
        let group = self.groups.number(&data.group);
        let log = group.map(|group| client.form * self.plan.groups.len() as u32 + group);
        let place = log.and_then(|log| client.members.binary_search_by_key(&log, |member| member.log).ok());
        let (Some(group), Some(place)) = (group, place) else {
            let detail = format!("in {}, which was not joined", data.group);
            let group = group.unwrap_or(NO_GROUP);
            return self.verifier.blame_frame(FaultKind::Unexpected, number, group, detail, now);
        };
        if let Some(detail) = self.names[group as usize].as_ref().and_then(|name| misplaced(name, data)) {
            return self.verifier.blame_frame(FaultKind::Corrupted, number, group, detail, now);
        }
        let sequence_id = match (client.protocol.is_reliable(), data.sequence_id) {
            (true, Some(sequence_id)) if sequence_id > 0 => sequence_id,
            (false, None) => 0,
            // Other services may leave the id out of reliable frames: the SDKs deliver those.
            (true, None) if !self.plan.has_ledger => 0,
            (_, found) => {
                let detail = format!("sequenceId {found:?} on {}", client.protocol.name());
                return self.verifier.blame_frame(FaultKind::Corrupted, number, group, detail, now);
            }
        };
        if sequence_id > 0 && sequence_id <= client.resent_until {
            self.tally.resent += 1;
            return;
        }
        let identity = Identity { sequence_id, hash: Some(data.payload.hash), timestamp: data.payload.timestamp };
        let last_sequence = client.last_sequence;
        client.last_sequence = last_sequence.max(sequence_id);
        let member_id = client.member_id(place);
        client.hint = (place + 1) % client.members.len();
        let is_out_of_order = sequence_id > 0 && sequence_id <= last_sequence;
        if is_out_of_order && !self.plan.has_ledger {
            let kind = if sequence_id == last_sequence { FaultKind::Duplicate } else { FaultKind::Reordered };
            let detail = format!("sequenceId {sequence_id} after {last_sequence}");
            return self.verifier.blame_frame(kind, number, group, detail, now);
        }
        let is_next = self.judge(member_id, &Arrival { identity, frame, at_ns: now });
        if is_next && is_out_of_order {
            self.verifier.blame_order(member_id, group, identity, None, last_sequence, now);
        }
    }

    /// Has the verifier judge a decoded frame; returns whether it was the next one of its group.
    pub(super) fn judge(&mut self, member_id: MemberId, arrival: &Arrival<'_>) -> bool {
        let verified_before = self.verifier.verified;
        let is_next = self.verifier.receive(&mut self.clients, member_id, arrival);
        self.interval.verified += self.verifier.verified.saturating_sub(verified_before);
        is_next
    }

    pub(super) fn count_decoded(&mut self, index: usize, now: u64) {
        self.interval.frames += 1;
        self.interval.decoded += 1;
        // With a ledger, frames count by the tick they belong to; streams say when they were sent.
        let client = &mut self.clients.list[index];
        if !self.plan.has_ledger && client.protocol != Protocol::Streams {
            self.measure.count(&mut client.receipts, now);
        }
    }
}

/// Why a record does not belong into its group, if it does not.
fn misplaced(name: &GroupName, data: &Data) -> Option<String> {
    let payload = &data.payload;
    // A JSON value may be for any group.
    let kind = payload.kind?;
    if payload.ticker != name.ticker {
        return Some(format!("a record of {} in {}", payload.ticker, data.group));
    }
    let expected = name.series.kind().type_url();
    let is_of_kind = kind == name.series.kind();
    (!is_of_kind).then(|| format!("a payload of {}, expected {expected}, in {}", kind.type_url(), data.group))
}
