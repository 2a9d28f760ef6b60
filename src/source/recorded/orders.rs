//! Requests to a clock: each is executed as a whole, or refused as a whole.

use std::time::{Duration, Instant};

use super::clock::{Begin, Deadline};
use super::player::{Player, ms};
use super::playhead::Next;
use super::playhead::jumps::NotIndexed;
use crate::engine::system_clock;
use crate::replay::change::{Change, MAX_STEP, Pace, Refused, Wanted};
use crate::replay::moment::{Clamped, Moment, Resolved, Span};
use crate::replay::remote::{Answer, Request};
use crate::replay::snapshot::{Cause, State};

/// How long a seek waits for the index to come as far as that.
const INDEXED_WITHIN: Duration = Duration::from_secs(30);

/// Recorded times further apart than this are a gap, ms.
const GAP_MS: i64 = 1000;

/// Where a seek goes.
struct Target {
    day: usize,
    /// Unix seconds.
    time: u32,
    asked: i64,
    clamped: Clamped,
}

impl Player {
    /// Executes what the settings ask for at the start; what cannot be done is told.
    pub(super) fn begin_with(&mut self, change: Change) {
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        self.take(Request { change, reply });
        while self.waiting.is_some() {
            std::thread::sleep(Duration::from_millis(1));
            self.ask_again();
        }
        if let Ok(Err(error)) = answer.try_recv() {
            tracing::error!("--start-at, --until: {error}; the clock begins at the first record");
        }
    }

    /// Executes a request, or keeps it until the index is as far as it needs.
    pub(super) fn take(&mut self, request: Request) {
        self.answer(request, Instant::now());
    }

    /// Tries the request that waits once more.
    pub(super) fn ask_again(&mut self) {
        if let Some((request, since)) = self.waiting.take() {
            self.answer(request, since);
        }
    }

    fn answer(&mut self, request: Request, since: Instant) {
        if request.reply.is_closed() {
            // Whoever asked has gone: nothing is changed behind their back.
            return;
        }
        match self.execute(&request.change) {
            Err(Refused::NotIndexed { .. }) if since.elapsed() < INDEXED_WITHIN => {
                self.waiting = Some((request, since));
            }
            answer => {
                // Nobody may listen any more.
                let _ = request.reply.send(answer);
            }
        }
    }

    fn execute(&mut self, change: &Change) -> Result<Answer, Refused> {
        self.check(change)?;
        let pause_at = match change.pause_at {
            Some(Some(moment)) => Some(Some(self.moment(moment, change.is_strict)?.0)),
            Some(None) => Some(None),
            None => None,
        };
        let target = change.seek.map(|moment| self.target(moment, change.is_strict)).transpose()?;
        let has_pace = change.pace.is_some_and(|pace| pace != self.clock.pace());
        let is_moved = change.seek.is_some() || has_pace || change.max_gap.is_some();
        if is_moved || change.wanted.is_some_and(|wanted| wanted != Wanted::Playing) {
            self.hold_still();
        }
        // The last that may be refused.
        let from = self.clock.now_ms();
        let resolved = target.map(|target| self.seek(&target)).transpose()?;
        if change.wanted == Some(Wanted::Stopped) {
            self.seek_start()?;
        }
        self.is_loop = change.is_loop.unwrap_or(self.is_loop);
        if let Some(max_gap) = change.max_gap {
            self.clock.set_max_gap(max_gap);
        }
        if let Some(pace) = change.pace.filter(|_| has_pace) {
            self.clock.set_pace(pace);
        }
        if resolved.is_some() {
            self.open_epoch(Cause::Seek, from);
        } else if has_pace {
            self.open_epoch(Cause::Pace, from);
        }
        if let Some(pause_at) = pause_at {
            self.pause_at = pause_at;
        }
        let begin = if resolved.is_some() { Begin::Now } else { Begin::Retimed };
        self.change_state(change, is_moved, begin);
        if let Some(steps) = change.step {
            self.step(steps);
        }
        self.settle();
        Ok(Answer { snapshot: self.snapshot(), resolved })
    }

    /// What needs no look at the data.
    fn check(&self, change: &Change) -> Result<(), Refused> {
        if let Some(expected) = change.if_epoch.filter(|&expected| expected != self.epoch) {
            return Err(Refused::OtherEpoch { expected, is: self.epoch });
        }
        let is_standing = match change.wanted {
            Some(wanted) => wanted != Wanted::Playing,
            None => !matches!(self.state, State::Playing),
        };
        if change.step.is_some() && !is_standing {
            return Err(Refused::StepWhilePlaying { state: "playing" });
        }
        if self.is_anchored
            && (change.seek.is_some() || change.pace.is_some() || change.step.is_some() || change.max_gap.is_some())
        {
            return Err(Refused::Anchored);
        }
        Ok(())
    }

    /// The recorded time from the first record to the last, as the index knows it by now.
    fn span(&self) -> Span {
        self.playhead.stand().market().whole_span()
    }

    /// The time of a moment, Unix ms, in the recorded time.
    fn moment(&self, moment: Moment, is_strict: bool) -> Result<(i64, i64, Clamped), Refused> {
        let span = self.span();
        let asked = match moment {
            Moment::Record(slot) => self.time_of_slot(slot)?,
            _ => moment.at(self.clock.now_ms(), span).unwrap_or(span.first),
        };
        let (at, clamped) = span.clamp(asked);
        if is_strict && clamped != Clamped::None {
            let shown =
                |at: i64| jiff::Timestamp::from_millisecond(at).map_or_else(|_| at.to_string(), |at| at.to_string());
            return Err(Refused::OutOfRange { asked: shown(asked), first: shown(span.first), last: shown(span.last) });
        }
        Ok((at, asked, clamped))
    }

