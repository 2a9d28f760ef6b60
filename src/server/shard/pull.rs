//! A subscription that reads from its channel's history, at its own pace, and not from the lanes.
//!
//! It is used by a client that asks for what it missed, until it has caught up, and by every subscription whose
//! policy is not to be dropped. Its memberships are *held*: they keep its groups alive and wake the session, and
//! get nothing from the rings. Nothing is kept for such a client but its place in the history, which all share.
//!
//! **From the history to the lanes.** Everything that was not in the history when the client had joined its groups
//! is sent to them afterwards, so it is in the shard's rings as soon as the shard has drained it. Messages up to
//! what is drained are read here, later ones there. So the client changes over when the shard has drained at
//! least what the history held when it joined (`live_after`), and it has read everything up to what is drained.

use std::collections::BTreeSet;

use crate::engine::policy::LagOptions;
use crate::streams::history::{ChannelHistory, KeptMessage};
use crate::wire::streams::position::Seqs;
use crate::wire::streams::slow_policy::SlowPolicy;
use crate::wire::streams::{Filter, messages};

/// A subscription that reads from its channel's history.
pub struct Pull {
    /// The number of the channel.
    pub channel: usize,
    /// What happens when the client is slow; with [`SlowPolicy::Drop`] it changes over to the lanes.
    pub policy: SlowPolicy,
    /// The index of the next message. Of a conflated channel: the number of the state that was sent last.
    pub next: u64,
    /// Whether it was promised everything after a position, and has not had it yet.
    pub is_catching_up: bool,
    /// The groups carry everything whose id is larger.
    pub live_after: u64,
    /// What the client has already, where the index does not say so.
    pub since: Option<Box<Seqs>>,
    /// Nothing is sent before, ms.
    pub due_ms: u64,
    /// The numbers of what was sent last.
    pub sent: Seqs,
}

/// A message that a turn has appended to the bytes to send.
#[derive(Debug, Clone, Copy)]
pub struct PulledFrame {
    /// Which of the session's pulls it belongs to.
    pub pull: usize,
    /// The pull's next index once it is sent.
    pub next: u64,
    /// Its place in its channel.
    pub place: Option<(u32, u64)>,
    /// Where it ends in the bytes.
    pub end: usize,
}

/// What one turn of a session's pulls has found.
#[derive(Debug, Default)]
pub struct PulledFrames {
    /// The messages, as bytes to send.
    pub bytes: Vec<u8>,
    /// Each of them.
    pub frames: Vec<PulledFrame>,
    /// Each pull that has nothing more after these, and where it stands then.
    pub complete: Vec<(usize, u64)>,
    /// Messages left out.
    pub skipped: u64,
}

impl PulledFrames {
    /// Empties it, and keeps the room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.frames.clear();
        self.complete.clear();
        self.skipped = 0;
    }

    /// Appends one message.
    pub fn push(&mut self, pull: usize, next: u64, place: Option<(u32, u64)>, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.frames.push(PulledFrame { pull, next, place, end: self.bytes.len() });
    }
}

/// Messages that the history no longer has, for a client that was promised them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FellOff;

/// What a pull needs to know for one turn.
pub struct PullView<'a> {
    /// Which of the session's pulls it is.
    pub at: usize,
    /// The name of its channel.
    pub channel: &'a str,
    /// The symbols that the client wants.
    pub filter: &'a Filter,
    /// When it is too far behind.
    pub lag: &'a LagOptions,
    /// Everything up to this id is in the shard's rings.
    pub drained: u64,
    /// Bytes after which nothing is appended.
    pub room: usize,
}

impl Pull {
    /// A pull that goes on from an index.
    pub fn new(channel: usize, policy: SlowPolicy, next: u64, live_after: u64) -> Self {
        let (since, sent) = (None, Seqs::default());
        Self { channel, policy, next, is_catching_up: false, live_after, since, due_ms: 0, sent }
    }

    /// Notes that the message at this place was sent, or left out.
    pub fn took(&mut self, place: Option<(u32, u64)>) {
        if let (SlowPolicy::Skip, Some((partition, seq))) = (self.policy, place) {
            self.sent.0.insert(partition, seq);
        }
    }

