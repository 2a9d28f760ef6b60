//! Reading back: what the topics held before this node reads them live goes into the channels' histories, so
//! that a client that was on another node, or here before a restart, gets what it missed.
//!
//! ```text
//! offsets   low … │ first ……… start │ start …
//!                 │ kept, not sent  │ passed on
//! ```
//!
//! It is bounded by `--history-messages` per topic, shared by its partitions, and by `--kafka-reread-rate`. The
//! same consumer reads it, before what is new.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::placement::{Partition, Placed, Placement};
use crate::streams::Streams;
use crate::streams::history::ChannelHistory;

/// When the consumer has had nothing for so long, what is missing of a partition is not there: its last offsets
/// can be markers of transactions, or were compacted away.
const QUIET: Duration = Duration::from_secs(2);

/// The number of a message, from 1, by its offset.
pub fn seq_of(offset: i64) -> u64 {
    u64::try_from(offset).map_or(0, |offset| offset + 1)
}

/// The partitions that are being read back.
pub struct Refill {
    streams: Arc<Streams>,
    /// Messages a second at most; 0: no limit.
    rate: u32,
    /// The ids of topics, as far as they are known.
    ids: HashMap<String, Arc<str>>,
    /// Where each partition is read live.
    starts: HashMap<String, HashMap<i32, i64>>,
    quiet_since: Option<Instant>,
    /// Messages read back, and since when.
    paced: (u32, Instant),
}

impl Refill {
    /// Nothing is read back yet.
    pub fn new(streams: Arc<Streams>, rate: u32) -> Self {
        let (ids, starts) = (HashMap::new(), HashMap::new());
        Self { streams, rate, ids, starts, quiet_since: None, paced: (0, Instant::now()) }
    }

    /// A topic has this id. If it had another one, it was deleted and created again; what was passed on since
    /// counts in the new one.
    pub fn identified(&mut self, topic: &str, id: &str, placement: &Placement) {
        let id: Arc<str> = id.into();
        let before = self.ids.insert(topic.to_owned(), Arc::clone(&id));
        if before.is_some_and(|before| before != id) {
            self.starts.remove(topic);
        }
        let is_filling = self.starts.contains_key(topic);
        let starts = placement.next_of(topic);
        if !starts.is_empty()
            && let Some(mut history) = self.streams.history_of_log(topic)
        {
            let starts = starts
                .into_iter()
                .filter_map(|(partition, next)| Some((u32::try_from(partition).ok()?, seq_of(next - 1))));
            history.follow_log(id, &starts.collect(), is_filling);
        }
    }

    /// Where these partitions are read from: earlier than they start, if their histories want it.
    pub fn begin(&mut self, Placed { starts, lows }: &Placed) -> KafkaResult<TopicPartitionList> {
        let mut from = TopicPartitionList::with_capacity(starts.count());
        let mut begun: BTreeMap<String, BTreeMap<u32, u64>> = BTreeMap::new();
        let elements = starts.elements();
        for element in &elements {
            let (topic, partition) = (element.topic(), element.partition());
            let Offset::Offset(start) = element.offset() else { continue };
            let count = elements.iter().filter(|other| other.topic() == topic).count() as i64;
            let wanted = i64::try_from(self.streams.history_options().history_messages).unwrap_or(i64::MAX) / count;
            let first = match lows.get(&(topic.to_owned(), partition)) {
                // An earlier consumer has read a part of it back.
                Some(&low) if self.is_filling(topic, partition) => self.next_of(topic, partition).max(low).min(start),
                Some(&low) if self.wants(topic, partition) => start.saturating_sub(wanted).max(low).min(start),
                _ => start,
            };
            from.add_partition_offset(topic, partition, Offset::Offset(first))?;
            if first < start {
                self.starts.entry(topic.to_owned()).or_default().insert(partition, start);
                tracing::info!(topic, partition, messages = start - first, "reading back what clients may have missed");
            }
            if let Ok(partition) = u32::try_from(partition) {
                begun.entry(topic.to_owned()).or_default().insert(partition, seq_of(first - 1));
            }
        }
        for (topic, begun) in begun {
            let is_filling = self.starts.contains_key(&topic);
            if let Some(id) = self.ids.get(&topic)
                && let Some(mut history) = self.streams.history_of_log(&topic)
            {
                history.follow_log(Arc::clone(id), &begun, is_filling);
            }
        }
        Ok(from)
    }

    /// A topic without an id has no positions that other nodes know; of a partition that is in the history nothing
    /// is missing.
    fn wants(&self, topic: &str, partition: i32) -> bool {
        let is_known = |partition| self.streams.history_of_log(topic).is_none_or(|history| history.knows(partition));
        self.ids.contains_key(topic) && u32::try_from(partition).is_ok_and(|partition| !is_known(partition))
    }

    fn is_filling(&self, topic: &str, partition: i32) -> bool {
        self.starts.get(topic).is_some_and(|partitions| partitions.contains_key(&partition))
    }

    /// The offset after the newest message in the history.
    fn next_of(&self, topic: &str, partition: i32) -> i64 {
        let newest = |history: MutexGuard<'_, ChannelHistory>| history.seqs().of(u32::try_from(partition).unwrap_or(0));
        self.streams.history_of_log(topic).map_or(0, newest).try_into().unwrap_or(i64::MAX)
    }

    /// Whether a message is one of those that are only kept. The last of them ends the reading back.
    pub fn takes(&mut self, topic: &str, partition: i32, offset: i64) -> bool {
        if self.starts.is_empty() {
            return false;
        }
        self.quiet_since = None;
        let Some(&start) = self.starts.get(topic).and_then(|partitions| partitions.get(&partition)) else {
            return false;
        };
        if offset < start {
            self.pace();
        }
        offset < start
    }

    /// A message was handled.
    pub fn handled(&mut self, topic: &str, partition: i32, offset: i64) {
        let Some(&start) = self.starts.get(topic).and_then(|partitions| partitions.get(&partition)) else { return };
        if offset >= start - 1 {
            self.end(&(topic.to_owned(), partition));
        }
    }

    fn end(&mut self, (topic, partition): &Partition) {
        let Some(partitions) = self.starts.get_mut(topic) else { return };
        partitions.remove(partition);
        if partitions.is_empty() {
            self.starts.remove(topic);
            if let Some(mut history) = self.streams.history_of_log(topic) {
                history.filled();
            }
        }
    }

    /// The consumer has no message, and the broker answers.
    pub fn quiet(&mut self) {
        if self.starts.is_empty() {
            return;
        }
        let since = *self.quiet_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= QUIET {
            let left = self
                .starts
                .iter()
                .flat_map(|(topic, partitions)| partitions.keys().map(|&partition| (topic.clone(), partition)));
            left.collect::<Vec<_>>().iter().for_each(|partition| self.end(partition));
        }
    }

    fn pace(&mut self) {
        const PIECE: u32 = 256;
        self.paced.0 += 1;
        if self.rate > 0 && self.paced.0 >= PIECE {
            let least = Duration::from_secs(1) * PIECE / self.rate;
            thread::sleep(least.saturating_sub(self.paced.1.elapsed()));
            self.paced = (0, Instant::now());
        }
    }

    /// The log has a message here that is not passed on.
    pub fn passed_over(&self, topic: &str, partition: i32, offset: i64) {
        if let (Ok(partition), Some(mut history)) = (u32::try_from(partition), self.streams.history_of_log(topic)) {
            history.passed_over((partition, seq_of(offset)));
        }
    }
}
