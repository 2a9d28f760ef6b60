//! The player: a clock, its playhead, and the thread that both live on.
//!
//! ```text
//! Remote ─▶ requests ─▶ Player ─┬▶ Clock: when is the next tick due?
//!                               └▶ Playhead: what is due then? ─▶ Batch ─▶ groups
//! ```
//!
//! It is a thread of its own on absolute deadlines (tokio's timer has steps of 1 ms). Requests are executed between
//! two ticks, each as a whole or not at all. Sockets notice nothing but which records come.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};

use super::clock::{Begin, Clock, Deadline};
use super::lateness::Lateness;
use super::playhead::{Next, Playhead, Portion};
use super::score::Score;
use super::stage::Stage;
use super::wall::Lap;
use crate::engine::clock;
use crate::engine::hub::Hub;
use crate::engine::sequencer::Due;
use crate::health::status::{SourceHealth, Status};
use crate::replay::change::{Change, Pace, Speed};
use crate::replay::remote::{Console, Request};
use crate::replay::snapshot::{Axis, Cause, Epoch, Snapshot, State};

/// How long frames that are not built yet are waited for before a tick goes without them.
const PATIENCE_NS: u64 = 5_000_000_000;

/// How soon something that is waited for is looked at again.
const RETRY_NS: u64 = 200_000;

/// How soon a request that waits for the index, or a start that waits for clients, is looked at again.
const LOOK_NS: u64 = 2_000_000;

/// The longest sleep: after it, whether to stop is looked at.
const NAP_NS: u64 = 100_000_000;

/// How long clients that do not read hold up a clock without a speed.
const HOLD_NS: u64 = 2_000_000_000;

/// Between two dates, unless `--max-gap` is shorter.
const NIGHT: Duration = Duration::from_secs(2);

/// From the last record to the first, when time follows the records and they are played in a loop.
const LAP: Duration = Duration::from_secs(1);

/// What a player is made of.
#[expect(missing_docs, reason = "see Player")]
pub struct PlayerParts {
    pub hub: Arc<Hub>,
    pub playhead: Playhead,
    pub clock: Clock,
    pub console: Console,
    pub axis: Arc<Axis>,
    pub is_loop: bool,
    pub state: State,
    /// Its position is a function of the time of day.
    pub is_anchored: bool,
    /// The session whose clock it is; `None` for the common one.
    pub session: Option<Arc<str>>,
    /// What it plays.
    pub stage: Arc<Stage>,
    pub status: Arc<Status>,
    /// Only the common clock reports its health.
    pub health: Option<Arc<SourceHealth>>,
    /// What follows the common clock on the JSON streams.
    pub score: Option<Score>,
    /// Other dates to go to.
    pub swaps: Receiver<Swap>,
}

/// Other dates, which the clock goes to between two ticks.
pub struct Swap {
    /// Before their first record.
    pub playhead: Playhead,
    /// The dates.
    pub axis: Arc<Axis>,
    /// What follows them on the JSON streams.
    pub score: Option<Score>,
    /// Their market.
    pub stage: Arc<Stage>,
    /// Told when the clock is there.
    pub done: Sender<()>,
}

/// A clock that plays.
pub struct Player {
    pub(super) hub: Arc<Hub>,
    pub(super) playhead: Playhead,
    pub(super) clock: Clock,
    pub(super) console: Console,
    pub(super) axis: Arc<Axis>,
    pub(super) is_loop: bool,
    pub(super) state: State,
    pub(super) is_anchored: bool,
    pub(super) pause_at: Option<i64>,
    pub(super) epoch: u64,
    pub(super) session: Option<Arc<str>>,
    pub(super) stage: Arc<Stage>,
    window: Waker,
    swaps: Receiver<Swap>,
    pub(super) health: Option<Arc<SourceHealth>>,
    pub(super) score: Option<Score>,
    /// Whether a tick was published since the last jump.
    pub(super) is_played: bool,
    /// A request that waits for the index.
    pub(super) waiting: Option<(Request, Instant)>,
    /// Since when a tick waits for its frames, or for the shards; monotonic ns.
    held_since: Option<u64>,
    retry_ns: u64,
    /// Sockets that are blocked and waited for no more.
    tolerated: u64,
    ordinal: u64,
    pub(super) lateness: Lateness,
    status: Arc<Status>,
    paused: Option<Arc<AtomicU64>>,
    missed: Arc<AtomicU64>,
    missing: Arc<AtomicU64>,
}

