//! The witness: turns the numbers that clients hear into a ledger, when somebody else publishes.
//!
//! The producer numbers its messages without gap, so what was published follows from what was heard:
//! number after number, a message that nobody heard included, from the first one heard to the last.
//! Only where the producer ended is not known from that. The run is covered to its end when a message
//! sent after the end has been heard, or the last number that was announced.
//!
//! ```text
//! workers ─▶ numbers heard first ─▶ in the order of their numbers, per channel ─▶ ticks to all workers
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::Release};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use super::tell;
use crate::clock::{MILLISECOND, now_ns};
use crate::ledger::follow::{Event, Status};
use crate::ledger::{Publication, Tick};
use crate::verify::slot::LedgerTimes;

/// Heard numbers that may wait; a number of which every report is lost counts as heard by nobody.
const DEPTH: usize = 64 * 1024;

/// How long the first numbers of a channel are collected: workers hear its first message at
/// different times, and the lowest number is the beginning.
const SETTLE_NS: u64 = 300 * MILLISECOND;

/// How long a number may be overtaken by later ones before it counts as heard by nobody.
const OVERDUE_NS: u64 = 100 * MILLISECOND;

/// Between two looks at what is overdue.
const LOOK: Duration = Duration::from_millis(20);

/// A number as a client heard it.
#[derive(Clone, Copy, Debug)]
pub struct HeardNumber {
    /// The channel's number in the plan.
    pub group: u32,
    /// The message's number.
    pub seq: u64,
    /// xxh3-64 of the payload.
    pub hash: u64,
    /// The producer's time.
    pub sent_ns: u64,
    /// When it was read.
    pub at_ns: u64,
}

/// What the witness knows.
#[derive(Debug, Default)]
pub struct WitnessStatus {
    /// As a ledger's.
    pub ledger: Arc<Status>,
    /// Numbers that nobody has heard and later ones have overtaken.
    pub unheard: AtomicU64,
    /// Whether a message was sent after it was read: the producer's clock is another.
    pub is_foreign_clock: AtomicBool,
    /// Everything sent until then has been heard of, on every channel.
    pub covered_ns: AtomicU64,
    /// Whether every channel has reached the last number announced.
    pub is_at_end: AtomicBool,
}

impl WitnessStatus {
    /// Whether everything sent until `cut_ns` is known.
    pub fn covers(&self, cut_ns: u64) -> bool {
        self.is_at_end.load(Relaxed) || self.covered_ns.load(Relaxed) > cut_ns
    }
}

/// One channel.
#[derive(Debug, Default)]
struct ChannelSequence {
    /// The number that must come next, once the beginning is settled.
    next: Option<u64>,
    settled_ns: u64,
    /// Since when `next` is missing while later ones are there.
    missing_since_ns: Option<u64>,
    pending: BTreeMap<u64, (u64, u64)>,
    /// Of the last number told.
    sent_ns: u64,
    last: u64,
}

/// See the module's documentation.
#[derive(Debug)]
struct Witness {
    sequences: Vec<ChannelSequence>,
    sinks: Vec<Sender<Event>>,
    status: Arc<WitnessStatus>,
    last_seq: Option<u64>,
    told: u64,
}

/// Starts a witness for so many channels; returns what it knows and where workers report the numbers they hear.
pub fn start(
    channels: usize,
    last_seq: Option<u64>,
    sinks: Vec<Sender<Event>>,
) -> std::io::Result<(Arc<WitnessStatus>, SyncSender<HeardNumber>)> {
    let status = Arc::new(WitnessStatus::default());
    let (sink, heard_numbers) = sync_channel(DEPTH);
    let mut witness = Witness::new(channels, last_seq, sinks, Arc::clone(&status));
    thread::Builder::new().name("witness".to_owned()).spawn(move || witness.run(&heard_numbers))?;
    Ok((status, sink))
}

impl Witness {
    fn new(channels: usize, last_seq: Option<u64>, sinks: Vec<Sender<Event>>, status: Arc<WitnessStatus>) -> Self {
        let sequences = (0..channels).map(|_| ChannelSequence::default()).collect();
        Self { sequences, sinks, status, last_seq, told: 0 }
    }

