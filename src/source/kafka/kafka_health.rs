//! What `/websocket/status` and the metrics say about Kafka: an entry per topic, and whether the broker
//! answers, which is the same for all of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crossbeam::channel::{Receiver, Sender, bounded};

use super::kafka_options::KafkaOptions;
use crate::health::status::{SourceHealth, Status};

/// Whether the broker answered last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum BrokerState {
    /// The broker has not been asked yet.
    Unknown,
    Up,
    Down,
}

/// The figures of one topic.
#[derive(Debug, Clone)]
pub struct TopicFigures {
    /// Messages read, including those that were skipped.
    pub messages: Arc<AtomicU64>,
    /// Bytes of the payloads read.
    pub bytes: Arc<AtomicU64>,
    /// Messages in Kafka that were not read yet.
    pub lag: Arc<AtomicU64>,
    /// How often the topic was deleted and made anew.
    pub recreated: Arc<AtomicU64>,
    /// Messages skipped, indexed by [`Poison::index`](super::intake::Poison::index).
    pub skipped: Vec<Arc<AtomicU64>>,
}

/// Whether the broker answers; passes it on to the stream health of every topic.
pub struct KafkaHealth {
    state: AtomicU8,
    streams: Vec<Arc<SourceHealth>>,
    attempts: Arc<AtomicU64>,
    doubts: (Sender<()>, Receiver<()>),
}

impl KafkaHealth {
    /// The health of these streams; none is connected yet.
    pub fn new(streams: Vec<Arc<SourceHealth>>, status: &Status) -> Self {
        for stream in &streams {
            stream.set_connected(false);
        }
        let attempts = status.count("kafka_reconnects", "Tries to reach Kafka while it was away", vec![]);
        Self { state: AtomicU8::new(BrokerState::Unknown as u8), streams, attempts, doubts: bounded(1) }
    }

    /// Notes that the broker answered.
    pub fn up(&self) {
        let before = self.state.swap(BrokerState::Up as u8, Ordering::Relaxed);
        if before != BrokerState::Up as u8 {
            self.set_connected(true);
            tracing::info!("Kafka answers");
        }
    }

    /// Notes that the broker did not answer.
    pub fn down(&self, reason: &dyn std::fmt::Display) {
        let before = self.state.swap(BrokerState::Down as u8, Ordering::Relaxed);
        if before != BrokerState::Down as u8 {
            self.set_connected(false);
            tracing::warn!("Kafka does not answer: {reason}; flowcast keeps serving its clients and tries again");
        }
    }

    /// Whether the broker answered last time.
    pub fn is_up(&self) -> bool {
        self.state.load(Ordering::Relaxed) == BrokerState::Up as u8
    }

    /// Called before the broker is asked; counts the tries while it does not answer.
    pub fn attempt(&self) {
        if self.state.load(Ordering::Relaxed) == BrokerState::Down as u8 {
            self.attempts.fetch_add(1, Ordering::Relaxed);
            for stream in &self.streams {
                stream.count_recovery();
            }
        }
    }

    /// librdkafka reports an error: the thread that waits on [`KafkaHealth::doubts`] should ask the broker.
    pub fn doubt(&self) {
        // Full: the broker is going to be asked anyway.
        let _ = self.doubts.0.try_send(());
    }

    /// Receives one message per doubt; at most one waits.
    pub fn doubts(&self) -> &Receiver<()> {
        &self.doubts.1
    }

    /// Counts an error of the source itself.
    pub fn failed(&self) {
        for stream in &self.streams {
            stream.count_errors(1);
        }
    }

    fn set_connected(&self, connected: bool) {
        for stream in &self.streams {
            stream.set_connected(connected);
        }
    }
}

/// Registers the figures of every topic. `poisons` names the kinds of messages that are skipped.
pub fn figures(options: &KafkaOptions, status: &Status, poisons: &[&'static str]) -> HashMap<String, TopicFigures> {
    let topics = &options.kafka_topics;
    let label = |topic: &String| vec![("topic", topic.clone().into())];
    // Counters of one name are registered one after the other.
    let all = |name, help| -> Vec<Arc<AtomicU64>> {
        topics.iter().map(|topic| status.count(name, help, label(topic))).collect()
    };
    let messages = all("kafka_messages", "Messages read from Kafka");
    let bytes = all("kafka_bytes", "Bytes of the payloads read from Kafka");
    let lag: Vec<_> = topics
        .iter()
        .map(|topic| status.gauge("kafka_lag", "Messages in Kafka that this node has not read yet", label(topic)))
        .collect();
    let skipped: Vec<Vec<_>> = topics
        .iter()
        .map(|topic| {
            let count = |&kind: &&'static str| {
                let labels = vec![("topic", topic.clone().into()), ("reason", kind.into())];
                status.count("kafka_messages_skipped", "Messages that could not be passed on", labels)
            };
            poisons.iter().map(count).collect()
        })
        .collect();
    let recreated = all("kafka_topics_recreated", "Topics that were deleted and made anew while they were read");
    let columns = messages.into_iter().zip(bytes).zip(lag).zip(recreated).zip(skipped);
    let rows = columns.map(|((((messages, bytes), lag), recreated), skipped)| TopicFigures {
        messages,
        bytes,
        lag,
        recreated,
        skipped,
    });
    topics.iter().cloned().zip(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> (Status, KafkaHealth) {
        let status = Status::default();
        let health = KafkaHealth::new(vec![status.register("lines", None)], &status);
        (status, health)
    }

    fn told(status: &Status) -> (bool, u64) {
        let stream = &status.snapshot()[0];
        (stream.is_healthy, stream.recoveries)
    }

    #[test]
    fn a_stream_is_healthy_from_the_first_answer_until_one_fails_to_come() {
        let (status, health) = health();
        assert_eq!(told(&status), (false, 0));
        health.attempt();
        health.up();
        assert_eq!(told(&status), (true, 0), "the first connection is no recovery");
        health.down(&"gone");
        health.attempt();
        health.attempt();
        assert_eq!(told(&status), (false, 2));
        health.up();
        assert_eq!(told(&status), (true, 2));
    }

    #[test]
    fn doubts_do_not_pile_up() {
        let (_, health) = health();
        health.doubt();
        health.doubt();
        assert!(health.doubts().try_recv().is_ok() && health.doubts().try_recv().is_err());
    }
}
