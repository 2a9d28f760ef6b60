//! What a builder does next: the most urgent block of all clocks, a file's index, or what has room.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::{INDEX, Job, Plan, Window, wanted};
use crate::engine::frames::Form;
use crate::source::recorded::parts::Parts;
use crate::source::recorded::stand::{Place, Stand};
use crate::source::recorded::track::Track;
use crate::source::recorded::walk::{Position, walk, walk_from};
use crate::wire::gexbot::PayloadKind;

/// Blocks that are indexed in one go.
const SCAN: usize = 64;

impl Window {
    /// The most urgent job. Also says which forms are ready.
    pub(super) fn next(&self, plan: &mut Plan) -> Option<Job> {
        let mut urgent = Urgent::default();
        for stand in self.stands.load().iter() {
            self.look_at(stand, plan, &mut urgent);
        }
        self.figures.set_ahead(urgent.ahead.unwrap_or(0));
        let job = match urgent.nearest {
            Some((_, job)) => {
                self.make_room(plan, &job);
                Some(job)
            }
            None => self.scan(plan).or_else(|| self.fill(plan)).filter(|job| self.has_room(plan, job)),
        };
        match &job {
            Some(Job::Build { track, block, .. }) => drop(plan.in_work.insert((*track, *block))),
            Some(Job::Scan { track, .. }) => drop(plan.in_work.insert((*track, INDEX))),
            None if plan.in_work.is_empty() => self.has_loaded(plan),
            _ => {}
        }
        job
    }

    /// What one clock needs: of the date it plays, and the first blocks of the next one.
    fn look_at(&self, stand: &Stand, plan: &Plan, urgent: &mut Urgent) {
        for group in stand.absent() {
            // Nothing of it is built before another date: whoever joins need not wait for that.
            stand.set_ready(group, u8::MAX);
        }
        for tracks in stand.tickers(stand.day()) {
            let lead = stand.lead(tracks.clone());
            if lead.is_none() {
                stand.set_ready(&stand.places()[tracks.start].spot, u8::MAX);
            }
            for at in tracks {
                let (track, place) = (&self.market.tracks[at], &stand.places()[at]);
                if !stand.can_lead(at) {
                    // Nothing more will be built: whoever joins need not wait for it.
                    stand.set_ready(&place.group, u8::MAX);
                    continue;
                }
                let leads = lead == Some(at);
                let needed = needed(track, place, leads);
                let soon = needed.map(|_| stand.soon(at));
                let look = self.look(at, Position { next: place.next(), soon }, needed, plan);
                stand.set_ready(&place.group, look.ready.forms(track.kind()));
                if leads {
                    stand.set_ready(&place.spot, look.ready.forms(PayloadKind::Spot));
                }
                if needed.is_some() {
                    let ahead = stand.seconds(at, look.ahead);
                    urgent.ahead = Some(urgent.ahead.map_or(ahead, |least| least.min(ahead)));
                }
                urgent.take(look.job);
            }
        }
        for tracks in stand.next_day().into_iter().flat_map(|day| stand.tickers(day)) {
            for at in tracks.clone().filter(|&at| !self.market.tracks[at].is_lost()) {
                if let Some(needed) = needed(&self.market.tracks[at], &stand.places()[at], at == tracks.start) {
                    let look = self.look(at, Position { next: 0, soon: Some(0) }, Some(needed), plan);
                    // After everything that this date needs.
                    urgent.take(look.job.map(|(distance, job)| (distance.saturating_add(1 << 40), job)));
                }
            }
        }
    }

    /// What the blocks of a track have, from the clock on.
    fn look(&self, at: usize, position: Position, needed: Option<Parts>, plan: &Plan) -> Look {
        let track = &self.market.tracks[at];
        let mut look = Look { ready: Parts::default(), ahead: 0, job: None };
        let mut blocks = 0;
        let far = position.soon.unwrap_or(0);
        let edge = walk(track, position.next, |distance, block| {
            if blocks >= 2 && distance > far {
                return ControlFlow::Break(());
            }
            if track.index().slots_of(block).is_empty() {
                return ControlFlow::Continue(());
            }
            let there = track.block_at(block);
            if blocks < 2 {
                let built = there.as_ref().map_or(Parts::default(), |block| block.built());
                look.ready = if blocks == 0 { built } else { look.ready.and(built) };
            }
            blocks += 1;
            let Some(needed) = needed else { return ControlFlow::Continue(()) };
            let missing = there.as_ref().map_or(needed, |block| needed.without(block.built()));
            if there.is_some() && missing.is_empty() {
                look.ahead = distance + (track.index().slots_of(block).end - track.index().slots_of(block).start);
                return ControlFlow::Continue(());
            }
            if plan.in_work.contains(&(at, block)) {
                return ControlFlow::Continue(());
            }
            look.job = Some((distance, Job::Build { track: at, block, parts: missing }));
            ControlFlow::Break(())
        });
        // The clock will pass the end of what is indexed.
        if let Some(distance) = edge
            && look.job.is_none()
            && needed.is_some()
            && !plan.in_work.contains(&(at, INDEX))
        {
            look.job = Some((distance, Job::Scan { track: at, until: track.index().scanned() + SCAN }));
        }
        look
    }

