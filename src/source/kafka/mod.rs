//! Kafka.

pub mod options;
