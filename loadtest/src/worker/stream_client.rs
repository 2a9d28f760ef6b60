//! A client of the JSON streams: subscriptions, and messages with and without a number.
//!
//! ```text
//! subscribe ─▶ subscribed ─▶ message ─┬▶ of a channel with a sequence ─▶ the verifier, as an orderflow frame
//!                                     └▶ of any other ─▶ counted, shape and time of sending checked
//! ```

use std::collections::{BTreeMap, HashMap};

use xxhash_rust::xxh3::xxh3_64;

use super::Worker;
use super::client::Phase;
use super::ending::Ending;
use super::followed::{Followed, Wrong};
use super::message::NO_GROUP;
use super::receive::READ_BYTES;
use crate::cli::SlowPolicy;
use crate::clock::unix_ns;
use crate::plan::Class;
use crate::sequence::witness::HeardNumber;
use crate::verify::Identity;
use crate::verify::fault::FaultKind;
use crate::verify::log::Arrival;
use crate::verify::member::Member;
use crate::verify::verifier::Verifier;
use crate::wire::dialect::{self, Dialect};
use crate::wire::frame::{parse_header, write_masked};
use crate::wire::streams::{self, Position, StreamMessage};
use crate::wire::upstream;

impl Worker {
    /// Asks for the run's channels; without any the server's own choice stands.
    pub(super) fn subscribe(&mut self, index: usize, now: u64) {
        let plan = &self.plan;
        if plan.channels.is_empty() {
            return self.arrive(index, now);
        }
        let client = &mut self.clients.list[index];
        let policy = plan.slow_policy.filter(|_| matches!(client.class, Class::Slow | Class::Stalled));
        let first_log = client.form * plan.groups.len() as u32;
        let mut since = BTreeMap::new();
        for group in 0..plan.groups.len() as u32 {
            let log = first_log + group;
            let place = client.members.iter().position(|member| member.log == log);
            match place.and_then(|place| last_position(&self.verifier, &client.members[place])) {
                Some(position) => drop(since.insert(plan.groups[group as usize].as_str(), position)),
                // It has had nothing: it begins anew.
                None if policy.is_none() => {
                    client.members.retain(|member| member.log != log);
                    client.members.push(Member::new(log, now));
                }
                None => {}
            }
        }
        client.members.sort_by_key(|member| member.log);
        let followed = if policy.is_some() { plan.groups.len() } else { 0 };
        client.followed = (0..followed).map(|_| Followed::default()).collect();
        client.asked_since = !since.is_empty();
        self.scratch.clear();
        let answers = match plan.dialect {
            Some(dialect) => {
                dialect.subscribe(&mut self.scratch, &plan.channels[0]);
                1
            }
            None => upstream::subscribe(&mut self.scratch, &plan.channels, &plan.symbols, &since, policy),
        };
        client.phase = Phase::Joining(answers);
        self.send_scratch(index);
    }

    /// Takes one message; `frame` are its bytes with header, or nothing if it came in fragments.
    pub(super) fn on_stream_message(
        &mut self,
        index: usize,
        message: &[u8],
        frame: &[u8],
        now: u64,
    ) -> Result<(), Ending> {
        match streams::read(message) {
            Ok(StreamMessage::Subscribed { channels, recovered }) => {
                return self.on_subscribed(index, &channels, &recovered, now);
            }
            Ok(StreamMessage::Skipped { channel, from, to }) => {
                if let Some(group) = self.groups.number(&channel) {
                    self.tally.skipped += to.saturating_sub(from) + 1;
                    self.follow(index, group, now, |followed, policy| followed.skip(from, to, policy));
                }
            }
            Ok(StreamMessage::Topic { channel, payload, sent_unix_ns, seq }) => match self.groups.number(&channel) {
                Some(group) if !self.clients.list[index].followed.is_empty() => {
                    self.count_decoded(index, now);
                    let number = self.clients.list[index].number;
                    match streams::numbered(payload.get()) {
                        Ok(numbered) => self.follow(index, group, now, |followed, policy| {
                            followed.hear(seq.unwrap_or(0), numbered.seq, policy)
                        }),
                        Err(error) => {
                            self.verifier.blame_frame(FaultKind::Corrupted, number, group, error.to_string(), now);
                        }
                    }
                }
                Some(group) => self.on_numbered(index, group, payload.get(), frame, now),
                None => self.on_counted(index, Some(sent_unix_ns), now),
            },
            Ok(StreamMessage::Data { sent_unix_ns }) => self.on_counted(index, sent_unix_ns, now),
            Ok(StreamMessage::Other) => {}
            Err(error) if self.clients.list[index].phase != Phase::Up => {
                return Err(Ending::broken(error.to_string()));
            }
            Err(error) => {
                let number = self.clients.list[index].number;
                self.verifier.blame_frame(FaultKind::Corrupted, number, NO_GROUP, error.to_string(), now);
            }
        }
        Ok(())
    }