    /// Appends the messages that are due.
    pub fn read(&self, history: &ChannelHistory, view: &PullView<'_>, out: &mut PulledFrames) -> Result<(), FellOff> {
        let from = self.from(history, view, out)?;
        if let SlowPolicy::Latest { .. } = self.policy {
            for (index, message) in history.newest_from(from) {
                if self.wants(message, view.filter) {
                    if out.bytes.len() >= view.room {
                        return Ok(());
                    }
                    out.push(view.at, index + 1, message.place, &message.frame);
                }
            }
            out.complete.push((view.at, history.head()));
            return Ok(());
        }
        let mut next = from;
        for (index, message) in history.range(from..history.head()) {
            if self.policy == SlowPolicy::Drop && message.id > view.drained {
                break;
            }
            if self.wants(message, view.filter) {
                if out.bytes.len() >= view.room {
                    return Ok(());
                }
                out.push(view.at, index + 1, message.place, &message.frame);
            }
            next = index + 1;
        }
        out.complete.push((view.at, next));
        Ok(())
    }

    /// Where to go on. What is left out is told.
    fn from(&self, history: &ChannelHistory, view: &PullView<'_>, out: &mut PulledFrames) -> Result<u64, FellOff> {
        let LagOptions { client_buffer, client_buffer_bytes, .. } = *view.lag;
        let from = match self.policy {
            SlowPolicy::Drop if self.next < history.first() => return Err(FellOff),
            SlowPolicy::Drop => return Ok(self.next),
            SlowPolicy::Latest { .. } => return Ok(self.next.max(history.first())),
            SlowPolicy::Skip => {
                let (messages, bytes) = history.behind(self.next);
                let lags = messages > client_buffer || bytes > client_buffer_bytes;
                if lags && !self.is_catching_up {
                    // So that it does not lag again at once.
                    history.index_within(client_buffer / 2, client_buffer_bytes / 2)
                } else {
                    self.next.max(history.first())
                }
            }
        };
        if from > self.next {
            self.tell_skipped(history, from, view, out);
        }
        Ok(from)
    }

    fn tell_skipped(&self, history: &ChannelHistory, to: u64, view: &PullView<'_>, out: &mut PulledFrames) {
        let left_out = || history.range(self.next..to).filter(|(_, message)| self.wants(message, view.filter));
        // What fell off the history cannot be looked at any more: all of it counts.
        let count = left_out().count() as u64 + history.first().saturating_sub(self.next);
        if count == 0 {
            return;
        }
        let (mut first, mut last) = (Seqs::default(), Seqs::default());
        for (_, message) in history.range(self.next..to) {
            if let Some((partition, seq)) = message.place {
                first.0.entry(partition).or_insert_with(|| self.sent.of(partition).min(seq - 1) + 1);
                last.0.insert(partition, seq);
            }
        }
        for (partition, fallen) in history.fallen() {
            let sent = self.sent.of(partition);
            if fallen > sent && self.next < history.first() {
                first.0.insert(partition, sent + 1);
                last.0.entry(partition).or_insert(fallen);
            }
        }
        let notice = messages::skipped(view.channel, history.epoch(), count, (&first, &last));
        out.push(view.at, to, None, &notice);
        // The numbers count as sent: the next notice begins after them.
        last.0.iter().for_each(|(&partition, &seq)| out.push(view.at, to, Some((partition, seq)), &[]));
        out.skipped += count;
    }

    fn wants(&self, message: &KeptMessage, filter: &Filter) -> bool {
        let is_new = match &self.since {
            // What is read back from a log was published before this client came.
            None => !message.is_reread,
            Some(_) if message.place.is_none() => message.id > self.live_after,
            Some(since) => message.is_after(since),
        };
        is_new
            && match (filter, &message.subject) {
                (Filter::All, _) => true,
                (Filter::Symbols(symbols), Some(subject)) => is_in(symbols, subject),
                (Filter::Symbols(_), None) => false,
            }
    }
}

fn is_in(symbols: &BTreeSet<Box<str>>, subject: &[u8]) -> bool {
    std::str::from_utf8(subject).is_ok_and(|symbol| symbols.contains(symbol))
}
