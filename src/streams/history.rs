//! The last messages of one channel, kept for clients that were away or read at their own pace.
//!
//! One history serves all shards. A message is appended under the sequencer's lock *before* it is sent to its
//! groups. So a client that has joined its groups, and then looks here, misses nothing: a message that is not here
//! yet is sent after the client has joined.
//!
//! Messages have an *index*, their place in the order of arrival; it is never used again. Their numbers
//! (`seq`) count per partition, and only Kafka has more than one.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::wire::streams::position::{NotRecovered, Seqs, Since};

/// Bytes that a kept message takes besides its frame, about.
const OVERHEAD: u64 = 160;

/// Messages and bytes that are held whatever the settings say: subscriptions that read at their own pace live on
/// them.
const LEAST_MESSAGES: u64 = 256;
const LEAST_BYTES: u64 = 1 << 20;

/// How many messages of each channel can be sent again.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct HistoryOptions {
    /// Messages kept per channel of /ws for clients that come back; up to a quarter more are held while clients
    /// catch up
    #[arg(long, env = "FLOWCAST_HISTORY_MESSAGES", default_value_t = 10_000, value_name = "MESSAGES")]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    pub history_messages: u64,
    /// Bytes of these messages kept per channel
    #[arg(long, env = "FLOWCAST_HISTORY_BYTES", default_value_t = 16 << 20, value_name = "BYTES")]
    pub history_bytes: u64,
    /// How long a message is kept for clients that come back
    #[arg(long, env = "FLOWCAST_HISTORY_AGE", default_value = "10m", value_name = "DURATION")]
    #[arg(value_parser = humantime::parse_duration)]
    pub history_age: Duration,
}

impl HistoryOptions {
    fn age_ms(&self) -> u64 {
        u64::try_from(self.history_age.as_millis()).unwrap_or(u64::MAX)
    }
}

/// A message in the history.
pub struct KeptMessage {
    /// The publication's id in the hub's sequence.
    pub id: u64,
    /// Partition and number; `None` for a message that is in no log.
    pub place: Option<(u32, u64)>,
    /// What a newer message of the same replaces: the symbol, or else the key.
    pub subject: Option<Arc<[u8]>>,
    /// The finished frame, as live clients got it.
    pub frame: Bytes,
    /// Whether it was read back from a log, and not sent to live clients of this process.
    pub is_reread: bool,
    /// The index of the next message of the same subject; `u64::MAX` while there is none.
    newer: u64,
    /// When it came, monotonic ms.
    at_ms: u64,
    /// Bytes of all messages up to and including this one, since the history began.
    end: u64,
}

/// What a partition has carried.
#[derive(Debug, Clone, Copy, Default)]
struct Carried {
    /// The newest number.
    newest: u64,
    /// The newest number that is not kept any more, or never was.
    fallen: u64,
}

/// Where the numbers of messages come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbers {
    /// They are counted here.
    Own,
    /// They are counted here until the log has answered.
    Awaited,
    /// They are the log's, and what it had before is being read back.
    Filling,
    /// They are the log's.
    OfLog,
}

/// A message that arrives.
pub struct Arriving {
    /// Its place in its channel, from [`ChannelHistory::place`].
    pub place: Option<(u32, u64)>,
    /// What a newer message of the same replaces.
    pub subject: Option<Arc<[u8]>>,
    /// The finished frame.
    pub frame: Bytes,
    /// Whether it is read back from a log.
    pub is_reread: bool,
    /// How long ago it was published, ms.
    pub age_ms: u64,
}

/// Figures of one history, for the metrics.
#[derive(Debug, Clone, Default)]
pub struct HistoryFigures {
    /// Messages kept.
    pub messages: Arc<AtomicU64>,
    /// Their bytes.
    pub bytes: Arc<AtomicU64>,
}

