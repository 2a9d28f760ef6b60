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
//! - [`publish_batch`]: inputs that arrived together, checked, encoded, and numbered when their turn has come.
//! - [`history`]: the last messages of a channel, for clients that were away or read at their own pace.
//! - [`latest_prices`], [`latest_portfolio`]: the state behind the channels that send at an interval.
//! - [`retained`]: messages of that state, kept for clients that join later.

mod encoded;
pub mod history;
pub mod input;
pub mod latest_portfolio;
pub mod latest_prices;
pub mod publish_batch;
mod retained;
pub mod stream_options;

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::encoded::frames;
use self::history::{ChannelHistory, HistoryFigures, HistoryOptions, new_epoch};
pub use self::input::{Input, InputError};
use self::latest_portfolio::LatestPortfolio;
use self::latest_prices::{LatestPrices, TooManySymbols};
pub use self::publish_batch::PublishBatch;
use self::stream_options::StreamOptions;
use crate::engine::frames::Frames;
use crate::engine::group::Group;
use crate::engine::hub::{Hub, Retain};
use crate::engine::system_clock;
use crate::health::status::{SourceHealth, Status};
use crate::wire::streams::messages::{Draft, Stamp};
use crate::wire::streams::shapes::{Price, StreamRecord};
use crate::wire::streams::{ChannelKind, Channels, PORTFOLIO, PRICE_UPDATES};

/// The name of the hub that carries the streams.
pub const STREAMS_HUB: &str = "streams";

/// All channels of a server, and the state behind them.
pub struct Streams {
    hub: Arc<Hub>,
    options: StreamOptions,
    channels: Arc<Channels>,
    /// Indexed by channel number.
    outputs: Vec<Arc<ChannelOutput>>,
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
    /// Of a conflated channel it keeps no message, only the count of them.
    history: Mutex<ChannelHistory>,
}

impl ChannelOutput {
    fn count(&self, is_accepted: bool) {
        if is_accepted {
            self.health.count_update(system_clock::unix_ns());
        } else {
            self.health.count_errors(1);
        }
    }
}

fn now_ms() -> i64 {
    (system_clock::unix_ns() / 1_000_000) as i64
}

/// The number of a conflated channel's message.
#[derive(Debug, Clone, Default)]
pub struct StateNumber {
    epoch: Arc<str>,
    seq: u64,
}

impl StateNumber {
    fn finish(&self, draft: Draft) -> Bytes {
        draft.finish(Some(Stamp { epoch: &self.epoch, partition: 0, seq: self.seq }))
    }
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
        let epoch: Arc<str> = new_epoch().into();
        let interval = |kind| match kind {
            ChannelKind::Prices => Some(Duration::from_secs(options.price_update_interval)),
            ChannelKind::Portfolio => Some(Duration::from_secs(options.portfolio_update_interval)),
            ChannelKind::Passthrough | ChannelKind::Signals | ChannelKind::Trades => None,
        };
        let output = |(name, kind): (&str, ChannelKind)| {
            let labels = || vec![("channel", Cow::Owned(name.to_owned()))];
            let help = "Messages encoded, once for all their subscribers or once per filter";
            let figures = if kind.is_conflated() {
                HistoryFigures::default()
            } else {
                let (messages, bytes) = ("Messages kept for clients that come back", "Bytes of the messages kept");
                HistoryFigures {
                    messages: status.gauge("stream_history_messages", messages, labels()),
                    bytes: status.gauge("stream_history_bytes", bytes, labels()),
                }
            };
            Arc::new(ChannelOutput {
                group: hub.declare(name, name),
                health: status.register(name, interval(kind)),
                encoded: status.count("stream_messages_encoded", help, labels()),
                history: Mutex::new(ChannelHistory::new(Arc::clone(&epoch), options.history, figures)),
            })
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

    /// The last messages of a channel, by the channel's number. Publishers wait while the guard is held.
    pub fn history(&self, channel: usize) -> MutexGuard<'_, ChannelHistory> {
        locked(&self.outputs[channel].history)
    }

    /// The history of a channel whose messages come from a log; `None` if it is unknown, or carries states.
    pub fn history_of_log(&self, channel: &str) -> Option<MutexGuard<'_, ChannelHistory>> {
        let (at, known) = self.channels.find(channel)?;
        (!known.kind.is_conflated()).then(|| self.history(at))
    }

    /// How many messages of each channel are kept.
    pub fn history_options(&self) -> &HistoryOptions {
        &self.options.history
    }

    /// The newest number of a conflated channel, and its current state as `group` gets it.
    pub fn state(&self, channel: usize, group: &str) -> (u64, Option<Frames>) {
        let count = |streams: &Self| streams.history(channel).seqs().of(0);
        match self.channels.all()[channel].kind {
            // Under the state's lock, so that number and state belong together.
            ChannelKind::Prices => {
                let mut prices = locked(&self.prices);
                (count(self), prices.retained(group))
            }
            ChannelKind::Portfolio => {
                let mut portfolio = locked(&self.portfolio);
                (count(self), portfolio.retained(group))
            }
            ChannelKind::Passthrough | ChannelKind::Signals | ChannelKind::Trades => (0, None),
        }
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
        PublishBatch::new(self)
    }

    /// Takes a symbol's price without counting it as an update of the channel. A source that offers many
    /// prices at a time calls [`Streams::prices_moved`] once afterwards.
    pub fn offer_price(&self, price: &Price<'_>) -> Result<(), TooManySymbols> {
        locked(&self.prices).update(price)
    }

    /// Counts one update of the channel `price_updates`.
    pub fn prices_moved(&self) {
        if let Some(health) = self.health(PRICE_UPDATES) {
            health.count_update(system_clock::unix_ns());
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
                self.outputs.iter().for_each(|output| locked(&output.history).trim(system_clock::monotonic_ms()));
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
        if prices.flush(now_ms(), || self.count_state(PRICE_UPDATES)) {
            self.send(PRICE_UPDATES, |group| prices.update_for(group));
        }
    }

    fn send_portfolio(&self) {
        let mut portfolio = locked(&self.portfolio);
        if portfolio.flush(now_ms(), || self.count_state(PORTFOLIO)) {
            self.send(PORTFOLIO, |group| portfolio.state_for(group));
        }
    }

    /// Counts one more message of a conflated channel.
    fn count_state(&self, channel: &str) -> StateNumber {
        let Some((at, _)) = self.channels.find(channel) else { return StateNumber::default() };
        let mut history = self.history(at);
        StateNumber { epoch: Arc::clone(history.epoch()), seq: history.count() }
    }

    /// Sends each live group of a conflated channel its message, if it has one.
    fn send(&self, channel: &str, mut message: impl FnMut(&str) -> Option<Bytes>) {
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
        let messages: Vec<(Arc<Group>, Frames)> = groups.into_iter().filter_map(encoded).collect();
        let mut batch = self.hub.sequencer().begin(None);
        for (group, frames) in messages {
            batch.publish(&group, frames);
        }
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
