//! With `--faults expected`: messages wait until the ledger says what was ordered for them.
//!
//! A broken message can look like anything: like one of another group, like one from the future. So a client's messages
//! are judged with all orders at hand, and one that was broken as ordered is taken out before it does harm. Times are
//! those of the reads, so latencies are what they were.

use std::collections::VecDeque;
use std::mem;

use super::Worker;
use super::client::{Client, Phase};
use super::ending::Ending;
use super::message::NO_GROUP;
use crate::clock::MILLISECOND;
use crate::ledger::Tick;
use crate::orders::book::{FrameKey, Judging, Standing};
use crate::orders::ending::SeenEnding;
use crate::orders::order::{OrderKind, OrderedFrame};
use crate::orders::outcome::OrderFacts;
use crate::plan::Class;
use crate::verify::fault::{FaultKind, Faults};
use crate::wire::downstream::Message;
use crate::wire::form::Protocol;
use crate::wire::frame::{Header, parse_header};
use crate::wire::streams::{self, StreamMessage};

/// How long a message is held at least: its order may be entered after it was sent.
const HOLD_NS: u64 = 250 * MILLISECOND;

/// How long after the end orders may still come.
pub const SETTLE_NS: u64 = 500 * MILLISECOND;

/// How long one is held at most: nothing may be published meanwhile.
const MAX_HOLD_NS: u64 = 1_500 * MILLISECOND;

/// Messages of one client that are waiting.
#[derive(Debug, Default)]
pub struct Held(VecDeque<(u64, Box<[u8]>)>);

