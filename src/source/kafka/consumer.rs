//! The thread that reads: poll, pass on, store the offset.
//!
//! It never waits for the network: what must be asked is asked by [`super::discovery`] on a thread of
//! its own. Only a shared group's rebalance asks here, when there is nothing to read anyway.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, unbounded};
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use super::discovery::{Discovery, sleep};
use super::intake::{Arrived, Intake, Poison};
use super::kafka_health::{self, Figures, Health};
use super::kafka_options::{KafkaOptions, ORDERFLOW_TOPIC};
use super::librdkafka::{self, KafkaError};
use super::pace::Pace;
use super::placement::{Found, Placement};
use crate::engine::clock;
use crate::health::status::Status;
use crate::source::live::LiveOrderflow;
use crate::streams::Streams;

/// How long one poll waits for a message; also how soon a stop is noticed.
const POLL: Duration = Duration::from_millis(50);

/// How long a shared group's start may take to settle.
const SETTLE: Duration = Duration::from_mins(1);

/// Kafka forgets offsets of a group without members some time after their commit, by default a week.
/// A quiet partition's is committed anew this often.
const RENEWAL: Duration = Duration::from_hours(1);

/// Kafka, being read.
pub struct KafkaSource {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl KafkaSource {
    /// Reads the topics of `options` into the channels of their names, and `orderflow` into the hub.
    ///
    /// No broker need be there: it is waited for, as long as it takes.
    pub fn start(
        options: &KafkaOptions,
        streams: Arc<Streams>,
        orderflow: Option<LiveOrderflow>,
        status: &Status,
    ) -> Result<Self, KafkaError> {
        let mut options = options.clone();
        if orderflow.is_none() {
            // The hub is not served: nobody could get it.
            options.kafka_topics.retain(|topic| topic != ORDERFLOW_TOPIC);
        }
        let figures = kafka_health::figures(&options, status, &Poison::NAMES);
        let mut watched: Vec<_> = options.channels().filter_map(|topic| streams.health(topic).cloned()).collect();
        watched.extend(orderflow.as_ref().map(|orderflow| Arc::clone(orderflow.health())));
        let stop = Arc::new(AtomicBool::new(false));
        let options = Arc::new(options);
        let shared = Shared {
            health: Arc::new(Health::new(watched, status)),
            placement: Arc::new(Placement::new(options.kafka_start)),
            figures: Arc::new(figures.clone()),
            stop: Arc::clone(&stop),
            assigned: Arc::default(),
            options: Arc::clone(&options),
        };
        let intake = Intake::new(streams, orderflow, figures, options.kafka_max_message_bytes);
        // Made here, so that settings it refuses are told at once.
        let consumer = shared.consumer()?;
        let reader = Reader { shared, intake, pace: Pace::new(options.kafka_catch_up_speed) };
        let thread = thread::Builder::new().name("kafka".to_owned());
        let thread = thread.spawn(move || reader.run(consumer)).map_err(KafkaError::Thread)?;
        tracing::info!(group = options.group(), topics = ?options.kafka_topics, "reading from Kafka");
        Ok(Self { stop, thread })
    }

