//! Where else a playhead can go: to a time, to an ordinal, back, to the first record again, or to the end.

use std::sync::Arc;

use super::{Next, Playhead};

/// A moment lies behind what is indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotIndexed {
    /// The last time that is indexed in every file, Unix seconds.
    pub until: u32,
}

impl Playhead {
    /// Ends the tracks that are over, or turns each of them back to its first record. Returns whether the track that
    /// tells the time was turned back.
    pub fn turn(&mut self, is_loop: bool, reference: usize) -> bool {
        let mut has_turned = false;
        for at in self.tracks() {
            let (place, (slots, is_complete)) = (&self.stand.places()[at], self.stand.market().tracks[at].slots());
            if !place.is_playing() || !is_complete || place.next() < slots {
                continue;
            }
            if is_loop {
                place.set_next(0);
                has_turned |= at == reference;
            } else {
                place.end();
            }
        }
        has_turned
    }

    /// Ends every track: nothing comes on this date.
    pub fn end(&mut self) {
        self.tracks().for_each(|at| self.stand.places()[at].end());
    }

    /// Goes to the first record at or after a time, Unix seconds, in every track of a date. Returns when the first of
    /// them is due.
    pub fn seek(&mut self, day: usize, time: u32) -> Result<Option<u32>, NotIndexed> {
        let market = Arc::clone(self.stand.market());
        let tracks = market.days[day].tracks.clone();
        let find = |at: usize| {
            let track = &market.tracks[at];
            let known = track.index().slots();
            let lost = || track.is_lost().then_some(known);
            track
                .index()
                .slot_at(time)
                .or_else(lost)
                .ok_or_else(|| NotIndexed { until: track.index().time_of(known.saturating_sub(1)).unwrap_or(0) })
        };
        let slots = tracks.clone().map(find).collect::<Result<Vec<u64>, NotIndexed>>()?;
        self.go(day, tracks.zip(slots));
        Ok(match self.next() {
            Next::At(time) => Some(time),
            _ => None,
        })
    }

    /// Goes to where a clock that counts slots is after so many ticks, if it began with the first and all files are
    /// indexed: each file of a single date begins anew by itself, several dates follow each other.
    pub fn seek_ordinal(&mut self, ordinal: u64) {
        let market = Arc::clone(self.stand.market());
        let length = |at: usize| market.tracks[at].slots().0.max(1);
        let longest = |day: usize| market.days[day].tracks.clone().map(length).max().unwrap_or(1);
        if market.days.len() == 1 {
            return self.go(0, market.days[0].tracks.clone().map(|at| (at, ordinal % length(at))));
        }
        let mut slot = ordinal % (0..market.days.len()).map(longest).sum::<u64>();
        let mut day = 0;
        while slot >= longest(day) {
            slot -= longest(day);
            day += 1;
        }
        self.go(day, market.days[day].tracks.clone().map(|at| (at, slot.min(market.tracks[at].slots().0))));
    }

    /// Goes so many slots back in every track. `is_played`: counted from the slot that was published last, otherwise
    /// from the one that comes next.
    pub fn back(&mut self, slots: u64, is_played: bool) {
        let slots = slots.saturating_add(u64::from(is_played));
        let places: Vec<(usize, u64)> =
            self.tracks().map(|at| (at, self.stand.places()[at].next().saturating_sub(slots))).collect();
        self.go(self.stand.day(), places.into_iter());
    }

    fn go(&mut self, day: usize, slots: impl Iterator<Item = (usize, u64)>) {
        if day != self.stand.day() {
            self.stand.set_day(day);
        }
        for (at, slot) in slots {
            self.stand.places()[at].set_next(slot);
            self.cursors[at].0 = None;
        }
    }

    /// The latest time before this one at which any track of the date has a record, Unix seconds.
    pub fn before(&self, time: u32) -> Option<u32> {
        let latest = |at: usize| {
            let index = self.stand.market().tracks[at].index();
            index.time_of(index.slot_at(time).unwrap_or_else(|| index.slots()).checked_sub(1)?)
        };
        self.tracks().filter_map(latest).filter(|&before| before < time).max()
    }
}
