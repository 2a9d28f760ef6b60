//! Everything a run has found out, in a form that adds up: over workers, processes and hosts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cli::Claim;
use crate::ledger::offset::Offset;
use crate::orders::outcome::OrderFacts;
use crate::stats::histogram::{self, Pairs};
use crate::stats::ticks::Ticks;
use crate::verify::fault::{Fault, FaultKind};
use crate::wire::form::{Profile, Protocol};

/// The most faults a report lists with their place.
const MAX_LISTED: usize = 10_000;

/// What was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// The command line.
    pub command: Vec<String>,
    /// What the run was for; reports from before there was a choice measured latency.
    #[serde(default = "Claim::of_old_reports")]
    pub claim: Claim,
    /// The server.
    pub target: String,
    /// The generation of clients.
    pub profile: Profile,
    /// Protocols, in turn.
    pub protocols: Vec<Protocol>,
    /// Groups of the run, or channels with a sequence; faults refer to them by number.
    pub groups: Vec<String>,
    /// All channels of the stream protocol.
    #[serde(default)]
    pub channels: Vec<String>,
    /// Groups each client joins.
    pub groups_per_connection: u32,
    /// Hubs of the run; a client has a connection to each that its groups belong to.
    #[serde(default)]
    pub hubs: Vec<String>,
    /// Clients.
    pub connections: u64,
    /// Connections of these clients; 0 in reports from before a client could have several.
    #[serde(default)]
    pub sockets: u64,
    /// Clients that count for latency and for "0 lost".
    pub attentive: u64,
    /// New connections per second.
    pub ramp: u64,
    /// Generator processes.
    pub processes: u64,
    /// Receiving threads in all.
    pub workers: u64,
}

/// The machine the generator ran on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// As `/proc/cpuinfo` calls it.
    pub processor: String,
    /// Processors this process may use.
    pub processors: u64,
    /// Kernel release.
    pub kernel: String,
}

/// What a report about delivery is based on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The server's tick ledger.
    #[default]
    TickLedger,
    /// What the swarm published and the server accepted.
    Publisher,
    /// The numbers the swarm heard.
    Witness,
}

/// What is known of what was published.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LedgerFacts {
    /// Who says so.
    #[serde(default)]
    pub source: Evidence,
    /// How its clock relates to ours.
    pub offset: Offset,
    /// Ticks read.
    pub ticks: u64,
    /// Publications in the run's groups.
    pub publications: u64,
    /// Ticks that were gone before they could be read.
    pub lost: u64,
    /// Whether it could not be read up to the end of the run.
    pub is_incomplete: bool,
    /// Whether an external producer's times are of another clock.
    #[serde(default)]
    pub is_foreign_clock: bool,
    /// Frames of publications without a hash for our profile.
    pub unhashed: u64,
}

/// An epoch of the replay's clock: what was published in it, and what clients received of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochFacts {
    /// Its number.
    pub number: u64,
    /// Why it began; empty if that was before the run.
    pub cause: String,
    /// Where the clock stood before.
    pub from: Option<String>,
    /// Where it went on.
    pub to: Option<String>,
    /// Ticks with publications in the run's groups.
    pub ticks: u64,
    /// Publications in the run's groups.
    pub publications: u64,
    /// Copies found right.
    pub frames: u64,
    /// Faults that are listed, of its publications.
    pub faults: u64,
    /// From the jump to the first copy of the epoch's first tick, µs.
    pub to_first_copy_us: Option<u64>,
    /// From the jump to the last one.
    pub to_last_copy_us: Option<u64>,
}

/// Counts over the measured time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Its beginning, on the generator's monotonic clock.
    pub from_ns: u64,
    /// Its end.
    pub until_ns: u64,
    /// Data frames received.
    pub frames: u64,
    /// Data frames found right.
    pub verified: u64,
    /// Data frames that were decoded rather than compared.
    pub decoded: u64,
    /// Bytes received.
    pub bytes: u64,
    /// Reads from sockets.
    pub reads: u64,
    /// CPU time of the workers.
    pub cpu_ns: u64,
    /// Time of the workers not spent waiting for events.
    pub busy_ns: u64,
    /// Time of the workers spent waiting for a processor.
    pub starved_ns: u64,
    /// Worker seconds in all, in ns.
    pub worker_ns: u64,
    /// Worker seconds in which a worker was busy for more than 95 %.
    pub saturated: u64,
    /// Worker seconds.
    pub worker_seconds: u64,
}