    /// Goes on with the index of a file.
    fn scan(&self, plan: &Plan) -> Option<Job> {
        let is_open = |at: usize, track: &Track| {
            !track.is_lost() && !track.index().is_complete() && !plan.in_work.contains(&(at, INDEX))
        };
        let least = |(_, track): &(usize, &Arc<Track>)| track.index().scanned();
        let (track, open) =
            self.market.tracks.iter().enumerate().filter(|(at, track)| is_open(*at, track)).min_by_key(least)?;
        Some(Job::Scan { track, until: open.index().scanned() + SCAN })
    }

    /// The nearest block that is not in memory, of the dates that clocks play.
    fn fill(&self, plan: &mut Plan) -> Option<Job> {
        let mut urgent = Urgent::default();
        // Of several clocks on one date the first says what is near.
        let mut seen = BTreeSet::new();
        for stand in self.stands.load().iter().filter(|stand| seen.insert(stand.day())) {
            let tracks = self.market.days[stand.day()].tracks.clone();
            let in_use = tracks.clone().fold(0, |forms, at| forms | wanted(&stand.places()[at].group));
            let at_start = self.options.at_start().into_iter().map(|form| Form::new(form.index()).bit());
            let forms = at_start.fold(in_use, |forms, form| forms | form);
            for at in tracks.filter(|&at| stand.can_lead(at)) {
                self.fill_track(at, stand.places()[at].next(), forms, plan, &mut urgent);
            }
        }
        urgent.nearest.map(|(_, job)| job)
    }

    fn fill_track(&self, at: usize, next: u64, forms: u8, plan: &mut Plan, urgent: &mut Urgent) {
        let track = &self.market.tracks[at];
        let parts = Parts::of(track.kind(), forms);
        let Some(start) = track.index().find(next) else { return };
        let Plan { filled, in_work, .. } = plan;
        let filled = &mut filled[at];
        filled.follow(parts, start);
        let mut is_unbroken = true;
        walk_from(track, next, filled.blocks, |distance, block| {
            let built = track.block_at(block).map_or(Parts::default(), |block| block.built());
            let missing = parts.without(built);
            if missing.is_empty() || track.index().slots_of(block).is_empty() {
                filled.blocks += usize::from(is_unbroken);
                return ControlFlow::Continue(());
            }
            is_unbroken = false;
            if in_work.contains(&(at, block)) {
                return ControlFlow::Continue(());
            }
            urgent.take(Some((distance, Job::Build { track: at, block, parts: missing })));
            ControlFlow::Break(())
        });
    }
}

/// What must be built next.
#[derive(Default)]
struct Urgent {
    /// How many slots ahead it is needed.
    nearest: Option<(u64, Job)>,
    /// How far ahead of the clocks everything is there, seconds.
    ahead: Option<u64>,
}

impl Urgent {
    fn take(&mut self, found: Option<(u64, Job)>) {
        if let Some((distance, job)) = found
            && self.nearest.as_ref().is_none_or(|(nearest, _)| distance < *nearest)
        {
            self.nearest = Some((distance, job));
        }
    }
}

/// What [`Window::look`] found.
struct Look {
    /// The parts that the blocks at the clock have.
    ready: Parts,
    /// Slots ahead of the clock whose blocks have what is needed.
    ahead: u64,
    /// What is missing, and how many slots ahead.
    job: Option<(u64, Job)>,
}

/// The parts of a track that must be there when the clock is; `None` if nobody needs its blocks. The track that leads
/// its ticker has the spot price, too.
pub(super) fn needed(track: &Track, place: &Place, leads: bool) -> Option<Parts> {
    let needed = Parts::of(track.kind(), wanted(&place.group));
    let spot = if leads { Parts::of(PayloadKind::Spot, wanted(&place.spot)) } else { Parts::default() };
    let needed = needed.or(spot);
    (!needed.is_empty()).then_some(needed)
}
