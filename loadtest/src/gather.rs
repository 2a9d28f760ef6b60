//! Puts what workers, ledger and machine have left behind together into the facts of a run.

use std::collections::{BTreeMap, BTreeSet};

use hdrhistogram::Histogram;

use crate::cli::{RunArgs, shown};
use crate::collect::Collector;
use crate::ledger::epochs::{EpochRecord, Epochs};
use crate::orders::outcome::OrderFacts;
use crate::plan::{Class, Plan};
use crate::preflight::Preflight;
use crate::report::adding_up::merge_orders;
use crate::report::facts::{EpochFacts, Facts, LedgerFacts, Machine, OwnMemory, Receipts, ServerUsage, Setup};
use crate::stats::histogram::{self, Pairs};
use crate::verify::fault::{Fault, FaultKind};
use crate::wire::form::Protocol;
use crate::worker::tally::{Settled, Tally, WorkerResult};

/// What the threads of a run have left behind.
pub struct CrewOutcome {
    /// One per worker.
    pub results: Vec<WorkerResult>,
    /// The run, second by second.
    pub collector: Collector,
    /// What is known of what was published.
    pub ledger: Option<LedgerFacts>,
    /// The epochs of the replay's clock.
    pub epochs: Epochs,
    /// Why the run ended early, if it did.
    pub aborted: Option<String>,
    /// Start of the run, Unix milliseconds.
    pub started_unix_ms: u64,
    /// The measured time, on the monotonic clock.
    pub window_ns: (u64, u64),
    /// Clients up at the end.
    pub up_at_end: u64,
}

/// That, and what main has seen itself.
pub struct RunOutcome {
    /// What the threads have left behind.
    pub crew: CrewOutcome,
    /// How long the ramp took.
    pub ramp_ns: u64,
    /// The generator's memory.
    pub memory: OwnMemory,
    /// The server's use, if its process was named.
    pub server: Option<ServerUsage>,
}

/// Puts everything together.
pub fn facts(args: &RunArgs, plan: &Plan, preflight: Preflight, outcome: RunOutcome) -> Facts {
    let RunOutcome { crew: outcome, ramp_ns, memory, server } = outcome;
    let total = Total::of(outcome.results);
    let tally = total.tally;
    let window_seconds = outcome.collector.window();
    let mut window = outcome.collector.totals;
    (window.from_ns, window.until_ns) = outcome.window_ns;
    let ledger = outcome.ledger.map(|facts| LedgerFacts {
        is_incomplete: tally.ledger_incomplete,
        unhashed: total.settled.unhashed,
        ..facts
    });
    let mut faults = total.faults;
    let epochs = epochs(&outcome.epochs, &total.settled, &faults);
    let mut notes = preflight.notes;
    if outcome.epochs.dropped > 0 {
        notes.push(format!("{} further epochs of the clock are not listed", outcome.epochs.dropped));
    }
    for fault in &mut faults {
        if plan.hubs.len() > 1 {
            fault.hub.clone_from(&plan.hubs[plan.hub_of(fault.client) as usize].name);
        }
        fault.client = plan.client_of(fault.client);
    }
    if plan.protocols.contains(&Protocol::Streams) {
        // The number stands in for a record time, and says nothing twice.
        for fault in &mut faults {
            fault.record_timestamp = None;
        }
    }
    Facts {
        setup: setup(args, plan, total.attentive),
        machine: machine(),
        started_unix_ms: outcome.started_unix_ms,
        notes,
        aborted: outcome.aborted,
        ledger,
        verified: total.verified,
        unjudged: total.unjudged,
        silent: total.silent.into_iter().flatten().map(|group| plan.groups[group as usize].clone()).collect(),
        fault_counts: total.fault_counts,
        faults,
        recovered: tally.recovered,
        reconnected: tally.reconnected,
        resets: tally.resets,
        resent: tally.resent,
        skipped: tally.skipped,
        epochs,
        orders: total.orders,
        stream_messages: tally.stream_messages,
        connect: Pairs::of(&tally.setup),
        shed: Pairs::of(&tally.shed),
        shed_causes: tally.shed_causes.into_map(),
        failures: tally.failures.into_map(),
        drops: tally.drops.into_map(),
        up_at_end: outcome.up_at_end,
        ramp_ns,
        latency: Pairs::of(&total.latency),
        loop_delay: Pairs::of(&outcome.collector.loop_delay),
        ticks: total.settled.ticks,
        window,
        window_seconds,
        seconds: outcome.collector.seconds,
        receipts: total.receipts,
        memory,
        server,
    }
}

