//! Passes each message on to its channel or to the orderflow hub; counts and skips those that cannot be.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::kafka_health::TopicFigures;
use super::kafka_options::ORDERFLOW_TOPIC;
use super::refill::seq_of;
use crate::engine::system_clock::monotonic_ms;
use crate::health::log_limit::{LogLimiter, any};
use crate::source::live::{LiveError, LiveOrderflow};
use crate::streams::{Input, InputError, Streams};

/// One message as it stands in its topic.
#[derive(Debug, Clone, Copy)]
pub struct TopicMessage<'a> {
    /// The topic's name.
    pub topic: &'a str,
    /// The number of the partition.
    pub partition: i32,
    /// The message's number in the partition.
    pub offset: i64,
    /// The message's key; for orderflow it is the ticker.
    pub key: Option<&'a [u8]>,
    /// `None` for a tombstone, which deletes a key from a compacted topic.
    pub payload: Option<&'a [u8]>,
    /// The producer's or the broker's time, Unix ms.
    pub timestamp_ms: Option<i64>,
}

impl<'a> TopicMessage<'a> {
    fn input(&self, payload: &'a [u8]) -> Input<'a> {
        let log = u32::try_from(self.partition).ok().map(|partition| (partition, seq_of(self.offset)));
        Input { payload, key: self.key, timestamp_ms: self.timestamp_ms, log }
    }
}

/// Why a message cannot be passed on. Such messages are counted and skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Poison {
    /// It has no payload: it deletes a key from a compacted topic.
    Tombstone,
    /// It is longer than a limit in bytes.
    TooLarge,
    /// It does not have the channel's shape.
    Invalid,
    /// It names a new ticker or symbol, and the limit of them is reached.
    OverLimit,
}

impl Poison {
    /// The names in the metrics, in the order of [`Poison::index`].
    pub const NAMES: [&'static str; 4] = ["tombstone", "too_large", "invalid", "over_limit"];

    /// Position in [`Poison::NAMES`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Log lines of one kind of skipped message.
const ONE_A_MINUTE: LogLimiter = LogLimiter::new(1, 60_000);

/// Passes messages on to the channels and the orderflow hub.
pub struct Intake {
    streams: Arc<Streams>,
    orderflow: Option<LiveOrderflow>,
    topics: HashMap<String, Topic>,
    max_message_bytes: usize,
}

struct Topic {
    figures: TopicFigures,
    /// Indexed by [`Poison::index`].
    log: [LogLimiter; Poison::NAMES.len()],
}

impl Intake {
    /// Messages of the topics in `figures` go to the channels of their names, those of `orderflow` to
    /// the hub.
    pub fn new(
        streams: Arc<Streams>,
        orderflow: Option<LiveOrderflow>,
        figures: HashMap<String, TopicFigures>,
        max_message_bytes: usize,
    ) -> Self {
        let topic = |(name, figures)| (name, Topic { figures, log: [const { ONE_A_MINUTE }; Poison::NAMES.len()] });
        Self { streams, orderflow, topics: figures.into_iter().map(topic).collect(), max_message_bytes }
    }

    /// Keeps a message that was passed on earlier, for clients that come back.
    pub fn keep(&self, message: &TopicMessage<'_>) {
        if let Some(payload) = message.payload.filter(|payload| payload.len() <= self.max_message_bytes) {
            self.streams.batch().keep(message.topic, &message.input(payload));
        }
    }

    /// Passes one message on. When it returns, the hub has the message, or the message is skipped for good, and
    /// the answer is false.
    pub fn take(&mut self, message: &TopicMessage<'_>) -> bool {
        let taken = self.pass_on(message);
        let is_taken = taken.is_ok();
        let Some(topic) = self.topics.get_mut(message.topic) else { return is_taken };
        topic.figures.messages.fetch_add(1, Ordering::Relaxed);
        topic.figures.bytes.fetch_add(message.payload.map_or(0, <[u8]>::len) as u64, Ordering::Relaxed);
        if let Err((poison, reason)) = taken {
            topic.figures.skipped[poison.index()].fetch_add(1, Ordering::Relaxed);
            log_skipped(&mut topic.log[poison.index()], message, poison, &reason, monotonic_ms());
        }
        is_taken
    }

    fn pass_on(&mut self, message: &TopicMessage<'_>) -> Result<(), (Poison, String)> {
        let fits = match message.payload {
            None => Err((Poison::Tombstone, "expected a payload, got none (a tombstone)".to_owned())),
            Some(payload) if payload.len() > self.max_message_bytes => {
                let limit = self.max_message_bytes;
                Err((Poison::TooLarge, format!("expected at most {limit} bytes, got {}", payload.len())))
            }
            Some(payload) => Ok(payload),
        };
        if message.topic == ORDERFLOW_TOPIC
            && let Some(orderflow) = &mut self.orderflow
        {
            let taken = fits.and_then(|line| orderflow.publish(message.key, line).map_err(|error| live(&error)));
            if taken.is_err() {
                orderflow.health().count_errors(1);
            }
            return taken;
        }
        if fits.is_err()
            && let Some(health) = self.streams.health(message.topic)
        {
            health.count_errors(1);
        }
        let input = message.input(fits?);
        // The channel counts what it refuses in its own health.
        self.streams.publish(message.topic, &input).map_err(|refused| (kind(&refused), refused.to_string()))
    }
}

fn live(error: &LiveError) -> (Poison, String) {
    let poison = match error {
        LiveError::TooManyTickers { .. } => Poison::OverLimit,
        LiveError::BadTicker { .. } | LiveError::Record(_) => Poison::Invalid,
    };
    (poison, error.to_string())
}

fn kind(refused: &InputError) -> Poison {
    match refused {
        InputError::TooLarge { .. } => Poison::TooLarge,
        InputError::TooManySymbols(_) => Poison::OverLimit,
        InputError::UnknownChannel(_) | InputError::Shape(_) => Poison::Invalid,
    }
}

/// Logs a skipped message, unless the limiter of its kind suppresses the line. Returns whether it did.
fn log_skipped(log: &mut LogLimiter, message: &TopicMessage<'_>, poison: Poison, reason: &str, now_ms: u64) -> bool {
    let Some(suppressed) = log.pass(now_ms) else { return false };
    let TopicMessage { topic, partition, offset, .. } = message;
    let kind = Poison::NAMES[poison.index()];
    tracing::warn!(topic, partition, offset, kind, suppressed = any(suppressed), "skipped a Kafka message: {reason}");
    true
}

#[cfg(test)]
#[path = "intake_tests.rs"]
mod intake_tests;
