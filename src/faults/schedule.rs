//! Which faults are in force at which tick: a function of the plan and the ticks alone.

use std::sync::Arc;

use super::fault_plan::{FaultClass, FaultKind, FaultPlan, PlannedFault, Trigger};
use super::plan_moment::PlanMoment;

/// A fault that is in force at a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InForce {
    /// Its place in the plan, from 0.
    pub fault: usize,
    /// The tick of its firing.
    pub fired: u64,
    /// Whether that is this tick.
    pub is_new: bool,
}

/// Where a plan is.
#[derive(Debug)]
pub struct Schedule {
    plan: Arc<FaultPlan>,
    now: PlanTime,
    /// When tick 1 was due, ns.
    origin_ns: u64,
    firings: Vec<Firings>,
}

/// A tick, and how long after tick 1 it was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlanTime {
    /// 0 before the first tick.
    pub tick: u64,
    /// 0 at ticks 0 and 1.
    pub elapsed_ms: u64,
}

/// What a fault has done.
#[derive(Debug, Clone, Copy, Default)]
struct Firings {
    /// How many multiples of `every` are over, or whether it has fired.
    done: u64,
    last: Option<PlanTime>,
}

impl PlanTime {
    fn reaches(self, moment: PlanMoment) -> bool {
        match moment {
            PlanMoment::Ms(ms) => self.elapsed_ms >= ms,
            PlanMoment::Ticks(ticks) => self.tick >= ticks,
        }
    }

    /// Whether what began here and lasts so long is over.
    fn is_over(self, lasts: PlanMoment, now: Self) -> bool {
        match lasts {
            PlanMoment::Ms(ms) => now.elapsed_ms >= self.elapsed_ms.saturating_add(ms),
            // Nothing is published at tick 0.
            PlanMoment::Ticks(ticks) => now.tick >= self.tick.max(1).saturating_add(ticks),
        }
    }

    fn counted_as(self, moment: PlanMoment) -> u64 {
        match moment {
            PlanMoment::Ms(_) => self.elapsed_ms,
            PlanMoment::Ticks(_) => self.tick,
        }
    }
}

impl Schedule {
    /// A plan that begins now, at tick 0.
    pub fn new(plan: Arc<FaultPlan>) -> Self {
        let firings = vec![Firings::default(); plan.faults.len()];
        Self { plan, now: PlanTime::default(), origin_ns: 0, firings }
    }

    /// The plan.
    pub fn plan(&self) -> &Arc<FaultPlan> {
        &self.plan
    }

    /// Where it is.
    pub fn now(&self) -> PlanTime {
        self.now
    }

    /// The tick at which a fault fired last.
    pub fn last_fired(&self, fault: usize) -> Option<u64> {
        self.firings[fault].last.map(|time| time.tick)
    }

    /// The next tick, and when it was due.
    pub fn tick(&mut self, due_ns: u64) {
        if self.now.tick == 0 {
            self.origin_ns = due_ns;
        }
        // Rounded: intervals such as a third of a second are no whole nanoseconds.
        let elapsed_ms = (due_ns.saturating_sub(self.origin_ns) + 500_000) / 1_000_000;
        self.now = PlanTime { tick: self.now.tick + 1, elapsed_ms: elapsed_ms.max(self.now.elapsed_ms) };
    }

    /// The faults that are in force now. Call it once for each tick, tick 0 included.
    pub fn in_force(&mut self) -> Vec<InForce> {
        let (now, plan) = (self.now, Arc::clone(&self.plan));
        let mut found = Vec::new();
        for (at, (fault, firings)) in plan.faults.iter().zip(&mut self.firings).enumerate() {
            let is_new = firings.fires(fault, now);
            if is_new {
                firings.last = Some(now);
            }
            if let Some(fired) = firings.last
                && (is_new || is_lasting(fault, fired, now))
            {
                found.push(InForce { fault: at, fired: fired.tick, is_new });
            }
        }
        found
    }
}

impl Firings {
    fn fires(&mut self, fault: &PlannedFault, now: PlanTime) -> bool {
        let Trigger { at, every, chance, until } = &fault.trigger;
        if until.is_some_and(|until| now.reaches(until)) {
            return false;
        }
        if chance.is_some() {
            let begins = at.is_none_or(|at| now.reaches(at));
            // Drawn for each request: in force from then on. Else it fires at every tick.
            return begins && if fault.draws_each() { self.last.is_none() } else { now.tick > 0 };
        }
        let Some(first) = at.or(*every) else { return false };
        if !now.reaches(first) {
            return false;
        }
        let periods = match every {
            Some(every @ (PlanMoment::Ms(length) | PlanMoment::Ticks(length))) => {
                let begin = match first {
                    PlanMoment::Ms(begin) | PlanMoment::Ticks(begin) => begin,
                };
                1 + (now.counted_as(*every) - begin) / length
            }
            None => 1,
        };
        // Several that were due between two ticks are one.
        std::mem::replace(&mut self.done, periods) < periods
    }
}

