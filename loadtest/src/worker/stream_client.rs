//! A client of the JSON streams: subscriptions, and messages with and without a number.
//!
//! ```text
//! subscribe ─▶ subscribed ─▶ message ─┬▶ of a channel with a sequence ─▶ the verifier, as an orderflow frame
//!                                     └▶ of any other ─▶ counted, shape and time of sending checked
//! ```

use xxhash_rust::xxh3::xxh3_64;

use super::Worker;
use super::client::Phase;
use super::ending::Ending;
use super::message::NO_GROUP;
use crate::clock::unix_ns;
use crate::sequence::witness::HeardNumber;
use crate::verify::Identity;
use crate::verify::fault::FaultKind;
use crate::verify::log::Arrival;
use crate::verify::member::Member;
use crate::wire::streams::{self, StreamMessage};
use crate::wire::upstream;

impl Worker {
    /// Asks for the run's channels; without any the server's own choice stands.
    pub(super) fn subscribe(&mut self, index: usize, now: u64) {
        let plan = &self.plan;
        if plan.channels.is_empty() {
            return self.arrive(index, now);
        }
        self.scratch.clear();
        let answers = upstream::subscribe(&mut self.scratch, &plan.channels, &plan.symbols);
        let client = &mut self.clients.list[index];
        client.phase = Phase::Joining(answers);
        let first_log = client.form * plan.groups.len() as u32;
        client.members.reserve_exact(plan.groups.len());
        client.members.extend((0..plan.groups.len() as u32).map(|group| Member::new(first_log + group, now)));
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
            Ok(StreamMessage::Subscribed { channels }) => return self.on_subscribed(index, &channels, now),
            Ok(StreamMessage::Topic { channel, payload, sent_unix_ns }) => match self.groups.number(&channel) {
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

    /// A subscription has been answered. The last answer must name every channel asked for: a client
    /// that is not told of one would miss all of it and look complete.
    fn on_subscribed(&mut self, index: usize, channels: &[String], now: u64) -> Result<(), Ending> {
        let client = &mut self.clients.list[index];
        let Phase::Joining(missing) = client.phase else { return Ok(()) };
        if missing > 1 {
            client.phase = Phase::Joining(missing - 1);
            return Ok(());
        }
        if let Some(absent) = self.plan.channels.iter().find(|asked| !channels.contains(asked)) {
            return Err(Ending::broken(format!("subscribed without {absent}, which was asked for")));
        }
        client.members.iter_mut().for_each(|member| member.acked_ns = now);
        self.arrive(index, now);
        Ok(())
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
