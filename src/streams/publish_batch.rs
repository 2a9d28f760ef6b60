//! Inputs that arrived together: checked and encoded by their publisher, numbered when their turn has come.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::encoded::frames;
use super::history::Arriving;
use super::input::{Input, InputError};
use super::latest_prices::TooManySymbols;
use super::{ChannelOutput, Streams, locked, now_ms};
use crate::engine::batch::{Batch, Outgoing};
use crate::engine::group::Group;
use crate::engine::hub::Hub;
use crate::engine::system_clock;
use crate::wire::streams::messages::{self, Draft, Stamp};
use crate::wire::streams::portfolio::Portfolio;
use crate::wire::streams::shapes::{Price, StreamRecord, Trade, TradingSignal};
use crate::wire::streams::{ChannelKind, group_of_symbol};

/// A message that is encoded but for its number.
pub struct ChannelMessage {
    hub: Arc<Hub>,
    output: Arc<ChannelOutput>,
    draft: Draft,
    /// The name of the group of its symbol, if it has one.
    filtered: Option<String>,
    subject: Option<Arc<[u8]>>,
    /// Its place in the log that it comes from.
    log: Option<(u32, u64)>,
    /// Set for a message that is kept, and not sent: when it was written, Unix ms.
    reread_ms: Option<i64>,
    unix_ms: i64,
}

impl Outgoing for ChannelMessage {
    /// A group of its symbol that a client creates after this look is empty, so it has room. What is only kept needs
    /// none.
    fn groups(&self) -> impl Iterator<Item = Arc<Group>> {
        let sent = self
            .reread_ms
            .is_none()
            .then(|| [Some(Arc::clone(&self.output.group)), group_of(&self.hub, self.filtered.as_deref())]);
        sent.into_iter().flatten().flatten()
    }

    /// Numbers it, keeps it, and only then looks for subscribers: whoever joins before that look gets the
    /// message, and whoever joins later finds it in the history.
    fn publish(self, batch: &mut Batch<'_>) {
        let frame = {
            let mut history = locked(&self.output.history);
            let place = history.place(self.log);
            let epoch = Arc::clone(history.epoch());
            let stamp = place.map(|(partition, seq)| Stamp { epoch: &epoch, partition, seq });
            let frame = self.draft.finish(stamp);
            let age_ms = self.reread_ms.map_or(0, |written_ms| self.unix_ms.saturating_sub(written_ms).max(0) as u64);
            let (subject, is_reread) = (self.subject, self.reread_ms.is_some());
            let message = Arriving { place, subject, frame: frame.clone(), is_reread, age_ms };
            history.append(batch.next_id(), message, system_clock::monotonic_ms());
            frame
        };
        if self.reread_ms.is_some() {
            return batch.publish_to([], &frames(frame, self.unix_ms));
        }
        let filtered = group_of(&self.hub, self.filtered.as_deref());
        let groups = [Some(&self.output.group), filtered.as_ref()].into_iter().flatten();
        batch.publish_to(groups.filter(|group| group.is_live()), &frames(frame, self.unix_ms));
    }
}

/// The group of a message's symbol, if it has one and somebody has joined it.
fn group_of(hub: &Hub, filtered: Option<&str>) -> Option<Arc<Group>> {
    hub.find(filtered?)
}

/// Inputs that arrived together: their messages leave together when this is dropped, so that a client of
/// several channels gets them in one piece.
pub struct PublishBatch<'a> {
    streams: &'a Streams,
    messages: Vec<ChannelMessage>,
}

impl<'a> PublishBatch<'a> {
    pub(super) fn new(streams: &'a Streams) -> Self {
        Self { streams, messages: Vec::new() }
    }

    /// Checks one input and adds it to the batch. A refusal is counted in the channel's health.
    pub fn publish(&mut self, channel: &str, input: &Input<'_>) -> Result<(), InputError> {
        let streams = self.streams;
        let Some((at, known)) = streams.channels.find(channel) else {
            return Err(streams.channels.unknown(channel).into());
        };
        let output = &streams.outputs[at];
        let accepted = self.accept(output, known.kind, input);
        output.count(accepted.is_ok());
        accepted
    }

