//! Kafka: each topic feeds the channel of `/ws` of its name, and one of them the orderflow hub.
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
//! - [`kafka_context`]: librdkafka's callbacks: statistics, errors, rebalances of a shared group.
//! - [`discovery`]: which partitions there are, and whether the broker answers.
//! - [`placement`]: where a partition starts. [`refill`]: what is read back before that, for clients that come back.
//! - [`topic_changes`]: which topics were deleted and made anew.
//! - [`topic_ids`]: which topic it is, if one of its name was deleted.
//! - [`intake`]: where a message goes, and what happens to one that cannot go anywhere.
//! - [`pace`], [`pause`]: how fast a backlog is passed on; pauses between tries.
//! - [`kafka_health`]: what `/websocket/status` and the metrics say about Kafka.
//!
//! Every node gets every message: it assigns itself all partitions, and its consumer group, which has
//! no other member, only keeps its offsets. So no node waits for another to join or leave. With a shared
//! group a node subscribes instead, and Kafka distributes the partitions.
//!
//! An offset is stored when the hub has the message: a node that dies repeats at most what it passed
//! on since the last commit, and skips nothing.

#[cfg(feature = "kafka")]
pub mod consumer;
#[cfg(feature = "kafka")]
mod discovery;
#[cfg(feature = "kafka")]
mod intake;
#[cfg(feature = "kafka")]
mod kafka_context;
#[cfg(feature = "kafka")]
mod kafka_health;
pub mod kafka_options;
#[cfg(feature = "kafka")]
pub(crate) mod librdkafka;
#[cfg(feature = "kafka")]
mod pace;
#[cfg(feature = "kafka")]
pub(crate) mod pause;
#[cfg(feature = "kafka")]
mod placement;
#[cfg(feature = "kafka")]
mod refill;
#[cfg(feature = "kafka")]
mod topic_changes;
#[cfg(feature = "kafka")]
mod topic_ids;

#[cfg(feature = "kafka")]
pub use consumer::KafkaSource;
