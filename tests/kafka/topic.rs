//! A topic, and who writes to it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};

use crate::common::eventually;

/// A name nobody else has, whatever the broker has seen before.
pub fn name(what: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    format!("{what}-{started}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Creates a topic, which may be there already.
pub fn create(brokers: &str, topic: &str, partitions: i32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1)).set("max.message.bytes", "8388608");
    eventually("the topic is created", || {
        let made = runtime.block_on(admin.create_topics([&new], &AdminOptions::new())).ok()?;
        match &made[0] {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => Some(()),
            Err(_) => None,
        }
    });
}

/// Adds partitions until there are so many.
pub fn grow(brokers: &str, topic: &str, partitions: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let grown =
        runtime.block_on(admin.create_partitions(&[NewPartitions::new(topic, partitions)], &AdminOptions::new()));
    grown.unwrap()[0].as_ref().unwrap();
}

/// Deletes a topic and waits until it is gone.
pub fn delete(brokers: &str, topic: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    eventually("the topic is deleted", || {
        let gone = runtime.block_on(admin.delete_topics(&[topic], &AdminOptions::new())).ok()?;
        match &gone[0] {
            Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => Some(()),
            Err(_) => None,
        }
    });
}

/// Deletes a topic and makes one of the same name at once.
pub fn make_anew(brokers: &str, topic: &str, partitions: i32) {
    delete(brokers, topic);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    // The old one may still be going.
    eventually("the topic is made anew", || {
        let made = runtime.block_on(admin.create_topics([&new], &AdminOptions::new())).ok()?;
        made[0].as_ref().ok().map(|_| ())
    });
}

/// What the topic holds, of each partition, oldest first: the truth, by a consumer of the test's own.
pub fn contents(brokers: &str, topic: &str, partitions: i32) -> Vec<Vec<Vec<u8>>> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", name("truth")).create().unwrap();
    let read = |partition| {
        let (low, high) = consumer.fetch_watermarks(topic, partition, Duration::from_secs(10)).unwrap();
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(topic, partition, Offset::Offset(low)).unwrap();
        consumer.assign(&from).unwrap();
        let mut payloads = Vec::new();
        let mut next = low;
        while next < high {
            // It also returns empty-handed when librdkafka had something to say.
            let message = eventually("the rest of the partition comes", || consumer.poll(Duration::from_millis(100)));
            let message = message.unwrap();
            next = message.offset() + 1;
            payloads.push(message.payload().unwrap_or_default().to_vec());
        }
        payloads
    };
    (0..partitions).map(read).collect()
}

/// The offset a group committed.
pub fn committed(brokers: &str, group: &str, topic: &str, partition: i32) -> Option<i64> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", group).create().unwrap();
    let mut asked = TopicPartitionList::new();
    asked.add_partition(topic, partition);
    let answer = consumer.committed_offsets(asked, Duration::from_secs(10)).ok()?;
    match answer.find_partition(topic, partition)?.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

/// Fails the test when a message is not delivered.
struct MustDeliver;

impl ClientContext for MustDeliver {}

impl ProducerContext for MustDeliver {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            // This thread is the producer's: a panic would be lost.
            eprintln!("a test's message was not delivered: {error}");
            std::process::abort();
        }
    }
}

/// Writes to topics, in order, however long the broker is away.
pub struct Writer(ThreadedProducer<MustDeliver>);

impl Writer {
    pub fn new(brokers: &str) -> Self {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("linger.ms", "1")
            .set("message.max.bytes", "8000000")
            .set("message.timeout.ms", "120000")
            .set("reconnect.backoff.max.ms", "500");
        Self(config.create_with_context(MustDeliver).unwrap())
    }

    /// Queues one message.
    pub fn queue(&self, topic: &str, partition: i32, key: Option<&str>, payload: Option<&[u8]>) {
        let mut record = BaseRecord::<str, [u8]>::to(topic).partition(partition);
        record.key = key;
        record.payload = payload;
        self.0.send(record).map_err(|(error, _)| error).unwrap();
    }

    /// Waits until the broker has everything.
    pub fn flush(&self) {
        self.0.flush(Duration::from_mins(2)).unwrap();
    }

    /// Writes the numbered messages `from..to` to partition `number % partitions`.
    pub fn count(&self, topic: &str, partitions: i32, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let partition = (number % partitions as u64) as i32;
            self.queue(topic, partition, None, Some(numbered(partition, number).as_bytes()));
        }
        self.flush();
    }
}

/// What [`Writer::count`] writes.
pub fn numbered(partition: i32, number: u64) -> String {
    format!(r#"{{"partition":{partition},"number":{number}}}"#)
}
