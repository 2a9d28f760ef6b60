//! `flowcast publish`: replays a dataset into a Kafka topic.
//!
//! ```text
//! {date}/{ticker}/orderflow/…  ─┐ by time
//! {date}/streams/{topic}.jsonl ─┼────────▶ pace × speed ─▶ producer ─▶ topic, key = ticker or symbol
//! --file                       ─┘
//! ```

#[cfg(feature = "kafka")]
mod producer;
pub mod publish_options;
pub mod publish_outcome;
mod recording;

use std::sync::atomic::AtomicBool;

pub use publish_options::{PublishOptions, PublishSpeed};
pub use publish_outcome::{PublishError, PublishSummary};

/// Publishes until the end of the data, or until `stop` is raised. Blocks.
#[cfg(feature = "kafka")]
pub fn publish(options: &PublishOptions, stop: &AtomicBool) -> Result<PublishSummary, PublishError> {
    options.security.check().map_err(PublishError::Settings)?;
    producer::publish(options, stop)
}

/// Refuses, since this binary was built without Kafka.
#[cfg(not(feature = "kafka"))]
pub fn publish(_: &PublishOptions, _: &AtomicBool) -> Result<PublishSummary, PublishError> {
    Err(PublishError::NoKafka)
}
