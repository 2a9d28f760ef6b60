//! What a consumer and librdkafka's callbacks share: statistics, errors, and the rebalances of a shared
//! group.
//!
//! A rebalance asks the broker from within `poll`, when there is nothing to read anyway.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::statistics::{Partition, Statistics};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use super::kafka_health::{KafkaHealth, TopicFigures};
use super::kafka_options::KafkaOptions;
use super::librdkafka::{self, KafkaError};
use super::pause::sleep;
use super::placement::{FoundPartition, Placement};
use super::topic_changes::TopicChanges;

/// How long the search for the starts in a shared group may take.
const SETTLE: Duration = Duration::from_mins(1);

/// State that outlives one consumer and is shared by every thread of the source.
#[derive(Clone)]
pub struct KafkaShared {
    pub health: Arc<KafkaHealth>,
    pub placement: Arc<Placement>,
    pub topic_changes: Arc<TopicChanges>,
    pub figures: Arc<HashMap<String, TopicFigures>>,
    pub stop: Arc<AtomicBool>,
    /// The number of partitions being read.
    pub assigned: Arc<AtomicUsize>,
    pub options: Arc<KafkaOptions>,
}

impl KafkaShared {
    /// A new consumer; it connects by itself, whenever a broker is there.
    pub fn consumer(&self) -> Result<BaseConsumer<KafkaContext>, KafkaError> {
        let config = librdkafka::consumer(&self.options);
        BaseConsumer::from_config_and_context(&config, KafkaContext(self.clone())).map_err(KafkaError::Settings)
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The callbacks of one consumer; librdkafka calls them on its own threads, and from `poll`.
pub struct KafkaContext(KafkaShared);

impl ClientContext for KafkaContext {
    /// At debug: librdkafka logs every failed try, and [`KafkaHealth`] logs once what matters. What it logs at debug
    /// itself is for [`TopicChanges`], and only seen at trace.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if matches!(level, RDKafkaLogLevel::Debug) {
            self.0.topic_changes.hear(message);
            tracing::trace!(target: "librdkafka", "{facility}: {message}");
        } else {
            tracing::debug!(target: "librdkafka", "{facility}: {message}");
        }
    }

    fn error(&self, error: ClientError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
        self.0.health.doubt();
    }

    fn stats(&self, statistics: Statistics) {
        for (name, topic) in &statistics.topics {
            let Some(figures) = self.0.figures.get(name) else { continue };
            figures.lag.store(topic.partitions.values().map(lag).sum(), Ordering::Relaxed);
        }
    }
}

/// Messages of a partition that were not passed on yet.
///
/// The distance between two offsets is no count of messages: the markers of transactions have offsets, as have
/// the messages of those that were aborted, and neither ever comes. What is fetched and does not wait in the
/// queue was passed on, or will never come.
fn lag(partition: &Partition) -> u64 {
    let end = partition.ls_offset;
    // The last offset that was stored, or that another process committed; negative if there is none.
    let passed_on = if partition.stored_offset < 0 { partition.committed_offset } else { partition.stored_offset };
    if passed_on < 0 || end <= passed_on {
        return 0;
    }
    let fetched = partition.next_offset.clamp(passed_on, end);
    // The queue is that of all partitions, so this may count too many, and only while some wait.
    let waiting = (fetched - passed_on).min(partition.fetchq_cnt.max(0));
    (end - fetched + waiting).unsigned_abs()
}

impl ConsumerContext for KafkaContext {
    /// Kafka has distributed the partitions of a shared group again: finds the starts of ours.
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
                tracing::info!(
                    partitions = self.0.assigned.load(Ordering::Relaxed),
                    "Kafka has distributed the partitions of the shared group"
                );
            }
            Err(error) => tracing::error!(%error, "cannot take over this node's partitions of the shared group"),
        }
    }

    fn commit_callback(&self, result: Result<(), ClientError>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "an offset commit failed; the next one includes these offsets");
            self.0.health.doubt();
        }
    }
}

impl KafkaContext {
    /// The starts of partitions that were just assigned to this node. A partition whose start cannot be found
    /// in time starts where Kafka decides: at the committed offset, or else at the newest message.
    fn settle(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) -> TopicPartitionList {
        let elements = partitions.elements();
        let found: Vec<FoundPartition> = elements
            .iter()
            .map(|element| FoundPartition {
                partition: (element.topic().to_owned(), element.partition()),
                is_new: false,
            })
            .collect();
        let deadline = Instant::now() + SETTLE;
        while !self.0.is_stopped() && Instant::now() < deadline {
            match self.0.placement.place(consumer, &found) {
                Ok(placed) if placed.starts.count() == found.len() => return placed.starts,
                Ok(_) => tracing::debug!("some partitions have no leader yet"),
                Err(error) => tracing::debug!(%error, "cannot look up where the partitions start; trying again"),
            }
            sleep(self.0.options.kafka_backoff, &self.0.stop);
        }
        tracing::warn!("cannot find where to start in the shared group's partitions; Kafka decides where");
        partitions.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_comes_is_no_lag() {
        let lag = |ls_offset, next_offset, stored_offset, committed_offset, fetchq_cnt| {
            let offsets = Partition {
                ls_offset,
                next_offset,
                stored_offset,
                committed_offset,
                fetchq_cnt,
                ..Partition::default()
            };
            lag(&offsets)
        };
        assert_eq!(lag(40, 40, 9, 9, 0), 0, "aborted messages and markers");
        assert_eq!(lag(40, 40, 9, 9, 2), 2, "two of them may wait");
        assert_eq!(lag(40, 40, 38, 9, 500), 2, "others wait, too");
        assert_eq!(lag(40, 12, 9, 9, 0), 28, "not fetched yet");
        assert_eq!(lag(40, -1001, 9, 9, 0), 31, "nothing is fetched: the broker is away");
        assert_eq!(lag(40, 0, -1001, 30, 0), 10, "only a committed offset");
        assert_eq!(lag(40, 0, -1001, -1001, 0), 0, "not read here");
        assert_eq!(lag(-1001, 0, 9, 9, 0), 0, "the end is not known yet");
        assert_eq!(lag(3, 3, 9, 9, 0), 0, "a topic made anew");
    }
}