    /// Until all workers have ended, or it is told to stop.
    fn run(&mut self, heard_numbers: &Receiver<HeardNumber>) {
        while !self.status.ledger.is_stopped() {
            match heard_numbers.recv_timeout(LOOK) {
                Ok(heard) => self.see(&heard),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while let Ok(heard) = heard_numbers.try_recv() {
                self.see(&heard);
            }
            self.proceed(now_ns());
        }
    }

    fn see(&mut self, heard: &HeardNumber) {
        if heard.sent_ns > heard.at_ns {
            self.status.is_foreign_clock.store(true, Relaxed);
        }
        let Some(sequence) = self.sequences.get_mut(heard.group as usize) else { return };
        if sequence.next.is_none() && sequence.pending.is_empty() {
            sequence.settled_ns = heard.at_ns + SETTLE_NS;
        }
        if sequence.next.is_none_or(|next| heard.seq >= next) {
            // What is ahead of us would say that everything until then is known.
            let sent_ns = heard.sent_ns.min(heard.at_ns);
            sequence.pending.entry(heard.seq).or_insert((heard.hash, sent_ns));
        }
    }

    /// Tells the workers what follows.
    fn proceed(&mut self, now: u64) {
        for group in 0..self.sequences.len() {
            while let Some(publication) = self.sequences[group].step(group as u32, now) {
                if publication.hashes[0].is_none() {
                    self.status.unheard.fetch_add(1, Relaxed);
                }
                self.tell(group, publication);
            }
        }
        let covered_ns = self.sequences.iter().map(|sequence| sequence.sent_ns).min().unwrap_or(0);
        self.status.covered_ns.store(covered_ns, Relaxed);
        let is_at_end = self.last_seq.is_some_and(|end| self.sequences.iter().all(|sequence| sequence.last >= end));
        self.status.is_at_end.store(is_at_end, Relaxed);
    }

    fn tell(&mut self, group: usize, publication: Publication) {
        self.told += 1;
        let (sent_ns, channels) = (self.sequences[group].sent_ns, self.sequences.len() as u64);
        let tick = publication.sequence_id.wrapping_mul(channels).wrapping_add(group as u64);
        let times = LedgerTimes { tick, scheduled_ns: sent_ns, published_ns: sent_ns, ..LedgerTimes::default() };
        // Channels proceed each at its own pace: what is known of all is what the slowest has reached.
        let heard_ns = self.sequences.iter().map(|sequence| sequence.sent_ns).min().unwrap_or(0);
        let tick =
            Tick { seq: self.told, times, publications: vec![publication], heard_ns, opens: None, orders: Vec::new() };
        tell(&self.sinks, &Event::Tick(Arc::new(tick)));
        let status = &self.status.ledger;
        status.ticks.fetch_add(1, Relaxed);
        status.publications.fetch_add(1, Relaxed);
        // After the send: who sees this position finds the tick in its channel.
        status.seq.store(self.told, Release);
    }
}

impl ChannelSequence {
    /// The next publication, once it is certain.
    fn step(&mut self, group: u32, now: u64) -> Option<Publication> {
        let &first = self.pending.keys().next()?;
        let next = match self.next {
            None if now < self.settled_ns => return None,
            None => first,
            Some(next) => next,
        };
        let hash = if let Some((hash, sent_ns)) = self.pending.remove(&next) {
            // A producer's clock does not run backwards; if it does, nothing may seem older than it is.
            self.sent_ns = self.sent_ns.max(sent_ns);
            self.missing_since_ns = None;
            Some(hash)
        } else {
            let since_ns = *self.missing_since_ns.get_or_insert(now);
            if now < since_ns + OVERDUE_NS {
                return None;
            }
            None
        };
        self.next = Some(next + 1);
        self.last = next;
        Some(Publication { group, sequence_id: next, record_timestamp: next.cast_signed(), hashes: [hash; 2] })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const LATER: u64 = 10_000 * MILLISECOND;

    fn witness(channels: usize, last_seq: Option<u64>) -> (Witness, Receiver<Event>) {
        let (sink, events) = channel();
        (Witness::new(channels, last_seq, vec![sink], Arc::default()), events)
    }

    fn see(witness: &mut Witness, group: u32, seq: u64, sent_ns: u64) {
        witness.see(&HeardNumber { group, seq, hash: seq, sent_ns, at_ns: sent_ns + 5 });
    }

    /// (group, number, whether it was heard, known until) of everything told.
    fn told(events: &Receiver<Event>) -> Vec<(u32, u64, bool, u64)> {
        let told = events.try_iter().map(|event| match event {
            Event::Tick(tick) => {
                let [publication] = tick.publications.as_slice() else { panic!("one per tick") };
                (publication.group, publication.sequence_id, publication.hashes[0].is_some(), tick.heard_ns)
            }
            Event::Gap | Event::Orders(_) => panic!("no gaps"),
        });
        told.collect()
    }

    #[test]
    fn numbers_are_told_in_order_from_the_lowest_of_the_beginning() {
        let (mut witness, events) = witness(1, None);
        see(&mut witness, 0, 8, 80);
        see(&mut witness, 0, 7, 70);
        witness.proceed(85);
        assert_eq!(told(&events), []);
        see(&mut witness, 0, 9, 90);
        see(&mut witness, 0, 8, 80);
        witness.proceed(LATER);
        assert_eq!(told(&events), [(0, 7, true, 70), (0, 8, true, 80), (0, 9, true, 90)]);
        assert!(witness.status.covers(89) && !witness.status.covers(90));
    }

    #[test]
    fn a_number_that_was_overtaken_is_told_as_heard_by_nobody() {
        let (mut witness, events) = witness(1, None);
        see(&mut witness, 0, 1, 10);
        witness.proceed(LATER);
        see(&mut witness, 0, 3, 30);
        witness.proceed(LATER);
        assert_eq!(told(&events), [(0, 1, true, 10)]);
        witness.proceed(LATER + OVERDUE_NS);
        assert_eq!(told(&events), [(0, 2, false, 10), (0, 3, true, 30)]);
        assert_eq!(witness.status.unheard.load(Relaxed), 1);
    }

    #[test]
    fn the_slowest_channel_says_what_is_known() {
        let (mut witness, events) = witness(2, Some(2));
        see(&mut witness, 0, 1, 10);
        see(&mut witness, 0, 2, 20);
        witness.proceed(LATER);
        assert_eq!(told(&events), [(0, 1, true, 0), (0, 2, true, 0)]);
        see(&mut witness, 1, 1, 15);
        witness.proceed(2 * LATER);
        assert_eq!(told(&events), [(1, 1, true, 15)]);
        assert!(!witness.status.covers(15));
        see(&mut witness, 1, 2, 16);
        witness.proceed(2 * LATER);
        assert!(witness.status.covers(u64::MAX), "both have come to the last number");
    }

    #[test]
    fn a_message_from_the_future_is_of_another_clock() {
        let (mut witness, events) = witness(1, None);
        witness.see(&HeardNumber { group: 0, seq: 1, hash: 1, sent_ns: 10, at_ns: 9 });
        witness.proceed(LATER);
        assert!(witness.status.is_foreign_clock.load(Relaxed));
        assert_eq!(told(&events), [(0, 1, true, 9)]);
    }
}