impl Player {
    /// A clock that has published nothing yet.
    pub fn new(parts: PlayerParts) -> Self {
        let PlayerParts { hub, playhead, clock, console, axis, is_loop, state, session, .. } = parts;
        let PlayerParts { stage, status, health, score, is_anchored, swaps, .. } = parts;
        let missed =
            status.count("ticks_missed", "Ticks of the replay clock skipped because an earlier one was late", vec![]);
        let missing =
            status.count("blocks_missing", "Records not published because their frames were not built in time", vec![]);
        let paused = health.is_some().then(|| {
            status.gauge("replay_paused", "1 while the replay stands still because somebody wants it so", vec![])
        });
        Self {
            hub,
            playhead,
            clock,
            console,
            axis,
            is_loop,
            state,
            is_anchored,
            pause_at: None,
            epoch: 0,
            session,
            window: stage.window().alarm(),
            stage,
            swaps,
            health,
            score,
            is_played: false,
            waiting: None,
            held_since: None,
            retry_ns: 0,
            tolerated: 0,
            ordinal: 0,
            lateness: Lateness::default(),
            status,
            paused,
            missed,
            missing,
        }
    }

    /// Plays until `stop` is set, after a first change. Blocks: call it on a thread of its own.
    pub fn run(mut self, first: Change, stop: &AtomicBool) {
        // The kernel may wake a thread 50 µs late, to wake several at once. A clock should not be late by intent.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let start = self.clock.now_ms();
        self.open_epoch(Cause::Start, start);
        if self.is_anchored {
            self.anchor(stop);
        } else if self.state == State::Playing {
            self.clock.start(clock::monotonic_ns(), Begin::Aligned);
        }
        if first != Change::default() {
            self.begin_with(first);
        }
        self.settle();
        while !stop.load(Ordering::Relaxed) {
            self.listen();
            if let Ok(swap) = self.swaps.try_recv() {
                self.swap(swap);
            }
            self.go_on();
        }
    }

    /// Waits for a request, until something else is to be done.
    fn listen(&mut self) {
        if self.waiting.is_some() {
            std::thread::sleep(Duration::from_nanos(LOOK_NS));
            self.ask_again();
            return;
        }
        let now = clock::monotonic_ns();
        let until = self.wake_ns(now).min(now + NAP_NS);
        let request = if until <= now {
            self.console.requests.try_recv().map_err(|_| RecvTimeoutError::Timeout)
        } else {
            self.console.requests.recv_deadline(Instant::now() + Duration::from_nanos(until - now))
        };
        match request {
            Ok(request) => self.take(request),
            Err(RecvTimeoutError::Timeout) => {}
            // Every handle is gone: nobody can change it any more.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_nanos(until.saturating_sub(now))),
        }
    }

    /// When something is to be done, monotonic ns.
    fn wake_ns(&self, now: u64) -> u64 {
        match self.state {
            State::Playing if self.retry_ns > 0 => self.retry_ns,
            State::Playing => match self.next_ms() {
                Ok(next_ms) => self.clock.deadline(next_ms).at_ns,
                Err(_) => now,
            },
            State::Waiting { .. } => now + LOOK_NS,
            State::Paused | State::Stopped | State::Ended => u64::MAX,
        }
    }

    /// The time of what comes next, Unix ms.
    pub(super) fn next_ms(&self) -> Result<i64, Next> {
        match self.clock.pace() {
            Pace::Interval(_) if self.playhead.is_playing() => Ok(self.clock.now_ms()),
            Pace::Interval(_) => Err(Next::Ended),
            Pace::Recorded(_) => match self.playhead.next() {
                Next::At(time) => Ok(ms(time)),
                next => Err(next),
            },
        }
    }

    /// Does what is due now.
    fn go_on(&mut self) {
        if let State::Waiting { clients } = self.state
            && self.hub.sequencer().members() >= clients as u64
        {
            self.play(Begin::Aligned);
            self.settle();
        }
        if self.state != State::Playing || self.waiting.is_some() {
            return;
        }
        let now = clock::monotonic_ns();
        if now < self.retry_ns {
            return;
        }
        self.retry_ns = 0;
        match self.next_ms() {
            Ok(next_ms) => {
                let deadline = self.clock.deadline(next_ms);
                if now >= deadline.at_ns {
                    self.tick_at(deadline, next_ms, now);
                }
            }
            Err(Next::NotIndexed) => self.hold(now),
            Err(_) => self.end_of_day(now),
        }
    }

