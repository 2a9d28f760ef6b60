//! Room in the arena: which blocks go when another is built.

use std::ops::ControlFlow;

use super::next_job::needed;
use super::{Job, Plan, Window, wanted};
use crate::engine::system_clock;
use crate::health::log_limit::any;
use crate::source::recorded::track::Track;
use crate::source::recorded::walk::{Filled, Position, rank, walk};

impl Window {
    /// Bytes of frames in memory: those of blocks, and those that shards made of them.
    fn bytes_held(&self) -> u64 {
        self.figures.bytes_held() + self.hub.finished_bytes()
    }

    /// Whether a block that nobody needs yet may be built. Blocks behind the clock go for it.
    pub(super) fn has_room(&self, plan: &mut Plan, job: &Job) -> bool {
        let Job::Build { track, .. } = job else { return true };
        let size = plan.sizes[*track];
        while self.bytes_held() + size > self.budget {
            match self.least_useful(plan) {
                Some(((true, _), block)) => self.let_go(plan, block),
                _ => return false,
            }
        }
        true
    }

    fn let_go(&self, plan: &mut Plan, (track, block): (usize, usize)) {
        plan.resident[track].remove(&block);
        plan.filled[track] = Filled::default();
        self.market.tracks[track].keep(block, None);
    }

    /// Lets blocks go until the job fits: those furthest behind the clock first, then those furthest ahead.
    pub(super) fn make_room(&self, plan: &mut Plan, job: &Job) {
        let Job::Build { track, .. } = job else { return };
        let size = plan.sizes[*track];
        // Bounded: what readers still hold does not become free at once.
        for _ in 0..64 {
            if self.bytes_held() + size <= self.budget {
                return;
            }
            let Some((_, block)) = self.least_useful(plan) else { return self.warn_of_too_little(plan) };
            self.let_go(plan, block);
        }
    }

    /// The block that is needed last, unless some clock needs it soon.
    fn least_useful(&self, plan: &Plan) -> Option<((bool, u64), (usize, usize))> {
        let positions = self.positions();
        let mut found: Option<((bool, u64), (usize, usize))> = None;
        for (at, resident) in plan.resident.iter().enumerate() {
            let track = &self.market.tracks[at];
            for &block in resident {
                // No clock comes to it: it goes first.
                let mut least = Some((true, u64::MAX));
                for &position in &positions[at] {
                    least = least.and_then(|least| Some(least.min(rank(track, position, block)?)));
                }
                if let Some(rank) = least
                    && found.as_ref().is_none_or(|(best, _)| rank > *best)
                {
                    found = Some((rank, (at, block)));
                }
            }
        }
        found
    }

    /// Where clocks stand in each track.
    fn positions(&self) -> Vec<Vec<Position>> {
        let mut positions = vec![Vec::new(); self.market.tracks.len()];
        for stand in self.stands.load().iter() {
            for tracks in stand.tickers(stand.day()) {
                let lead = stand.lead(tracks.clone());
                for at in tracks {
                    let place = &stand.places()[at];
                    let needed = stand.can_lead(at).then(|| needed(&self.market.tracks[at], place, lead == Some(at)));
                    positions[at].push(Position { next: place.next(), soon: needed.flatten().map(|_| stand.soon(at)) });
                }
            }
            for at in stand.next_day().into_iter().flat_map(|day| self.market.days[day].tracks.clone()) {
                let soon = (wanted(&stand.places()[at].group) != 0).then_some(0);
                positions[at].push(Position { next: 0, soon });
            }
        }
        positions
    }

    fn warn_of_too_little(&self, plan: &mut Plan) {
        let needed = |at: usize, positions: &[Position]| {
            let blocks = positions.iter().map(|&position| blocks_needed(&self.market.tracks[at], position)).max();
            blocks.unwrap_or(0) * plan.sizes[at]
        };
        let least: u64 = self.positions().iter().enumerate().map(|(at, positions)| needed(at, positions)).sum();
        if let Some(suppressed) = plan.lines.pass(system_clock::monotonic_ms()) {
            tracing::warn!(
                arena_bytes = self.budget,
                least,
                suppressed = any(suppressed),
                "--arena-bytes is too small for what the groups with subscribers need within --window-ahead; they take the \
                 bytes in `least` all the same"
            );
        }
    }
}

/// How many blocks of a track a clock needs at once: the two that it comes to, and those that it comes to soon.
fn blocks_needed(track: &Track, Position { next, soon }: Position) -> u64 {
    let Some(soon) = soon else { return 0 };
    let mut blocks = 0;
    walk(track, next, |distance, block| {
        if blocks >= 2 && distance > soon {
            return ControlFlow::Break(());
        }
        blocks += u64::from(!track.index().slots_of(block).is_empty());
        ControlFlow::Continue(())
    });
    blocks
}
