//! The plan that runs, and what everybody must know of it.
//!
//! The hubs' sequencers note every batch here while a plan runs, with the faults that are in force; shards take these
//! notes up to what they have drained, so all of them know of each frame at which tick it was published. Without a plan
//! all that anybody does is one relaxed load of [`FaultBoard::running`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::batch_notes::{BatchNotes, ClockPlace, NotedHub, PlannedBatch};
use super::draw::ClientIdentity;
use super::fault_entry::{FaultDetail, FaultEntry};
use super::fault_plan::{FaultAction, FaultKind, FaultPlan};
use super::schedule::{InForce, Schedule};

/// Clients that are numbered, and whose requests are counted.
const CLIENTS: usize = 65_536;

/// Whose batches are the plan's ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TickSource {
    /// Batches of this hub.
    pub hub: NotedHub,
    /// All of them; else only those of the clock that all share.
    pub is_every_batch: bool,
}

/// A batch as its publisher notes it.
#[derive(Debug, Clone, Copy)]
pub struct NotedBatch {
    /// The id of its first publication. Above `last_id` if it has none.
    pub first_id: u64,
    /// The id of its last publication.
    pub last_id: u64,
    /// Whether it is a tick of the clock that all share.
    pub is_of_clock: bool,
    /// When it was due, ns.
    pub due_ns: u64,
    /// Where the entries of the ledger belong.
    pub place: ClockPlace,
}

/// What a fault has done, over all plans.
#[derive(Debug, Default)]
struct KindCount {
    struck: AtomicU64,
    frames: AtomicU64,
}

/// The plan that runs, if any. Shared by publishers, shards and HTTP.
#[derive(Debug)]
pub struct FaultBoard {
    /// The number of the plan that runs; 0: none.
    running: AtomicU64,
    source: TickSource,
    /// Counts batches and plans, so that a shard need not look when nothing is new.
    news: AtomicU64,
    state: Mutex<BoardState>,
    counts: [KindCount; FaultKind::ALL.len()],
    missed: AtomicU64,
    held_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct BoardState {
    last_plan: u64,
    run: Option<FaultRun>,
    /// How far each shard has struck: the plan, and the position in the notes of each hub.
    struck: Vec<NotedSoFar>,
}

/// A plan under way.
#[derive(Debug)]
struct FaultRun {
    number: u64,
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

/// How much was noted of a plan at some moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NotedSoFar {
    /// Its number.
    pub plan: u64,
    /// Batches of each hub.
    pub positions: [u64; 2],
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

impl Default for FaultBoard {
    /// Its ticks are those of the clock that all share.
    fn default() -> Self {
        Self::new(TickSource { hub: NotedHub::Groups, is_every_batch: false })
    }
}

impl FaultBoard {
    /// Without a plan.
    pub fn new(source: TickSource) -> Self {
        Self {
            running: AtomicU64::new(0),
            source,
            news: AtomicU64::new(0),
            state: Mutex::default(),
            counts: Default::default(),
            missed: AtomicU64::new(0),
            held_bytes: AtomicU64::new(0),
        }
    }

    /// The number of the plan that runs; 0: none.
    pub fn running(&self) -> u64 {
        // Relaxed: whoever sees a plan takes the lock before it looks at anything.
        self.running.load(Ordering::Relaxed)
    }