/// The last messages of one channel.
pub struct ChannelHistory {
    options: HistoryOptions,
    figures: HistoryFigures,
    epoch: Arc<str>,
    numbers: Numbers,
    kept: VecDeque<KeptMessage>,
    /// Index of `kept[0]`.
    first: u64,
    /// Bytes of all messages that ever came.
    end: u64,
    last_id: u64,
    partitions: BTreeMap<u32, Carried>,
    /// The index of each subject's newest message, while that is kept; and the same by index.
    newest_of: HashMap<Option<Arc<[u8]>>, u64>,
    newest: BTreeSet<u64>,
}

impl ChannelHistory {
    /// An empty history that counts by itself, from 1.
    pub fn new(epoch: Arc<str>, options: HistoryOptions, figures: HistoryFigures) -> Self {
        Self {
            options,
            figures,
            epoch,
            numbers: Numbers::Own,
            kept: VecDeque::new(),
            first: 0,
            end: 0,
            last_id: 0,
            partitions: BTreeMap::from([(0, Carried::default())]),
            newest_of: HashMap::new(),
            newest: BTreeSet::new(),
        }
    }

    /// The epoch of its numbers.
    pub fn epoch(&self) -> &Arc<str> {
        &self.epoch
    }

    /// The newest number of each partition.
    pub fn seqs(&self) -> Seqs {
        Seqs(self.partitions.iter().map(|(partition, carried)| (*partition, carried.newest)).collect())
    }

    /// The id of its newest message; 0 before the first.
    pub fn last_id(&self) -> u64 {
        self.last_id
    }

