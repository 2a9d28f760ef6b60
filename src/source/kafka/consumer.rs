//! The thread that reads: poll, pass on, store the offset.
//!
//! It never waits for the network: [`super::discovery`] asks the broker on a thread of its own. Only a
//! shared group's rebalance asks from here ([`super::kafka_context`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, bounded};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::discovery::{Discovery, FOUND_WAITING, Finding};
use super::intake::{Intake, Poison, TopicMessage};
use super::kafka_context::{KafkaContext, KafkaShared};
use super::kafka_health::{self, KafkaHealth};
use super::kafka_options::{KafkaOptions, ORDERFLOW_TOPIC};
use super::librdkafka::KafkaError;
use super::pace::CatchUpPace;
use super::pause::sleep;
use super::placement::{ANSWER, Placed, Placement};
use super::refill::Refill;
use crate::engine::system_clock;
use crate::health::status::Status;
use crate::source::live::LiveOrderflow;
use crate::streams::Streams;

/// How long one poll waits for a message; also how soon a stop is noticed.
const POLL: Duration = Duration::from_millis(50);

/// Kafka forgets the offsets of a group without members some time after their commit, by default a week.
/// The offset of a quiet partition is committed again this often.
const RENEWAL: Duration = Duration::from_hours(1);

/// A running reader of Kafka topics.
pub struct KafkaSource {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl KafkaSource {
    /// Reads the topics of `options` into the channels of their names, and `orderflow` into the hub.
    ///
    /// Waits for a broker in the background as long as it takes. Settings that librdkafka refuses are an
    /// error at once.
    pub fn start(
        options: &KafkaOptions,
        streams: Arc<Streams>,
        orderflow: Option<LiveOrderflow>,
        status: &Status,
    ) -> Result<Self, KafkaError> {
        let mut options = options.clone();
        if orderflow.is_none() {
            // The orderflow hub is switched off, so the topic has no readers.
            options.kafka_topics.retain(|topic| topic != ORDERFLOW_TOPIC);
        }
        let figures = kafka_health::figures(&options, status, &Poison::NAMES);
        let mut watched: Vec<_> = options.channels().filter_map(|topic| streams.health(topic).cloned()).collect();
        watched.extend(orderflow.as_ref().map(|orderflow| Arc::clone(orderflow.health())));
        let stop = Arc::new(AtomicBool::new(false));
        let options = Arc::new(options);
        let shared = KafkaShared {
            health: Arc::new(KafkaHealth::new(watched, status)),
            placement: Arc::new(Placement::new(options.kafka_start)),
            topic_changes: Arc::default(),
            figures: Arc::new(figures.clone()),
            stop: Arc::clone(&stop),
            assigned: Arc::default(),
            options: Arc::clone(&options),
        };
        if !options.kafka_shared_group {
            // A shared group gives every node other messages: their places say nothing to the others.
            options
                .channels()
                .filter_map(|topic| streams.history_of_log(topic))
                .for_each(|mut history| history.await_log());
        }
        let refill = Refill::new(Arc::clone(&streams), options.kafka_reread_rate);
        let intake = Intake::new(streams, orderflow, figures, options.kafka_max_message_bytes);
        let consumer = shared.consumer()?;
        let reader = ConsumerLoop { shared, intake, refill, pace: CatchUpPace::new(options.kafka_catch_up_speed) };
        let thread = thread::Builder::new().name("kafka".to_owned());
        let thread = thread.spawn(move || reader.run(consumer)).map_err(KafkaError::Thread)?;
        tracing::info!(group = options.group(), topics = ?options.kafka_topics, "reading from Kafka");
        Ok(Self { stop, thread })
    }