/// One second of the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// The second, since the start of the run.
    pub second: u64,
    /// Clients that are up at its end.
    pub up: u64,
    /// Data frames received.
    pub frames: u64,
    /// Bytes received.
    pub bytes: u64,
    /// Half of the latencies are at most this; over several processes the mean, weighted by frames.
    pub p50_us: f64,
    /// 99 % are at most this; over several processes the largest.
    pub p99_us: f64,
    /// The largest latency.
    pub max_us: f64,
    /// The receive loop's own delay.
    pub loop_p99_us: f64,
    /// Share of the workers' time that was not spent waiting for events.
    pub busy: f64,
    /// Faults so far.
    pub faults: u64,
    /// Connections failed or dropped so far.
    pub failures: u64,
}

/// What each attentive client received in the measured time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Receipts {
    /// Data frames, one number per client, in no order.
    pub frames: Vec<u64>,
    /// Mean latency in µs, one number per client with any, in no order.
    pub mean_us: Vec<f64>,
    /// Largest latency in µs, likewise.
    pub max_us: Vec<f64>,
}

/// What the generator used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OwnMemory {
    /// Resident before the first connection.
    pub before_bytes: u64,
    /// Resident with all clients up.
    pub up_bytes: u64,
    /// Clients up then.
    pub up: u64,
}

/// What the server used in the measured time, where its process was named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerUsage {
    /// User and system time.
    pub cpu_ns: u64,
    /// Resident before the first connection.
    pub before_bytes: u64,
    /// Resident at the end of the measured time.
    pub end_bytes: u64,
}

/// See the module's documentation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Facts {
    /// What was asked for.
    pub setup: Setup,
    /// The generator's machine.
    pub machine: Machine,
    /// Start of the run, Unix milliseconds.
    pub started_unix_ms: u64,
    /// What was done to the process, and what the reader should know.
    pub notes: Vec<String>,
    /// Why the run ended early, if it did.
    pub aborted: Option<String>,
    /// The ledger, if there was one.
    pub ledger: Option<LedgerFacts>,
    /// Copies found right over the whole run.
    pub verified: u64,
    /// Copies that could not be judged.
    pub unjudged: u64,
    /// Groups in which nothing was published.
    #[serde(default)]
    pub silent: Vec<String>,
    /// Faults by kind.
    pub fault_counts: BTreeMap<FaultKind, u64>,
    /// Faults with their places.
    pub faults: Vec<Fault>,
    /// Why clients did not come up.
    pub failures: BTreeMap<String, u64>,
    /// Why clients lost their connection.
    pub drops: BTreeMap<String, u64>,
    /// Sessions recovered.
    pub recovered: u64,
    /// New connections after a drop.
    pub reconnected: u64,
    /// Resets by resetting clients.
    pub resets: u64,
    /// Frames that came again after a recovery, as they may.
    pub resent: u64,
    /// Messages that the server told slow clients it left out for them.
    #[serde(default)]
    pub skipped: u64,
    /// What became of the faults that were ordered, where they were expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orders: Option<OrderFacts>,
    /// Epochs of the replay's clock during the run, in order.
    #[serde(default)]
    pub epochs: Vec<EpochFacts>,
    /// Messages of the stream protocol without a number.
    pub stream_messages: u64,
    /// Clients up at the end.
    pub up_at_end: u64,
    /// When the last client came up, in ns from the start.
    pub ramp_ns: u64,
    /// From connecting to the last join's ack.
    pub connect: Pairs,
    /// From scheduled tick to receipt.
    pub latency: Pairs,
    /// The receive loops' own delay.
    pub loop_delay: Pairs,
    /// From coming up to being dropped, for stalled and slow clients.
    pub shed: Pairs,
    /// How they were dropped.
    #[serde(default)]
    pub shed_causes: BTreeMap<String, u64>,
    /// First and last copy of each tick.
    pub ticks: Ticks,
    /// Counts over the measured time.
    pub window: Window,
    /// The measured time in seconds of the run, if the run came so far.
    pub window_seconds: Option<(u64, u64)>,
    /// The run, second by second.
    pub seconds: Vec<Second>,
    /// What each client received.
    pub receipts: Receipts,
    /// The generator's memory.
    pub memory: OwnMemory,
    /// The server's use, if its process was named.
    pub server: Option<ServerUsage>,
}