    fn time_of_slot(&self, slot: u64) -> Result<i64, Refused> {
        let index = self.playhead.stand().market().tracks[self.reference()].index();
        let last = index.slots().saturating_sub(1);
        if slot > last && !index.is_complete() {
            return Err(not_indexed(slot.to_string(), NotIndexed { until: index.time_of(last).unwrap_or(0) }));
        }
        Ok(index.time_of(slot.min(last)).map_or(0, ms))
    }

    fn target(&self, moment: Moment, is_strict: bool) -> Result<Target, Refused> {
        let (at, asked, clamped) = self.moment(moment, is_strict)?;
        let market = self.playhead.stand().market();
        // The first date that has a record at that time or later.
        let day = (0..market.days.len()).find(|&day| ms(market.span(day).1) >= at).unwrap_or(market.days.len() - 1);
        let time = u32::try_from(at.saturating_add(999).div_euclid(1000)).unwrap_or(0);
        Ok(Target { day, time, asked, clamped })
    }

    fn seek(&mut self, target: &Target) -> Result<Resolved, Refused> {
        let asked = jiff::Timestamp::from_second(i64::from(target.time)).map(|at| at.to_string()).unwrap_or_default();
        let first = self.playhead.seek(target.day, target.time).map_err(|error| not_indexed(asked, error))?;
        let data_time = first.map_or(ms(target.time), ms);
        self.clock.set(data_time);
        self.jumped();
        self.revive();
        let before = self.playhead.before(target.time.saturating_add(1)).map_or(i64::MIN, ms);
        let is_far = |at: i64| target.asked.abs_diff(at) > GAP_MS as u64;
        let in_gap = target.clamped == Clamped::None && is_far(data_time) && is_far(before);
        Ok(Resolved { asked: target.asked, data_time, clamped: target.clamped, in_gap })
    }

    fn seek_start(&mut self) -> Result<(), Refused> {
        let from = self.clock.now_ms();
        let first = self.playhead.seek(0, 0).map_err(|error| not_indexed("the start".to_owned(), error))?;
        self.clock.set(first.map_or(from, ms));
        self.jumped();
        self.open_epoch(Cause::Seek, from);
        Ok(())
    }

    /// After the end there is something to play again.
    fn revive(&mut self) {
        if self.state == State::Ended {
            self.play(Begin::Now);
        }
    }

    /// Keeps the part of a gap that has passed.
    fn hold_still(&mut self) {
        if self.state == State::Playing {
            let next_ms = self.next_ms().ok();
            self.clock.stop(system_clock::monotonic_ns(), next_ms);
        }
    }

    fn change_state(&mut self, change: &Change, is_moved: bool, begin: Begin) {
        match change.wanted {
            Some(Wanted::Playing) if !matches!(self.state, State::Playing | State::Ended) => self.play(Begin::Now),
            Some(Wanted::Paused) => self.state = State::Paused,
            Some(Wanted::Stopped) => self.state = State::Stopped,
            Some(Wanted::Playing) | None if self.state == State::Playing && is_moved => self.play(begin),
            None if self.state == State::Stopped && is_moved => self.state = State::Paused,
            Some(Wanted::Playing) | None => {}
        }
    }

    /// Publishes so many ticks at once; backwards, only the one that it comes to.
    fn step(&mut self, steps: i64) {
        let steps = steps.clamp(-MAX_STEP, MAX_STEP);
        if self.state != State::Ended {
            self.state = State::Paused;
        }
        if steps < 0 {
            self.step_back(steps.unsigned_abs());
        }
        for _ in 0..if steps < 0 { 1 } else { steps } {
            if self.state == State::Ended {
                break;
            }
            self.step_once();
        }
    }

    fn step_back(&mut self, steps: u64) {
        let from = self.clock.now_ms();
        match self.clock.pace() {
            Pace::Interval(_) => {
                self.playhead.back(steps, self.is_played);
                let to = self.playhead.time_in(self.reference()).map_or(from, ms);
                self.clock.set(to);
            }
            Pace::Recorded(_) => {
                let mut time = u32::try_from(from / 1000).unwrap_or(0);
                for _ in 0..steps {
                    let Some(before) = self.playhead.before(time) else { break };
                    time = before;
                }
                // It has been there: the index is as far as that.
                let day = self.playhead.stand().day();
                let first = self.playhead.seek(day, time).ok().flatten();
                self.clock.set(first.map_or(from, ms));
            }
        }
        if self.state == State::Ended {
            self.state = State::Paused;
        }
        self.jumped();
        self.open_epoch(Cause::StepBack, from);
    }

    fn step_once(&mut self) {
        if self.next_ms() == Err(Next::Ended) {
            self.end_of_day(system_clock::monotonic_ns());
        }
        let Ok(next_ms) = self.next_ms() else { return };
        self.wait_for_step(next_ms);
        // A step is due when it is asked for.
        let now = system_clock::monotonic_ns();
        self.clock.start(now, Begin::Now);
        self.tick(Deadline::at(now), next_ms);
    }
}

fn not_indexed(asked: String, NotIndexed { until }: NotIndexed) -> Refused {
    let indexed =
        jiff::Timestamp::from_second(i64::from(until)).map_or_else(|_| until.to_string(), |at| at.to_string());
    Refused::NotIndexed { asked, indexed }
}
