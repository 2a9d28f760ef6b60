//! A subscription that reads from its channel's history, at its own pace, and not from the lanes.
//!
//! It is used by a client that asks for what it missed, until it has caught up, and by every subscription whose
//! policy is not to be dropped. Its memberships are *held*: they keep its groups alive and wake the session, and
//! get nothing from the rings. Nothing is kept for such a client but its place in the history, which all share.
//!
//! **With a limited rate** a client gets a round at a time: the newest of each symbol as it was when the round began,
//! and the next round begins when its time has come. The round ends where it was decided to, however long its
//! sending takes and whatever comes meanwhile: no symbol comes twice in it, and none is left behind.
//!
//! **From the history to the lanes.** Everything that was not in the history when the client had joined its groups
//! is sent to them afterwards, so it is in the shard's rings as soon as the shard has drained it. Messages up to
//! what is drained are read here, later ones there. So the client changes over when the shard has drained at
//! least what the history held when it joined (`live_after`), and it has read everything up to what is drained.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

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
    /// Messages before this index were promised: none of them is left out for a newer one.
    pub whole_to: u64,
    /// The groups carry everything whose id is larger.
    pub live_after: u64,
    /// What the client has already, where the index does not say so.
    pub since: Option<Box<Seqs>>,
    /// The epoch in which `since` and `sent` count.
    pub epoch: Arc<str>,
    /// No round begins before, ms.
    pub due_ms: u64,
    /// Where the round ends that has begun last.
    pub round_to: u64,
    /// The numbers of what was sent last.
    pub sent: Seqs,
    /// How many messages its lanes had carried when it had got, or was told of, all of them; with what it got since.
    /// `None`: not known. It shows whether anything of its symbols was lost in what fell off the history.
    pub carried: Option<u64>,
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
    /// How many messages of the client it is, or tells of.
    pub messages: u64,
    /// Whether it only tells that these are left out.
    pub is_notice: bool,
    /// Where it ends in the bytes.
    pub end: usize,
}

/// A pull that has nothing more after a turn.
#[derive(Debug, Clone, Copy)]
pub struct CompletePull {
    /// Which of the session's pulls it is.
    pub pull: usize,
    /// Its next index then.
    pub next: u64,
    /// [`Pull::carried`] then.
    pub carried: Option<u64>,
}

/// What one turn of a session's pulls has found.
#[derive(Debug, Default)]
pub struct PulledFrames {
    /// The messages, as bytes to send.
    pub bytes: Vec<u8>,
    /// Each of them.
    pub frames: Vec<PulledFrame>,
    /// The pulls that have nothing more after these, for now.
    pub complete: Vec<CompletePull>,
    /// Whether a pull has more than there was room for.
    pub has_more: bool,
}

impl PulledFrames {
    /// Empties it, and keeps the room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.frames.clear();
        self.complete.clear();
        self.has_more = false;
    }

    /// Appends one message.
    pub fn push(&mut self, pull: usize, next: u64, place: Option<(u32, u64)>, frame: &[u8]) {
        self.push_for(pull, next, place, 1, frame);
    }

    fn push_for(&mut self, pull: usize, next: u64, place: Option<(u32, u64)>, messages: u64, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.frames.push(PulledFrame { pull, next, place, messages, is_notice: false, end: self.bytes.len() });
    }

    /// Notes that a pull has nothing more.
    pub fn complete(&mut self, pull: usize, next: u64, carried: Option<u64>) {
        self.complete.push(CompletePull { pull, next, carried });
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
    /// How many messages the rings of its symbols have had; `None` if nobody needs to know.
    pub carried: Option<u64>,
    /// Bytes after which nothing is appended.
    pub room: usize,
    /// The time, ms.
    pub now_ms: u64,
}

impl Pull {
    /// A pull that goes on from an index.
    pub fn new(channel: usize, policy: SlowPolicy, next: u64, live_after: u64, epoch: Arc<str>) -> Self {
        Self {
            channel,
            policy,
            next,
            is_catching_up: false,
            whole_to: 0,
            live_after,
            since: None,
            epoch,
            due_ms: 0,
            round_to: 0,
            sent: Seqs::default(),
            carried: None,
        }
    }

