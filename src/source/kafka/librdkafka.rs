//! The configuration of librdkafka's clients: address, login, timeouts, bounds of their queues.

use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use secrecy::ExposeSecret as _;

use super::kafka_options::{KafkaOptions, SecurityOptions};
use super::topic_changes::DEBUG_CONTEXTS;

/// Why there is no client. The operator must fix it; no connection was tried yet.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// librdkafka refuses the settings: a certificate that cannot be read, for instance.
    #[error("librdkafka refuses the Kafka settings: {0}")]
    Settings(#[source] rdkafka::error::KafkaError),
    /// The system cannot start a thread.
    #[error("cannot start a thread for Kafka: {0}")]
    Thread(#[source] std::io::Error),
}

/// The configuration that producers and consumers share.
pub fn base(brokers: &[String], security: &SecurityOptions, client_id: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers.join(","))
        .set("client.id", client_id)
        .set("security.protocol", security.kafka_security_protocol.name())
        .set("socket.keepalive.enable", "true")
        .set("log.connection.close", "false")
        .set_log_level(RDKafkaLogLevel::Info);
    if security.kafka_security_protocol.has_sasl() {
        config.set("sasl.mechanism", security.kafka_sasl_mechanism.name());
        if let (Some(name), Some(password)) = (&security.kafka_sasl_username, &security.kafka_sasl_password) {
            config.set("sasl.username", name).set("sasl.password", password.expose_secret());
        }
    }
    if let Some(location) =
        security.kafka_ssl_ca_location.as_ref().filter(|_| security.kafka_security_protocol.has_tls())
    {
        config.set("ssl.ca.location", location);
    }
    config
}

/// A consumer that stores no offset by itself, and commits every second what was stored.
pub fn consumer(options: &KafkaOptions) -> ClientConfig {
    let mut config = base(&options.kafka_brokers, &options.security, &format!("flowcast-{}", options.node()));
    let queue_kib = options.kafka_queue_bytes >> 10;
    config
        .set("group.id", options.group())
        .set("enable.auto.offset.store", "false")
        .set("enable.auto.commit", "true")
        .set("auto.commit.interval.ms", "1000")
        // We always say where a partition starts. This is for an offset that fell off the log while we
        // were reading: continuing at the oldest message loses least. In a shared group it may also be
        // a start that could not be found in time, and there the newest message is right.
        .set("auto.offset.reset", if options.kafka_shared_group { "latest" } else { "earliest" })
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", "10000")
        .set("allow.auto.create.topics", "false")
        .set("statistics.interval.ms", "2000")
        .set("queued.min.messages", "10000")
        .set("queued.max.messages.kbytes", queue_kib.to_string())
        .set("fetch.message.max.bytes", options.kafka_queue_bytes.to_string())
        .set("fetch.max.bytes", options.kafka_queue_bytes.to_string())
        .set("fetch.queue.backoff.ms", "20")
        .set("fetch.error.backoff.ms", options.kafka_backoff.as_millis().to_string())
        .set("reconnect.backoff.ms", options.kafka_backoff.as_millis().to_string())
        .set("reconnect.backoff.max.ms", options.kafka_backoff_max.max(options.kafka_backoff).as_millis().to_string());
    config.set("debug", DEBUG_CONTEXTS).set_log_level(RDKafkaLogLevel::Debug);
    // A fetch always brings at least one whole message, so one over our limit comes too and is skipped
    // by `intake`; librdkafka must not refuse the response that carries it.
    let response = (100_000_000_u64).max(2 * options.kafka_queue_bytes as u64);
    config.set("receive.message.max.bytes", response.min(2_147_483_647).to_string());
    config
}

/// A consumer for `flowcast record`, which commits what it stores when the messages are on its disk.
pub fn recorder(brokers: &[String], security: &SecurityOptions, group: &str) -> ClientConfig {
    let mut config = base(brokers, security, "flowcast-record");
    config
        .set("group.id", group)
        .set("enable.auto.offset.store", "false")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "latest")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", "10000")
        .set("allow.auto.create.topics", "false")
        .set("topic.metadata.refresh.interval.ms", "5000");
    config
}

/// A producer that keeps each partition's order over retries, and reports every message it could not deliver.
pub fn producer(brokers: &[String], security: &SecurityOptions, message_timeout: Duration) -> ClientConfig {
    let mut config = base(brokers, security, "flowcast-publish");
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "5")
        .set("message.timeout.ms", message_timeout.as_millis().to_string())
        .set("message.max.bytes", "67108864")
        .set("queue.buffering.max.messages", "100000")
        .set("queue.buffering.max.kbytes", "131072");
    config
}
