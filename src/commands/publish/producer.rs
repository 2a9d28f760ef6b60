//! Sends a recording to Kafka: at its pace, in order, and counts what Kafka confirms.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use super::publish_options::{PublishOptions, PublishSpeed};
use super::publish_outcome::{PublishError, PublishSummary};
use super::recording::{RecordedLine, Recording};
use crate::source::kafka::librdkafka;
use crate::source::kafka::pause::sleep;

/// How long a broker may take to answer for the first time.
const GREETING: Duration = Duration::from_secs(10);

/// How much longer than their own timeout the last messages may take.
const FLUSH: Duration = Duration::from_secs(30);

/// Progress is printed this often.
const PROGRESS: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Counts {
    delivered: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    first_error: OnceLock<String>,
}

#[derive(Clone)]
struct Deliveries(Arc<Counts>);

impl ClientContext for Deliveries {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", "{facility}: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) => {
                self.0.delivered.fetch_add(1, Ordering::Relaxed);
                self.0.bytes.fetch_add(message.payload_len() as u64, Ordering::Relaxed);
            }
            Err((error, _)) => self.failed(error),
        }
    }
}

impl Deliveries {
    fn failed(&self, error: &KafkaError) {
        self.0.failed.fetch_add(1, Ordering::Relaxed);
        let _ = self.0.first_error.set(error.to_string());
    }
}

/// Sends the recording that `options` names until its end, or until `stop` is raised.
pub fn publish(options: &PublishOptions, stop: &AtomicBool) -> Result<PublishSummary, PublishError> {
    let mut recording = Recording::open(options)?;
    let deliveries = Deliveries(Arc::default());
    let config = librdkafka::producer(&options.brokers, &options.security, options.message_timeout);
    let producer: ThreadedProducer<Deliveries> = ThreadedProducer::from_config_and_context(&config, deliveries.clone())
        .map_err(|error| PublishError::Refused(error.to_string()))?;
    // Without this, a wrong address would show only after the timeout of the first message.
    producer.client().fetch_metadata(None, GREETING).map_err(|error| PublishError::NoBroker {
        brokers: options.brokers.join(","),
        seconds: GREETING.as_secs(),
        reason: error.to_string(),
    })?;

    let began = Instant::now();
    let mut printed = began;
    while !stop.load(Ordering::Relaxed) {
        let next = recording.next(options.interval)?;
        recording.take_odd_times().iter().for_each(|told| eprintln!("{told}; it is sent with the line before"));
        let Some(line) = next else { break };
        if let PublishSpeed::Times(times) = options.speed {
            let due = began + line.due.div_f64(times).min(Duration::from_hours(24 * 365));
            sleep(due.saturating_duration_since(Instant::now()), stop);
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        send(&producer, &deliveries, &options.topic, &line, stop);
        if printed.elapsed() >= PROGRESS {
            printed = Instant::now();
            let (delivered, failed) = (&deliveries.0.delivered, &deliveries.0.failed);
            eprintln!("{} delivered, {} failed", delivered.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
        }
    }
    let interrupted = stop.load(Ordering::Relaxed);
    if let Err(error) = producer.flush(options.message_timeout + FLUSH) {
        // What is still under way was not confirmed, and is lost when the producer is dropped.
        deliveries.0.failed.fetch_add(producer.in_flight_count().max(0).unsigned_abs().into(), Ordering::Relaxed);
        let _ = deliveries.0.first_error.set(error.to_string());
    }
    let counts = &deliveries.0;
    Ok(PublishSummary {
        topic: options.topic.clone(),
        delivered: counts.delivered.load(Ordering::Relaxed),
        bytes: counts.bytes.load(Ordering::Relaxed),
        failed: counts.failed.load(Ordering::Relaxed),
        too_long: recording.too_long(),
        odd_times: recording.odd_times(),
        first_error: counts.first_error.get().cloned(),
        interrupted,
        took: began.elapsed(),
    })
}

/// Hands one line to the producer; waits while its queue is full.
fn send(
    producer: &ThreadedProducer<Deliveries>,
    deliveries: &Deliveries,
    topic: &str,
    line: &RecordedLine,
    stop: &AtomicBool,
) {
    let mut record = BaseRecord::<str, [u8]>::to(topic).payload(&line.payload);
    if let Some(key) = &line.key {
        record = record.key(key);
    }
    while let Err((error, refused)) = producer.send(record) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) || stop.load(Ordering::Relaxed) {
            return deliveries.failed(&error);
        }
        record = refused;
        std::thread::sleep(Duration::from_millis(5));
    }
}
