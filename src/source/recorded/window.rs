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
//! takes the room of blocks that are furthest behind the clock.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::alarm::Alarm;
use super::block_builder::{BlockBuilder, Built};
use super::mapping::ReadError;
use super::market::{Market, lead};
use super::parts::Parts;
use super::track::Track;
use super::walk::{Filled, spare, walk, walk_from};
use super::window_figures::WindowFigures;
use super::window_options::WindowOptions;
use crate::engine::clock;
use crate::engine::frames::Form;
use crate::engine::group::Group;
use crate::engine::hub::Hub;
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
    /// Slots that the clock passes in [`WindowOptions::window_ahead`].
    ahead: u64,
    interval: Duration,
    /// Whether the records' spot prices are asked for although no group wants them.
    needs_prices: bool,
    plan: Mutex<Plan>,
    alarm: Arc<Alarm>,
    figures: WindowFigures,
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
    /// A window without blocks, for a clock that passes a slot per `interval`. From now on the market's groups are
    /// ready when their blocks are.
    pub fn new(
        market: Arc<Market>,
        hub: Arc<Hub>,
        options: WindowOptions,
        interval: Duration,
        needs_prices: bool,
        figures: WindowFigures,
    ) -> Self {
        let alarm = Arc::new(Alarm::default());
        for track in &market.tracks {
            track.group().build_ahead(Waker::from(Arc::clone(&alarm)));
            track.spot_group().build_ahead(Waker::from(Arc::clone(&alarm)));
        }
        let (tracks, budget) = (market.tracks.len(), options.budget());
        figures.set_budget(budget);
        figures.set_records(market.slots());
        let ahead = options.window_ahead.as_nanos().div_ceil(interval.as_nanos().max(1)) as u64;
        let plan = Mutex::new(Plan {
            resident: vec![BTreeSet::new(); tracks],
            in_work: HashSet::new(),
            sizes: vec![GUESS; tracks],
            filled: vec![Filled::default(); tracks],
            lines: LogLimiter::default(),
            bad: 0,
            has_loaded: false,
        });
        Self {
            market,
            hub,
            options,
            budget,
            ahead,
            interval,
            needs_prices,
            plan,
            alarm,
            figures,
            started: Instant::now(),
        }
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

    fn lose(&self, track: &Track, error: &ReadError) {
        if track.lose(error) {
            self.figures.count_bad(1);
        }
    }

    /// The most urgent job. Also says which forms are ready.
    fn next(&self, plan: &mut Plan) -> Option<Job> {
        let (mut nearest, mut least_ahead): (Option<(u64, Job)>, Option<u64>) = (None, None);
        for (first, tracks) in self.market.tickers() {
            let lead = lead(tracks);
            if lead.is_none() {
                tracks[0].spot_group().set_ready(u8::MAX);
            }
            for (at, track) in tracks.iter().enumerate() {
                if !track.is_playing() || track.is_lost() {
                    // Nothing more will be built: whoever joins need not wait for it.
                    track.group().set_ready(u8::MAX);
                    continue;
                }
                let leads = lead == Some(at);
                let needed = self.needed(track, leads);
                let look = self.look(track, first + at, needed, plan);
                track.group().set_ready(look.ready.forms(track.kind()));
                if leads {
                    track.spot_group().set_ready(look.ready.forms(PayloadKind::Spot));
                }
                if needed.is_some() {
                    least_ahead = least_ahead.into_iter().chain([look.ahead]).min();
                }
                if let Some((distance, job)) = look.job
                    && nearest.as_ref().is_none_or(|(nearest, _)| distance < *nearest)
                {
                    nearest = Some((distance, job));
                }
            }
        }
        self.figures.set_ahead(least_ahead.unwrap_or(0), self.interval);
        let job = match nearest {
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

    /// The parts of a track that must be there when the clock is; `None` if nobody needs its blocks. The track that
    /// leads its ticker has the spot price, too.
    fn needed(&self, track: &Track, leads: bool) -> Option<Parts> {
        let needed = Parts::of(track.kind(), wanted(track.group()));
        let spot = if leads { Parts::of(PayloadKind::Spot, wanted(track.spot_group())) } else { Parts::default() };
        let needed = needed.or(spot);
        (!needed.is_empty() || leads && self.needs_prices).then_some(needed)
    }

    /// What the blocks of a track have, from the clock on.
    fn look(&self, track: &Track, at: usize, needed: Option<Parts>, plan: &Plan) -> Look {
        let mut look = Look { ready: Parts::default(), ahead: 0, job: None };
        let mut blocks = 0;
        let far = needed.map_or(0, |_| self.ahead);
        let edge = walk(track, |distance, block| {
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

    /// The nearest block that is not in memory.
    fn fill(&self, plan: &mut Plan) -> Option<Job> {
        let in_use = self.market.tracks.iter().fold(0, |forms, track| forms | wanted(track.group()));
        let at_start = self.options.at_start().into_iter().map(|form| Form::new(form.index()).bit());
        let forms = at_start.fold(in_use, |forms, form| forms | form);
        let mut nearest: Option<(u64, Job)> = None;
        for (at, track) in self.market.tracks.iter().enumerate().filter(|(_, track)| track.can_lead()) {
            let parts = Parts::of(track.kind(), forms);
            let Some(start) = track.index().find(track.position().unwrap_or(0)) else { continue };
            let Plan { filled, in_work, .. } = plan;
            let filled = &mut filled[at];
            filled.follow(parts, start);
            let mut is_unbroken = true;
            walk_from(track, filled.blocks, |distance, block| {
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
                if nearest.as_ref().is_none_or(|(nearest, _)| distance < *nearest) {
                    nearest = Some((distance, Job::Build { track: at, block, parts: missing }));
                }
                ControlFlow::Break(())
            });
        }
        nearest.map(|(_, job)| job)
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

    /// The block that is needed last, unless the clock needs it soon.
    fn least_useful(&self, plan: &Plan) -> Option<((bool, u64), (usize, usize))> {
        let mut found: Option<((bool, u64), (usize, usize))> = None;
        for (first, tracks) in self.market.tickers() {
            let lead = lead(tracks);
            for (at, track) in tracks.iter().enumerate() {
                let needed = track.is_playing().then(|| self.needed(track, lead == Some(at))).flatten();
                let soon = needed.map(|_| self.ahead);
                if let Some((rank, block)) = spare(track, &plan.resident[first + at], soon)
                    && found.as_ref().is_none_or(|(best, _)| rank > *best)
                {
                    found = Some((rank, (first + at, block)));
                }
            }
        }
        found
    }

    fn warn_of_too_little(&self, plan: &mut Plan) {
        let is_live = |(_, track): &(usize, &Arc<Track>)| track.is_playing() && wanted(track.group()) != 0;
        let least: u64 = self.market.tracks.iter().enumerate().filter(is_live).map(|(at, _)| 2 * plan.sizes[at]).sum();
        if let Some(suppressed) = plan.lines.pass(clock::monotonic_ms()) {
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
            date = %self.market.date,
            tickers = self.market.tickers().count(),
            files = self.market.tracks.len(),
            records,
            bytes = self.figures.bytes_held(),
            seconds,
            records_per_second = (records as f64 / seconds) as u64,
            "loaded"
        );
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

/// The forms that lanes of a group send, a bit for each.
fn wanted(group: &Group) -> u8 {
    (0..Form::MAX).map(Form::new).filter(|&form| group.is_wanted(form)).fold(0, |forms, form| forms | form.bit())
}