    /// The index of the next message.
    pub fn head(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    /// The index of the oldest message that is kept; [`ChannelHistory::head`] if none is.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// From now on the numbers are those of a log: `starts` has the number before the first that will come, by
    /// partition. A new epoch forgets what was kept.
    pub fn follow_log(&mut self, epoch: Arc<str>, starts: &BTreeMap<u32, u64>, is_filling: bool) {
        if *epoch != *self.epoch {
            while !self.kept.is_empty() {
                self.drop_oldest();
            }
            self.partitions.clear();
        }
        if matches!(self.numbers, Numbers::Own | Numbers::Awaited) {
            self.partitions.clear();
        }
        (self.epoch, self.numbers) = (epoch, if is_filling { Numbers::Filling } else { Numbers::OfLog });
        for (&partition, &start) in starts {
            self.partitions.entry(partition).or_insert(Carried { newest: start, fallen: start });
        }
        self.trim(0);
    }

    /// A log will say what the numbers are.
    pub fn await_log(&mut self) {
        self.numbers = Numbers::Awaited;
    }

    /// Everything that was to be read back is here.
    pub fn filled(&mut self) {
        if self.numbers == Numbers::Filling {
            self.numbers = Numbers::OfLog;
        }
    }

    /// Whether its numbers are those of a log.
    pub fn follows_log(&self) -> bool {
        matches!(self.numbers, Numbers::Filling | Numbers::OfLog)
    }

    /// Whether a partition of the log is known.
    pub fn knows(&self, partition: u32) -> bool {
        self.follows_log() && self.partitions.contains_key(&partition)
    }

    /// Whether a refused position may be answered with everything a moment later: the log is still being read, or
    /// this node is a little behind another.
    pub fn may_come(&self, refused: NotRecovered) -> bool {
        match refused {
            NotRecovered::Unavailable => true,
            NotRecovered::Ahead => self.follows_log(),
            NotRecovered::UnknownEpoch | NotRecovered::TooOld | NotRecovered::Conflated => false,
        }
    }

    /// Notes that the log had a message here that is not passed on.
    pub fn passed_over(&mut self, (partition, seq): (u32, u64)) {
        if self.follows_log()
            && let Some(carried) = self.partitions.get_mut(&partition)
        {
            carried.newest = carried.newest.max(seq);
        }
    }

    /// The place of a message that arrives now. `log` is its place in the log that feeds the channel; without one
    /// it is in no log, and has no place. A log whose numbers fall is another one: it was deleted and created
    /// again, or has lost its end. So a new epoch begins, whose name nobody knows until the log's id is asked for.
    pub fn place(&mut self, log: Option<(u32, u64)>) -> Option<(u32, u64)> {
        if !self.follows_log() {
            return Some((0, self.partitions.get(&0).map_or(0, |carried| carried.newest) + 1));
        }
        let (partition, seq) = log?;
        if self.partitions.get(&partition).is_some_and(|carried| seq <= carried.newest) {
            self.follow_log(new_epoch().into(), &BTreeMap::from([(partition, seq - 1)]), false);
        }
        log
    }

    /// Counts a message that is not kept; returns its number.
    pub fn count(&mut self) -> u64 {
        let carried = self.partitions.entry(0).or_default();
        carried.newest += 1;
        carried.fallen = carried.newest;
        carried.newest
    }

    /// Keeps a message that is about to be sent with this id.
    pub fn append(&mut self, id: u64, message: Arriving, now_ms: u64) {
        let Arriving { place, subject, frame, is_reread, age_ms } = message;
        if let Some((partition, seq)) = place {
            self.partitions.entry(partition).or_default().newest = seq;
        }
        let index = self.head();
        if let Some(before) = self.newest_of.insert(subject.clone(), index) {
            self.newest.remove(&before);
            if let Some(before) = self.kept.get_mut((before - self.first) as usize) {
                before.newer = index;
            }
        }
        self.newest.insert(index);
        self.last_id = id;
        self.end += frame.len() as u64 + OVERHEAD;
        // Never older than the one before: what is too old is at the front.
        let at_ms = now_ms.saturating_sub(age_ms).max(self.kept.back().map_or(0, |last| last.at_ms));
        self.kept.push_back(KeptMessage {
            id,
            place,
            subject,
            frame,
            is_reread,
            newer: u64::MAX,
            at_ms,
            end: self.end,
        });
        self.trim(now_ms);
    }

    /// Drops what is over the bounds. A quarter more than configured is held, and half a minute longer: a client
    /// that was promised the oldest message gets the time to take it.
    pub fn trim(&mut self, now_ms: u64) {
        const CATCHING_UP_MS: u64 = 30_000;
        let messages = (self.options.history_messages + self.options.history_messages / 4).max(LEAST_MESSAGES);
        let bytes = self.options.history_bytes.saturating_add(self.options.history_bytes / 4).max(LEAST_BYTES);
        let age_ms = self.options.age_ms().saturating_add(CATCHING_UP_MS);
        while let Some(oldest) = self.kept.front()
            && (self.kept.len() as u64 > messages
                || self.end - oldest.end + oldest.bytes() > bytes
                || now_ms.saturating_sub(oldest.at_ms) > age_ms)
        {
            self.drop_oldest();
        }
        let bytes = self.kept.front().map_or(0, |oldest| self.end - oldest.end + oldest.bytes());
        self.figures.messages.store(self.kept.len() as u64, Ordering::Relaxed);
        self.figures.bytes.store(bytes, Ordering::Relaxed);
    }

    fn drop_oldest(&mut self) {
        let Some(oldest) = self.kept.pop_front() else { return };
        if let Some((partition, seq)) = oldest.place {
            self.partitions.entry(partition).or_default().fallen = seq;
        }
        if self.newest.remove(&self.first) {
            self.newest_of.remove(&oldest.subject);
        }
        self.first += 1;
    }

    /// The oldest index that a client may go on from.
    fn offered(&self, now_ms: u64) -> u64 {
        let HistoryOptions { history_messages, history_bytes, .. } = self.options;
        let over = |message: &KeptMessage| {
            self.end - message.end + message.bytes() > history_bytes
                || now_ms.saturating_sub(message.at_ms) > self.options.age_ms()
        };
        let by_size = self.first + self.kept.partition_point(over) as u64;
        by_size.max(self.head().saturating_sub(history_messages))
    }

    /// The index from which on everything after a position is kept.
    pub fn start_after(&self, since: &Since, now_ms: u64) -> Result<u64, NotRecovered> {
        if matches!(self.numbers, Numbers::Awaited | Numbers::Filling) {
            return Err(NotRecovered::Unavailable);
        }
        if *since.epoch != *self.epoch {
            return Err(NotRecovered::UnknownEpoch);
        }
        let ahead = |(partition, seq): (&u32, &u64)| *seq > self.partitions.get(partition).map_or(0, |at| at.newest);
        if since.seqs.0.iter().any(ahead) {
            return Err(NotRecovered::Ahead);
        }
        if self.partitions.iter().any(|(partition, carried)| since.seqs.of(*partition) < carried.fallen) {
            return Err(NotRecovered::TooOld);
        }
        let missed = |message: &KeptMessage| message.is_after(&since.seqs);
        let start = if self.numbers == Numbers::Own {
            self.first + self.kept.partition_point(|message| !missed(message)) as u64
        } else {
            self.first + self.kept.iter().position(missed).unwrap_or(self.kept.len()) as u64
        };
        if start < self.offered(now_ms) { Err(NotRecovered::TooOld) } else { Ok(start) }
    }

    /// The index of the first message with this id, or a larger one.
    pub fn index_of_id(&self, id: u64) -> u64 {
        self.first + self.kept.partition_point(|message| message.id < id) as u64
    }

    /// Of a position, the numbers in partitions that exist here. What a client names besides says nothing.
    pub fn known(&self, seqs: &Seqs) -> Seqs {
        let is_known = |(partition, _): &(&u32, &u64)| self.partitions.contains_key(partition);
        Seqs(seqs.0.iter().filter(is_known).map(|(partition, seq)| (*partition, *seq)).collect())
    }

    /// The newest number of each partition that is not kept any more.
    pub fn fallen(&self) -> impl Iterator<Item = (u32, u64)> {
        self.partitions.iter().map(|(partition, carried)| (*partition, carried.fallen))
    }

    /// Messages and bytes from an index to the head.
    pub fn behind(&self, index: u64) -> (u64, u64) {
        let from = index.max(self.first);
        let bytes = self.get(from).map_or(0, |message| self.end - message.end + message.bytes());
        (self.head() - from, bytes)
    }

    /// The message at an index, while it is kept.
    pub fn get(&self, index: u64) -> Option<&KeptMessage> {
        self.kept.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    /// Messages by index, the oldest first; those that are not kept are left out.
    pub fn range(&self, indexes: Range<u64>) -> impl Iterator<Item = (u64, &KeptMessage)> {
        let start = indexes.start.clamp(self.first, self.head());
        let end = indexes.end.clamp(start, self.head());
        let kept = self.kept.range((start - self.first) as usize..(end - self.first) as usize);
        (start..).zip(kept)
    }

    /// Of the messages from an index on, the newest of each subject, the oldest first.
    pub fn newest_from(&self, index: u64) -> impl Iterator<Item = (u64, &KeptMessage)> {
        self.newest.range(index..).filter_map(|&index| Some((index, self.get(index)?)))
    }

    /// The same as it was when the head was at the end of the range.
    pub fn newest_in(&self, indexes: Range<u64>) -> Box<dyn Iterator<Item = (u64, &KeptMessage)> + '_> {
        let end = indexes.end;
        if end >= self.head() {
            return Box::new(self.newest_from(indexes.start));
        }
        Box::new(self.range(indexes).filter(move |(_, message)| message.newer >= end))
    }
}

impl KeptMessage {
    /// What it counts for: its frame, and what keeping it takes.
    pub fn bytes(&self) -> u64 {
        self.frame.len() as u64 + OVERHEAD
    }

    /// Whether a client that has everything up to `seqs` lacks it.
    pub fn is_after(&self, seqs: &Seqs) -> bool {
        self.place.is_some_and(|(partition, seq)| seq > seqs.of(partition))
    }
}

/// A name for numbers that are counted here: another after each start, and on every node.
pub fn new_epoch() -> String {
    format!("{:012x}", fastrand::u64(..) >> 16)
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod history_tests;
