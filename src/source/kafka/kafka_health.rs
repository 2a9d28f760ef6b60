//! What `/websocket/status` and the metrics say of Kafka: one entry per topic, all on one connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crossbeam::channel::{Receiver, Sender, bounded};

use super::kafka_options::KafkaOptions;
use crate::health::status::{SourceHealth, Status};

/// Whether the broker is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum State {
    /// Not asked yet.
    Unknown,
    Up,
    Down,
}

/// What is counted of one topic.
#[derive(Debug, Clone)]
pub struct Figures {
    /// Messages that came, poison included.
    pub messages: Arc<AtomicU64>,
    /// Their payloads' bytes.
    pub bytes: Arc<AtomicU64>,
    /// Messages there are in Kafka that did not come yet.
    pub lag: Arc<AtomicU64>,
    /// Messages skipped, by [`Poison::index`](super::intake::Poison::index).
    pub skipped: Vec<Arc<AtomicU64>>,
}

/// The connection as others see it.
pub struct Health {
    state: AtomicU8,
    streams: Vec<Arc<SourceHealth>>,
    attempts: Arc<AtomicU64>,
    doubts: (Sender<()>, Receiver<()>),
}

impl Health {
    /// Not connected yet.
    pub fn new(streams: Vec<Arc<SourceHealth>>, status: &Status) -> Self {
        for stream in &streams {
            stream.set_connected(false);
        }
        let attempts = status.count("kafka_reconnects", "Tries to reach Kafka while it was away", vec![]);
        Self { state: AtomicU8::new(State::Unknown as u8), streams, attempts, doubts: bounded(1) }
    }

    /// The broker answered.
    pub fn up(&self) {
        let before = self.state.swap(State::Up as u8, Ordering::Relaxed);
        if before != State::Up as u8 {
            self.set_connected(true);
            tracing::info!("Kafka answers");
        }
    }

    /// The broker did not answer.
    pub fn down(&self, reason: &dyn std::fmt::Display) {
        let before = self.state.swap(State::Down as u8, Ordering::Relaxed);
        if before != State::Down as u8 {
            self.set_connected(false);
            tracing::warn!("Kafka does not answer: {reason}; serving on, and trying again");
        }
    }

    /// Whether the broker answered last time.
    pub fn is_up(&self) -> bool {
        self.state.load(Ordering::Relaxed) == State::Up as u8
    }

    /// It is tried again.
    pub fn attempt(&self) {
        if self.state.load(Ordering::Relaxed) == State::Down as u8 {
            self.attempts.fetch_add(1, Ordering::Relaxed);
            for stream in &self.streams {
                stream.count_recovery();
            }
        }
    }

    /// Something is wrong: whoever waits on [`Health::doubts`] should ask the broker.
    pub fn doubt(&self) {
        // Full: somebody has doubts already.
        let _ = self.doubts.0.try_send(());
    }

    /// Doubts as they come.
    pub fn doubts(&self) -> &Receiver<()> {
        &self.doubts.1
    }

    /// An error of the source itself.
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

/// Registers the figures of every topic.
pub fn figures(options: &KafkaOptions, status: &Status, poisons: &[&'static str]) -> HashMap<String, Figures> {
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
    let columns = messages.into_iter().zip(bytes).zip(lag).zip(skipped);
    let rows = columns.map(|(((messages, bytes), lag), skipped)| Figures { messages, bytes, lag, skipped });
    topics.iter().cloned().zip(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> (Status, Health) {
        let status = Status::default();
        let health = Health::new(vec![status.register("lines", None)], &status);
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