/// Whether a fault that fired earlier is still in force.
fn is_lasting(fault: &PlannedFault, fired: PlanTime, now: PlanTime) -> bool {
    let kind = fault.action.kind();
    match kind.class() {
        // Only at its firing; a stall has a timer of its own.
        FaultClass::Connection => match kind {
            FaultKind::PingFlood => fault.lasts.is_some_and(|lasts| !fired.is_over(lasts, now)),
            // The upgrades that are refused.
            kind => kind == FaultKind::ExpireToken,
        },
        FaultClass::Frames | FaultClass::Acks | FaultClass::Requests => {
            let is_ended = fault.draws_each() && fault.trigger.until.is_some_and(|until| now.reaches(until));
            !is_ended && fault.lasts.is_none_or(|lasts| !fired.is_over(lasts, now))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::plan_reader::PlanSyntax;

    /// The ticks at which a fault is in force, `+` where it fires; ticks of 500 ms.
    fn ticks(fault: &str, ticks: u64) -> String {
        let plan = FaultPlan::read(format!("[[fault]]\n{fault}").as_bytes(), PlanSyntax::Toml).unwrap();
        let mut schedule = Schedule::new(Arc::new(plan));
        let mut shown = String::new();
        for tick in 0..=ticks {
            if tick > 0 {
                schedule.tick(1_000_000_007 + (tick - 1) * 500_000_000);
            }
            shown.push(match schedule.in_force()[..] {
                [InForce { is_new: true, fired, .. }] if fired == tick => '+',
                [InForce { is_new: false, fired, .. }] if fired < tick => '-',
                [] => '.',
                _ => '?',
            });
        }
        shown
    }

    #[test]
    fn a_fault_fires_at_its_tick_or_at_the_first_one_at_its_time() {
        assert_eq!(ticks("do = \"reset\"\nat = 3", 6), "...+...");
        assert_eq!(ticks("do = \"reset\"\nat = \"1s\"", 6), "...+...", "ticks 1, 2, 3 are at 0, 0.5 and 1 s");
        assert_eq!(ticks("do = \"reset\"\nat = \"700ms\"", 6), "...+...");
        assert_eq!(ticks("do = \"reset\"\nat = 0", 3), "+...");
        assert_eq!(ticks("do = \"reset\"\nat = \"0s\"", 3), "+...");
    }

    #[test]
    fn every_fires_again_and_again_until_it_may_not_any_more() {
        assert_eq!(ticks("do = \"reset\"\nevery = 2", 6), "..+.+.+");
        assert_eq!(ticks("do = \"reset\"\nevery = \"1s\"", 6), "...+.+.");
        assert_eq!(ticks("do = \"reset\"\nevery = \"100ms\"", 4), "..+++", "once a tick at most");
        assert_eq!(ticks("do = \"reset\"\nat = 1\nevery = 3", 7), ".+..+..+");
        assert_eq!(ticks("do = \"reset\"\nevery = 2\nuntil = 5", 8), "..+.+....");
    }

    #[test]
    fn a_chance_is_tried_at_each_tick_or_holds_for_each_request() {
        assert_eq!(ticks("do = \"drop\"\nchance = 0.5", 3), ".+++");
        assert_eq!(ticks("do = \"drop\"\nchance = 0.5\nat = 2\nuntil = 4", 5), "..++..");
        assert_eq!(ticks("do = \"no-ack\"\nchance = 0.5", 3), "+---");
        assert_eq!(ticks("do = \"no-ack\"\nchance = 0.5\nat = 2\nuntil = 4", 5), "..+-..");
    }

    #[test]
    fn what_lasts_is_in_force_for_so_long() {
        assert_eq!(ticks("do = \"drop\"\nat = 2", 5), "..+...", "a tick by default");
        assert_eq!(ticks("do = \"drop\"\nat = 2\nfor = 3", 6), "..+--..");
        assert_eq!(ticks("do = \"drop\"\nat = 2\nfor = \"1s\"", 6), "..+-...");
        assert_eq!(ticks("do = \"drop\"\nat = 0", 3), "+-..", "at 0 it is the first tick with frames");
        assert_eq!(ticks("do = \"drop\"\nevery = 3\nfor = 2", 8), "...+-.+-.");
        assert_eq!(ticks("do = \"no-ack\"\nat = 2\ntimes = 1", 5), "..+---");
        assert_eq!(ticks("do = \"stall\"\nat = 2\nfor = \"9s\"", 5), "..+...", "its timer is no tick");
        assert_eq!(ticks("do = \"ping-flood\"\nat = 2\nfor = 2", 5), "..+-..");
        assert_eq!(ticks("do = \"expire-token\"\nat = 2", 5), "..+---");
    }
}
