//! A plan: which faults strike whom, and when. Read by [`super::plan_reader`].

use std::fmt;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::draw::{ClientIdentity, DrawFor, Draws};
use super::glob::Glob;
use super::plan_moment::PlanMoment;

/// Faults of the longest plan.
pub const MAX_FAULTS: usize = 64;

/// The hub's name of clients of `/ws`.
pub const STREAMS_NAME: &str = "ws";

/// A plan of faults.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultPlan {
    /// All draws depend on it.
    pub seed: u64,
    /// Their numbers count from 1.
    pub faults: Box<[PlannedFault]>,
}

/// One fault of a plan.
#[derive(Clone, PartialEq)]
pub struct PlannedFault {
    /// When it fires.
    pub trigger: Trigger,
    /// Whom it strikes.
    pub who: Who,
    /// What it does.
    pub action: FaultAction,
    /// How long it is in force; `None`: until it has struck everybody [`PlannedFault::times`], or the plan ends.
    pub lasts: Option<PlanMoment>,
    /// How many frames, acks or requests of each client a firing strikes; `None`: all while it is in force.
    pub times: Option<u32>,
    /// As it was written.
    pub given: Map<String, Value>,
}

/// Without the text of the plan, in which a client's key may stand.
impl fmt::Debug for PlannedFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trigger, who, action, lasts, times, given: _ } = self;
        f.debug_struct("PlannedFault")
            .field("trigger", trigger)
            .field("who", who)
            .field("action", action)
            .field("lasts", lasts)
            .field("times", times)
            .finish_non_exhaustive()
    }
}

/// When a fault fires.
#[derive(Debug, Clone, PartialEq)]
pub struct Trigger {
    /// Once then, or from then on.
    pub at: Option<PlanMoment>,
    /// Again and again.
    pub every: Option<PlanMoment>,
    /// At each tick, for each client on its own.
    pub chance: Option<f64>,
    /// Not any more from then on.
    pub until: Option<PlanMoment>,
}

/// Whom a fault strikes: all conditions must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Who {
    /// So many of the clients, drawn anew at each firing.
    pub share: Option<f64>,
    /// Clients with such a key.
    pub key: Option<Glob>,
    /// Frames of such groups; clients that are in one.
    pub group: Option<Glob>,
    /// The connection with this id.
    pub connection: Option<Uuid>,
    /// Clients of such hubs.
    pub hub: Option<Glob>,
}

/// What a fault does.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "docs/faults.md describes each; the fields have the names of their keys")]
pub enum FaultAction {
    Reset,
    ResetMidFrame,
    Close { code: u16, reason: Box<str> },
    Stall { for_ms: u64 },
    Delay { by_ms: u64, jitter_ms: u64 },
    Drop,
    Duplicate,
    Reorder,
    Corrupt,
    Truncate,
    Split,
    Silence,
    RefuseUpgrade { status: u16, retry_after_ms: Option<u64> },
    RefuseNegotiate(NegotiateFault),
    RefuseRecovery,
    ExpireToken,
    NoAck,
    LateAck { by_ms: u64 },
    PingFlood { count: u32 },
}

/// What becomes of a negotiate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NegotiateFault {
    /// It is refused.
    Refused {
        /// With this status.
        status: u16,
        /// And with this `Retry-After`.
        retry_after_ms: Option<u64>,
    },
    /// It is answered so much later.
    Slow {
        /// In milliseconds.
        by_ms: u64,
    },
}

/// The kinds of faults: [`FaultAction`] without its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "docs/faults.md describes each")]
pub enum FaultKind {
    Reset,
    ResetMidFrame,
    Close,
    Stall,
    Delay,
    Drop,
    Duplicate,
    Reorder,
    Corrupt,
    Truncate,
    Split,
    Silence,
    RefuseUpgrade,
    RefuseNegotiate,
    RefuseRecovery,
    ExpireToken,
    NoAck,
    LateAck,
    PingFlood,
}

/// What a kind of fault is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultClass {
    /// A connection, at the tick of the firing.
    Connection,
    /// The frames of the ticks in force.
    Frames,
    /// The acks that are due while it is in force.
    Acks,
    /// The requests that come while it is in force.
    Requests,
}

