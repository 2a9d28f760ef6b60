//! When the next record is due.

use super::{Next, Playhead};

impl Playhead {
    /// When the next record of any track is due.
    pub fn next(&self) -> Next {
        let mut next = Next::Ended;
        for at in self.playing() {
            match self.due(at) {
                Next::At(time) => {
                    next = match next {
                        Next::At(first) => Next::At(first.min(time)),
                        _ => Next::At(time),
                    }
                }
                Next::NotIndexed => return Next::NotIndexed,
                Next::Ended => {}
            }
        }
        next
    }

    /// When the next record of a track is due.
    pub(super) fn due(&self, at: usize) -> Next {
        let (track, slot) = (&self.stand.market().tracks[at], self.stand.places()[at].next());
        match track.index().time_of(slot) {
            // Times rise within a block. If the last of one is odd, the record behind it says so.
            Some(time) => Next::At(track.index().time_of(slot + 1).map_or(time, |next| next.min(time))),
            None if track.slots().1 || track.is_lost() => Next::Ended,
            None => Next::NotIndexed,
        }
    }

    /// When the next record of one track is due, Unix seconds.
    pub fn time_in(&self, at: usize) -> Option<u32> {
        self.stand.market().tracks[at].index().time_of(self.stand.places()[at].next())
    }
}
