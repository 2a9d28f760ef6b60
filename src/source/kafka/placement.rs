//! Where a partition starts.
//!
//! Where this process left off; or else where its group did; or else after the newest message. If the log no
//! longer holds that start, the oldest message is taken. A partition that was created while this process ran
//! starts with the messages produced since this process started, which nobody has seen.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::kafka_options::Start;
use crate::engine::system_clock;

/// How long a broker may take to answer one request.
pub const ANSWER: Duration = Duration::from_secs(3);

/// Clocks of producers may differ from ours by this much.
const SKEW_MS: i64 = 60_000;

/// After this many leaders that do not answer, the rest is left for the next round.
const MOST_SILENT: usize = 3;

/// A partition, by topic and number.
pub type Partition = (String, i32);

/// A partition that is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPartition {
    /// Topic and partition number.
    pub partition: Partition,
    /// Whether the first answer about its topic did not list it: it was created since.
    pub is_new: bool,
}

/// Where partitions start.
#[derive(Debug, Clone)]
pub struct Placed {
    /// The first offset of each that is passed on.
    pub starts: TopicPartitionList,
    /// The oldest offset that the log holds of each.
    pub lows: HashMap<Partition, i64>,
}

/// Decides where partitions start, and keeps how far each was passed on.
pub struct Placement {
    start: Start,
    /// When this source started, Unix ms.
    began_ms: i64,
    /// By topic and partition, the offset after the last message that was passed on.
    next: Mutex<HashMap<String, HashMap<i32, i64>>>,
}

impl Placement {
    /// A placement for a source that starts now.
    pub fn new(start: Start) -> Self {
        Self { start, began_ms: (system_clock::unix_ns() / 1_000_000) as i64, next: Mutex::default() }
    }

    /// Notes that these partitions are read from these offsets on.
    pub fn begun(&self, starts: &TopicPartitionList) {
        for element in starts.elements() {
            if let Offset::Offset(start) = element.offset() {
                self.passed_on(element.topic(), element.partition(), start - 1);
            }
        }
    }

    /// Forgets how far a topic was read: it was deleted.
    pub fn forget(&self, topic: &str) {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).remove(topic);
    }

    /// The next offset of every partition.
    pub fn positions(&self) -> KafkaResult<TopicPartitionList> {
        let mut positions = TopicPartitionList::new();
        for (topic, partitions) in &*self.next.lock().unwrap_or_else(PoisonError::into_inner) {
            for (partition, next) in partitions {
                positions.add_partition_offset(topic, *partition, Offset::Offset(*next))?;
            }
        }
        Ok(positions)
    }

    /// The next offset of each partition of a topic.
    pub fn next_of(&self, topic: &str) -> HashMap<i32, i64> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).get(topic).cloned().unwrap_or_default()
    }

    /// Notes that this message was passed on.
    pub fn passed_on(&self, topic: &str, partition: i32, offset: i64) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        match next.get_mut(topic) {
            Some(partitions) => drop(partitions.insert(partition, offset + 1)),
            None => drop(next.insert(topic.to_owned(), HashMap::from([(partition, offset + 1)]))),
        }
    }

    fn next(&self, (topic, partition): &Partition) -> Option<i64> {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.get(topic)?.get(partition).copied()
    }

    /// Asks the broker and decides. Partitions whose leader does not answer are missing from the result; ask
    /// again for them.
    pub fn place<C: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<C>,
        found: &[FoundPartition],
    ) -> KafkaResult<Placed> {
        let mut asked = TopicPartitionList::with_capacity(found.len());
        for FoundPartition { partition: (topic, partition), .. } in found {
            asked.add_partition(topic, *partition);
        }
        // Asked even if the committed offsets are not used: the answer shows that the group's coordinator
        // is there, so that the start can be committed.
        let committed = consumer.committed_offsets(asked, ANSWER)?;
        let mut placed = TopicPartitionList::with_capacity(found.len());
        let mut lows = HashMap::with_capacity(found.len());
        let mut silent = 0;
        for found in found {
            let (topic, partition) = &found.partition;
            let Ok((low, high)) = consumer.fetch_watermarks(topic, *partition, ANSWER) else {
                silent += 1;
                if silent == MOST_SILENT {
                    break;
                }
                continue;
            };
            let committed = match committed.find_partition(topic, *partition).map(|element| element.offset()) {
                Some(Offset::Offset(offset)) if self.start == Start::Committed => Some(offset),
                _ => None,
            };
            let start = match self.next(&found.partition).max(committed) {
                Some(offset) => {
                    let start = within(offset, low, high);
                    if start != offset {
                        tracing::warn!(
                            topic,
                            partition,
                            offset,
                            start,
                            "the log no longer holds the offset to continue at; continuing at the oldest message"
                        );
                    }
                    start
                }
                None if found.is_new => self.since_began(consumer, &found.partition, high)?,
                None => high,
            };
            placed.add_partition_offset(topic, *partition, Offset::Offset(start))?;
            lows.insert(found.partition.clone(), low);
        }
        Ok(Placed { starts: placed, lows })
    }

    /// The first message produced since this source started; `high` if there is none.
    fn since_began<C: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<C>,
        (topic, partition): &Partition,
        high: i64,
    ) -> KafkaResult<i64> {
        let mut asked = TopicPartitionList::with_capacity(1);
        asked.add_partition_offset(topic, *partition, Offset::Offset(self.began_ms - SKEW_MS))?;
        let answer = consumer.offsets_for_times(asked, ANSWER)?;
        let first = answer.find_partition(topic, *partition).map(|element| element.offset());
        // Without an answer there was no such message when `high` was read; later ones are after `high`.
        Ok(if let Some(Offset::Offset(first)) = first { first.min(high) } else { high })
    }
}

/// The offset to continue at, moved to one that the log holds. Messages that the log has deleted are gone; an
/// offset beyond its newest message belongs to a topic that was deleted and created again: nothing of that
/// topic was read.
fn within(offset: i64, low: i64, high: i64) -> i64 {
    if (low..=high).contains(&offset) { offset } else { low }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_outside_the_log_is_moved_to_the_oldest_message() {
        assert_eq!([9, 10, 15, 20].map(|offset| within(offset, 10, 20)), [10, 10, 15, 20]);
        assert_eq!(within(500, 0, 3), 0, "the topic was made anew");
    }

    #[test]
    fn it_knows_where_it_is() {
        let placement = Placement::new(Start::Latest);
        let partition = ("lines".to_owned(), 2);
        assert_eq!(placement.next(&partition), None);
        placement.passed_on("lines", 2, 41);
        placement.passed_on("lines", 0, 7);
        placement.passed_on("lines", 2, 42);
        assert_eq!(placement.next(&partition), Some(43));
        let mut starts = TopicPartitionList::new();
        starts.add_partition_offset("orderflow", 1, Offset::Offset(0)).unwrap();
        placement.begun(&starts);
        assert_eq!(placement.next(&("orderflow".to_owned(), 1)), Some(0), "a partition that has not moved yet");
        let positions = placement.positions().unwrap();
        let told = ["lines", "lines", "orderflow"].into_iter().zip([0, 2, 1]);
        let told = told.map(|(topic, partition)| positions.find_partition(topic, partition).unwrap().offset());
        assert_eq!(told.collect::<Vec<_>>(), [8, 43, 0].map(Offset::Offset));
        placement.forget("lines");
        assert_eq!(placement.next(&partition), None);
    }
}
