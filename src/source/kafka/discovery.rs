//! The thread that asks the broker which partitions there are, and so whether it answers at all.
//!
//! It asks for the metadata of all topics: every `--kafka-refresh` while the broker answers, and with
//! growing pauses while it does not. An error that librdkafka reports in between makes it ask at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::channel::{Sender, TrySendError};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::types::RDKafkaRespErr;

use super::kafka_context::KafkaContext;
use super::kafka_health::KafkaHealth;
use super::kafka_options::{KafkaOptions, ORDERFLOW_TOPIC};
use super::pause::{RetryPauses, sleep};
use super::placement::{ANSWER, FoundPartition, Partition, Placed, Placement};
use super::topic_ids::topic_ids;

/// Findings that may wait until the consumer takes them. It takes all of them after each message; one that finds
/// no room is made again by the next round.
pub const FOUND_WAITING: usize = 64;

/// What the consumer must know.
pub enum Finding {
    /// A topic has this id, which is new, or another than before.
    Id {
        /// The topic's name.
        topic: String,
        /// Its id.
        id: String,
    },
    /// Partitions to read.
    Partitions(Placed),
}

/// Finds partitions for one consumer.
pub struct Discovery {
    consumer: Arc<BaseConsumer<KafkaContext>>,
    health: Arc<KafkaHealth>,
    placement: Arc<Placement>,
    options: Arc<KafkaOptions>,
    /// What was found; unused in a shared group.
    found: Sender<Finding>,
    /// The partitions that each topic had in the first answer: any other is new.
    known: HashMap<String, HashSet<i32>>,
    placed: HashSet<Partition>,
    /// Topics that were reported missing.
    missing: HashSet<String>,
    /// The ids of topics, as the consumer knows them.
    ids: HashMap<String, String>,
}

impl Discovery {
    /// Discovery for one consumer; nothing has been asked yet.
    pub fn new(
        consumer: Arc<BaseConsumer<KafkaContext>>,
        health: Arc<KafkaHealth>,
        placement: Arc<Placement>,
        options: Arc<KafkaOptions>,
        found: Sender<Finding>,
    ) -> Self {
        let (known, placed, missing, ids) = (HashMap::new(), HashSet::new(), HashSet::new(), HashMap::new());
        Self { consumer, health, placement, options, found, known, placed, missing, ids }
    }

    /// Asks until `stop` is set. Blocks: call it on a thread of its own.
    pub fn run(mut self, stop: &AtomicBool) {
        let mut pauses = RetryPauses::new(self.options.kafka_backoff, self.options.kafka_backoff_max);
        while !stop.load(Ordering::Relaxed) {
            self.health.attempt();
            let wait = match self.round() {
                Ok(is_complete) => {
                    self.health.up();
                    pauses.reset();
                    if is_complete { self.options.kafka_refresh } else { self.options.kafka_backoff }
                }
                Err(error) => {
                    self.health.down(&error);
                    pauses.next()
                }
            };
            // An error ends a long wait, but is no reason to hurry while the broker is away.
            if self.health.is_up() {
                let _ = self.health.doubts().recv_timeout(wait);
            } else {
                sleep(wait, stop);
            }
        }
    }

    /// Asks once. False if some new partitions must wait for the next round.
    fn round(&mut self) -> KafkaResult<bool> {
        // For all topics: rdkafka 0.39 frees the name of a single topic before librdkafka reads it.
        let metadata = self.consumer.fetch_metadata(None, ANSWER)?;
        if metadata.brokers().is_empty() {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::AllBrokersDown));
        }
        let mut fresh = Vec::new();
        for topic in &self.options.kafka_topics {
            let told = metadata.topics().iter().find(|told| told.name() == topic);
            let partitions = told.map_or_else(Vec::new, partitions);
            if !partitions.is_empty() {
                self.missing.remove(topic);
            } else if self.missing.insert(topic.clone()) {
                tracing::warn!(
                    topic,
                    "Kafka has no such topic yet, or this user may not describe it; it will be read as soon as it appears"
                );
            }
            let is_first = !self.known.contains_key(topic);
            let known = self.known.entry(topic.clone()).or_default();
            for number in partitions {
                if is_first {
                    known.insert(number);
                }
                let partition = (topic.clone(), number);
                if !self.placed.contains(&partition) {
                    fresh.push(FoundPartition { is_new: !known.contains(&number), partition });
                }
            }
        }
        if self.options.kafka_shared_group || !self.identify() {
            return Ok(self.options.kafka_shared_group);
        }
        if fresh.is_empty() {
            return Ok(true);
        }
        let placed = self.placement.place(&self.consumer, &fresh)?;
        let is_complete = placed.starts.count() == fresh.len();
        match self.found.try_send(Finding::Partitions(placed.clone())) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Ok(false),
            // The consumer's thread has ended, and stops this one next.
            Err(TrySendError::Disconnected(_)) => return Ok(true),
        }
        for element in placed.starts.elements() {
            tracing::info!(topic = element.topic(), partition = element.partition(), start = ?element.offset(), "reading");
            self.placed.insert((element.topic().to_owned(), element.partition()));
        }
        Ok(is_complete)
    }
}

impl Discovery {
    /// Asks for the topics' ids, before partitions are read: their histories are named by them. False if the
    /// consumer has not taken the last ones yet.
    fn identify(&mut self) -> bool {
        let known: Vec<&str> =
            self.known.keys().map(String::as_str).filter(|topic| *topic != ORDERFLOW_TOPIC).collect();
        for (topic, id) in topic_ids(self.consumer.client(), &known, ANSWER) {
            if self.ids.get(&topic) == Some(&id) {
                continue;
            }
            if let Err(TrySendError::Full(_)) =
                self.found.try_send(Finding::Id { topic: topic.clone(), id: id.clone() })
            {
                return false;
            }
            self.ids.insert(topic, id);
        }
        true
    }
}

/// The numbers of a topic's partitions; none if there is no such topic.
fn partitions(topic: &MetadataTopic) -> Vec<i32> {
    match topic.error() {
        None | Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR) => {
            topic.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect()
        }
        Some(_) => Vec::new(),
    }
}
