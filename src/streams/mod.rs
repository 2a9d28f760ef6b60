//! The JSON streams: what is published to their channels becomes publications of one hub.
//!
//! ```text
//! Kafka, HTTP, files ─▶ Together::publish ─┬▶ topic, signal, trade ─▶ one frame ─▶ groups, at once
//!                                          └▶ price, portfolio ─▶ latest state ─▶ (interval) ─▶ groups
//! ```
//!
//! Sources and the server's publish call put records in; neither knows who else does. A message is
//! encoded once: a topic's for all its subscribers, a signal or trade for those of everything and
//! those of its symbol, a price update or portfolio per set of symbols that somebody chose.

pub mod latest;
pub mod stream_options;

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::latest::{LatestPortfolio, LatestPrices, TooManySymbols};
use self::stream_options::StreamOptions;
use crate::engine::clock;
use crate::engine::frames::{Form, FrameStore, Frames};
use crate::engine::group::Group;
use crate::engine::hub::{Hub, Outgoing, Retain};
use crate::health::status::{SourceHealth, Status};
use crate::wire::streams::shapes::{Portfolio, Price, ShapeError, Signal, Trade};
use crate::wire::streams::{Channels, Kind, PORTFOLIO, PRICE_UPDATES, group_of_symbol, messages};

/// The hub's name.
pub const STREAMS_HUB: &str = "streams";

/// One thing to publish.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// A record in the channel's shape, or for topics any bytes.
    pub payload: &'a [u8],
    /// A topic message's key.
    pub key: Option<&'a [u8]>,
    /// A topic message's own time, Unix ms; otherwise it is the time of sending.
    pub timestamp_ms: Option<i64>,
}

impl<'a> Input<'a> {
    /// A payload without key and time.
    pub fn new(payload: &'a [u8]) -> Self {
        Self { payload, key: None, timestamp_ms: None }
    }
}

/// Why an input is not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No such channel.
    #[error("expected a channel there is, got {0:?}")]
    UnknownChannel(String),
    /// Over the limit.
    #[error("expected at most {limit} bytes, got {actual}")]
    TooLarge {
        /// `--max-publish-bytes`.
        limit: usize,
        /// Bytes of the payload.
        actual: usize,
    },
    /// Not the channel's shape.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A symbol too many.
    #[error(transparent)]
    TooManySymbols(#[from] TooManySymbols),
}

/// All channels of a server.
pub struct Streams {
    hub: Arc<Hub>,
    options: StreamOptions,
    channels: Arc<Channels>,
    /// By channel number.
    feeds: Vec<Feed>,
    prices: Mutex<LatestPrices>,
    portfolio: Mutex<LatestPortfolio>,
    /// Asked before each price update.
    asked: Mutex<Vec<PriceSource>>,
}

/// A source of prices that is asked, not told.
pub type PriceSource = Box<dyn FnMut(&Streams) + Send>;

/// What belongs to one channel.
struct Feed {
    group: Arc<Group>,
    health: Arc<SourceHealth>,
    encoded: Arc<AtomicU64>,
}

/// One message, finished.
struct Message {
    frame: Bytes,
    unix_s: i64,
}

impl FrameStore for Message {
    fn frame(&self, _: u32, _: Form) -> Bytes {
        self.frame.clone()
    }

    fn payload(&self, _: u32, _: Form) -> Option<Bytes> {
        Some(self.frame.clone())
    }

    fn timestamp(&self, _: u32) -> i64 {
        self.unix_s
    }
}

fn frames(frame: Vec<u8>, unix_ms: i64) -> Frames {
    Frames::new(Arc::new(Message { frame: frame.into(), unix_s: unix_ms.div_euclid(1000) }), 0)
}

fn now_ms() -> i64 {
    (clock::unix_ns() / 1_000_000) as i64
}

