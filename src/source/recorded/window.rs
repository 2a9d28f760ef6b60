//! The window: which blocks are in memory, and which is built next.
//!
//! ```text
//! groups with subscribers: the blocks at the clock, then --window-ahead of it      (must)
//! lines of files that are not indexed yet                                          (scan)
//! everything else, nearest to the clock first, while --arena-bytes has room        (fill)
//! ```
//!
//! Builder threads take the most urgent job there is, one after the other. A form of a group is ready when the
//! blocks at the clock have it; acks of its first subscribers wait for that, nobody else does. What must be built
//! takes the room of blocks that are furthest behind the clock. There may be several clocks, each on a [`Stand`] of its
//! own: they share the blocks.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustix::time::{ClockId, clock_gettime};

use super::alarm::Alarm;
use super::block::Block;
use super::block_builder::{BlockBuilder, Built};
use super::mapping::ReadError;
use super::market::Market;
use super::parts::Parts;
use super::stand::{Place, Stand};
use super::track::Track;
use super::walk::{Filled, Position, rank, walk, walk_from};
use super::window_figures::WindowFigures;
use super::window_options::WindowOptions;
use crate::engine::frames::Form;
use crate::engine::group::Group;
use crate::engine::hub::Hub;
use crate::engine::system_clock;
use crate::health::log_limit::{LogLimiter, any};
use crate::wire::gexbot::PayloadKind;

/// Blocks that are indexed in one go.
const SCAN: usize = 64;

/// Frame bytes of a block before one was built: a guess that is only used while the window is empty.
const GUESS: u64 = 128 << 10;

/// Keeps the blocks around the clock in memory.
pub struct Window {
    market: Arc<Market>,
    hub: Arc<Hub>,
    options: WindowOptions,
    budget: u64,
    stands: ArcSwap<Vec<Arc<Stand>>>,
    plan: Mutex<Plan>,
    alarm: Arc<Alarm>,
    figures: Arc<WindowFigures>,
    started: Instant,
}

/// What the builders agree on.
struct Plan {
    /// Blocks in memory, by track.
    resident: Vec<BTreeSet<usize>>,
    /// Blocks, by track, that some builder works on.
    in_work: HashSet<(usize, usize)>,
    /// Frame bytes of the last block that was built of each track.
    sizes: Vec<u64>,
    /// How far each track is filled.
    filled: Vec<Filled>,
    lines: LogLimiter,
    /// Bad lines in the blocks that were built.
    bad: u64,
    has_loaded: bool,
}

/// Stands for the index of a file among the blocks in work.
const INDEX: usize = usize::MAX;

/// The next thing to do.
enum Job {
    Build { track: usize, block: usize, parts: Parts },
    Scan { track: usize, until: usize },
}

impl Window {
    /// A window without blocks, on which no clock stands yet.
    pub fn new(market: Arc<Market>, hub: Arc<Hub>, options: WindowOptions, figures: Arc<WindowFigures>) -> Self {
        let (tracks, budget) = (market.tracks.len(), options.budget());
        figures.set_budget(budget);
        figures.set_records(market.slots());
        let plan = Mutex::new(Plan {
            resident: vec![BTreeSet::new(); tracks],
            in_work: HashSet::new(),
            sizes: vec![GUESS; tracks],
            filled: vec![Filled::default(); tracks],
            lines: LogLimiter::default(),
            bad: 0,
            has_loaded: false,
        });
        let (stands, alarm, started) = (ArcSwap::default(), Arc::default(), Instant::now());
        Self { market, hub, options, budget, stands, plan, alarm, figures, started }
    }

    /// Blocks are built ahead of this clock, too, and its groups are ready when their blocks are.
    pub fn add(&self, stand: &Arc<Stand>) {
        self.rehearse(stand);
        self.take_over(stand);
    }

    /// Blocks are built ahead of this clock, which does not play yet: its groups are those of another clock, whose
    /// window says when they are ready.
    pub fn rehearse(&self, stand: &Arc<Stand>) {
        self.stands.rcu(|stands| stands.iter().chain([stand]).cloned().collect::<Vec<_>>());
        self.alarm().wake();
    }

    /// The clock plays: from now on its groups are ready when the blocks of this window are.
    pub fn take_over(&self, stand: &Stand) {
        stand.take_over(&self.alarm());
        self.alarm().wake();
    }

    /// Whether the blocks at a clock are there, in all forms that are wanted.
    pub fn is_prepared(&self, stand: &Stand) -> bool {
        let is_there = |at: usize| {
            let (track, place) = (&self.market.tracks[at], &stand.places()[at]);
            let wanted = Parts::of(track.kind(), wanted(&place.group));
            let has = |block: Arc<Block>| wanted.without(block.built()).is_empty();
            wanted.is_empty() || track.is_lost() || track.block_of(place.next()).is_some_and(|(_, block)| has(block))
        };
        stand.tickers(stand.day()).flatten().all(is_there)
    }

    /// A clock has ended.
    pub fn remove(&self, stand: &Arc<Stand>) {
        let others = |stands: &Arc<Vec<Arc<Stand>>>| {
            stands.iter().filter(|other| !Arc::ptr_eq(other, stand)).cloned().collect::<Vec<_>>()
        };
        self.stands.rcu(others);
    }