    /// Goes to where the time of day says. What that is depends on every file's length: waits until all are indexed.
    fn anchor(&mut self, stop: &AtomicBool) {
        let stand = Arc::clone(self.playhead.stand());
        let market = Arc::clone(stand.market());
        while !market.tracks.iter().all(|track| track.slots().1 || track.is_lost()) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(Duration::from_nanos(LOOK_NS));
        }
        self.stand_by_wall();
    }

    /// Goes to where the time of day says, and on from there.
    pub(super) fn stand_by_wall(&mut self) {
        let market = Arc::clone(self.playhead.stand().market());
        let (mono_ns, unix_ns) = (clock::monotonic_ns(), clock::unix_ns());
        match self.clock.pace() {
            Pace::Interval(interval) => {
                let interval = interval.as_nanos() as u64;
                let ordinal = unix_ns / interval + 1;
                self.playhead.seek_ordinal(ordinal);
                let now = self.playhead.time_in(self.reference()).map_or(self.clock.now_ms(), ms);
                self.clock.set(now);
                self.clock.start_at(mono_ns, 0.0, mono_ns + ordinal * interval - unix_ns);
            }
            Pace::Recorded(speed) => {
                let speed = if let Speed::Times(speed) = speed { speed } else { 1.0 };
                let days =
                    (0..market.days.len()).map(|day| market.span(day)).map(|(first, last)| (ms(first), ms(last)));
                let [night_ms, turn_ms] = [NIGHT, LAP].map(|gap| gap.as_millis() as i64);
                let standing = Lap { days: days.collect(), night_ms, turn_ms }.at(unix_ns, speed);
                // What is due at this very ms still comes.
                let time = u32::try_from((standing.data_ms + 999).div_euclid(1000)).unwrap_or(0);
                // Cannot fail: every file is indexed.
                let _ = self.playhead.seek(standing.day, time);
                self.clock.set(standing.data_ms);
                self.clock.start_at(mono_ns, standing.fraction, mono_ns);
            }
        }
        self.jumped();
    }

    /// A tick is due: pauses before it, waits for what it needs, or publishes it.
    fn tick_at(&mut self, deadline: Deadline, next_ms: i64, now: u64) {
        if let Some(pause_at) = self.pause_at.filter(|&pause_at| self.tick_time(next_ms) > pause_at) {
            self.pause_at = None;
            self.clock.set(pause_at.max(self.clock.now_ms()));
            self.state = State::Paused;
            return self.settle();
        }
        let is_patient = self.held_since.is_none_or(|since| now - since < PATIENCE_NS);
        if is_patient && !self.can_tick(next_ms, now) {
            return self.hold(now);
        }
        self.held_since = None;
        self.tick(deadline, next_ms);
    }

    /// The time that a tick would bring, Unix ms.
    fn tick_time(&self, next_ms: i64) -> i64 {
        match self.clock.pace() {
            Pace::Recorded(_) => next_ms,
            Pace::Interval(_) => self.playhead.time_in(self.reference()).map_or(next_ms, ms),
        }
    }

    /// Whether a tick can be published whole. A clock that counts slots waits after a jump only: otherwise it goes by
    /// the wall clock, as a feed does, and what was not built in time is counted.
    fn can_tick(&mut self, next_ms: i64, now: u64) -> bool {
        match self.clock.pace() {
            Pace::Interval(_) => self.is_played || self.playhead.is_built(Portion::One),
            Pace::Recorded(Speed::Times(_)) => self.playhead.has_room() && self.playhead.is_built(until(next_ms)),
            Pace::Recorded(Speed::Max) => self.is_swept(now) && self.playhead.is_built(until(next_ms)),
        }
    }

    /// Whether the shards have sent what was published to everybody who reads.
    fn is_swept(&mut self, now: u64) -> bool {
        let swept = self.hub.sequencer().swept();
        self.tolerated = self.tolerated.min(swept.blocked);
        if swept.is_complete && self.held_since.is_some_and(|since| now - since > HOLD_NS) {
            // They had their time. Whoever still does not read is dropped for lag, as everywhere.
            self.tolerated = swept.blocked;
        }
        swept.is_complete && swept.blocked <= self.tolerated
    }

    /// Looks again in a moment. The window is told what is waited for.
    fn hold(&mut self, now: u64) {
        if self.held_since.is_none() {
            self.held_since = Some(now);
            self.window.wake_by_ref();
        }
        self.retry_ns = now + RETRY_NS;
    }

    /// Publishes what is due, and moves on.
    pub(super) fn tick(&mut self, deadline: Deadline, next_ms: i64) {
        let is_timed = matches!(self.clock.pace(), Pace::Recorded(Speed::Times(_)) | Pace::Interval(_));
        let scheduled_ns = if is_timed && deadline.at_ns > 0 { deadline.at_ns } else { clock::monotonic_ns() };
        let portion = match self.clock.pace() {
            Pace::Interval(_) => Portion::One,
            Pace::Recorded(_) => until(next_ms),
        };
        let (reference, before_ms) = (self.reference(), self.clock.now_ms());
        let time_ms = self.tick_time(next_ms);
        let due = Due { ordinal: self.ordinal, scheduled_ns, epoch: self.epoch, session: self.session.clone() };
        let mut batch = self.hub.sequencer().begin(Some(due));
        let late_ns = batch.drift_ns();
        let played = self.playhead.play(&mut batch, portion);
        drop(batch);
        self.lateness.add(late_ns);
        if self.health.is_some() {
            self.status.drift().observe(late_ns as f64 / 1e9);
        }
        let now = clock::monotonic_ns();
        let missed = self.clock.pass(deadline, time_ms, now);
        if missed > 0 {
            self.missed.fetch_add(missed, Ordering::Relaxed);
        }
        if played.missing > 0 {
            self.missing.fetch_add(played.missing, Ordering::Relaxed);
        }
        if let Some(score) = &mut self.score {
            let from_ms = if self.is_played { before_ms } else { time_ms - 1 };
            score.follow(self.playhead.stand(), from_ms.min(time_ms - 1), time_ms);
        }
        self.is_played = true;
        if let Some(health) = self.health.as_ref().filter(|_| self.playhead.is_playing()) {
            health.set_position(self.ordinal, clock::unix_ns());
        }
        self.ordinal += 1;
        self.turn(reference);
        if missed > 0 && self.is_anchored {
            // Beats were skipped, but no records: it would be behind the others from now on.
            self.stand_by_wall();
        }
        self.look_ahead();
        if played.is_new {
            self.window.wake_by_ref();
        }
        self.show();
    }

    /// A clock that counts slots plays a single date in a loop of each file.
    fn turn(&mut self, reference: usize) {
        let (is_slots, days) = (matches!(self.clock.pace(), Pace::Interval(_)), self.axis.dates.len());
        let from = self.clock.now_ms();
        if self.playhead.turn(self.is_loop && is_slots && days == 1, reference) {
            let to = self.playhead.time_in(reference).map_or(from, ms);
            self.clock.set(to);
            self.is_played = false;
            self.open_epoch(Cause::Loop, from);
        }
    }

    /// Every record of the date is published: goes on with the next date, from the start, or not at all.
    pub(super) fn end_of_day(&mut self, now: u64) {
        let stand = Arc::clone(self.playhead.stand());
        let (day, days) = (stand.day(), stand.market().days.len());
        let from = self.clock.now_ms();
        let next_day = (day + 1) % days;
        if next_day == 0 && !self.is_loop {
            self.playhead.end();
            self.state = State::Ended;
            if let Some(health) = &self.health {
                health.set_connected(false);
            }
            tracing::info!(
                ordinal = self.ordinal,
                session = self.session.as_deref(),
                "the last record of every ticker has been sent; nothing more comes until somebody seeks"
            );
            return self.settle();
        }
        match self.playhead.seek(next_day, 0) {
            Ok(first) => {
                let first_ms = first.map_or(from, ms);
                self.clock.bridge(first_ms, if next_day == 0 { LAP } else { NIGHT }, now);
                self.jumped();
                if next_day == 0 {
                    self.open_epoch(Cause::Loop, from);
                }
                self.settle();
            }
            // Its first block is always indexed.
            Err(_) => self.hold(now),
        }
    }

    /// Goes to other dates.
    fn swap(&mut self, swap: Swap) {
        let from = self.clock.now_ms();
        let Swap { playhead, axis, score, stage, done } = swap;
        self.stage.window().remove(self.playhead.stand());
        stage.window().take_over(playhead.stand());
        (self.window, self.stage, self.playhead, self.axis, self.score) =
            (stage.window().alarm(), stage, playhead, axis, score);
        self.pause_at = None;
        let first = self.playhead.seek(0, 0).ok().flatten();
        self.clock.set(first.map_or(from, ms));
        self.jumped();
        if self.state == State::Ended || self.state == State::Playing {
            self.play(Begin::Retimed);
        }
        self.open_epoch(Cause::Load, from);
        self.settle();
        let _ = done.send(());
    }

    /// It stands elsewhere now: what follows it starts anew there.
    pub(super) fn jumped(&mut self) {
        (self.is_played, self.held_since, self.retry_ns) = (false, None, 0);
        if let Some(score) = &mut self.score {
            score.stand(self.playhead.stand(), self.clock.now_ms());
        }
        self.look_ahead();
        self.window.wake_by_ref();
    }

    pub(super) fn play(&mut self, begin: Begin) {
        if let Some(health) = &self.health {
            health.set_connected(true);
        }
        (self.state, self.held_since, self.retry_ns) = (State::Playing, None, 0);
        if self.is_anchored {
            return self.stand_by_wall();
        }
        self.clock.start(clock::monotonic_ns(), begin);
    }

    /// Tells the window how far it must be ahead.
    fn look_ahead(&self) {
        /// More recorded time than this is never needed at once, however fast the clock goes: the rest is a matter of
        /// room in the arena.
        const MOST_S: f64 = 1000.0;
        let stand = self.playhead.stand();
        let window_ahead = self.stage.window().window_ahead();
        stand.set_ahead(window_ahead);
        match self.clock.pace() {
            Pace::Interval(interval) => {
                stand.set_soon_slots(window_ahead.as_nanos().div_ceil(interval.as_nanos().max(1)) as u64);
            }
            Pace::Recorded(speed) => {
                let speed = if let Speed::Times(speed) = speed { speed } else { f64::INFINITY };
                let ahead = (window_ahead.as_secs_f64() * speed).min(MOST_S);
                stand
                    .set_soon_time(u32::try_from(self.clock.now_ms() / 1000).unwrap_or(0).saturating_add(ahead as u32));
            }
        }
    }

    /// The track that tells the time of a clock that counts slots.
    pub(super) fn reference(&self) -> usize {
        let stand = self.playhead.stand();
        let tracks = stand.market().days[stand.day()].tracks.clone();
        match &self.score {
            Some(score) => score.reference(stand.day()).unwrap_or(tracks.start),
            None => tracks.start,
        }
    }

    /// Opens an epoch that goes on where the clock stands.
    pub(super) fn open_epoch(&mut self, cause: Cause, from: i64) {
        self.epoch += 1;
        let epoch = Epoch { number: self.epoch, cause, from, to: self.clock.now_ms() };
        self.hub.sequencer().open_epoch(epoch, self.session.clone());
        self.console.open(epoch);
        self.lateness.clear();
    }

    /// Shows what was changed, and tells those who follow.
    pub(super) fn settle(&mut self) {
        self.look_ahead();
        if let Some(health) = &self.health {
            let standing = matches!(self.state, State::Paused | State::Stopped | State::Waiting { .. });
            // Between two records a recorded market may be quiet for long.
            let interval = if let Pace::Interval(interval) = self.clock.pace() { Some(interval) } else { None };
            health.expect_updates(interval.filter(|_| !standing));
            if let Some(paused) = &self.paused {
                paused.store(u64::from(standing), Ordering::Relaxed);
            }
        }
        self.show();
        self.console.tell();
    }

    pub(super) fn show(&self) {
        self.console.show(self.snapshot());
    }

    /// The clock as it is now.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            state: self.state,
            pace: self.clock.pace(),
            achieved_speed: self.clock.achieved(),
            data_time: self.clock.now_ms(),
            record: self.playhead.stand().places()[self.reference()].next(),
            axis: Arc::clone(&self.axis),
            is_loop: self.is_loop,
            max_gap: self.clock.max_gap(),
            epoch: self.epoch,
            tick: self.ordinal,
            pause_at: self.pause_at,
            late_us_p99: self.lateness.p99_us(),
        }
    }

    /// Waits until a step can be published whole; false if that takes too long.
    pub(super) fn wait_for_step(&mut self, next_ms: i64) -> bool {
        let began = clock::monotonic_ns();
        self.window.wake_by_ref();
        loop {
            let now = clock::monotonic_ns();
            let portion = if let Pace::Interval(_) = self.clock.pace() { Portion::One } else { until(next_ms) };
            self.held_since = Some(began);
            let is_ready = self.is_swept(now) && self.playhead.is_built(portion);
            if is_ready || now - began > PATIENCE_NS {
                self.held_since = None;
                return is_ready;
            }
            std::thread::sleep(Duration::from_nanos(RETRY_NS));
        }
    }
}

/// Everything that is due at this time, Unix ms.
fn until(next_ms: i64) -> Portion {
    Portion::Until(u32::try_from(next_ms / 1000).unwrap_or(u32::MAX))
}

/// Unix seconds as ms.
pub(super) fn ms(seconds: u32) -> i64 {
    i64::from(seconds) * 1000
}
