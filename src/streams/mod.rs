//! The JSON streams: what is published to their channels becomes publications of one hub.
//!
//! ```text
//! Kafka, HTTP ─▶ Input ─┬▶ passthrough ──────────────────────────────▶ one frame ─▶ groups, at once
//!                       ▼                                                 ▲
//! files, brokers ─▶ StreamRecord ─┬▶ signal, trade ─────────────────────┘
//!                                 └▶ price, portfolio ─▶ latest state ─▶ (interval) ─▶ groups
//! ```
//!
//! Sources and `POST /api/publish` put records in, independently of each other. Each message is encoded once:
//! on a passthrough channel for all subscribers; a signal or trade for the clients that take everything, and
//! once more for those of its symbol; a price update or portfolio per set of symbols in use.
//!
//! - [`input`]: what may be handed in, and why it is refused.
//! - [`latest_prices`], [`latest_portfolio`]: the state behind the channels that send at an interval.
//! - [`retained`]: messages of that state, kept for clients that join later.

mod encoded;
pub mod input;
pub mod latest_portfolio;
pub mod latest_prices;
mod retained;
pub mod stream_options;

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use self::encoded::frames;
pub use self::input::{Input, InputError};
use self::latest_portfolio::LatestPortfolio;
use self::latest_prices::{LatestPrices, TooManySymbols};
use self::stream_options::StreamOptions;
use crate::engine::clock;
use crate::engine::frames::Frames;
use crate::engine::group::Group;
use crate::engine::hub::{Hub, Retain};
use crate::engine::sequencer::Outgoing;
use crate::health::status::{SourceHealth, Status};
use crate::wire::streams::portfolio::Portfolio;
use crate::wire::streams::shapes::{Price, StreamRecord, Trade, TradingSignal};
use crate::wire::streams::{ChannelKind, Channels, PORTFOLIO, PRICE_UPDATES, group_of_symbol, messages};

/// The name of the hub that carries the streams.
pub const STREAMS_HUB: &str = "streams";

/// All channels of a server, and the state behind them.
pub struct Streams {
    hub: Arc<Hub>,
    options: StreamOptions,
    channels: Arc<Channels>,
    /// Indexed by channel number.
    outputs: Vec<ChannelOutput>,
    prices: Mutex<LatestPrices>,
    portfolio: Mutex<LatestPortfolio>,
    /// Called before each price update.
    price_sources: Mutex<Vec<PriceSource>>,
}

/// A source that is asked for its prices before each price update.
pub type PriceSource = Box<dyn FnMut(&Streams) + Send>;

/// What belongs to one channel.
struct ChannelOutput {
    group: Arc<Group>,
    health: Arc<SourceHealth>,
    encoded: Arc<AtomicU64>,
}

impl ChannelOutput {
    fn count(&self, is_accepted: bool) {
        if is_accepted {
            self.health.count_update(clock::unix_ns());
        } else {
            self.health.count_errors(1);
        }
    }
}

fn now_ms() -> i64 {
    (clock::unix_ns() / 1_000_000) as i64
}

/// The first deadline after `now`, in whole intervals from `due`. A thread that was held up skips intervals and
/// does not send one message right after the other.
fn next_due(due: Instant, interval: Duration, now: Instant) -> Instant {
    let missed = now.saturating_duration_since(due).as_nanos() / interval.as_nanos().max(1);
    due + interval * (u32::try_from(missed).unwrap_or(u32::MAX - 1) + 1)
}

