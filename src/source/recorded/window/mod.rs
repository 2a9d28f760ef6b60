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

mod letting_go;
mod next_job;

use std::collections::{BTreeSet, HashSet};
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
use super::stand::Stand;
use super::track::Track;
use super::walk::Filled;
use super::window_figures::WindowFigures;
use super::window_options::WindowOptions;
use crate::engine::frames::Form;
use crate::engine::group::Group;
use crate::engine::hub::Hub;
use crate::health::log_limit::LogLimiter;

/// Bytes of a block before one was built: a guess that is only used while the window is empty.
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
    /// Bytes of the last block that was built of each track.
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
                    Ok(Built { block: built, lines }) => {
                        self.figures.count(parts, lines.records);
                        plan.sizes[at] = built.bytes();
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

/// The forms that lanes of a group send, a bit for each.
pub fn wanted(group: &Group) -> u8 {
    (0..Form::MAX).map(Form::new).filter(|&form| group.is_wanted(form)).fold(0, |forms, form| forms | form.bit())
}