impl Streams {
    /// Declares a group per channel: the trading streams, and one for each of `topics`.
    pub fn new<'a>(
        hub: Arc<Hub>,
        topics: impl IntoIterator<Item = &'a str>,
        options: StreamOptions,
        status: &Status,
    ) -> Arc<Self> {
        let channels = Arc::new(Channels::new(topics));
        let interval = |kind| match kind {
            Kind::Prices => Some(Duration::from_secs(options.price_update_interval)),
            Kind::Portfolio => Some(Duration::from_secs(options.portfolio_update_interval)),
            Kind::Topic | Kind::Signals | Kind::Trades => None,
        };
        let feed = |(name, kind): (&str, Kind)| {
            let labels = vec![("channel", Cow::Owned(name.to_owned()))];
            let help = "Messages encoded, once for all their subscribers or once per filter";
            Feed {
                group: hub.declare(name, name),
                health: status.register(name, interval(kind)),
                encoded: status.count("stream_messages_encoded", help, labels),
            }
        };
        let feeds = channels.all().iter().map(|channel| feed((&channel.name, channel.kind))).collect();
        let prices = Mutex::new(LatestPrices::new(options.max_symbols));
        let streams = Arc::new(Self {
            hub,
            options,
            channels,
            feeds,
            prices,
            portfolio: Mutex::default(),
            asked: Mutex::default(),
        });
        let retain: Arc<dyn Retain> = Arc::clone(&streams) as _;
        streams.hub.fill(Arc::downgrade(&retain));
        streams
    }

    /// The hub that carries them.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Which channels there are.
    pub fn channels(&self) -> &Arc<Channels> {
        &self.channels
    }

    /// How a channel is: its sources tell of their connection here.
    pub fn health(&self, channel: &str) -> Option<&Arc<SourceHealth>> {
        self.channels.find(channel).map(|(at, _)| &self.feeds[at].health)
    }

    /// Publishes one input. Inputs of one caller keep their order within a channel.
    pub fn publish(&self, channel: &str, input: &Input<'_>) -> Result<(), Refused> {
        self.together().publish(channel, input)
    }

    /// For inputs that arrived together.
    pub fn together(&self) -> Together<'_> {
        Together { streams: self, messages: Vec::new() }
    }

    /// Takes a symbol's price without counting it as input, for sources of this process. Those say
    /// [`Streams::prices_moved`] when they are through.
    pub fn offer_price(&self, price: &Price<'_>) -> Result<(), TooManySymbols> {
        locked(&self.prices).update(price)
    }

    /// Prices were offered.
    pub fn prices_moved(&self) {
        if let Some(health) = self.health(PRICE_UPDATES) {
            health.count_update(clock::unix_ns());
        }
    }

    /// `source` is asked for prices ahead of each price update, the first time at once, so that whoever
    /// comes next finds a state.
    pub fn ask_before_prices(&self, mut source: PriceSource) {
        source(self);
        self.tell_prices();
        locked(&self.asked).push(source);
    }

    /// Sends price updates and portfolios at their intervals until `stop`. Blocks; the caller gives it
    /// a thread.
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
                due[0] = (due[0] + intervals[0]).max(now);
                locked(&self.asked).iter_mut().for_each(|source| source(self));
                self.tell_prices();
            }
            if due[1] <= now {
                due[1] = (due[1] + intervals[1]).max(now);
                self.tell_portfolio();
            }
        }
    }

    // The state's lock is held until the batch is published: who joins meanwhile asks for the state
    // afterwards, and gets one that is at least as new as what the group has carried.
    fn tell_prices(&self) {
        let mut prices = locked(&self.prices);
        if prices.flush(now_ms()) {
            self.tell(PRICE_UPDATES, |group| prices.update_for(group));
        }
    }

    fn tell_portfolio(&self) {
        let mut portfolio = locked(&self.portfolio);
        if portfolio.flush(now_ms()) {
            self.tell(PORTFOLIO, |group| portfolio.state_for(group));
        }
    }

    /// Sends each live group of a conflated channel its message, if it has one.
    fn tell(&self, channel: &str, mut message: impl FnMut(&str) -> Option<Vec<u8>>) {
        let Some((at, _)) = self.channels.find(channel) else { return };
        let now = now_ms();
        let mut groups = Vec::new();
        self.hub.for_each_group(|group| {
            let of_channel = group.name().split(':').next() == Some(channel);
            if of_channel && group.is_live() {
                groups.push(Arc::clone(group));
            }
        });
        let mut batch = self.hub.begin(None);
        for group in groups {
            if let Some(message) = message(group.name()) {
                self.feeds[at].encoded.fetch_add(1, Ordering::Relaxed);
                batch.publish(&group, frames(message, now));
            }
        }
    }
}