impl Streams {
    /// Declares a group per channel: the trading streams, and one for each of `named`.
    pub fn new<'a>(
        hub: Arc<Hub>,
        named: impl IntoIterator<Item = &'a str>,
        options: StreamOptions,
        status: &Status,
    ) -> Arc<Self> {
        let channels = Arc::new(Channels::new(named));
        let interval = |kind| match kind {
            ChannelKind::Prices => Some(Duration::from_secs(options.price_update_interval)),
            ChannelKind::Portfolio => Some(Duration::from_secs(options.portfolio_update_interval)),
            ChannelKind::Passthrough | ChannelKind::Signals | ChannelKind::Trades => None,
        };
        let output = |(name, kind): (&str, ChannelKind)| {
            let labels = vec![("channel", Cow::Owned(name.to_owned()))];
            let help = "Messages encoded, once for all their subscribers or once per filter";
            ChannelOutput {
                group: hub.declare(name, name),
                health: status.register(name, interval(kind)),
                encoded: status.count("stream_messages_encoded", help, labels),
            }
        };
        let outputs = channels.all().iter().map(|channel| output((&channel.name, channel.kind))).collect();
        let prices = Mutex::new(LatestPrices::new(options.max_symbols));
        let streams = Arc::new(Self {
            hub,
            options,
            channels,
            outputs,
            prices,
            portfolio: Mutex::default(),
            price_sources: Mutex::default(),
        });
        let retain: Arc<dyn Retain> = Arc::clone(&streams) as _;
        streams.hub.fill(Arc::downgrade(&retain));
        streams
    }

    /// The hub that carries the channels' messages.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The channels of this server.
    pub fn channels(&self) -> &Arc<Channels> {
        &self.channels
    }

    /// A channel's entry in the stream health; its sources report their connection there.
    pub fn health(&self, channel: &str) -> Option<&Arc<SourceHealth>> {
        self.channels.find(channel).map(|(at, _)| &self.outputs[at].health)
    }

    /// Publishes one input. Inputs of one caller keep their order within a channel.
    pub fn publish(&self, channel: &str, input: &Input<'_>) -> Result<(), InputError> {
        self.batch().publish(channel, input)
    }

    /// Publishes a record that is checked already, for sources of this process: nothing is parsed, and
    /// `--max-publish-bytes` does not apply.
    pub fn publish_record(&self, record: &StreamRecord<'_>) -> Result<(), TooManySymbols> {
        self.batch().publish_record(record)
    }

    /// Starts a batch for inputs that arrived together.
    pub fn batch(&self) -> PublishBatch<'_> {
        PublishBatch { streams: self, messages: Vec::new() }
    }

    /// Takes a symbol's price without counting it as an update of the channel. A source that offers many
    /// prices at a time calls [`Streams::prices_moved`] once afterwards.
    pub fn offer_price(&self, price: &Price<'_>) -> Result<(), TooManySymbols> {
        locked(&self.prices).update(price)
    }

    /// Counts one update of the channel `price_updates`.
    pub fn prices_moved(&self) {
        if let Some(health) = self.health(PRICE_UPDATES) {
            health.count_update(clock::unix_ns());
        }
    }

    /// Asks `source` for its prices now, so that the next client to subscribe gets a state, and before each
    /// price update from now on.
    pub fn add_price_source(&self, mut source: PriceSource) {
        source(self);
        self.send_prices();
        locked(&self.price_sources).push(source);
    }

    /// Sends price updates and portfolios at their intervals until `stop` is set. Blocks: call it on a thread
    /// of its own.
    pub fn conflate(&self, stop: &AtomicBool) {
        let intervals = [self.options.price_update_interval, self.options.portfolio_update_interval];
        let intervals = intervals.map(Duration::from_secs);
        let mut due = intervals.map(|interval| Instant::now() + interval);
        loop {
            thread::sleep(due[0].min(due[1]).saturating_duration_since(Instant::now()));
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let now = Instant::now();
            if due[0] <= now {
                due[0] = next_due(due[0], intervals[0], now);
                locked(&self.price_sources).iter_mut().for_each(|source| source(self));
                self.send_prices();
            }
            if due[1] <= now {
                due[1] = next_due(due[1], intervals[1], now);
                self.send_portfolio();
            }
        }
    }

    // The state's lock is held until the batch is published. A client that joins meanwhile gets its state
    // afterwards, so this state is at least as new as what its group has carried.
    fn send_prices(&self) {
        let mut prices = locked(&self.prices);
        if prices.flush(now_ms()) {
            self.send(PRICE_UPDATES, |group| prices.update_for(group));
        }
    }

    fn send_portfolio(&self) {
        let mut portfolio = locked(&self.portfolio);
        if portfolio.flush(now_ms()) {
            self.send(PORTFOLIO, |group| portfolio.state_for(group));
        }
    }

    /// Sends each live group of a conflated channel its message, if it has one.
    fn send(&self, channel: &str, mut message: impl FnMut(&str) -> Option<Vec<u8>>) {
        let Some((at, _)) = self.channels.find(channel) else { return };
        let now = now_ms();
        let mut groups = Vec::new();
        self.hub.for_each_group(|group| {
            let of_channel = group.name().split(':').next() == Some(channel);
            if of_channel && group.is_live() {
                groups.push(Arc::clone(group));
            }
        });
        // Encoded before the batch begins, since nobody else publishes while it is open.
        let encoded = |group: Arc<Group>| {
            let message = message(group.name())?;
            self.outputs[at].encoded.fetch_add(1, Ordering::Relaxed);
            Some((group, frames(message, now)))
        };
        let messages: Vec<Outgoing> = groups.into_iter().filter_map(encoded).collect();
        let mut batch = self.hub.sequencer().begin(None);
        for (group, frames) in messages {
            batch.publish(&group, frames);
        }
    }
}

