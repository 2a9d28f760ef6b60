//! Which partitions there are, and whether the broker is there: a thread that asks.
//!
//! It asks for all topics' metadata, every `--kafka-refresh` while all is well and with a growing pause
//! while it is not. The answer tells what the consumer should read, and that the broker lives; errors
//! that librdkafka reports meanwhile only make it ask at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::Sender;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use super::consumer::KafkaContext;
use super::kafka_health::KafkaHealth;
use super::kafka_options::KafkaOptions;
use super::placement::{ANSWER, FoundPartition, Partition, Placement};

/// Finds partitions for one consumer.
pub struct Discovery {
    consumer: Arc<BaseConsumer<KafkaContext>>,
    health: Arc<KafkaHealth>,
    placement: Arc<Placement>,
    options: Arc<KafkaOptions>,
    /// Partitions to read, with their starts; nobody listens in a shared group.
    found: Sender<TopicPartitionList>,
    /// Topics that were there, or not, when we first looked: what comes later is new.
    known: HashMap<String, HashSet<i32>>,
    placed: HashSet<Partition>,
    told_missing: HashSet<String>,
}

impl Discovery {
    /// Nothing was asked yet.
    pub fn new(
        consumer: Arc<BaseConsumer<KafkaContext>>,
        health: Arc<KafkaHealth>,
        placement: Arc<Placement>,
        options: Arc<KafkaOptions>,
        found: Sender<TopicPartitionList>,
    ) -> Self {
        let (known, placed, told_missing) = (HashMap::new(), HashSet::new(), HashSet::new());
        Self { consumer, health, placement, options, found, known, placed, told_missing }
    }

    /// Asks until `stop`. Blocks; the caller gives it a thread.
    pub fn run(mut self, stop: &AtomicBool) {
        let mut pause = self.options.kafka_backoff;
        while !stop.load(Ordering::Relaxed) {
            self.health.attempt();
            let wait = match self.round() {
                Ok(is_complete) => {
                    self.health.up();
                    pause = self.options.kafka_backoff;
                    if is_complete { self.options.kafka_refresh } else { pause }
                }
                Err(error) => {
                    self.health.down(&error);
                    let wait = pause;
                    pause = (2 * pause).min(self.options.kafka_backoff_max).max(self.options.kafka_backoff);
                    wait
                }
            };
            // Doubts cut a long wait short, but are no reason to hurry while the broker is away.
            if self.health.is_up() {
                let _ = self.health.doubts().recv_timeout(wait);
            } else {
                sleep(wait, stop);
            }
        }
    }

    /// Asks once. Whether all that was found could be placed.
    fn round(&mut self) -> KafkaResult<bool> {
        // All topics, since rdkafka 0.39 frees the name of a single one before it asks for it.
        let metadata = self.consumer.fetch_metadata(None, ANSWER)?;
        if metadata.brokers().is_empty() {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::AllBrokersDown));
        }
        let mut fresh = Vec::new();
        for topic in &self.options.kafka_topics {
            let told = metadata.topics().iter().find(|told| told.name() == topic);
            let partitions = told.map_or_else(Vec::new, partitions);
            if !partitions.is_empty() {
                self.told_missing.remove(topic);
            } else if self.told_missing.insert(topic.clone()) {
                tracing::warn!(
                    topic,
                    "Kafka has no such topic yet, or does not show it to us; it is read when it comes"
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
        if fresh.is_empty() || self.options.kafka_shared_group {
            return Ok(true);
        }
        let placed = self.placement.place(&self.consumer, &fresh)?;
        let is_complete = placed.count() == fresh.len();
        for element in placed.elements() {
            tracing::info!(topic = element.topic(), partition = element.partition(), start = ?element.offset(), "reading");
            self.placed.insert((element.topic().to_owned(), element.partition()));
        }
        // Fails only when the consumer's thread has ended, and then so do we.
        let _ = self.found.send(placed);
        Ok(is_complete)
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

/// Sleeps, but not far beyond `stop`.
pub fn sleep(wait: Duration, stop: &AtomicBool) {
    const STEP: Duration = Duration::from_millis(50);
    let mut left = wait;
    while !left.is_zero() && !stop.load(Ordering::Relaxed) {
        let slice = left.min(STEP);
        std::thread::sleep(slice);
        left -= slice;
    }
}