    /// Takes one message of another server; `frame` as in [`Self::on_stream_message`].
    pub(super) fn on_foreign_message(
        &mut self,
        index: usize,
        dialect: Dialect,
        message: &[u8],
        frame: &[u8],
        now: u64,
    ) {
        let client = &mut self.clients.list[index];
        if matches!(client.phase, Phase::Joining(_)) && dialect.is_subscribed(message) {
            client.members.iter_mut().for_each(|member| member.acked_ns = now);
            self.arrive(index, now);
        }
        if let Some((opcode, pong)) = dialect.pong(message) {
            self.scratch.clear();
            write_masked(&mut self.scratch, opcode, pong);
            return self.send_scratch(index);
        }
        // Only a frame of one payload is that payload's in the eyes of the next client.
        let is_alone = dialect::payloads(message).nth(1).is_none();
        for payload in dialect::payloads(message) {
            self.on_numbered(index, 0, payload, if is_alone { frame } else { &[] }, now);
        }
    }

    /// A subscription has been answered. The last answer must name every channel asked for: a client
    /// that is not told of one would miss all of it and look complete.
    fn on_subscribed(
        &mut self,
        index: usize,
        channels: &[String],
        recovered: &HashMap<String, Result<(), String>>,
        now: u64,
    ) -> Result<(), Ending> {
        let client = &mut self.clients.list[index];
        let Phase::Joining(missing) = client.phase else { return Ok(()) };
        if missing > 1 {
            client.phase = Phase::Joining(missing - 1);
            return Ok(());
        }
        if let Some(absent) = self.plan.channels.iter().find(|asked| !channels.contains(asked)) {
            return Err(Ending::broken(format!("subscribed without {absent}, which was asked for")));
        }
        if client.asked_since {
            let answers = self.plan.groups.iter().filter_map(|name| recovered.get_key_value(name));
            if let Some((channel, Err(reason))) = answers.clone().find(|(_, answer)| answer.is_err()) {
                return Err(Ending::broken(format!("what was missed of {channel} was not sent again: {reason}")));
            }
            if answers.count() == 0 {
                return Err(Ending::broken("since was not answered".to_owned()));
            }
        }
        client.members.iter_mut().filter(|member| member.acked_ns == 0).for_each(|member| member.acked_ns = now);
        if !client.followed.is_empty() {
            client.followed.iter_mut().for_each(|followed| followed.acked_ns = now);
            self.awaiting_first.push(index);
        }
        self.arrive(index, now);
        Ok(())
    }

    /// A client with a policy has heard something of a channel.
    fn follow(
        &mut self,
        index: usize,
        group: u32,
        now: u64,
        hear: impl FnOnce(&mut Followed, SlowPolicy) -> Option<Wrong>,
    ) {
        let client = &mut self.clients.list[index];
        let (Some(followed), Some(policy)) = (client.followed.get_mut(group as usize), self.plan.slow_policy) else {
            return;
        };
        if let Some((kind, detail)) = hear(followed, policy) {
            self.verifier.blame_frame(kind, client.number, group, detail, now);
        }
    }

    /// Notes for clients with a policy what was published in a channel, and which of it is due to them first.
    pub(super) fn note_published(&mut self, group: u32, number: u64, published_ns: u64) {
        let finish = self.shared.finish.get();
        if finish.is_none_or(|finish| published_ns <= finish.cut_ns) {
            let newest = &mut self.newest[group as usize];
            *newest = (*newest).max(number);
        }
        let Self { awaiting_first, clients, plan, .. } = self;
        awaiting_first.retain(|&index| {
            let followed = &mut clients.list[index].followed;
            if let Some(followed) = followed.get_mut(group as usize)
                && followed.is_first(published_ns, plan.clock_error_ns)
            {
                followed.first_due = Some(number);
            }
            followed.iter().any(|followed| followed.first_due.is_none())
        });
    }