    /// Adds a record that is checked already. A refusal is counted, too.
    pub fn publish_record(&mut self, record: &StreamRecord<'_>) -> Result<(), TooManySymbols> {
        let streams = self.streams;
        let Some((at, _)) = streams.channels.find(record.channel()) else { return Ok(()) };
        let output = &streams.outputs[at];
        let accepted = self.take(output, record, None, None);
        output.count(accepted.is_ok());
        accepted
    }

    /// Adds one input that was published earlier: it is kept for clients that come back, and not sent to others.
    /// What is refused is not counted, since that was done then.
    pub fn keep(&mut self, channel: &str, input: &Input<'_>) {
        let Some((at, known)) = self.streams.channels.find(channel) else { return };
        let before = self.messages.len();
        if !known.kind.is_conflated() && self.accept(&self.streams.outputs[at], known.kind, input).is_ok() {
            for message in &mut self.messages[before..] {
                message.reread_ms = Some(input.timestamp_ms.unwrap_or(message.unix_ms));
            }
        }
    }

    fn accept(&mut self, output: &Arc<ChannelOutput>, kind: ChannelKind, input: &Input<'_>) -> Result<(), InputError> {
        let limit = self.streams.options.max_publish_bytes;
        let &Input { payload, key, timestamp_ms, log } = input;
        if payload.len() > limit {
            return Err(InputError::TooLarge { limit, actual: payload.len() });
        }
        let record = match kind {
            ChannelKind::Passthrough => {
                let unix_ms = now_ms();
                let channel = output.group.name();
                let draft = messages::message(channel, payload, key, timestamp_ms.unwrap_or(unix_ms));
                self.add(output, draft, None, key, log, unix_ms);
                return Ok(());
            }
            ChannelKind::Prices => StreamRecord::Price(Price::parse(payload)?),
            ChannelKind::Signals => StreamRecord::Signal(TradingSignal::parse(payload)?),
            ChannelKind::Trades => StreamRecord::Trade(Trade::parse(payload)?),
            ChannelKind::Portfolio => StreamRecord::Portfolio(Portfolio::parse(payload)?),
        };
        Ok(self.take(output, &record, log, timestamp_ms)?)
    }

    fn take(
        &mut self,
        output: &Arc<ChannelOutput>,
        record: &StreamRecord<'_>,
        log: Option<(u32, u64)>,
        timestamp_ms: Option<i64>,
    ) -> Result<(), TooManySymbols> {
        let unix_ms = now_ms();
        // What a log brings has the log's time, so that it reads the same on every node.
        let time = if log.is_some() { timestamp_ms.unwrap_or(unix_ms) } else { unix_ms };
        let (draft, symbol) = match record {
            StreamRecord::Price(price) => return self.streams.offer_price(price),
            StreamRecord::Portfolio(portfolio) => {
                locked(&self.streams.portfolio).replace(portfolio);
                return Ok(());
            }
            StreamRecord::Signal(signal) => (messages::signal(signal, time), &signal.symbol),
            StreamRecord::Trade(trade) => (messages::trade(trade, time), &trade.symbol),
        };
        self.add(output, draft, Some(symbol), Some(symbol.as_bytes()), log, unix_ms);
        Ok(())
    }

    /// Adds one message for the channel's group and the symbol's.
    fn add(
        &mut self,
        output: &Arc<ChannelOutput>,
        draft: Draft,
        symbol: Option<&str>,
        subject: Option<&[u8]>,
        log: Option<(u32, u64)>,
        unix_ms: i64,
    ) {
        output.encoded.fetch_add(1, Ordering::Relaxed);
        self.messages.push(ChannelMessage {
            hub: Arc::clone(&self.streams.hub),
            output: Arc::clone(output),
            draft,
            filtered: symbol.map(|symbol| group_of_symbol(output.group.name(), symbol)),
            subject: subject.map(Arc::from),
            log,
            reread_ms: None,
            unix_ms,
        });
    }
}

impl PublishBatch<'_> {
    /// Publishes now if that needs no waiting; otherwise returns the messages, for [`Sequencer::publish_all`] on a
    /// thread that may wait.
    ///
    /// [`Sequencer::publish_all`]: crate::engine::sequencer::Sequencer::publish_all
    pub fn try_send(mut self) -> Result<(), Vec<ChannelMessage>> {
        self.streams.hub.sequencer().try_publish_all(std::mem::take(&mut self.messages))
    }
}

impl Drop for PublishBatch<'_> {
    fn drop(&mut self) {
        self.streams.hub.sequencer().publish_all(self.messages.drain(..));
    }
}