    /// How far ahead of the clock blocks must be there.
    pub fn window_ahead(&self) -> Duration {
        self.options.window_ahead
    }

    /// Wakes the builders: the clock has reached another block.
    pub fn alarm(&self) -> Waker {
        Waker::from(Arc::clone(&self.alarm))
    }

    /// Builds until `stop` is set. Blocks: call it on one or several threads of their own.
    pub fn run(&self, stop: &AtomicBool) {
        let mut builder = match BlockBuilder::new(self.options.encoder) {
            Ok(builder) => builder,
            Err(error) => return tracing::error!("no memory to build frames with: {error}"),
        };
        while !stop.load(Ordering::Relaxed) {
            let seen = self.alarm.rings();
            let job = self.next(&mut self.plan());
            match job {
                Some(job) => {
                    let began = clock_gettime(ClockId::ThreadCPUTime);
                    self.execute(&job, &mut builder);
                    self.figures.add_cpu(began, clock_gettime(ClockId::ThreadCPUTime));
                }
                None => self.alarm.wait(seen),
            }
        }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn execute(&self, job: &Job, builder: &mut BlockBuilder) {
        match *job {
            Job::Scan { track: at, until } => {
                let track = &self.market.tracks[at];
                if let Err(error) = track.check_file().and_then(|()| track.index().scan(track.file(), until)) {
                    self.lose(track, &error);
                }
                self.plan().in_work.remove(&(at, INDEX));
                track.note_indexed();
                self.figures.set_records(self.market.slots());
            }
            Job::Build { track: at, block, parts } => {
                let track = &self.market.tracks[at];
                let built = track.check_file().and_then(|()| builder.build(track, block, parts, self.figures.held()));
                let mut plan = self.plan();
                plan.in_work.remove(&(at, block));
                match built {
                    Ok(Built { block: built, bytes, lines }) => {
                        self.figures.count(parts, lines.records);
                        if bytes > 0 {
                            plan.sizes[at] = bytes;
                        }
                        plan.resident[at].insert(block);
                        track.keep(block, Some(built));
                        let bad = track.note(block, lines);
                        plan.bad += bad;
                        self.figures.count_bad(bad);
                    }
                    Err(error) => {
                        drop(plan);
                        self.lose(track, &error);
                    }
                }
            }
        }
    }

    fn dates(&self) -> String {
        let (first, last) = (self.market.days[0].date, self.market.days[self.market.days.len() - 1].date);
        if first == last { first.to_string() } else { format!("{first}..{last}") }
    }

    fn lose(&self, track: &Track, error: &ReadError) {
        if track.lose(error) {
            self.figures.count_bad(1);
        }
    }

    /// The most urgent job. Also says which forms are ready.
    fn next(&self, plan: &mut Plan) -> Option<Job> {
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

    /// Bytes of frames in memory: those of blocks, and those that shards made of them.
    fn bytes_held(&self) -> u64 {
        self.figures.bytes_held() + self.hub.finished_bytes()
    }

    /// Whether a block that nobody needs yet may be built. Blocks behind the clock go for it.
    fn has_room(&self, plan: &mut Plan, job: &Job) -> bool {
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
    fn make_room(&self, plan: &mut Plan, job: &Job) {
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
        let stands = self.stands.load();
        let is_needed = |at: usize| {
            let needs = |stand: &Arc<Stand>| stand.can_lead(at) && wanted(&stand.places()[at].group) != 0;
            stands.iter().any(|stand| self.market.days[stand.day()].tracks.contains(&at) && needs(stand))
        };
        let least: u64 = (0..plan.sizes.len()).filter(|&at| is_needed(at)).map(|at| 2 * plan.sizes[at]).sum();
        if let Some(suppressed) = plan.lines.pass(system_clock::monotonic_ms()) {
            tracing::warn!(
                arena_bytes = self.budget,
                least,
                suppressed = any(suppressed),
                "--arena-bytes is too small for the blocks at the clock of the groups with subscribers; they take the \
                 bytes in `least` all the same"
            );
        }
    }

    /// Logs once what was loaded, when everything that has room is built.
    fn has_loaded(&self, plan: &mut Plan) {
        if std::mem::replace(&mut plan.has_loaded, true) {
            return;
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let records = self.market.slots().saturating_sub(plan.bad);
        tracing::info!(
            dates = self.dates(),
            tickers = self.market.tickers(0).count(),
            files = self.market.tracks.len(),
            records,
            bytes = self.figures.bytes_held(),
            seconds,
            records_per_second = (records as f64 / seconds) as u64,
            "loaded"
        );
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
fn needed(track: &Track, place: &Place, leads: bool) -> Option<Parts> {
    let needed = Parts::of(track.kind(), wanted(&place.group));
    let spot = if leads { Parts::of(PayloadKind::Spot, wanted(&place.spot)) } else { Parts::default() };
    let needed = needed.or(spot);
    (!needed.is_empty()).then_some(needed)
}

/// The forms that lanes of a group send, a bit for each.
pub fn wanted(group: &Group) -> u8 {
    (0..Form::MAX).map(Form::new).filter(|&form| group.is_wanted(form)).fold(0, |forms, form| forms | form.bit())
}