/// Inputs that arrived together: what they say leaves together when this is dropped, so that a client of
/// several channels gets it in one piece.
pub struct Together<'a> {
    streams: &'a Streams,
    /// As many as there were inputs, or twice as many.
    messages: Vec<Outgoing>,
}

impl Together<'_> {
    /// Judges one input, and takes it if it is as it should be.
    pub fn publish(&mut self, channel: &str, input: &Input<'_>) -> Result<(), Refused> {
        let streams = self.streams;
        let Some((at, known)) = streams.channels.find(channel) else {
            return Err(Refused::UnknownChannel(channel.chars().take(100).collect()));
        };
        let feed = &streams.feeds[at];
        let accepted = self.accept(feed, known.kind, channel, input);
        match accepted {
            Ok(()) => feed.health.count_update(clock::unix_ns()),
            Err(_) => feed.health.count_errors(1),
        }
        accepted
    }

    fn accept(&mut self, feed: &Feed, kind: Kind, channel: &str, input: &Input<'_>) -> Result<(), Refused> {
        let limit = self.streams.options.max_publish_bytes;
        if input.payload.len() > limit {
            return Err(Refused::TooLarge { limit, actual: input.payload.len() });
        }
        let now = now_ms();
        match kind {
            Kind::Topic => {
                let at = input.timestamp_ms.unwrap_or(now);
                self.add(feed, None, now, || messages::message(channel, input.payload, input.key, at));
            }
            Kind::Signals => {
                let signal = Signal::parse(input.payload)?;
                self.add(feed, Some(&signal.symbol), now, || messages::signal(&signal, now));
            }
            Kind::Trades => {
                let trade = Trade::parse(input.payload)?;
                self.add(feed, Some(&trade.symbol), now, || messages::trade(&trade, now));
            }
            Kind::Prices => self.streams.offer_price(&Price::parse(input.payload)?)?,
            Kind::Portfolio => locked(&self.streams.portfolio).replace(&Portfolio::parse(input.payload)?),
        }
        Ok(())
    }

    /// Adds one message for the channel's group and its symbol's. Nobody there: nothing is encoded.
    fn add(&mut self, feed: &Feed, symbol: Option<&str>, now: i64, encode: impl FnOnce() -> Vec<u8>) {
        let filtered = symbol.and_then(|symbol| self.streams.hub.find(&group_of_symbol(feed.group.name(), symbol)));
        let groups = [Some(&feed.group), filtered.as_ref()].into_iter().flatten();
        let mut live = groups.filter(|group| group.is_live()).peekable();
        if live.peek().is_some() {
            let frames = frames(encode(), now);
            feed.encoded.fetch_add(1, Ordering::Relaxed);
            self.messages.extend(live.map(|group| (Arc::clone(group), frames.clone())));
        }
    }
}

impl Together<'_> {
    /// Publishes now if that needs no waiting; otherwise gives back what may be published by
    /// [`Hub::publish_all`] on a thread that may wait.
    pub fn try_send(mut self) -> Result<(), Vec<Outgoing>> {
        self.streams.hub.try_publish_all(std::mem::take(&mut self.messages))
    }
}

impl Drop for Together<'_> {
    fn drop(&mut self) {
        self.streams.hub.publish_all(self.messages.drain(..));
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

/// Nothing is left half done under these locks, so a panic elsewhere does not spoil them.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod stream_tests;
