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

use super::clock::{Begin, Clock};
use super::early_wake::EarlyWake;
use super::lateness::Lateness;
use super::playhead::{Next, Playhead};
use super::score::Score;
use super::stage::Stage;
use crate::engine::hub::Hub;
use crate::engine::system_clock;
use crate::health::status::{SourceHealth, Status};
use crate::replay::change::{Change, Pace, Speed};
use crate::replay::remote::{Console, Request};
use crate::replay::snapshot::{Axis, Cause, Epoch, Snapshot, State};

/// How soon something that is waited for is looked at again.
pub(super) const RETRY_NS: u64 = 200_000;

/// How soon a request that waits for the index, or a start that waits for clients, is looked at again.
pub(super) const LOOK_NS: u64 = 2_000_000;

/// The longest sleep: after it, whether to stop is looked at.
const NAP_NS: u64 = 100_000_000;

/// Between two dates, unless `--max-gap` is shorter.
pub(super) const NIGHT: Duration = Duration::from_secs(2);

/// From the last record to the first, when time follows the records and they are played in a loop.
pub(super) const LAP: Duration = Duration::from_secs(1);

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
    pub(super) window: Waker,
    pub(super) swaps: Receiver<Swap>,
    pub(super) health: Option<Arc<SourceHealth>>,
    pub(super) score: Option<Score>,
    /// Whether a tick was published since the last jump.
    pub(super) is_played: bool,
    /// A request that waits for the index.
    pub(super) waiting: Option<(Request, Instant)>,
    /// Since when a tick waits for its frames, or for the shards; monotonic ns.
    pub(super) held_since: Option<u64>,
    pub(super) retry_ns: u64,
    /// Sockets that are blocked and waited for no more.
    pub(super) tolerated: u64,
    pub(super) ordinal: u64,
    pub(super) lateness: Lateness,
    early: EarlyWake,
    pub(super) status: Arc<Status>,
    pub(super) paused: Option<Arc<AtomicU64>>,
    pub(super) missed: Arc<AtomicU64>,
    pub(super) missing: Arc<AtomicU64>,
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
            early: EarlyWake::default(),
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
            self.clock.start(system_clock::monotonic_ns(), Begin::Aligned);
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
        let now = system_clock::monotonic_ns();
        let due = self.wake_ns(now);
        let mut wake = due;
        // Not for the clocks of sessions: there may be hundreds.
        if self.session.is_none() {
            self.hub.sequencer().audience().expect_tick(due);
            wake = self.early.for_tick(due, now);
        }
        let until = wake.min(now + NAP_NS);
        let request = if until <= now {
            self.console.requests.try_recv().map_err(|_| RecvTimeoutError::Timeout)
        } else {
            self.console.requests.recv_deadline(Instant::now() + Duration::from_nanos(until - now))
        };
        match request {
            Ok(request) => self.take(request),
            Err(RecvTimeoutError::Timeout) if until > now => {
                self.early.woken(until, system_clock::monotonic_ns());
                if wake < due {
                    EarlyWake::stay_awake(due);
                }
            }
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
            && self.hub.sequencer().audience().members() >= clients as u64
        {
            self.play(Begin::Aligned);
            self.settle();
        }
        if self.state != State::Playing || self.waiting.is_some() {
            return;
        }
        let now = system_clock::monotonic_ns();
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

    /// Goes to other dates.
    fn swap(&mut self, swap: Swap) {
        let from = self.clock.now_ms();
        let Swap { playhead, axis, score, stage, done } = swap;
        self.stage.window().remove(self.playhead.stand());
        stage.window().take_over(playhead.stand());
        for group in self.playhead.stand().left_out_by(playhead.stand()) {
            // Whoever waits in it, or joins it, gets an ack at once, and nothing more.
            group.set_ready(u8::MAX);
            self.hub.undeclare(&group);
        }
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
        self.clock.start(system_clock::monotonic_ns(), begin);
    }

    /// Tells the window how far it must be ahead.
    pub(super) fn look_ahead(&self) {
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
}

/// Unix seconds as ms.
pub(super) fn ms(seconds: u32) -> i64 {
    i64::from(seconds) * 1000
}
