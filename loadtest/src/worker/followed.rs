//! What a client with a policy has heard of a channel: it need not get everything, but the newest, and with `skip` word
//! of the rest.
//!
//! ```text
//! channel    ─┬─ 8 ── 9 ── 10 ─── 11 ── 12 ─▶   its own numbers: each came, or was told to be left out
//! publisher  ─┴─ 1 ── 2 ──  3 ───  4 ──  5 ─▶   the payloads' numbers: those that were published, to the last
//! ```

use crate::cli::SlowPolicy;
use crate::verify::fault::FaultKind;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Followed {
    /// When the subscription was answered; 0 before.
    pub acked_ns: u64,
    /// The publisher's number of what was published first after that.
    pub first_due: Option<u64>,
    /// The channel's number of what was heard of first and last; 0 before that.
    first_seq: u64,
    last_seq: u64,
    /// The publisher's numbers of the same.
    first: Option<u64>,
    last: Option<u64>,
}

/// What is wrong with what was heard.
pub type Wrong = (FaultKind, String);

impl Followed {
    /// Whether what was published at this time had to be sent, and none before it.
    pub fn is_first(&self, published_ns: u64, error_ns: u64) -> bool {
        self.acked_ns > 0 && self.first_due.is_none() && published_ns > self.acked_ns + error_ns
    }

    /// The channel's messages with these numbers are left out.
    pub fn skip(&mut self, from: u64, to: u64, policy: SlowPolicy) -> Option<Wrong> {
        let before = self.last_seq;
        let wrong = self.follow(from, to, policy);
        // The publisher numbers without gap, too.
        self.last = self.last.map(|last| last.saturating_add(to.saturating_sub(before)));
        wrong
    }

    /// The channel's message with this number came; the publisher's number is `own`.
    pub fn hear(&mut self, seq: u64, own: u64, policy: SlowPolicy) -> Option<Wrong> {
        let expected = self.last.map(|last| last.saturating_add(seq.saturating_sub(self.last_seq)));
        let wrong = self.follow(seq, seq, policy);
        self.last = Some(own);
        self.first.get_or_insert(own.saturating_sub(seq.saturating_sub(self.first_seq)));
        let is_other = policy == SlowPolicy::Skip && expected.is_some_and(|expected| expected != own);
        wrong.or_else(|| {
            let detail = || format!("number {seq} of the channel is message {own}, not {}", expected.unwrap_or(own));
            is_other.then(|| (FaultKind::Missing, detail()))
        })
    }

    /// Every number must have come or be left out, unless only the latest are wanted.
    fn follow(&mut self, from: u64, to: u64, policy: SlowPolicy) -> Option<Wrong> {
        let before = std::mem::replace(&mut self.last_seq, to);
        if before == 0 {
            self.first_seq = from;
        }
        if from <= before {
            return Some((FaultKind::Duplicate, format!("number {from} after {before}")));
        }
        let has_hole = before > 0 && from > before + 1 && policy == SlowPolicy::Skip;
        has_hole.then(|| {
            let detail = format!("numbers {} to {} neither came nor were told to be left out", before + 1, from - 1);
            (FaultKind::Missing, detail)
        })
    }

    /// Whether the newest message has not been heard of, if any had to be.
    pub fn lacks(&self, newest: u64) -> bool {
        self.first_due.is_some() && self.last.is_none_or(|last| last < newest)
    }

    /// What is missing at the end of the run, when the newest message is this one.
    pub fn missing(&self, newest: u64, policy: SlowPolicy) -> Vec<Wrong> {
        let missing = |from: u64, to: u64| {
            (FaultKind::Missing, format!("messages {from} to {to} neither came nor were told to be left out"))
        };
        let Some(due) = self.first_due else { return Vec::new() };
        let begin = self.first.filter(|&first| policy == SlowPolicy::Skip && first > due);
        let begin = begin.map(|first| missing(due, first - 1));
        let end = self.lacks(newest).then(|| missing(self.last.map_or(due, |last| last + 1), newest));
        begin.into_iter().chain(end).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKIP: SlowPolicy = SlowPolicy::Skip;
    const LATEST: SlowPolicy = SlowPolicy::Latest;

    fn followed(first_due: u64) -> Followed {
        Followed { acked_ns: 1, first_due: Some(first_due), ..Followed::default() }
    }

    #[test]
    fn what_came_and_what_was_told_are_together_everything() {
        let mut all = followed(3);
        assert!(all.lacks(3));
        assert_eq!(all.skip(103, 105, SKIP), None);
        assert_eq!(all.hear(106, 6, SKIP), None);
        assert_eq!(all.skip(107, 108, SKIP), None);
        assert_eq!((all.lacks(8), all.lacks(9)), (false, true));
        assert_eq!(all.missing(8, SKIP), []);
        assert_eq!(all.hear(110, 10, SKIP).unwrap().0, FaultKind::Missing, "109 was not told");
        assert_eq!(all.hear(110, 10, SKIP).unwrap().0, FaultKind::Duplicate);
        assert_eq!(all.hear(111, 12, SKIP).unwrap().0, FaultKind::Missing, "left out, and renumbered");
    }

    #[test]
    fn what_is_missing_at_either_end_is_found() {
        assert_eq!(followed(3).missing(9, LATEST)[0].1, "messages 3 to 9 neither came nor were told to be left out");
        let mut late = followed(3);
        late.hear(105, 5, SKIP);
        let words: Vec<String> = late.missing(6, SKIP).into_iter().map(|(_, detail)| detail).collect();
        assert_eq!(words.len(), 2);
        assert!(words[0].starts_with("messages 3 to 4 ") && words[1].starts_with("messages 6 to 6 "), "{words:?}");
        assert_eq!(late.missing(5, LATEST), [], "only the newest is wanted");
        assert_eq!(Followed::default().missing(9, SKIP), [], "nothing was published since it came");
    }

    #[test]
    fn with_latest_numbers_only_rise() {
        let mut latest = followed(3);
        assert_eq!((latest.hear(103, 3, LATEST), latest.hear(110, 10, LATEST)), (None, None));
        assert_eq!(latest.hear(109, 9, LATEST).unwrap().0, FaultKind::Duplicate);
    }
}