    /// Stops reading and commits what was passed on; true if that was done within `patience`.
    ///
    /// Blocks. Without it the last second's offsets may be missing, and those messages come twice.
    pub fn stop(self, patience: Duration) -> bool {
        self.stop.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + patience;
        while !self.thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        self.thread.is_finished()
    }
}

/// What outlives one consumer.
#[derive(Clone)]
struct Shared {
    health: Arc<Health>,
    placement: Arc<Placement>,
    figures: Arc<HashMap<String, Figures>>,
    stop: Arc<AtomicBool>,
    /// Partitions being read.
    assigned: Arc<AtomicUsize>,
    options: Arc<KafkaOptions>,
}

impl Shared {
    fn consumer(&self) -> Result<BaseConsumer<Context>, KafkaError> {
        let config = librdkafka::consumer(&self.options);
        BaseConsumer::from_config_and_context(&config, Context(self.clone())).map_err(KafkaError::Settings)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The thread's own.
struct Reader {
    shared: Shared,
    intake: Intake,
    pace: Pace,
}

impl Reader {
    /// Reads until it is stopped; makes a new consumer when one fails for good.
    fn run(mut self, first: BaseConsumer<Context>) {
        let mut next = Some(first);
        while !self.shared.is_stopped() {
            let ended = match next.take().map_or_else(|| self.shared.consumer(), Ok) {
                Ok(consumer) => self.read(&Arc::new(consumer)),
                Err(error) => Err(error.to_string()),
            };
            if let Err(reason) = ended {
                tracing::error!("the Kafka consumer failed: {reason}; a new one goes on where it was");
                self.shared.health.failed();
                sleep(self.shared.options.kafka_backoff_max, &self.shared.stop);
            }
        }
    }

    /// Reads with one consumer until it fails, or the stop.
    fn read(&mut self, consumer: &Arc<BaseConsumer<Context>>) -> Result<(), String> {
        let options = Arc::clone(&self.shared.options);
        if options.kafka_shared_group {
            let topics: Vec<&str> = options.kafka_topics.iter().map(String::as_str).collect();
            consumer.subscribe(&topics).map_err(|error| error.to_string())?;
        }
        // Unbounded, but a partition is found once.
        let (found, placed) = unbounded();
        let ended = Arc::new(AtomicBool::new(false));
        let discovery = {
            let Shared { health, placement, options, .. } = self.shared.clone();
            let discovery = Discovery::new(Arc::clone(consumer), health, placement, options, found);
            let ended = Arc::clone(&ended);
            let thread = thread::Builder::new().name("kafka-ask".to_owned());
            thread.spawn(move || discovery.run(&ended)).map_err(|error| error.to_string())?
        };
        self.shared.assigned.store(0, Ordering::Relaxed);
        let result = self.poll(consumer, &placed);
        if self.shared.health.is_up() {
            // At once, for the close below waits until discovery lets go of the consumer.
            let _ = consumer.commit_consumer_state(CommitMode::Sync);
        }
        ended.store(true, Ordering::Relaxed);
        self.shared.health.doubt();
        let _ = discovery.join();
        result
    }

    fn poll(&mut self, consumer: &BaseConsumer<Context>, placed: &Receiver<TopicPartitionList>) -> Result<(), String> {
        let mut renewed = Instant::now();
        while !self.shared.is_stopped() {
            for starts in placed.try_iter() {
                self.begin(consumer, &starts).map_err(|error| error.to_string())?;
            }
            if renewed.elapsed() >= RENEWAL && !self.shared.options.kafka_shared_group {
                renewed = Instant::now();
                let positions = self.shared.placement.positions();
                if let Err(error) = positions.and_then(|positions| consumer.commit(&positions, CommitMode::Async)) {
                    tracing::debug!(%error, "the offsets cannot be renewed");
                }
            }
            match consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => self.take(consumer, &message),
                Some(Err(ClientError::MessageConsumptionFatal(code))) => return Err(code.to_string()),
                Some(Err(error)) => self.note(&error),
            }
        }
        Ok(())
    }

    /// Adds partitions. Their starts are stored and committed before anything is read: a node that dies
    /// before its first message goes on from there, and not from what is newest by then.
    fn begin(&self, consumer: &BaseConsumer<Context>, starts: &TopicPartitionList) -> Result<(), ClientError> {
        consumer.incremental_assign(starts)?;
        self.shared.placement.begun(starts);
        self.shared.assigned.fetch_add(starts.count(), Ordering::Relaxed);
        if let Err(error) = consumer.store_offsets(starts) {
            tracing::debug!(%error, "the starts cannot be stored");
        }
        consumer.commit(starts, CommitMode::Async)
    }

    fn take(&mut self, consumer: &BaseConsumer<Context>, message: &BorrowedMessage<'_>) {
        let timestamp_ms = message.timestamp().to_millis();
        if let Some(timestamp_ms) = timestamp_ms {
            let now_ms = (clock::unix_ns() / 1_000_000) as i64;
            let partitions = self.shared.assigned.load(Ordering::Relaxed);
            let delay = self.pace.delay(timestamp_ms, now_ms, Instant::now(), partitions);
            // Shorter delays add up until they are worth a sleep.
            if delay >= Duration::from_millis(1) {
                thread::sleep(delay);
            }
        }
        let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
        let (key, payload) = (message.key(), message.payload());
        self.intake.take(&Arrived { topic, partition, offset, key, payload, timestamp_ms });
        self.shared.placement.passed_on(topic, partition, offset);
        // Fails when the partition was just taken away; then whoever has it now goes on from what was
        // committed.
        if let Err(error) = consumer.store_offset_from_message(message) {
            tracing::debug!(%error, topic, partition, offset, "the offset cannot be stored");
        }
    }

    /// Errors that pass: librdkafka tries again by itself.
    fn note(&self, error: &ClientError) {
        tracing::debug!(%error, "Kafka");
        self.shared.health.doubt();
    }
}

/// What librdkafka calls back.
pub struct Context(Shared);

impl ClientContext for Context {
    /// At debug: it says every failed try, and [`Health`] says once what matters.
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", "{facility}: {message}");
    }