impl Facts {
    /// Adds the facts of another process or host of the same run.
    pub fn merge(&mut self, other: Self) {
        self.merge_silent(&other);
        self.setup.merge(&other.setup);
        let renumbered = self.take_groups(&other.setup.groups);
        self.started_unix_ms = self.started_unix_ms.min(other.started_unix_ms);
        for note in other.notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
        self.aborted = self.aborted.take().or(other.aborted);
        self.ledger = match (self.ledger.take(), other.ledger) {
            (Some(one), Some(other)) => Some(one.merged(other)),
            // A part without a ledger leaves the whole unproven.
            _ => None,
        };
        self.verified += other.verified;
        self.unjudged += other.unjudged;
        add_map(&mut self.fault_counts, other.fault_counts);
        let room = MAX_LISTED.saturating_sub(self.faults.len());
        self.faults.extend(other.faults.into_iter().take(room).map(|fault| Fault {
            group: renumbered.get(fault.group as usize).copied().unwrap_or(fault.group),
            ..fault
        }));
        add_map(&mut self.failures, other.failures);
        add_map(&mut self.drops, other.drops);
        add_map(&mut self.shed_causes, other.shed_causes);
        self.recovered += other.recovered;
        self.reconnected += other.reconnected;
        self.resets += other.resets;
        self.resent += other.resent;
        self.skipped += other.skipped;
        merge_epochs(&mut self.epochs, other.epochs);
        self.orders = merge_orders(self.orders.take(), other.orders);
        self.stream_messages += other.stream_messages;
        self.up_at_end += other.up_at_end;
        self.ramp_ns = self.ramp_ns.max(other.ramp_ns);
        for (mine, others) in [
            (&mut self.connect, &other.connect),
            (&mut self.latency, &other.latency),
            (&mut self.loop_delay, &other.loop_delay),
            (&mut self.shed, &other.shed),
        ] {
            let mut sum = histogram::new();
            mine.add_to(&mut sum);
            others.add_to(&mut sum);
            *mine = Pairs::of(&sum);
        }
        self.ticks.merge(&other.ticks);
        self.window.merge(&other.window);
        self.window_seconds = match (self.window_seconds, other.window_seconds) {
            (Some(one), Some(other)) => Some((one.0.min(other.0), one.1.max(other.1))),
            (one, other) => one.or(other),
        };
        merge_seconds(&mut self.seconds, other.seconds);
        self.receipts.merge(other.receipts);
        self.memory.before_bytes += other.memory.before_bytes;
        self.memory.up_bytes += other.memory.up_bytes;
        self.memory.up += other.memory.up;
        self.server = self.server.take().or(other.server);
    }

    /// Silent are groups that were silent in every part that has them.
    fn merge_silent(&mut self, other: &Self) {
        let (ours, theirs) = (&self.setup.groups, &other.setup.groups);
        self.silent.retain(|group| !theirs.contains(group) || other.silent.contains(group));
        self.silent.extend(other.silent.iter().filter(|group| !ours.contains(group)).cloned());
    }

    /// Takes over groups of another part; returns their numbers here.
    fn take_groups(&mut self, others: &[String]) -> Vec<u32> {
        let groups = &mut self.setup.groups;
        others
            .iter()
            .map(|name| {
                let known = groups.iter().position(|group| group == name);
                known.unwrap_or_else(|| {
                    groups.push(name.clone());
                    groups.len() - 1
                }) as u32
            })
            .collect()
    }

    /// The name of a group in a fault.
    pub fn group_name(&self, number: u32) -> &str {
        self.setup.groups.get(number as usize).map_or("?", String::as_str)
    }
}

impl Setup {
    /// Takes over the clients of another part. Its groups are renumbered apart from that.
    fn merge(&mut self, other: &Self) {
        self.claim = self.claim.max(other.claim);
        for hub in &other.hubs {
            if !self.hubs.contains(hub) {
                self.hubs.push(hub.clone());
            }
        }
        self.connections += other.connections;
        self.sockets += other.sockets;
        self.attentive += other.attentive;
        self.ramp += other.ramp;
        self.processes += other.processes;
        self.workers += other.workers;
    }
}