/// Inputs that arrived together: their messages leave together when this is dropped, so that a client of
/// several channels gets them in one piece.
pub struct PublishBatch<'a> {
    streams: &'a Streams,
    /// One or two for each input: for its channel, and for its symbol.
    messages: Vec<Outgoing>,
}

impl PublishBatch<'_> {
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
        let accepted = self.take(output, record);
        output.count(accepted.is_ok());
        accepted
    }

    fn accept(&mut self, output: &ChannelOutput, kind: ChannelKind, input: &Input<'_>) -> Result<(), InputError> {
        let limit = self.streams.options.max_publish_bytes;
        let &Input { payload, key, timestamp_ms } = input;
        if payload.len() > limit {
            return Err(InputError::TooLarge { limit, actual: payload.len() });
        }
        let record = match kind {
            ChannelKind::Passthrough => {
                let now = now_ms();
                let channel = output.group.name();
                self.add(output, None, now, || messages::message(channel, payload, key, timestamp_ms.unwrap_or(now)));
                return Ok(());
            }
            ChannelKind::Prices => StreamRecord::Price(Price::parse(payload)?),
            ChannelKind::Signals => StreamRecord::Signal(TradingSignal::parse(payload)?),
            ChannelKind::Trades => StreamRecord::Trade(Trade::parse(payload)?),
            ChannelKind::Portfolio => StreamRecord::Portfolio(Portfolio::parse(payload)?),
        };
        Ok(self.take(output, &record)?)
    }

    fn take(&mut self, output: &ChannelOutput, record: &StreamRecord<'_>) -> Result<(), TooManySymbols> {
        let now = now_ms();
        match record {
            StreamRecord::Price(price) => return self.streams.offer_price(price),
            StreamRecord::Portfolio(portfolio) => locked(&self.streams.portfolio).replace(portfolio),
            StreamRecord::Signal(signal) => {
                self.add(output, Some(&signal.symbol), now, || messages::signal(signal, now));
            }
            StreamRecord::Trade(trade) => self.add(output, Some(&trade.symbol), now, || messages::trade(trade, now)),
        }
        Ok(())
    }

    /// Adds one message for the channel's group and the symbol's. Without subscribers nothing is encoded.
    fn add(&mut self, output: &ChannelOutput, symbol: Option<&str>, now: i64, encode: impl FnOnce() -> Vec<u8>) {
        let filtered = symbol.and_then(|symbol| self.streams.hub.find(&group_of_symbol(output.group.name(), symbol)));
        let groups = [Some(&output.group), filtered.as_ref()].into_iter().flatten();
        let mut live = groups.filter(|group| group.is_live()).peekable();
        if live.peek().is_some() {
            let frames = frames(encode(), now);
            output.encoded.fetch_add(1, Ordering::Relaxed);
            self.messages.extend(live.map(|group| (Arc::clone(group), frames.clone())));
        }
    }
}

impl PublishBatch<'_> {
    /// Publishes now if that needs no waiting; otherwise returns the messages, for [`Sequencer::publish_all`](crate::engine::sequencer::Sequencer::publish_all)
    /// on a thread that may wait.
    pub fn try_send(mut self) -> Result<(), Vec<Outgoing>> {
        self.streams.hub.sequencer().try_publish_all(std::mem::take(&mut self.messages))
    }
}

impl Drop for PublishBatch<'_> {
    fn drop(&mut self) {
        self.streams.hub.sequencer().publish_all(self.messages.drain(..));
    }
}

impl Retain for Streams {
    fn retained(&self, group: &str) -> Option<Frames> {
        match group.split(':').next()? {
            PRICE_UPDATES => locked(&self.prices).retained(group),
            PORTFOLIO => locked(&self.portfolio).retained(group),
            _ => None,
        }
    }
}

/// Locks, even after a panic elsewhere: nothing is left half done under these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod stream_tests;