    /// Stops reading and commits the offsets of what was passed on; false if that took longer than
    /// `patience`.
    ///
    /// Blocks. A process that ends without this may send the messages of its last second again.
    pub fn stop(self, patience: Duration) -> bool {
        self.stop.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + patience;
        while !self.thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        self.thread.is_finished()
    }
}

/// Everything that the reading thread owns.
struct ConsumerLoop {
    shared: KafkaShared,
    intake: Intake,
    refill: Refill,
    pace: CatchUpPace,
}

impl ConsumerLoop {
    /// Reads until it is stopped; makes a new consumer when one fails for good.
    fn run(mut self, first: BaseConsumer<KafkaContext>) {
        let mut next = Some(first);
        while !self.shared.is_stopped() {
            let ended = match next.take().map_or_else(|| self.shared.consumer(), Ok) {
                Ok(consumer) => self.read(&Arc::new(consumer)),
                Err(error) => Err(error.to_string()),
            };
            if let Err(reason) = ended {
                tracing::error!("the Kafka consumer failed: {reason}; a new consumer continues at the same offsets");
                self.shared.health.failed();
                sleep(self.shared.options.kafka_backoff_max, &self.shared.stop);
            }
        }
    }

    /// Reads with one consumer until it fails or the source is stopped.
    fn read(&mut self, consumer: &Arc<BaseConsumer<KafkaContext>>) -> Result<(), String> {
        let options = Arc::clone(&self.shared.options);
        if options.kafka_shared_group {
            let topics: Vec<&str> = options.kafka_topics.iter().map(String::as_str).collect();
            consumer.subscribe(&topics).map_err(|error| error.to_string())?;
        }
        let (found, placed) = bounded(FOUND_WAITING);
        let ended = Arc::new(AtomicBool::new(false));
        let discovery = {
            let KafkaShared { health, placement, options, .. } = self.shared.clone();
            let discovery = Discovery::new(Arc::clone(consumer), health, placement, options, found);
            let ended = Arc::clone(&ended);
            let thread = thread::Builder::new().name("kafka-ask".to_owned());
            thread.spawn(move || discovery.run(&ended)).map_err(|error| error.to_string())?
        };
        self.shared.assigned.store(0, Ordering::Relaxed);
        let result = self.poll(consumer, &placed);
        if self.shared.health.is_up() {
            // Before the close below, which waits until discovery lets go of the consumer.
            let _ = consumer.commit_consumer_state(CommitMode::Sync);
        }
        ended.store(true, Ordering::Relaxed);
        self.shared.health.doubt();
        let _ = discovery.join();
        result
    }

    fn poll(&mut self, consumer: &BaseConsumer<KafkaContext>, placed: &Receiver<Finding>) -> Result<(), String> {
        let mut renewed = Instant::now();
        while !self.shared.is_stopped() {
            for found in placed.try_iter() {
                match found {
                    Finding::Id { topic, id } => self.refill.identified(&topic, &id, &self.shared.placement),
                    Finding::Partitions(placed) => self.begin(consumer, &placed).map_err(|error| error.to_string())?,
                }
            }
            if renewed.elapsed() >= RENEWAL && !self.shared.options.kafka_shared_group {
                renewed = Instant::now();
                let positions = self.shared.placement.positions();
                if let Err(error) = positions.and_then(|positions| consumer.commit(&positions, CommitMode::Async)) {
                    tracing::debug!(%error, "cannot renew the committed offsets");
                }
            }
            let polled = consumer.poll(POLL);
            let recreated = self.shared.topic_changes.take_recreated();
            for topic in &recreated {
                self.begin_anew(consumer, topic).map_err(|error| format!("cannot begin {topic} anew: {error}"))?;
            }
            match polled {
                None if self.shared.health.is_up() => self.refill.quiet(),
                None => {}
                // From the old topic, or from the middle of the new one: all of that comes from its start on.
                Some(Ok(message)) if recreated.iter().any(|topic| topic == message.topic()) => {}
                Some(Ok(message)) => self.take(consumer, &message),
                Some(Err(ClientError::MessageConsumptionFatal(code))) => return Err(code.to_string()),
                Some(Err(error)) => self.note(&error),
            }
        }
        Ok(())
    }