fn setup(args: &RunArgs, plan: &Plan, attentive: u64) -> Setup {
    Setup {
        command: shown(std::env::args()),
        claim: args.claim,
        target: shown(std::iter::once(args.url.clone())).concat(),
        profile: plan.profile,
        protocols: plan.protocols.clone(),
        groups: plan.groups.clone(),
        channels: plan.channels.clone(),
        groups_per_connection: match plan.groups_per_client {
            0 => plan.groups.len() as u32,
            each => each.min(plan.groups.len() as u32),
        },
        hubs: plan.hubs.iter().map(|hub| hub.name.clone()).collect(),
        connections: u64::from(plan.clients),
        sockets: u64::from(plan.connections()),
        attentive,
        ramp: u64::from(plan.ramp),
        processes: 1,
        workers: u64::from(plan.workers),
    }
}

/// What was published in each epoch, and what became of it.
fn epochs(epochs: &Epochs, settled: &Settled, faults: &[Fault]) -> Vec<EpochFacts> {
    let of = |record: &EpochRecord| {
        let copies = settled.epochs.of(record.number);
        let since =
            |at_ns: u64| (at_ns > 0 && record.opened_ns > 0).then(|| at_ns.saturating_sub(record.opened_ns) / 1_000);
        let opening = record.opening.clone();
        EpochFacts {
            number: record.number,
            cause: opening.as_ref().map(|opening| opening.cause.clone()).unwrap_or_default(),
            from: opening.as_ref().and_then(|opening| opening.from.clone()),
            to: opening.and_then(|opening| opening.to),
            ticks: record.ticks,
            publications: record.publications,
            frames: copies.frames,
            faults: faults.iter().filter(|fault| fault.epoch == Some(record.number)).count() as u64,
            to_first_copy_us: since(copies.first_ns),
            to_last_copy_us: since(copies.last_ns),
        }
    };
    epochs.list.iter().map(of).collect()
}

/// What all workers have counted.
struct Total {
    tally: Tally,
    settled: Settled,
    orders: Option<OrderFacts>,
    receipts: Receipts,
    verified: u64,
    unjudged: u64,
    latency: Histogram<u64>,
    fault_counts: BTreeMap<FaultKind, u64>,
    faults: Vec<Fault>,
    attentive: u64,
    // Groups that were silent for all workers; none before the first.
    silent: Option<BTreeSet<u32>>,
}

impl Total {
    fn of(results: Vec<WorkerResult>) -> Self {
        let mut total = Self {
            tally: Tally::default(),
            settled: Settled::default(),
            orders: None,
            receipts: Receipts::default(),
            verified: 0,
            unjudged: 0,
            latency: histogram::new(),
            fault_counts: BTreeMap::new(),
            faults: Vec::new(),
            attentive: 0,
            silent: None,
        };
        for result in results {
            total.add(result);
        }
        total
    }

    fn add(&mut self, result: WorkerResult) {
        self.tally.merge(&result.tally);
        self.settled.merge(&result.settled);
        self.orders = merge_orders(self.orders.take(), result.orders);
        // All histograms of the swarm have the same bounds, so adding cannot fail.
        let _ = self.latency.add(&result.latency);
        self.verified += result.verified;
        self.unjudged += result.unjudged;
        let mut silent: BTreeSet<u32> = result.silent.into_iter().collect();
        silent.retain(|group| self.silent.as_ref().is_none_or(|others| others.contains(group)));
        self.silent = Some(silent);
        let (counts, listed) = result.faults.into_parts();
        for (kind, count) in counts {
            *self.fault_counts.entry(kind).or_default() += count;
        }
        self.faults.extend(listed);
        for (_, _, receipt) in result.receipts.into_iter().filter(|(_, class, _)| *class == Class::Attentive) {
            self.attentive += 1;
            self.receipts.frames.push(receipt.frames);
            if receipt.timed > 0 {
                self.receipts.mean_us.push(receipt.latency_sum_ns as f64 / receipt.timed as f64 / 1e3);
                self.receipts.max_us.push(receipt.latency_max_ns as f64 / 1e3);
            }
        }
    }
}

fn machine() -> Machine {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    Machine {
        processor: model.map_or("unknown processor", |(_, name)| name.trim()).to_owned(),
        processors: std::thread::available_parallelism().map_or(1, |count| count.get() as u64),
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
    }
}