impl Receipts {
    fn merge(&mut self, other: Self) {
        self.frames.extend(other.frames);
        self.mean_us.extend(other.mean_us);
        self.max_us.extend(other.max_us);
    }
}

impl LedgerFacts {
    /// All parts of a run read the same ledger, each its own copy of it.
    fn merged(self, other: Self) -> Self {
        let worse = if other.offset.error_ns > self.offset.error_ns { other.offset } else { self.offset };
        Self {
            source: self.source,
            is_foreign_clock: self.is_foreign_clock || other.is_foreign_clock,
            offset: worse,
            ticks: self.ticks.max(other.ticks),
            publications: self.publications.max(other.publications),
            lost: self.lost.max(other.lost),
            is_incomplete: self.is_incomplete || other.is_incomplete,
            unhashed: self.unhashed + other.unhashed,
        }
    }
}

impl Window {
    fn merge(&mut self, other: &Self) {
        // The parts overlap; what is measured is the time that belongs to any.
        self.from_ns = self.from_ns.min(other.from_ns);
        self.until_ns = self.until_ns.max(other.until_ns);
        self.frames += other.frames;
        self.verified += other.verified;
        self.decoded += other.decoded;
        self.bytes += other.bytes;
        self.reads += other.reads;
        self.cpu_ns += other.cpu_ns;
        self.busy_ns += other.busy_ns;
        self.starved_ns += other.starved_ns;
        self.worker_ns += other.worker_ns;
        self.saturated += other.saturated;
        self.worker_seconds += other.worker_seconds;
    }
}

fn add_map<K: Ord>(sum: &mut BTreeMap<K, u64>, other: BTreeMap<K, u64>) {
    for (key, count) in other {
        *sum.entry(key).or_default() += count;
    }
}

/// Each part has its own clients, and their orders.
pub fn merge_orders(one: Option<OrderFacts>, other: Option<OrderFacts>) -> Option<OrderFacts> {
    match (one, other) {
        (Some(mut one), Some(other)) => {
            one.merge(other);
            Some(one)
        }
        (one, other) => one.or(other),
    }
}

/// All parts read the same ledger, and each has its own clients.
fn merge_epochs(sum: &mut Vec<EpochFacts>, other: Vec<EpochFacts>) {
    for theirs in other {
        let Some(mine) = sum.iter_mut().find(|mine| mine.number == theirs.number) else {
            sum.push(theirs);
            continue;
        };
        mine.ticks = mine.ticks.max(theirs.ticks);
        mine.publications = mine.publications.max(theirs.publications);
        mine.frames += theirs.frames;
        mine.faults += theirs.faults;
        mine.to_first_copy_us = mine.to_first_copy_us.into_iter().chain(theirs.to_first_copy_us).min();
        mine.to_last_copy_us = mine.to_last_copy_us.max(theirs.to_last_copy_us);
    }
    sum.sort_by_key(|epoch| epoch.number);
}

/// Processes of a run start together, so their seconds are the same to within the start of a process.
fn merge_seconds(sum: &mut Vec<Second>, other: Vec<Second>) {
    let mut rows: BTreeMap<u64, Second> = sum.drain(..).map(|row| (row.second, row)).collect();
    for row in other {
        let mine = rows.entry(row.second).or_insert_with(|| Second { second: row.second, ..Second::default() });
        let frames = mine.frames + row.frames;
        if frames > 0 {
            mine.p50_us = (mine.p50_us * mine.frames as f64 + row.p50_us * row.frames as f64) / frames as f64;
        }
        mine.frames = frames;
        mine.up += row.up;
        mine.bytes += row.bytes;
        mine.p99_us = mine.p99_us.max(row.p99_us);
        mine.max_us = mine.max_us.max(row.max_us);
        mine.loop_p99_us = mine.loop_p99_us.max(row.loop_p99_us);
        mine.busy = mine.busy.max(row.busy);
        mine.faults += row.faults;
        mine.failures += row.failures;
    }
    sum.extend(rows.into_values());
}