    /// Changes with each batch that is noted. A batch that a shard has drained is counted in it.
    pub fn news(&self) -> u64 {
        // Relaxed: a shard that has drained a batch has acquired what its publisher did before.
        self.news.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, BoardState> {
        // Whoever panicked under it has left whole values behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a plan, at its tick 0; one that runs ends. The shards must be woken.
    pub fn begin(&self, plan: FaultPlan) {
        let mut state = self.state();
        state.last_plan += 1;
        let number = state.last_plan;
        let faults = plan.faults.len();
        let mut schedule = Schedule::new(Arc::new(plan));
        let first = schedule.in_force();
        let mut run = FaultRun {
            number,
            schedule,
            in_force: Arc::default(),
            place: ClockPlace::default(),
            notes: Default::default(),
            struck: vec![(0, 0); faults],
            sessions: HashMap::new(),
            requests: HashMap::new(),
        };
        run.remember(&first);
        let batch = NotedBatch { first_id: 1, last_id: 0, is_of_clock: true, due_ns: 0, place: run.place };
        run.note(self.source.hub, &batch, true, first.into());
        state.run = Some(run);
        self.news.fetch_add(1, Ordering::Relaxed);
        self.running.store(number, Ordering::Relaxed);
    }

    /// Ends the plan that runs. The shards must be woken.
    pub fn end(&self) {
        self.state().run = None;
        self.running.store(0, Ordering::Relaxed);
    }

    /// Notes a batch. Called by its publisher before it declares the batch published.
    pub fn note(&self, hub: NotedHub, batch: &NotedBatch) {
        let mut state = self.state();
        let Some(run) = &mut state.run else { return };
        self.news.fetch_add(1, Ordering::Relaxed);
        let is_tick = hub == self.source.hub && (batch.is_of_clock || self.source.is_every_batch);
        if is_tick {
            run.schedule.tick(batch.due_ns);
            run.place = batch.place;
            let now = run.schedule.in_force();
            run.remember(&now);
            run.note(hub, batch, true, now.into());
        } else if batch.first_id <= batch.last_id {
            let in_force = Arc::clone(&run.in_force);
            run.note(hub, batch, false, in_force);
        }
    }

    /// The plan with this number, if it runs.
    pub fn plan(&self, number: u64) -> Option<Arc<FaultPlan>> {
        self.state().run_of(number).map(|run| Arc::clone(run.schedule.plan()))
    }

    /// Appends the batches of a hub from a position on, as far as everything up to `drained` has been taken out; returns
    /// the next position.
    pub fn take(
        &self,
        number: u64,
        hub: NotedHub,
        position: u64,
        drained: u64,
        batches: &mut Vec<PlannedBatch>,
    ) -> u64 {
        let mut state = self.state();
        let Some(run) = state.run_of(number) else { return position };
        let (position, missed) = run.notes[hub as usize].take(position, drained, batches);
        self.missed.fetch_add(missed, Ordering::Relaxed);
        position
    }

    /// A shard will follow the plans; returns its number.
    pub fn join(&self) -> usize {
        let struck = &mut self.state().struck;
        struck.push(NotedSoFar::default());
        struck.len() - 1
    }

    /// A shard reports how far it has struck.
    pub fn has_struck(&self, shard: usize, so_far: NotedSoFar) {
        if let Some(struck) = self.state().struck.get_mut(shard) {
            *struck = so_far;
        }
    }

    /// How much was noted of the plan that runs.
    pub fn noted(&self) -> Option<NotedSoFar> {
        let state = self.state();
        let run = state.run.as_ref()?;
        Some(NotedSoFar { plan: run.number, positions: [0, 1].map(|hub| run.notes[hub].noted()) })
    }

    /// Whether every shard has struck so far, or follows a later plan.
    pub fn all_have_struck(&self, noted: NotedSoFar) -> bool {
        let is_there = |struck: &NotedSoFar| {
            let is_as_far = || struck.positions.iter().zip(noted.positions).all(|(struck, noted)| *struck >= noted);
            struck.plan > noted.plan || (struck.plan == noted.plan && is_as_far())
        };
        self.state().struck.iter().all(is_there)
    }

    /// The how-manieth session of its client this one is; 0 if there are more clients than are numbered.
    pub fn number(&self, number: u64, client: ClientIdentity) -> u32 {
        let mut state = self.state();
        let Some(run) = state.run_of(number) else { return 0 };
        let has_room = run.sessions.len() < CLIENTS;
        match run.sessions.get_mut(&client.of_hub) {
            Some(sessions) => {
                *sessions = sessions.wrapping_add(1);
                *sessions
            }
            None if has_room => {
                run.sessions.insert(client.of_hub, 1);
                1
            }
            None => 0,
        }
    }

    /// Counts what a fault of a plan has done.
    pub fn count(&self, number: u64, fault: usize, kind: FaultKind, struck: u64, frames: u64) {
        let counts = &self.counts[kind as usize];
        counts.struck.fetch_add(struck, Ordering::Relaxed);
        counts.frames.fetch_add(frames, Ordering::Relaxed);
        if let Some(run) = self.state().run_of(number) {
            run.struck[fault].0 += struck;
            run.struck[fault].1 += frames;
        }
    }

    /// Whether a request is struck by a fault of this kind, and counts it.
    pub fn strike_request(
        &self,
        kind: FaultKind,
        key: &str,
        hub: Option<&'static str>,
        connection: Option<Uuid>,
    ) -> Option<StruckRequest> {
        let mut state = self.state();
        let run = state.run.as_mut()?;
        let plan = Arc::clone(run.schedule.plan());
        let client = ClientIdentity::new(key, hub.unwrap_or_default());
        let in_force = Arc::clone(&run.in_force);
        let is_meant = |found: &&InForce| {
            let fault = &plan.faults[found.fault];
            fault.action.kind() == kind
                && fault.who.may_be(key, hub.unwrap_or_default(), connection)
                && plan.draws(found.fault, found.fired, client)
        };
        let found = in_force.iter().filter(is_meant).find(|found| run.takes_request(&plan, **found, client))?;
        let (number, tick, place) = (run.number, run.schedule.now().tick, run.place);
        drop(state);
        self.count(number, found.fault, kind, 1, 0);
        let entry = FaultEntry {
            plan: number,
            fault: found.fault + 1,
            kind,
            tick,
            fired: found.fired,
            hub,
            connection,
            user: Some(client.user),
            nth: 0,
            everyone: false,
            frames: Vec::new(),
            detail: FaultDetail::default(),
        };
        Some(StruckRequest { action: plan.faults[found.fault].action.clone(), entry, place })
    }

    /// Clients and requests struck by a kind, and frames, over all plans.
    pub fn totals(&self, kind: FaultKind) -> (u64, u64) {
        let counts = &self.counts[kind as usize];
        (counts.struck.load(Ordering::Relaxed), counts.frames.load(Ordering::Relaxed))
    }

    /// Batches that a shard was too late for.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// Bytes of frames that are held back.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// A shard holds `now` bytes of frames back where it held `before`.
    pub fn count_held(&self, before: u64, now: u64) {
        // Wraps around and back: the sum of all changes is never negative.
        self.held_bytes.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }

    /// The number of the last plan, 0 before the first.
    pub fn last_plan(&self) -> u64 {
        self.state().last_plan
    }

    /// What `GET /faults` answers.
    pub fn shown(&self, shows_keys: bool) -> Map<String, Value> {
        let state = self.state();
        let mut shown = Map::new();
        shown.insert("active".to_owned(), state.run.is_some().into());
        shown.insert("plan".to_owned(), state.last_plan.into());
        let mut faults = Vec::new();
        if let Some(run) = &state.run {
            let (plan, now) = (run.schedule.plan(), run.schedule.now());
            shown.insert("seed".to_owned(), plan.seed.into());
            shown.insert("tick".to_owned(), now.tick.into());
            shown.insert("elapsed_ms".to_owned(), now.elapsed_ms.into());
            for (at, given) in plan.faults_json(shows_keys).into_iter().enumerate() {
                faults.push(run.fault_json(at, given));
            }
        }
        shown.insert("fault".to_owned(), faults.into());
        let struck = |kind: FaultKind| (kind.name().to_owned(), json!(self.totals(kind).0));
        let total: Map<String, Value> =
            FaultKind::ALL.into_iter().map(struck).filter(|(_, count)| *count != json!(0)).collect();
        shown.insert("total".to_owned(), total.into());
        shown
    }
}

impl BoardState {
    fn run_of(&mut self, number: u64) -> Option<&mut FaultRun> {
        self.run.as_mut().filter(|run| run.number == number)
    }
}

impl FaultRun {
    fn note(&mut self, hub: NotedHub, batch: &NotedBatch, is_tick: bool, in_force: Arc<[InForce]>) {
        let NotedBatch { first_id, last_id, .. } = *batch;
        let (tick, place) = (self.schedule.now().tick, self.place);
        self.notes[hub as usize].push(PlannedBatch { first_id, last_id, tick, is_tick, place, in_force });
    }

    /// Keeps what is in force for requests, and for batches that are no ticks.
    fn remember(&mut self, now: &[InForce]) {
        self.in_force = now.iter().map(|found| InForce { is_new: false, ..*found }).collect();
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

    fn fault_json(&self, at: usize, given: Map<String, Value>) -> Value {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::plan_reader::PlanSyntax;

    fn board(plan: &str) -> FaultBoard {
        let board = FaultBoard::default();
        board.begin(FaultPlan::read(plan.as_bytes(), PlanSyntax::Toml).unwrap());
        board
    }

    fn batch(first_id: u64, last_id: u64, is_of_clock: bool) -> NotedBatch {
        let place = ClockPlace { ordinal: first_id, epoch: 1 };
        NotedBatch { first_id, last_id, is_of_clock, due_ns: first_id * 1_000_000, place }
    }

    fn taken(board: &FaultBoard, hub: NotedHub, position: u64, drained: u64) -> (u64, Vec<(u64, u64, bool, usize)>) {
        let mut batches = Vec::new();
        let next = board.take(board.running(), hub, position, drained, &mut batches);
        let shown = |batch: &PlannedBatch| (batch.tick, batch.last_id, batch.is_tick, batch.in_force.len());
        (next, batches.iter().map(shown).collect())
    }

    #[test]
    fn shards_learn_the_tick_of_each_batch_that_they_have_drained() {
        let board = board("[[fault]]\nat = 1\ndo = \"drop\"\n");
        board.note(NotedHub::Groups, &batch(10, 12, true));
        board.note(NotedHub::Groups, &batch(13, 13, false));
        board.note(NotedHub::Streams, &batch(5, 6, false));
        board.note(NotedHub::Groups, &batch(14, 13, true));
        board.note(NotedHub::Groups, &batch(14, 15, true));
        let groups = |position, drained| taken(&board, NotedHub::Groups, position, drained);
        assert_eq!(groups(0, 12), (2, vec![(0, 0, true, 0), (1, 12, true, 1)]));
        assert_eq!(groups(2, 13), (4, vec![(1, 13, false, 1), (2, 13, true, 0)]), "a tick without publications counts");
        assert_eq!(groups(4, 15), (5, vec![(3, 15, true, 0)]));
        assert_eq!(taken(&board, NotedHub::Streams, 0, 99), (1, vec![(1, 6, false, 1)]), "of the same tick");
        board.end();
        assert_eq!((board.running(), groups(5, 99)), (0, (5, vec![])));
    }

    #[test]
    fn a_shard_that_looks_too_late_knows_it() {
        let board = board("");
        for id in 1..=1500 {
            board.note(NotedHub::Groups, &batch(id, id, true));
        }
        let (next, batches) = taken(&board, NotedHub::Groups, 0, u64::MAX);
        assert_eq!((next, batches.len(), board.missed()), (1501, 1024, 477));
    }

    #[test]
    fn it_is_known_when_all_shards_have_struck_at_what_was_noted() {
        let board = FaultBoard::default();
        assert!(board.noted().is_none());
        let shards = [board.join(), board.join()];
        board.begin(FaultPlan::read(b"", PlanSyntax::Toml).unwrap());
        board.note(NotedHub::Groups, &batch(1, 1, true));
        let noted = board.noted().unwrap();
        assert_eq!(noted, NotedSoFar { plan: 1, positions: [2, 0] });
        board.has_struck(shards[0], noted);
        assert!(!board.all_have_struck(noted));
        board.note(NotedHub::Groups, &batch(2, 2, true));
        board.has_struck(shards[1], NotedSoFar { plan: 1, positions: [3, 0] });
        assert!(board.all_have_struck(noted), "what came later is not asked for");
        assert!(!board.all_have_struck(board.noted().unwrap()));
        board.has_struck(shards[0], NotedSoFar { plan: 2, positions: [0, 0] });
        assert!(board.all_have_struck(noted), "it has left that plan behind");
    }

    #[test]
    fn each_client_has_its_share_of_refusals() {
        let board = board("[[fault]]\nat = 0\ntimes = 2\ndo = \"refuse-upgrade\"\nwho = { key = \"k*\" }\n");
        let refused = |key| board.strike_request(FaultKind::RefuseUpgrade, key, Some("orderflow"), None).is_some();
        assert_eq!(["k1", "k1", "k2", "k1", "x"].map(refused), [true, true, true, false, false]);
        assert!(board.strike_request(FaultKind::RefuseNegotiate, "k3", None, None).is_none());
        assert_eq!(board.totals(FaultKind::RefuseUpgrade), (3, 0));
        let shown = board.shown(false);
        assert_eq!((&shown["fault"][0]["struck"], &shown["total"]), (&json!(3), &json!({"refuse-upgrade": 3})));
    }

    #[test]
    fn the_sessions_of_a_client_are_numbered() {
        let board = board("");
        let number = |key, hub| board.number(1, ClientIdentity::new(key, hub));
        assert_eq!([number("a", "x"), number("a", "x"), number("a", "y"), number("b", "x")], [1, 2, 1, 1]);
    }

    #[test]
    fn a_new_plan_begins_at_its_own_tick_0() {
        let board = board("");
        board.note(NotedHub::Groups, &batch(1, 1, true));
        board.begin(FaultPlan::read(b"seed = 3", PlanSyntax::Toml).unwrap());
        let shown = board.shown(false);
        assert_eq!((&shown["plan"], &shown["tick"], &shown["seed"]), (&json!(2), &json!(0), &json!(3)));
        assert!(board.plan(1).is_none() && board.plan(2).is_some());
    }
}