    fn error(&self, error: ClientError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
        self.0.health.doubt();
    }

    fn stats(&self, statistics: Statistics) {
        for (name, topic) in &statistics.topics {
            let Some(figures) = self.0.figures.get(name) else { continue };
            let lags = topic.partitions.values().map(|partition| partition.consumer_lag.max(0).unsigned_abs());
            figures.lag.store(lags.sum(), Ordering::Relaxed);
        }
    }
}

impl ConsumerContext for Context {
    /// A shared group was dealt out anew: what is ours now starts where it should.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, why: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let changed = if why == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            let starts = self.settle(consumer, partitions);
            self.0.assigned.fetch_add(starts.count(), Ordering::Relaxed);
            if cooperative { consumer.incremental_assign(&starts) } else { consumer.assign(&starts) }
        } else if cooperative {
            self.0.assigned.fetch_sub(partitions.count(), Ordering::Relaxed);
            consumer.incremental_unassign(partitions)
        } else {
            self.0.assigned.store(0, Ordering::Relaxed);
            consumer.unassign()
        };
        match changed {
            Ok(()) => {
                tracing::info!(partitions = self.0.assigned.load(Ordering::Relaxed), "the shared group was dealt out");
            }
            Err(error) => tracing::error!(%error, "the shared group's partitions cannot be taken"),
        }
    }

    fn commit_callback(&self, result: Result<(), ClientError>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "offsets were not committed; they will be with the next");
            self.0.health.doubt();
        }
    }
}

impl Context {
    /// The starts of partitions just dealt to us. What cannot be settled in time starts where Kafka
    /// says, which is the newest message if nobody has read it.
    fn settle(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) -> TopicPartitionList {
        let elements = partitions.elements();
        let found: Vec<Found> = elements
            .iter()
            .map(|element| Found { partition: (element.topic().to_owned(), element.partition()), is_new: false })
            .collect();
        let deadline = Instant::now() + SETTLE;
        while !self.0.is_stopped() && Instant::now() < deadline {
            match self.0.placement.place(consumer, &found) {
                Ok(starts) if starts.count() == found.len() => return starts,
                Ok(_) => tracing::debug!("not every partition has a leader"),
                Err(error) => tracing::debug!(%error, "the starts cannot be settled yet"),
            }
            sleep(self.0.options.kafka_backoff, &self.0.stop);
        }
        tracing::warn!("the starts of a shared group's partitions cannot be settled");
        partitions.clone()
    }
}