    /// Adds partitions. Their starts are stored and committed before anything is read: a node that dies
    /// before its first message continues there, and not at the message that is newest by then.
    fn begin(&mut self, consumer: &BaseConsumer<KafkaContext>, placed: &Placed) -> Result<(), ClientError> {
        let starts = &placed.starts;
        consumer.incremental_assign(&self.refill.begin(placed)?)?;
        self.shared.placement.begun(starts);
        self.shared.assigned.fetch_add(starts.count(), Ordering::Relaxed);
        if let Err(error) = consumer.store_offsets(starts) {
            tracing::debug!(%error, "cannot store where the partitions start");
        }
        consumer.commit(starts, CommitMode::Async)
    }

    /// Reads a topic that was deleted and made anew from its first message on: all of its messages are new.
    fn begin_anew(&mut self, consumer: &BaseConsumer<KafkaContext>, topic: &str) -> Result<(), ClientError> {
        let assigned = consumer.assignment()?;
        let (mut starts, mut beginnings) = (TopicPartitionList::new(), TopicPartitionList::new());
        for element in assigned.elements_for_topic(topic) {
            starts.add_partition_offset(topic, element.partition(), Offset::Offset(0))?;
            beginnings.add_partition_offset(topic, element.partition(), Offset::Beginning)?;
        }
        tracing::warn!(
            topic,
            partitions = starts.count(),
            "the Kafka topic was deleted and made anew; reading the new one from its first message. What was not read \
             of the old one is gone with it"
        );
        if let Some(figures) = self.shared.figures.get(topic) {
            figures.recreated.fetch_add(1, Ordering::Relaxed);
        }
        self.shared.placement.forget(topic);
        if starts.count() == 0 {
            return Ok(());
        }
        self.shared.placement.begun(&starts);
        // Before its first message: under the old id, clients would take its first numbers for messages they have.
        if let Some(id) = self.shared.topic_changes.id(topic) {
            self.refill.identified(topic, &id, &self.shared.placement);
        }
        consumer.seek_partitions(beginnings, ANSWER)?;
        if let Err(error) = consumer.store_offsets(&starts) {
            tracing::debug!(%error, topic, "cannot store where the new topic starts");
        }
        consumer.commit(&starts, CommitMode::Async)
    }

    fn take(&mut self, consumer: &BaseConsumer<KafkaContext>, message: &BorrowedMessage<'_>) {
        let timestamp_ms = message.timestamp().to_millis();
        let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
        let (key, payload) = (message.key(), message.payload());
        let message_of_topic = TopicMessage { topic, partition, offset, key, payload, timestamp_ms };
        if self.refill.takes(topic, partition, offset) {
            self.intake.keep(&message_of_topic);
            return self.refill.handled(topic, partition, offset);
        }
        if let Some(timestamp_ms) = timestamp_ms {
            let now_ms = (system_clock::unix_ns() / 1_000_000) as i64;
            let partitions = self.shared.assigned.load(Ordering::Relaxed);
            let delay = self.pace.delay(timestamp_ms, now_ms, Instant::now(), partitions);
            // Shorter delays add up until they are worth a sleep.
            if delay >= Duration::from_millis(1) {
                thread::sleep(delay);
            }
        }
        if !self.intake.take(&message_of_topic) {
            self.refill.passed_over(topic, partition, offset);
        }
        self.refill.handled(topic, partition, offset);
        self.shared.placement.passed_on(topic, partition, offset);
        // Fails when Kafka has just given the partition to another node, which continues at the committed
        // offset.
        if let Err(error) = consumer.store_offset_from_message(message) {
            tracing::debug!(%error, topic, partition, offset, "cannot store the offset");
        }
    }

    /// Logs a passing error: librdkafka tries again by itself.
    fn note(&self, error: &ClientError) {
        tracing::debug!(%error, "Kafka");
        self.shared.health.doubt();
    }
}
