//! A plan under way: where it is, what was published meanwhile, and whom it has struck.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::batch_notes::{BatchNotes, ClockPlace, NotedBatch, NotedHub, PlannedBatch};
use super::draw::ClientIdentity;
use super::fault_entry::{FaultDetail, FaultEntry};
use super::fault_plan::{FaultAction, FaultKind, FaultPlan};
use super::schedule::{InForce, PlanTime, Schedule};

/// Clients that are numbered, and whose requests are counted.
const CLIENTS: usize = 65_536;

/// A plan under way.
#[derive(Debug)]
pub struct FaultRun {
    /// The plan's number.
    pub number: u64,
    schedule: Schedule,
    /// As of the last tick, none of them new.
    in_force: Arc<[InForce]>,
    place: ClockPlace,
    notes: [BatchNotes; 2],
    /// What each fault has done: clients or requests, and frames.
    struck: Vec<(u64, u64)>,
    /// How many sessions each client has had.
    sessions: HashMap<u64, u32>,
    /// How many requests each client has made, by fault and client, in the firing.
    requests: HashMap<(usize, u64), RequestCount>,
}

#[derive(Debug, Clone, Copy, Default)]
struct RequestCount {
    fired: u64,
    made: u64,
    struck: u32,
}

/// A request that a fault has struck.
#[derive(Debug, Clone)]
pub struct StruckRequest {
    /// What is to be done to it.
    pub action: FaultAction,
    /// The entry for the ledger; its detail is not filled in yet.
    pub entry: FaultEntry,
    /// Where it belongs.
    pub place: ClockPlace,
}

impl FaultRun {
    /// A plan at its tick 0, which the shards find among the batches of this hub.
    pub fn new(number: u64, plan: FaultPlan, hub: NotedHub) -> Self {
        let struck = vec![(0, 0); plan.faults.len()];
        let mut run = Self {
            number,
            schedule: Schedule::new(Arc::new(plan)),
            in_force: Arc::default(),
            place: ClockPlace::default(),
            notes: Default::default(),
            struck,
            sessions: HashMap::new(),
            requests: HashMap::new(),
        };
        run.begin_tick(hub, 1, 0);
        run
    }

    /// What it says.
    pub fn plan(&self) -> &Arc<FaultPlan> {
        self.schedule.plan()
    }

    /// Where it is.
    pub fn now(&self) -> PlanTime {
        self.schedule.now()
    }

    /// Notes a batch; it may be a tick of the plan.
    pub fn note(&mut self, hub: NotedHub, batch: &NotedBatch, is_tick: bool) {
        if is_tick {
            self.schedule.tick(batch.due_ns);
            self.place = batch.place;
            self.begin_tick(hub, batch.first_id, batch.last_id);
        } else if batch.first_id <= batch.last_id {
            self.push(hub, batch.first_id, batch.last_id, false, Arc::clone(&self.in_force));
        }
    }

    /// Notes the tick at which it is, and the batch that is published at it.
    fn begin_tick(&mut self, hub: NotedHub, first_id: u64, last_id: u64) {
        let now = self.schedule.in_force();
        // For requests, and for batches that are no ticks.
        self.in_force = now.iter().map(|found| InForce { is_new: false, ..*found }).collect();
        self.push(hub, first_id, last_id, true, now.into());
    }

    fn push(&mut self, hub: NotedHub, first_id: u64, last_id: u64, is_tick: bool, in_force: Arc<[InForce]>) {
        let (tick, place) = (self.schedule.now().tick, self.place);
        self.notes[hub as usize].push(PlannedBatch { first_id, last_id, tick, is_tick, place, in_force });
    }

    /// See [`BatchNotes::take`].
    pub fn take(&self, hub: NotedHub, position: u64, drained: u64, batches: &mut Vec<PlannedBatch>) -> (u64, u64) {
        self.notes[hub as usize].take(position, drained, batches)
    }

    /// How many batches of each hub were noted so far.
    pub fn noted(&self) -> [u64; 2] {
        [0, 1].map(|hub| self.notes[hub].noted())
    }

    /// The how-manieth session of its client this one is; 0 if there are more clients than are numbered.
    pub fn number_session(&mut self, client: ClientIdentity) -> u32 {
        let has_room = self.sessions.len() < CLIENTS;
        if !has_room && !self.sessions.contains_key(&client.of_hub) {
            return 0;
        }
        let sessions = self.sessions.entry(client.of_hub).or_default();
        *sessions = sessions.wrapping_add(1);
        *sessions
    }

    /// Counts what a fault has done.
    pub fn count(&mut self, fault: usize, struck: u64, frames: u64) {
        self.struck[fault].0 += struck;
        self.struck[fault].1 += frames;
    }

    /// Whether a request is struck by a fault of this kind, and counts it for the client.
    pub fn strike_request(
        &mut self,
        kind: FaultKind,
        key: &str,
        hub: Option<&'static str>,
        connection: Option<Uuid>,
    ) -> Option<StruckRequest> {
        let plan = Arc::clone(self.plan());
        let client = ClientIdentity::new(key, hub.unwrap_or_default());
        let in_force = Arc::clone(&self.in_force);
        let is_meant = |found: &&InForce| {
            let fault = &plan.faults[found.fault];
            fault.action.kind() == kind
                && fault.who.may_be(key, hub.unwrap_or_default(), connection)
                && plan.draws(found.fault, found.fired, client)
        };
        let found = in_force.iter().filter(is_meant).find(|found| self.takes_request(&plan, **found, client))?;
        let entry = FaultEntry {
            plan: self.number,
            fault: found.fault + 1,
            kind,
            tick: self.now().tick,
            fired: found.fired,
            hub,
            connection,
            user: Some(client.user),
            nth: 0,
            everyone: false,
            frames: Vec::new(),
            detail: FaultDetail::default(),
        };
        Some(StruckRequest { action: plan.faults[found.fault].action.clone(), entry, place: self.place })
    }

    /// Counts a request of a client that a fault means, and says whether it is struck.
    fn takes_request(&mut self, plan: &FaultPlan, found: InForce, client: ClientIdentity) -> bool {
        let has_room = self.requests.len() < CLIENTS;
        let key = (found.fault, client.of_hub);
        if !has_room && !self.requests.contains_key(&key) {
            return false;
        }
        let count = self.requests.entry(key).or_default();
        if count.fired != found.fired {
            *count = RequestCount { fired: found.fired, ..RequestCount::default() };
        }
        count.made += 1;
        let is_struck = plan.faults[found.fault].times.is_none_or(|times| count.struck < times)
            && plan.draws_one(found.fault, found.fired, client, count.made);
        count.struck += u32::from(is_struck);
        is_struck
    }

    /// A fault as it was given, with what it has done.
    pub fn fault_json(&self, at: usize, given: Map<String, Value>) -> Value {
        let mut shown = Map::from_iter([("number".to_owned(), json!(at + 1))]);
        shown.extend(given);
        let is_in_force = self.in_force.iter().any(|found| found.fault == at);
        shown.insert("in_force".to_owned(), is_in_force.into());
        shown.insert("fired".to_owned(), self.schedule.last_fired(at).into());
        shown.insert("struck".to_owned(), self.struck[at].0.into());
        shown.insert("frames".to_owned(), self.struck[at].1.into());
        shown.into()
    }
}
