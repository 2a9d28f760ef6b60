//! A plan as one shard follows it: where it is, who its clients are, and how often each was struck.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::strike_counts::StrikeCounts;
use crate::engine::hub::wire_name;
use crate::faults::batch_notes::ClockPlace;
use crate::faults::draw::ClientIdentity;
use crate::faults::fault_board::FaultBoard;
use crate::faults::fault_entry::{FaultDetail, FaultEntry};
use crate::faults::fault_plan::{FaultPlan, STREAMS_NAME};
use crate::faults::schedule::InForce;
use crate::server::shard::lanes::Lanes;
use crate::server::shard::session::Session;
use crate::server::shard::sessions::Sessions;

/// A plan as one shard follows it.
pub struct PlanRun {
    /// Its number.
    pub number: u64,
    /// What it says.
    pub plan: Arc<FaultPlan>,
    /// How far the notes of each hub were taken.
    pub positions: [u64; 2],
    /// What the board had, and what was drained of each hub, when notes were taken last.
    pub looked: (u64, [u64; 2]),
    /// The tick that was taken last, and what was in force then.
    pub tick: u64,
    /// Where entries belong.
    pub place: ClockPlace,
    /// The faults that were in force at that tick.
    pub in_force: Vec<InForce>,
    /// Clients that get half of their next frame, with the serial of their connection.
    pub armed: HashMap<u32, (u32, InForce)>,
    /// Who the clients are, by key; a key may have another session by now.
    clients: HashMap<u32, (Uuid, ClientIdentity)>,
    counts: StrikeCounts,
}

impl PlanRun {
    /// A plan that begins. The clients that are there are numbered in the order in which they have come.
    pub fn new(number: u64, plan: Arc<FaultPlan>, board: &FaultBoard, sessions: &Sessions) -> Self {
        let mut run = Self {
            number,
            plan,
            positions: [0; 2],
            looked: (0, [0; 2]),
            tick: 0,
            place: ClockPlace::default(),
            in_force: Vec::new(),
            armed: HashMap::new(),
            clients: HashMap::new(),
            counts: StrikeCounts::default(),
        };
        let mut keys = sessions.keys();
        keys.sort_by_key(|&key| sessions.serial(key));
        for key in keys {
            if let Some(session) = sessions.get(key) {
                run.identity(key, session, board);
            }
        }
        run
    }

    /// Who a client is in every run.
    pub fn identity(&mut self, key: u32, session: &Session, board: &FaultBoard) -> ClientIdentity {
        if let Some((_, known)) = self.clients.get(&key).filter(|(id, _)| *id == session.id) {
            return *known;
        }
        let unnumbered = ClientIdentity::new(&session.user, hub_name(session));
        let identity = ClientIdentity { nth: board.number(self.number, unnumbered), ..unnumbered };
        self.clients.insert(key, (session.id, identity));
        identity
    }

    /// Whether a firing means a client: who it is, and its draw.
    pub fn means(&mut self, found: InForce, key: u32, session: &Session, board: &FaultBoard) -> bool {
        let who = &self.plan.faults[found.fault].who;
        if !who.may_be(&session.user, hub_name(session), Some(session.id)) {
            return false;
        }
        let identity = self.identity(key, session, board);
        self.plan.draws(found.fault, found.fired, identity)
    }

    /// Whether a client is in a group that a fault means.
    pub fn is_in_group(&self, found: InForce, session: &Session, lanes: &Lanes) -> bool {
        self.plan.faults[found.fault].who.group.as_ref().is_none_or(|glob| {
            session.memberships.iter().any(|membership| glob.matches(wire_name(lanes.group_name(membership.lane)).0))
        })
    }

    /// Counts a frame or an ack of a client that a firing means, and says whether it is struck.
    pub fn counts(&mut self, found: InForce, session: Uuid, identity: ClientIdentity) -> bool {
        let fault = &self.plan.faults[found.fault];
        if fault.times.is_none() && !fault.draws_each() {
            return true;
        }
        let times = fault.times;
        let Some(count) = self.counts.of(found, session) else { return false };
        count.met += 1;
        let is_struck = times.is_none_or(|times| count.struck < times)
            && self.plan.draws_one(found.fault, found.fired, identity, count.met);
        count.struck += u32::from(is_struck);
        is_struck
    }

    /// The entry about a client, without what the kind adds.
    pub fn entry(&self, found: InForce, tick: u64, session: &Session, identity: ClientIdentity) -> FaultEntry {
        FaultEntry {
            plan: self.number,
            fault: found.fault + 1,
            kind: self.plan.faults[found.fault].action.kind(),
            tick,
            fired: found.fired,
            hub: Some(hub_name(session)),
            connection: Some(session.id),
            user: Some(identity.user),
            nth: identity.nth,
            everyone: false,
            frames: Vec::new(),
            detail: FaultDetail::default(),
        }
    }
}

/// The name of a client's hub in plans and entries.
pub fn hub_name(session: &Session) -> &'static str {
    if session.client.is_some() { STREAMS_NAME } else { session.hub.name() }
}
