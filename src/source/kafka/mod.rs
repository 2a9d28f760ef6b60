//! Kafka: topics feed the channels of `/ws`, and one of them the orderflow hub.
//!
//! ```text
//! discovery (thread) ─▶ partitions and where they start ─┐
//!                                                        ▼
//! broker ─▶ consumer (thread): poll ─▶ pace ─▶ intake ─┬▶ Streams::publish
//!                                       store offset ◀─┴▶ LiveOrderflow::publish
//! ```
//!
//! - [`kafka_options`]: settings, also of `flowcast publish`.
//! - [`consumer`]: the thread that reads; what it stores is committed every second, and at the end.
//! - [`discovery`]: which partitions there are, where each starts, whether the broker is there.
//! - [`placement`]: where a partition starts.
//! - [`intake`]: where a message goes, and what happens to one that is none.
//! - [`pace`]: how fast what waited is passed on.
//! - [`kafka_health`]: what `/websocket/status` and the metrics say of it.
//!
//! Every node gets every message: it assigns itself all partitions, and its consumer group, which
//! nobody else is in, only keeps its offsets. So no node waits for another to join or leave. A shared
//! group subscribes instead, and Kafka deals the partitions out.
//!
//! An offset is stored when the hub has the message: a node that dies repeats at most what it passed
//! on since the last commit, and skips nothing.

#[cfg(feature = "kafka")]
pub mod consumer;
#[cfg(feature = "kafka")]
pub(crate) mod discovery;
#[cfg(feature = "kafka")]
mod intake;
#[cfg(feature = "kafka")]
mod kafka_health;
pub mod kafka_options;
#[cfg(feature = "kafka")]
pub(crate) mod librdkafka;
#[cfg(feature = "kafka")]
mod pace;
#[cfg(feature = "kafka")]
mod placement;

#[cfg(feature = "kafka")]
pub use consumer::KafkaSource;
