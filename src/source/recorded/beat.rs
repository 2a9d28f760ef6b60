//! A beat of the clock: what it needs, what it publishes, and what follows the last record.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::clock::Deadline;
use super::player::{LAP, NIGHT, Player, RETRY_NS, ms};
use super::playhead::Portion;
use crate::engine::batch::Due;
use crate::engine::system_clock;
use crate::replay::change::{Pace, Speed};
use crate::replay::snapshot::{Cause, State};

/// How long frames that are not built yet are waited for before a tick goes without them.
const PATIENCE_NS: u64 = 5_000_000_000;

/// How long clients that do not read hold up a clock without a speed.
const HOLD_NS: u64 = 2_000_000_000;

impl Player {
    /// A tick is due: pauses before it, waits for what it needs, or publishes it.
    pub(super) fn tick_at(&mut self, deadline: Deadline, next_ms: i64, now: u64) {
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
        let swept = self.hub.sequencer().audience().swept();
        self.tolerated = self.tolerated.min(swept.blocked);
        if swept.is_complete && self.held_since.is_some_and(|since| now - since > HOLD_NS) {
            // They had their time. Whoever still does not read is dropped for lag, as everywhere.
            self.tolerated = swept.blocked;
        }
        swept.is_complete && swept.blocked <= self.tolerated
    }

    /// Looks again in a moment. The window is told what is waited for.
    pub(super) fn hold(&mut self, now: u64) {
        if self.held_since.is_none() {
            self.held_since = Some(now);
            self.window.wake_by_ref();
        }
        self.retry_ns = now + RETRY_NS;
    }

    /// Publishes what is due, and moves on.
    pub(super) fn tick(&mut self, deadline: Deadline, next_ms: i64) {
        let is_timed = matches!(self.clock.pace(), Pace::Recorded(Speed::Times(_)) | Pace::Interval(_));
        let scheduled_ns = if is_timed && deadline.at_ns > 0 { deadline.at_ns } else { system_clock::monotonic_ns() };
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
        let now = system_clock::monotonic_ns();
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
            health.set_position(self.ordinal, system_clock::unix_ns());
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

    /// Waits until a step can be published whole; false if that takes too long.
    pub(super) fn wait_for_step(&mut self, next_ms: i64) -> bool {
        let began = system_clock::monotonic_ns();
        self.window.wake_by_ref();
        loop {
            let now = system_clock::monotonic_ns();
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