    /// Whether a client with a policy has not heard of the newest message of each channel.
    pub(super) fn lacks_newest(&self, index: usize) -> bool {
        let client = &self.clients.list[index];
        client.phase == Phase::Up
            && client.followed.iter().zip(&self.newest).any(|(followed, &newest)| followed.lacks(newest))
    }

    /// Slow and stalled clients with a policy read at last: what they are to hear of comes behind what they have left
    /// unread.
    pub(super) fn read_to_the_newest(&mut self) {
        for index in 0..self.clients.list.len() {
            if self.lacks_newest(index) {
                self.on_readable(index, READ_BYTES);
            }
        }
    }

    /// Judges what a client with a policy has not heard of until the end.
    pub(super) fn judge_followed(&mut self, index: usize, now: u64) {
        let client = &self.clients.list[index];
        let Some(policy) = self.plan.slow_policy.filter(|_| client.phase == Phase::Up) else { return };
        for (group, (followed, &newest)) in (0..).zip(client.followed.iter().zip(&self.newest)) {
            for (kind, detail) in followed.missing(newest, policy) {
                self.verifier.blame_frame(kind, client.number, group, detail, now);
            }
        }
    }

    /// A message without a number: all that can be said of it is when it was sent.
    fn on_counted(&mut self, index: usize, sent_unix_ns: Option<u64>, now: u64) {
        self.count_decoded(index, now);
        self.tally.stream_messages += 1;
        // Two ways of measuring do not go into one histogram.
        if let Some(sent_unix_ns) = sent_unix_ns.filter(|_| !self.plan.has_ledger) {
            let latency_ns = unix_ns().saturating_sub(sent_unix_ns);
            let Self { clients, interval, measure, .. } = self;
            measure.record(interval, &mut clients.list[index].receipts, now, latency_ns, 1);
        }
    }

    /// A message of a channel with a sequence.
    fn on_numbered(&mut self, index: usize, group: u32, payload: &str, frame: &[u8], now: u64) {
        self.count_decoded(index, now);
        let client = &self.clients.list[index];
        let (number, log) = (client.number, client.form * self.plan.groups.len() as u32 + group);
        let Ok(place) = client.members.binary_search_by_key(&log, |member| member.log) else {
            let detail = "before it was subscribed to".to_owned();
            return self.verifier.blame_frame(FaultKind::Unexpected, number, group, detail, now);
        };
        let numbered = match streams::numbered(payload) {
            Ok(numbered) => numbered,
            Err(error) => {
                return self.verifier.blame_frame(FaultKind::Corrupted, number, group, error.to_string(), now);
            }
        };
        let (sequence_id, hash) = (numbered.seq, xxh3_64(payload.as_bytes()));
        if let Some(heard_numbers) = &self.heard_numbers {
            // A full queue loses this report, not the message: another worker or client shows it too, and a
            // number nobody has shown makes the run fail, not pass.
            let _ = heard_numbers.try_send(HeardNumber {
                group,
                seq: sequence_id,
                hash,
                sent_ns: numbered.sent_ns,
                at_ns: now,
            });
        }
        let member_id = client.member_id(place);
        // The number is the publication's name in every respect; there is no other record time.
        let identity = Identity { sequence_id, hash: Some(hash), timestamp: sequence_id.cast_signed() };
        self.clients.list[index].hint = (place + 1) % self.clients.list[index].members.len();
        self.judge(member_id, &Arrival { identity, frame, at_ns: now });
    }
}

/// The position of the last message that a member had.
fn last_position(verifier: &Verifier, member: &Member) -> Option<Position> {
    let last = member.has_started().then(|| member.cursor.checked_sub(1))??;
    let frame = verifier.logs[member.log as usize].slot(last)?.frame.as_deref()?;
    let header = parse_header(frame).ok()??;
    streams::position(&frame[header.header_len..])
}