impl FaultKind {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 19] = [
        Self::Reset,
        Self::ResetMidFrame,
        Self::Close,
        Self::Stall,
        Self::Delay,
        Self::Drop,
        Self::Duplicate,
        Self::Reorder,
        Self::Corrupt,
        Self::Truncate,
        Self::Split,
        Self::Silence,
        Self::RefuseUpgrade,
        Self::RefuseNegotiate,
        Self::RefuseRecovery,
        Self::ExpireToken,
        Self::NoAck,
        Self::LateAck,
        Self::PingFlood,
    ];

    /// Its name in plans, entries and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::ResetMidFrame => "reset-mid-frame",
            Self::Close => "close",
            Self::Stall => "stall",
            Self::Delay => "delay",
            Self::Drop => "drop",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::Corrupt => "corrupt",
            Self::Truncate => "truncate",
            Self::Split => "split",
            Self::Silence => "silence",
            Self::RefuseUpgrade => "refuse-upgrade",
            Self::RefuseNegotiate => "refuse-negotiate",
            Self::RefuseRecovery => "refuse-recovery",
            Self::ExpireToken => "expire-token",
            Self::NoAck => "no-ack",
            Self::LateAck => "late-ack",
            Self::PingFlood => "ping-flood",
        }
    }

    /// The kind of a name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What it is about. Tokens expire on `/ws`, and at the next upgrade to a hub.
    pub const fn class(self) -> FaultClass {
        match self {
            Self::Reset | Self::ResetMidFrame | Self::Close | Self::Stall | Self::ExpireToken | Self::PingFlood => {
                FaultClass::Connection
            }
            Self::Delay
            | Self::Drop
            | Self::Duplicate
            | Self::Reorder
            | Self::Corrupt
            | Self::Truncate
            | Self::Split
            | Self::Silence => FaultClass::Frames,
            Self::RefuseUpgrade | Self::RefuseNegotiate | Self::RefuseRecovery => FaultClass::Requests,
            Self::NoAck | Self::LateAck => FaultClass::Acks,
        }
    }

    /// Whether it strikes clients of `/ws` too.
    pub const fn is_for_streams(self) -> bool {
        !matches!(self, Self::RefuseNegotiate | Self::RefuseRecovery | Self::NoAck | Self::LateAck)
    }
}

impl FaultAction {
    /// Its kind.
    pub const fn kind(&self) -> FaultKind {
        match self {
            Self::Reset => FaultKind::Reset,
            Self::ResetMidFrame => FaultKind::ResetMidFrame,
            Self::Close { .. } => FaultKind::Close,
            Self::Stall { .. } => FaultKind::Stall,
            Self::Delay { .. } => FaultKind::Delay,
            Self::Drop => FaultKind::Drop,
            Self::Duplicate => FaultKind::Duplicate,
            Self::Reorder => FaultKind::Reorder,
            Self::Corrupt => FaultKind::Corrupt,
            Self::Truncate => FaultKind::Truncate,
            Self::Split => FaultKind::Split,
            Self::Silence => FaultKind::Silence,
            Self::RefuseUpgrade { .. } => FaultKind::RefuseUpgrade,
            Self::RefuseNegotiate(_) => FaultKind::RefuseNegotiate,
            Self::RefuseRecovery => FaultKind::RefuseRecovery,
            Self::ExpireToken => FaultKind::ExpireToken,
            Self::NoAck => FaultKind::NoAck,
            Self::LateAck { .. } => FaultKind::LateAck,
            Self::PingFlood { .. } => FaultKind::PingFlood,
        }
    }
}

impl PlannedFault {
    /// Whether its chance is drawn for each ack or request, and not for each tick.
    pub fn draws_each(&self) -> bool {
        self.trigger.chance.is_some() && matches!(self.action.kind().class(), FaultClass::Acks | FaultClass::Requests)
    }

    /// Whether it strikes nobody less than everybody in a group.
    pub fn is_for_everyone(&self) -> bool {
        let Who { share, key, connection, hub, .. } = &self.who;
        self.trigger.chance.is_none() && share.is_none() && key.is_none() && connection.is_none() && hub.is_none()
    }
}

impl Who {
    /// Whether a client may be meant at all; the share and the groups are looked at elsewhere.
    pub fn may_be(&self, key: &str, hub: &str, connection: Option<Uuid>) -> bool {
        self.hub.as_ref().is_none_or(|glob| glob.matches(hub))
            && self.connection.is_none_or(|wanted| connection == Some(wanted))
            && self.key.as_ref().is_none_or(|glob| glob.matches(key))
    }
}

impl FaultPlan {
    /// Whether a firing at tick `fired` draws the client: its share, and, if the chance is one for each tick, that.
    pub fn draws(&self, fault: usize, fired: u64, client: ClientIdentity) -> bool {
        let PlannedFault { trigger, who, .. } = &self.faults[fault];
        let draws = self.draws_of(fault);
        let happens = |probability: Option<f64>, what| {
            probability.is_none_or(|probability| draws.happens(probability, fired, what, client, 0))
        };
        happens(who.share, DrawFor::Share)
            && (self.faults[fault].draws_each() || happens(trigger.chance, DrawFor::Chance))
    }

    /// Whether a fault whose chance is drawn for each ack or request strikes the client's `count`th.
    pub fn draws_one(&self, fault: usize, fired: u64, client: ClientIdentity, count: u64) -> bool {
        let chance = self.faults[fault].trigger.chance.filter(|_| self.faults[fault].draws_each());
        chance.is_none_or(|chance| self.draws_of(fault).happens(chance, fired, DrawFor::Chance, client, count))
    }

    /// The draws of a fault.
    pub fn draws_of(&self, fault: usize) -> Draws {
        Draws { seed: self.seed, fault: fault + 1 }
    }

    /// The plan as it was written. The keys are shown to those who may steer.
    pub fn faults_json(&self, shows_keys: bool) -> Vec<Map<String, Value>> {
        let shown = |fault: &PlannedFault| {
            let mut given = fault.given.clone();
            if let Some(key) = given.get_mut("who").and_then(|who| who.get_mut("key"))
                && !shows_keys
            {
                *key = "***".into();
            }
            given
        };
        self.faults.iter().map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own_and_stands_at_its_place() {
        for (at, kind) in FaultKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
            assert_eq!(FaultKind::of_name(kind.name()), Some(kind));
        }
        assert_eq!(FaultKind::of_name("explode"), None);
    }
}