    /// Takes over what holds of a pull that it replaces: what was promised, and when it may send again.
    pub fn replace(&mut self, before: &Self) {
        self.is_catching_up |= before.is_catching_up;
        self.whole_to = self.whole_to.max(before.whole_to);
        // Asking again is no way to get more; asking for another rate counts from the last send.
        self.due_ms = before.due_ms.saturating_sub(before.policy.interval_ms());
        if before.due_ms > 0 {
            self.due_ms += self.policy.interval_ms();
        }
    }

    /// Notes that a frame was sent.
    pub fn took(&mut self, frame: &PulledFrame, now_ms: u64) {
        self.next = frame.next;
        if let (SlowPolicy::Skip, Some((partition, seq))) = (self.policy, frame.place) {
            self.sent.0.insert(partition, seq);
        }
        if let Some(carried) = &mut self.carried {
            *carried += frame.messages;
        }
        self.begin_round(now_ms);
    }

    /// Notes that the state with this number is on its way.
    pub fn took_state(&mut self, seq: u64, now_ms: u64) {
        self.next = seq;
        self.begin_round(now_ms);
    }

    /// With the first frame of a round, or its rest would count as the beginning of another.
    fn begin_round(&mut self, now_ms: u64) {
        if self.policy.interval_ms() > 0 && now_ms >= self.due_ms {
            self.due_ms = now_ms + self.policy.interval_ms();
        }
    }

    /// Notes that it has nothing more.
    pub fn completed(&mut self, at: &CompletePull) {
        (self.next, self.carried, self.is_catching_up) = (at.next, at.carried, false);
        // What comes now is newer than any position was. With `drop` there may be more, beyond what is drained.
        if self.policy != SlowPolicy::Drop && self.next >= self.whole_to {
            self.since = None;
        }
    }

    /// Appends the messages that are due.
    pub fn read(
        &mut self,
        history: &ChannelHistory,
        view: &PullView<'_>,
        out: &mut PulledFrames,
    ) -> Result<(), FellOff> {
        if *self.epoch != **history.epoch() {
            // Numbers of another log say nothing of these messages.
            (self.epoch, self.since, self.sent) = (Arc::clone(history.epoch()), None, Seqs::default());
        }
        match self.policy {
            SlowPolicy::Drop if self.next < history.first() => Err(FellOff),
            SlowPolicy::Drop => {
                let drained = history.index_of_id(view.drained + 1);
                self.read_all(history, self.next..drained, view, out);
                Ok(())
            }
            SlowPolicy::Skip => {
                let from = self.skip(history, view, out);
                self.read_all(history, from..history.head(), view, out);
                Ok(())
            }
            SlowPolicy::Latest { .. } => self.read_latest(history, view, out),
        }
    }

    fn read_all(&self, history: &ChannelHistory, indexes: Range<u64>, view: &PullView<'_>, out: &mut PulledFrames) {
        let end = indexes.end.max(indexes.start);
        if self.append(history.range(indexes), view, out) {
            out.complete(view.at, end, self.carried_now(history, view));
        }
    }

    /// What was promised, and then the newest of each subject: all there is, or what belongs to the round.
    fn read_latest(
        &mut self,
        history: &ChannelHistory,
        view: &PullView<'_>,
        out: &mut PulledFrames,
    ) -> Result<(), FellOff> {
        if self.next < self.whole_to {
            if self.next < history.first() {
                return Err(FellOff);
            }
            if !self.append(history.range(self.next..self.whole_to), view, out) {
                return Ok(());
            }
        }
        let from = self.next.max(self.whole_to).max(history.first());
        if self.policy.interval_ms() == 0 || view.now_ms >= self.due_ms {
            self.round_to = history.head();
        }
        let to = self.round_to.max(from);
        if self.append(history.newest_in(from..to), view, out) {
            out.complete(view.at, to, None);
        }
        Ok(())
    }

