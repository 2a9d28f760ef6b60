//! The plan that runs, and what everybody must know of it.
//!
//! The hubs' sequencers note every batch here while a plan runs, with the faults that are in force; shards take these
//! notes up to what they have drained, so all of them know of each frame at which tick it was published. Without a plan
//! all that anybody does is one relaxed load of [`FaultBoard::running`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::batch_notes::{NotedBatch, NotedHub, PlannedBatch};
use super::draw::ClientIdentity;
use super::fault_plan::{FaultKind, FaultPlan};
use super::fault_run::{FaultRun, StruckRequest};

/// Whose batches are the plan's ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TickSource {
    /// Batches of this hub.
    pub hub: NotedHub,
    /// All of them; else only those of the clock that all share.
    pub is_every_batch: bool,
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

/// How much was noted of a plan at some moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NotedSoFar {
    /// Its number.
    pub plan: u64,
    /// Batches of each hub.
    pub positions: [u64; 2],
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
        state.run = Some(FaultRun::new(number, plan, self.source.hub));
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
        run.note(hub, batch, is_tick);
    }

    /// The plan with this number, if it runs.
    pub fn plan(&self, number: u64) -> Option<Arc<FaultPlan>> {
        self.state().run_of(number).map(|run| Arc::clone(run.plan()))
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
        let (position, missed) = run.take(hub, position, drained, batches);
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
        Some(NotedSoFar { plan: run.number, positions: run.noted() })
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
        self.state().run_of(number).map_or(0, |run| run.number_session(client))
    }

    /// Counts what a fault of a plan has done.
    pub fn count(&self, number: u64, fault: usize, kind: FaultKind, struck: u64, frames: u64) {
        let counts = &self.counts[kind as usize];
        counts.struck.fetch_add(struck, Ordering::Relaxed);
        counts.frames.fetch_add(frames, Ordering::Relaxed);
        if let Some(run) = self.state().run_of(number) {
            run.count(fault, struck, frames);
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
        let (plan, struck) = {
            let mut state = self.state();
            let run = state.run.as_mut()?;
            (run.number, run.strike_request(kind, key, hub, connection)?)
        };
        self.count(plan, struck.entry.fault - 1, kind, 1, 0);
        Some(struck)
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
            let (plan, now) = (run.plan(), run.now());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::batch_notes::ClockPlace;
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
