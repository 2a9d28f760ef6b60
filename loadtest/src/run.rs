//! One run in one process: start the workers, wait for the ramp, measure, end, collect the facts.
//!
//! Main only waits and looks at gauges; every wait has a deadline.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::cli::RunArgs;
use crate::clock::{MILLISECOND, SECOND, now_ns, unix_ns};
use crate::collect::Collector;
use crate::gather::{self, CrewOutcome};
use crate::ledger::follow::Event;
use crate::live::{Live, Progress};
use crate::negotiate::NegotiationPool;
use crate::plan::Plan;
use crate::preflight::{Preflight, PreflightError, preflight};
use crate::reference::{Tracker, TrackerError};
use crate::report::facts::{Facts, OwnMemory, ServerUsage};
use crate::stats::interval::Interval;
use crate::stats::procfs::{self, Usage};
use crate::worker::shared::{Finish, Shared};
use crate::worker::tally::WorkerResult;
use crate::worker::{self, Worker, WorkerError};

/// Between two looks at the gauges.
const LOOK: Duration = Duration::from_millis(50);

/// Time for the last tick to enter the ledger before it is asked how far it goes.
const LEDGER_SETTLES: Duration = Duration::from_millis(100);

/// How late the last measured tick may be published.
const LATE_TICK: Duration = Duration::from_millis(100);

/// What workers may take to conclude after their deadline.
const CONCLUDE: Duration = Duration::from_secs(30);

/// How long all clients may be gone before the run gives up.
const ALL_GONE_NS: u64 = 2 * SECOND;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The run cannot begin.
    #[error("{0}")]
    Preflight(#[from] PreflightError),
    /// What says what was published cannot start.
    #[error("{0}")]
    Tracker(#[from] TrackerError),
    /// A worker cannot start.
    #[error("{0}")]
    Worker(#[from] WorkerError),
    /// A worker has not handed over its result: a bug in the swarm.
    #[error("a worker did not end in time")]
    Stuck,
}

/// Runs to the end and returns what was found out.
pub fn run(args: &RunArgs) -> Result<Facts, RunError> {
    let mut preflight = preflight(args)?;
    let plan = Arc::new(preflight.plan.clone());
    let mut live = Live::new(args.output.quiet, args.child);
    preflight.notes.iter().for_each(|note| live.note(note));
    let before_bytes = resident_bytes();
    let crew = Crew::start(&plan, &mut preflight, args)?;
    let mut supervisor = Supervisor { args, plan: &plan, crew, live: &mut live, aborted: None };
    let server = ServerWatch::new(args.server_pid);
    supervisor.ramp();
    let ramp_ns = now_ns() - supervisor.crew.shared.start_ns;
    let memory = OwnMemory { before_bytes, up_bytes: resident_bytes(), up: supervisor.up() };
    let server = supervisor.measure(&server)?;
    let crew = supervisor.finish()?;
    live.clear();
    Ok(gather::facts(args, &plan, preflight, gather::RunOutcome { crew, ramp_ns, memory, server }))
}

/// The threads of a run and the channels to them.
struct Crew {
    shared: Arc<Shared>,
    results: Receiver<WorkerResult>,
    collector: Collector,
    tracker: Tracker,
    started_unix_ms: u64,
}

impl Crew {
    fn start(plan: &Arc<Plan>, preflight: &mut Preflight, args: &RunArgs) -> Result<Self, RunError> {
        let (interval_sink, intervals) = channel();
        let (result_sink, results) = channel();
        let ledgers: (Vec<Sender<Event>>, Vec<Receiver<Event>>) = (0..plan.workers).map(|_| channel()).unzip();
        // The ledger first: whatever any client receives will be in it.
        let (tracker, heard_numbers) = Tracker::start(preflight.reference.take(), &preflight.trust, plan, ledgers.0)?;
        // A moment ahead, so that all workers are waiting when the first second begins.
        let shared = Arc::new(Shared::new(plan.workers, now_ns() + 20 * MILLISECOND));
        let started_unix_ms = unix_ns() / MILLISECOND;
        for (number, ledger) in (0..).zip(ledgers.1) {
            let negotiations = match &preflight.negotiator {
                Some(negotiator) => NegotiationPool::start(negotiator, args.negotiators).map_err(WorkerError::from)?,
                None => NegotiationPool::fixed(preflight.grant.clone()),
            };
            let setup = worker::WorkerSetup {
                number,
                plan: Arc::clone(plan),
                shared: Arc::clone(&shared),
                negotiations,
                trust: preflight.trust.clone(),
                ledger,
                intervals: Sender::<Interval>::clone(&interval_sink),
                heard_numbers: heard_numbers.clone(),
            };
            let worker = Worker::new(setup)?;
            let sink = result_sink.clone();
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    // Main waits for the result unless it has given up.
                    let _ = sink.send(worker.run());
                })
                .map_err(WorkerError::from)?;
        }
        Ok(Self { shared, results, collector: Collector::new(intervals, plan.workers), tracker, started_unix_ms })
    }
}

