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
        }
        self.newest.insert(index);
        self.last_id = id;
        self.end += frame.len() as u64 + OVERHEAD;
        // Never older than the one before: what is too old is at the front.
        let at_ms = now_ms.saturating_sub(age_ms).max(self.kept.back().map_or(0, |last| last.at_ms));
        self.kept.push_back(KeptMessage { id, place, subject, frame, is_reread, at_ms, end: self.end });
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

    /// The smallest index from which at most so many messages and bytes follow.
    pub fn index_within(&self, messages: u64, bytes: u64) -> u64 {
        let over = |message: &KeptMessage| self.end - message.end + message.bytes() > bytes;
        let by_bytes = self.first + self.kept.partition_point(over) as u64;
        by_bytes.max(self.head().saturating_sub(messages))
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
}

impl KeptMessage {
    fn bytes(&self) -> u64 {
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AGE: Duration = Duration::from_secs(10);

    fn history(messages: u64, bytes: u64) -> ChannelHistory {
        let options = HistoryOptions { history_messages: messages, history_bytes: bytes, history_age: AGE };
        ChannelHistory::new("e".into(), options, HistoryFigures::default())
    }

    fn publish(history: &mut ChannelHistory, subject: &str, bytes: usize, now_ms: u64) {
        let place = history.place(None);
        let (id, subject) = (10 * (history.head() + 1), Some(subject.as_bytes().into()));
        history.append(
            id,
            Arriving { place, subject, frame: vec![0; bytes].into(), is_reread: false, age_ms: 0 },
            now_ms,
        );
    }

    fn from_log(history: &mut ChannelHistory, id: u64, place: Option<(u32, u64)>) {
        let place = history.place(place);
        history.append(id, Arriving { place, subject: None, frame: Bytes::new(), is_reread: false, age_ms: 0 }, 0);
    }

    fn start(history: &ChannelHistory, epoch: &str, seq: u64) -> Result<u64, NotRecovered> {
        let since = Since { epoch: epoch.into(), seqs: Seqs(BTreeMap::from([(0, seq)])) };
        history.start_after(&since, 0)
    }

    #[test]
    fn a_position_is_answered_with_everything_after_it_or_with_why_not() {
        let mut history = history(4, 1 << 20);
        assert_eq!(start(&history, "e", 0), Ok(0), "nothing was published, and nothing is missing");
        for _ in 0..6 {
            publish(&mut history, "A", 1, 0);
        }
        assert_eq!([6, 5, 2].map(|seq| start(&history, "e", seq)), [Ok(6), Ok(5), Ok(2)]);
        assert_eq!(start(&history, "e", 1), Err(NotRecovered::TooOld), "it is held still, but not offered");
        assert_eq!(start(&history, "e", 0), Err(NotRecovered::TooOld));
        assert_eq!(start(&history, "e", 7), Err(NotRecovered::Ahead));
        assert_eq!(start(&history, "f", 6), Err(NotRecovered::UnknownEpoch));
        let other = Since { epoch: "e".into(), seqs: Seqs(BTreeMap::from([(0, 6), (9, 1)])) };
        assert_eq!(history.start_after(&other, 0), Err(NotRecovered::Ahead), "there is no partition 9");
    }

    #[test]
    fn a_history_of_nothing_still_knows_who_missed_nothing() {
        let mut history = history(0, 1 << 20);
        (0..3).for_each(|_| publish(&mut history, "A", 1, 0));
        assert_eq!([3, 2].map(|seq| start(&history, "e", seq)), [Ok(3), Err(NotRecovered::TooOld)]);
    }

    #[test]
    fn old_messages_go_with_the_next_or_with_time() {
        let mut history = history(9, 1 << 20);
        (0..3).for_each(|at| publish(&mut history, "A", 1, 1000 * at));
        history.trim(40_500);
        assert_eq!((history.first(), history.head()), (1, 3));
        assert_eq!(history.figures.messages.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn the_newest_of_each_subject_is_known() {
        let mut history = history(4, 1 << 20);
        "A B A C".split(' ').for_each(|subject| publish(&mut history, subject, 1, 0));
        let newest =
            |history: &ChannelHistory, from| history.newest_from(from).map(|(index, _)| index).collect::<Vec<_>>();
        assert_eq!([newest(&history, 0), newest(&history, 2)], [vec![1, 2, 3], vec![2, 3]]);
        (0..300).for_each(|_| publish(&mut history, "A", 1, 0));
        assert_eq!(newest(&history, 0), [303]);
        assert_eq!(history.newest_of.len(), 1, "what fell off is forgotten");
    }

    #[test]
    fn partitions_count_by_themselves() {
        let mut history = history(4, 1 << 20);
        history.await_log();
        publish(&mut history, "A", 1, 0);
        assert_eq!(start(&history, "e", 0), Err(NotRecovered::Unavailable), "until the log has answered");
        history.follow_log("t".into(), &BTreeMap::from([(0, 100), (1, 0)]), true);
        from_log(&mut history, 1, Some((0, 101)));
        assert_eq!(start(&history, "t", 100), Err(NotRecovered::Unavailable), "until everything is read back");
        history.filled();
        for (id, place) in [(2, (1, 1)), (3, (0, 102)), (4, (1, 2))] {
            from_log(&mut history, id, Some(place));
        }
        assert_eq!(history.place(None), None, "what is not in the log has no number");
        let start = |zero, one| {
            history.start_after(&Since { epoch: "t".into(), seqs: Seqs(BTreeMap::from([(0, zero), (1, one)])) }, 0)
        };
        assert_eq!([start(102, 2), start(101, 2), start(102, 0)], [Ok(5), Ok(3), Ok(2)]);
        assert_eq!([start(99, 2), start(103, 2)], [Err(NotRecovered::TooOld), Err(NotRecovered::Ahead)]);
    }

    #[test]
    fn a_log_whose_numbers_fall_is_another_one() {
        let mut history = history(4, 1 << 20);
        history.follow_log("t".into(), &BTreeMap::from([(0, 100)]), false);
        from_log(&mut history, 1, Some((0, 101)));
        from_log(&mut history, 2, Some((0, 1)));
        assert_ne!(&**history.epoch(), "t");
        assert_eq!((history.seqs().of(0), history.first(), history.head()), (1, 1, 2));
        history.follow_log("u".into(), &BTreeMap::from([(0, 1)]), false);
        from_log(&mut history, 3, Some((0, 2)));
        assert_eq!([start(&history, "u", 1), start(&history, "u", 0)], [Ok(2), Err(NotRecovered::TooOld)]);
    }

    proptest! {
        #[test]
        fn an_answer_is_whole_or_none(
            lengths in prop::collection::vec(0usize..9000, 0..300), messages in 0u64..400, bytes in 0u64..2_000_000,
            seq in 0u64..310
        ) {
            let mut history = history(messages, bytes);
            for &length in &lengths {
                publish(&mut history, "A", length, 0);
            }
            prop_assert!(history.kept.len() as u64 <= (messages + messages / 4).max(LEAST_MESSAGES));
            prop_assert!(history.behind(0).1 <= (bytes + bytes / 4).max(LEAST_BYTES));
            if let Ok(start) = start(&history, "e", seq) {
                let seqs: Vec<u64> = history.range(start..history.head()).map(|(_, kept)| kept.place.unwrap().1).collect();
                prop_assert_eq!(seqs, (seq + 1..=lengths.len() as u64).collect::<Vec<_>>());
            } else {
                prop_assert!(seq != lengths.len() as u64);
            }
        }
    }
}