    /// Appends what the client wants of these messages. False if there was no room for all of it.
    fn append<'h>(
        &self,
        messages: impl Iterator<Item = (u64, &'h KeptMessage)>,
        view: &PullView<'_>,
        out: &mut PulledFrames,
    ) -> bool {
        for (index, message) in messages.filter(|(_, message)| self.wants(message, view.filter)) {
            if out.bytes.len() >= view.room {
                out.has_more = true;
                return false;
            }
            out.push(view.at, index + 1, message.place, &message.frame);
        }
        true
    }

    /// Where to go on with [`SlowPolicy::Skip`]. What is left out is told.
    fn skip(&self, history: &ChannelHistory, view: &PullView<'_>, out: &mut PulledFrames) -> u64 {
        let kept = self.next.max(history.first());
        let to = if self.is_catching_up { kept } else { self.allowed_from(history, kept, view) };
        if to > self.next {
            self.tell_skipped(history, to, view, out);
        }
        to
    }

    /// The index from which a client may go on: of the messages that it wants, no more than it may be behind, or half as
    /// many, so that it does not lag again at once.
    fn allowed_from(&self, history: &ChannelHistory, from: u64, view: &PullView<'_>) -> u64 {
        let LagOptions { client_buffer, client_buffer_bytes, .. } = *view.lag;
        let lags = |(messages, bytes)| messages > client_buffer || bytes > client_buffer_bytes;
        if !lags(history.behind(from)) {
            return from;
        }
        let wanted = || history.range(from..history.head()).filter(|(_, message)| self.wants(message, view.filter));
        let (mut messages, mut bytes) = wanted().fold((0, 0), |(n, sum), (_, message)| (n + 1, sum + message.bytes()));
        if !lags((messages, bytes)) {
            return from;
        }
        for (index, message) in wanted() {
            if messages <= client_buffer / 2 && bytes <= client_buffer_bytes / 2 {
                return index;
            }
            (messages, bytes) = (messages - 1, bytes - message.bytes());
        }
        history.head()
    }

    fn tell_skipped(&self, history: &ChannelHistory, to: u64, view: &PullView<'_>, out: &mut PulledFrames) {
        let left_out = history.range(self.next..to).filter(|(_, message)| self.wants(message, view.filter)).count();
        let unseen = self.lost(history, view);
        let count = left_out as u64 + unseen;
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
        for (partition, fallen) in history.fallen().filter(|_| unseen > 0) {
            let sent = self.sent.of(partition);
            if fallen > sent {
                first.0.insert(partition, sent + 1);
                last.0.entry(partition).or_insert(fallen);
            }
        }
        let notice = messages::skipped(view.channel, history.epoch(), count, (&first, &last));
        out.push_for(view.at, to, None, count, &notice);
        out.frames.last_mut().into_iter().for_each(|frame| frame.is_notice = true);
        // The numbers count as sent: the next notice begins after them.
        last.0.iter().for_each(|(&partition, &seq)| out.push_for(view.at, to, Some((partition, seq)), 0, &[]));
    }

    /// How many of the client's messages fell off the history before it got them. They cannot be looked at any more: all
    /// that fell off count, unless the rings tell how many of its symbols' were among them.
    fn lost(&self, history: &ChannelHistory, view: &PullView<'_>) -> u64 {
        let fallen = history.first().saturating_sub(self.next);
        if let (Some(before), Some(now)) = (self.carried, self.carried_now(history, view)) {
            let kept = history.range(self.next..history.head()).filter(|(_, kept)| self.wants(kept, view.filter));
            return now.saturating_sub(before + kept.count() as u64).min(fallen);
        }
        fallen
    }

    /// How many messages the client's lanes have carried, with those that are only on their way to the rings.
    fn carried_now(&self, history: &ChannelHistory, view: &PullView<'_>) -> Option<u64> {
        // Before, the rings may miss some that are in the history.
        let carried = view.carried.filter(|_| view.drained >= self.live_after)?;
        let coming = history.range(history.index_of_id(view.drained + 1)..history.head());
        Some(carried + coming.filter(|(_, message)| self.wants(message, view.filter)).count() as u64)
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

#[cfg(test)]
#[path = "pull_tests.rs"]
mod pull_tests;