struct Supervisor<'a> {
    args: &'a RunArgs,
    plan: &'a Plan,
    crew: Crew,
    live: &'a mut Live,
    aborted: Option<String>,
}

impl Supervisor<'_> {
    fn up(&self) -> u64 {
        self.crew.shared.gauges.iter().map(|gauge| u64::from(gauge.up.load(Relaxed))).sum()
    }

    fn failed(&self) -> u64 {
        self.crew.shared.gauges.iter().map(|gauge| gauge.failed.load(Relaxed)).sum()
    }

    fn arrived(&self) -> u64 {
        self.crew.shared.gauges.iter().map(|gauge| u64::from(gauge.arrived.load(Relaxed))).sum()
    }

    /// Waits until every connection has come up or failed to.
    fn ramp(&mut self) {
        let deadline_ns = now_ns() + self.plan.ramp_deadline().as_nanos() as u64;
        loop {
            self.look("ramp");
            let connections = u64::from(self.plan.connections());
            let failed = self.failed();
            if failed * 2 >= connections {
                self.aborted =
                    Some(format!("{failed} of {connections} connections did not come up: the run was ended"));
                return;
            }
            if self.arrived() >= connections {
                return;
            }
            if now_ns() >= deadline_ns {
                self.aborted = Some(format!(
                    "only {} of {connections} connections came up within {:?}: the run was ended",
                    self.up(),
                    self.plan.ramp_deadline()
                ));
                return;
            }
        }
    }

    /// Measures for the time asked for, in whole seconds of the run.
    fn measure(&mut self, server: &ServerWatch) -> Result<Option<ServerUsage>, RunError> {
        if self.aborted.is_some() {
            return Ok(None);
        }
        self.crew.tracker.begin()?;
        let start_ns = self.crew.shared.start_ns;
        let from = now_ns().saturating_sub(start_ns) / SECOND + 1;
        let until = from + self.args.duration.as_nanos().div_ceil(u128::from(SECOND)) as u64;
        self.crew.collector.measure(from, until);
        let (from_ns, until_ns) = (start_ns + from * SECOND, start_ns + until * SECOND);
        // Set once, here.
        let _ = self.crew.shared.window_ns.set((from_ns, until_ns));
        let mut begin = None;
        let mut gone_since_ns = None;
        while now_ns() < until_ns {
            let remaining = Duration::from_nanos(until_ns.saturating_sub(now_ns()));
            self.look_for("measure", remaining.min(LOOK));
            if begin.is_none() && now_ns() >= from_ns {
                begin = Some(server.usage());
            }
            if let Some(error) = self.crew.tracker.error() {
                self.aborted = Some(error);
                break;
            }
            // Counted from the first look that finds nobody: main itself may not have run for a while.
            if self.up() > 0 || self.plan.reconnects {
                gone_since_ns = None;
            } else if now_ns() > *gone_since_ns.get_or_insert_with(now_ns) + ALL_GONE_NS {
                self.aborted = Some("all connections are gone: the run was ended".to_owned());
                break;
            }
        }
        Ok(server.used_since(begin.flatten()))
    }

    /// Ends the run: everything published until now must arrive within the drain time.
    fn finish(mut self) -> Result<CrewOutcome, RunError> {
        let window_ns = self.crew.shared.window_ns.get().copied().unwrap_or_default();
        let window_ns = (window_ns.0, window_ns.1.min(now_ns()));
        self.crew.tracker.end();
        self.aborted = self.aborted.take().or_else(|| self.crew.tracker.error());
        // The last measured tick may be published a little late: it still counts.
        self.look_for("finish", LATE_TICK);
        let cut_ns = now_ns();
        let up_at_end = self.up();
        let drain_ns = self.args.drain.as_nanos() as u64;
        self.look_for("finish", LEDGER_SETTLES);
        while !self.crew.tracker.covers(cut_ns) && self.aborted.is_none() && now_ns() < cut_ns + drain_ns {
            self.look("finish");
        }
        let ledger_seq = self.crew.tracker.reach(cut_ns);
        let finish = Finish { cut_ns, ledger_seq, deadline_ns: now_ns() + drain_ns };
        // Set once, here.
        let _ = self.crew.shared.finish.set(finish);
        let mut results = Vec::new();
        let deadline_ns = finish.deadline_ns + CONCLUDE.as_nanos() as u64;
        while results.len() < self.plan.workers as usize {
            match self.crew.results.recv_timeout(LOOK) {
                Ok(result) => results.push(result),
                Err(RecvTimeoutError::Timeout) if now_ns() < deadline_ns => self.look_for("finish", Duration::ZERO),
                Err(_) => {
                    self.crew.shared.abort.store(true, Relaxed);
                    return Err(RunError::Stuck);
                }
            }
        }
        self.crew.tracker.stop();
        self.crew.collector.finish();
        Ok(CrewOutcome {
            results,
            collector: self.crew.collector,
            epochs: self.crew.tracker.epochs(),
            ledger: self.crew.tracker.facts(),
            aborted: self.aborted,
            started_unix_ms: self.crew.started_unix_ms,
            window_ns,
            up_at_end,
        })
    }

    fn look(&mut self, stage: &str) {
        self.look_for(stage, LOOK);
    }

    /// Waits a little and shows how things are.
    fn look_for(&mut self, stage: &str, wait: Duration) {
        thread::sleep(wait);
        self.crew.collector.poll();
        let last = self.crew.collector.seconds.last();
        self.live.show(&Progress {
            stage: stage.to_owned(),
            up: self.up(),
            connections: u64::from(self.plan.connections()),
            frames_per_s: last.map_or(0, |second| second.frames),
            p99_us: last.map_or(0.0, |second| second.p99_us),
            loop_p99_us: last.map_or(0.0, |second| second.loop_p99_us),
            faults: last.map_or(0, |second| second.faults),
            failures: last.map_or(0, |second| second.failures),
        });
    }
}

/// The server's process, if it was named.
struct ServerWatch {
    pid: Option<String>,
    before: Usage,
}

impl ServerWatch {
    fn new(pid: Option<u32>) -> Self {
        let pid = pid.map(|pid| pid.to_string());
        let before = pid.as_deref().and_then(procfs::usage).unwrap_or_default();
        Self { pid, before }
    }

    fn usage(&self) -> Option<Usage> {
        procfs::usage(self.pid.as_deref()?)
    }

    fn used_since(&self, begin: Option<Usage>) -> Option<ServerUsage> {
        let (begin, end) = (begin?, self.usage()?);
        Some(ServerUsage {
            cpu_ns: end.cpu_ns.saturating_sub(begin.cpu_ns),
            before_bytes: self.before.resident_bytes,
            end_bytes: end.resident_bytes,
        })
    }
}

fn resident_bytes() -> u64 {
    procfs::usage("self").map_or(0, |usage| usage.resident_bytes)
}