impl Held {
    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Worker {
    /// Holds a message, unless it is one that a client waits for to come up.
    pub(super) fn hold(&mut self, index: usize, header: Header, frame: &[u8], now: u64) -> Result<(), Ending> {
        let Client { protocol, phase, .. } = self.clients.list[index];
        let message = &frame[header.header_len..];
        if protocol == Protocol::Streams {
            self.learn_offset(message);
        }
        let is_answer = phase != Phase::Up
            && match protocol {
                Protocol::Streams => matches!(streams::read(message), Ok(StreamMessage::Subscribed { .. })),
                _ => !matches!(self.reader.read(protocol, message), Ok(Message::Data(_)) | Err(_)),
            };
        if is_answer {
            return self.on_frame(index, header, frame, now);
        }
        self.clients.list[index].held.0.push_back((now, frame.into()));
        Ok(())
    }

    /// Judges what has been held long enough; at the end of the run, everything.
    pub(super) fn release(&mut self, index: usize, now: u64, is_end: bool) {
        while let Some(&(at_ns, _)) = self.clients.list[index].held.0.front() {
            let age_ns = now.saturating_sub(at_ns);
            let is_known = age_ns > HOLD_NS && self.verifier.heard_ns() > at_ns;
            if !is_known && age_ns < MAX_HOLD_NS && !is_end {
                return;
            }
            let Some((at_ns, frame)) = self.clients.list[index].held.0.pop_front() else { return };
            if let Err(ending) = self.judge_held(index, &frame, at_ns) {
                // The message makes no sense; what the client does about it is not the question any more.
                let number = self.clients.list[index].number;
                self.verifier.blame_frame(FaultKind::Corrupted, number, NO_GROUP, ending.cause().to_owned(), at_ns);
            }
        }
    }

    fn judge_held(&mut self, index: usize, frame: &[u8], at_ns: u64) -> Result<(), Ending> {
        if self.take_run(index, frame, at_ns) > 0 || self.was_broken_as_ordered(index, frame) {
            return Ok(());
        }
        let Ok(Some(header)) = parse_header(frame) else { return Ok(()) };
        let outcome = self.on_frame(index, header, frame, at_ns);
        self.note_arrivals();
        outcome
    }

    /// A channel of `/ws` numbers its messages itself; orders go by that number, and the swarm by the payload's.
    fn learn_offset(&mut self, message: &[u8]) {
        if !self.channel_offsets.contains(&None) {
            return;
        }
        if let Ok(StreamMessage::Topic { channel, payload, seq: Some(seq), .. }) = streams::read(message)
            && let (Some(group), Ok(numbered)) = (self.groups.number(&channel), streams::numbered(payload.get()))
        {
            self.channel_offsets[group as usize].get_or_insert(seq.wrapping_sub(numbered.seq));
        }
    }

    /// The swarm's number of a publication that an order names.
    fn own_number(&self, key: FrameKey) -> u64 {
        key.sequence_id.wrapping_sub(self.channel_offsets[key.group as usize].unwrap_or_default())
    }

    /// Whether a message is one that was to be broken for this client, and is broken just so.
    fn was_broken_as_ordered(&mut self, index: usize, frame: &[u8]) -> bool {
        let damaged = self.book.damaged(self.clients.list[index].number);
        let is_it = |(key, kind, ordered): &(FrameKey, OrderKind, OrderedFrame)| {
            self.is_broken_as(index, frame, *key, *kind, ordered)
        };
        let Some((key, ..)) = damaged.iter().find(|one| is_it(one)) else { return false };
        self.book.broken(*key);
        self.interval.frames += 1;
        true
    }

    fn is_broken_as(&self, index: usize, frame: &[u8], key: FrameKey, kind: OrderKind, ordered: &OrderedFrame) -> bool {
        let client = &self.clients.list[index];
        let Ok(Some(header)) = parse_header(frame) else { return false };
        let log = &self.verifier.logs[(client.form * self.plan.groups.len() as u32 + key.group) as usize];
        let right = log.find_sequence(self.own_number(key)).and_then(|slot| slot.frame.as_deref());
        let message = &frame[header.header_len..];
        if kind == OrderKind::Truncate {
            let is_start = |right: &[u8]| {
                let right_header = parse_header(right).ok().flatten().map_or(0, |header| header.header_len);
                right[right_header..].starts_with(message)
            };
            return ordered.kept == Some(message.len() as u64) && right.is_none_or(is_start);
        }
        let Some(bit) = ordered.bit else { return false };
        let mut mended = frame.to_vec();
        let Some(byte) = mended.get_mut(header.header_len + (bit / 8) as usize) else { return false };
        *byte ^= 1 << (bit % 8);
        match right {
            Some(right) => right == mended,
            None => self.is_publication(client.protocol, &mended[header.header_len..], key),
        }
    }

    /// Whether a message is a publication, as far as the ledger tells.
    fn is_publication(&self, protocol: Protocol, message: &[u8], key: FrameKey) -> bool {
        let number = self.own_number(key);
        if protocol == Protocol::Streams {
            let Ok(StreamMessage::Topic { channel, payload, .. }) = streams::read(message) else { return false };
            let is_number = streams::numbered(payload.get()).is_ok_and(|numbered| numbered.seq == number);
            return is_number && self.groups.number(&channel) == Some(key.group);
        }
        let Ok(mut reader) = crate::wire::downstream::Reader::new() else { return false };
        let Ok(Message::Data(data)) = reader.read(protocol, message) else { return false };
        let is_numbered = data.sequence_id.is_none_or(|id| id == key.sequence_id);
        let log = self.verifier.logs.iter().find(|log| log.group == key.group);
        let slot = log.and_then(|log| log.find_sequence(number));
        let has_content = slot.is_none_or(|slot| {
            slot.identity.timestamp == data.payload.timestamp
                && slot.identity.hash.is_none_or(|hash| hash == data.payload.hash)
        });
        self.groups.number(&data.group) == Some(key.group) && is_numbered && has_content
    }

    /// Tells the book of the right copies that the verifier has found.
    pub(super) fn note_arrivals(&mut self) {
        for (client, log, index, at_ns) in self.verifier.accepted.drain(..) {
            let log = &self.verifier.logs[log as usize];
            if let Some(slot) = log.slot(index) {
                let offset = self.channel_offsets[log.group as usize].unwrap_or_default();
                let sequence_id = slot.identity.sequence_id.wrapping_add(offset);
                self.book.arrived(FrameKey { client, group: log.group, sequence_id }, at_ns, slot.published_ns());
            }
        }
    }

    /// Takes orders from the ledger.
    pub(super) fn hear_orders(&mut self, tick: &Tick) {
        if !self.plan.expects_faults {
            return;
        }
        let Self { book, clients, plan, .. } = self;
        let groups = plan.groups.len() as u32;
        let members = |group: u32| -> Vec<u32> {
            let is_in = |client: &&Client| {
                let log = client.form * groups + group;
                client.is_attentive() && client.members.binary_search_by_key(&log, |member| member.log).is_ok()
            };
            clients.list.iter().filter(is_in).map(|client| client.number).collect()
        };
        for order in &tick.orders {
            book.take(order, members);
        }
        let misses_acks = tick.orders.iter().any(|order| order.kind == OrderKind::NoAck);
        for index in (0..self.clients.list.len()).filter(|_| misses_acks) {
            self.miss_acks(index, tick.times.published_ns);
        }
    }

    /// A client of which joins are executed and not answered, as ordered, does not wait for the answers.
    pub(super) fn miss_acks(&mut self, index: usize, now: u64) {
        let client = &mut self.clients.list[index];
        let Phase::Joining(missing) = client.phase else { return };
        let mut excused = 0;
        for ack_id in self.book.missing_acks(client.number) {
            let place = ack_id.checked_sub(1).and_then(|place| usize::try_from(place).ok());
            let member = place.and_then(|place| client.members.get_mut(place));
            if let Some(member) = member.filter(|member| member.acked_ns == 0 && !member.is_unacked) {
                member.is_unacked = true;
                excused += 1;
            }
        }
        if excused > 0 {
            client.phase = Phase::Joining(missing.saturating_sub(excused));
            if missing <= excused {
                self.arrive(index, now);
            }
        }
    }

    /// A connection has ended, or has not come about.
    pub(super) fn note_ending(&mut self, index: usize, ending: &Ending, now: u64) {
        let number = self.clients.list[index].number;
        let seen =
            SeenEnding { at_ns: now, code: ending.code(), status: ending.status(), cause: ending.cause().to_owned() };
        match seen.status {
            _ if !self.clients.list[index].is_attentive() => {}
            Some(_) => self.book.refused(self.plan.client_of(number), seen),
            None => self.book.ended(number, seen),
        }
    }

    /// Judges orders and faults together, at the end.
    pub(super) fn conclude_orders(&mut self, cut_ns: u64) -> OrderFacts {
        let Self { book, clients, plan, verifier, channel_offsets, .. } = self;
        let standing = |number: u32| {
            let client = clients.index_of(number).map(|index| &clients.list[index]);
            client.map_or_else(Standing::default, |client| Standing {
                counts: client.is_attentive(),
                is_reliable: client.protocol.is_reliable(),
                groups: client.members.len(),
            })
        };
        let name = |number: u32| {
            let hub = &plan.hubs[plan.hub_of(number) as usize].name;
            let at = if plan.hubs.len() > 1 { format!(" at {hub}") } else { String::new() };
            format!("client {}{at}", plan.client_of(number))
        };
        let faults: &mut Faults = &mut verifier.faults;
        let ordered = |group: u32, number: u64| {
            let offset = channel_offsets.get(group as usize).copied().flatten();
            number.wrapping_add(offset.unwrap_or_default())
        };
        mem::take(book).conclude(faults, cut_ns, Judging { standing, name, ordered })
    }

    /// Says whose keys have which hash, so that refused requests find their client.
    pub(super) fn add_users(&mut self) {
        let users: Vec<(u64, u32)> =
            self.plan.clients_of(self.number).filter_map(|client| Some((self.plan.user_of(client)?, client))).collect();
        for (user, client) in users {
            let counts = self.plan.role(client).class == Class::Attentive;
            self.book.add_user(user, client, counts);
        }
    }

    /// The order has a connection's name only.
    pub(super) fn note_greeting(&mut self, index: usize, connection_id: &str) {
        if self.plan.expects_faults {
            self.book.greet(connection_id, self.clients.list[index].number);
        }
    }
}
