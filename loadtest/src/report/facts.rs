//! Everything a run has found out, in a form that adds up: over workers, processes and hosts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cli::Claim;
use crate::ledger::offset::Offset;
use crate::orders::outcome::OrderFacts;
use crate::stats::histogram::Pairs;
use crate::stats::ticks::Ticks;
use crate::verify::fault::{Fault, FaultKind};
use crate::wire::form::{Profile, Protocol};

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
    /// The name of a group in a fault.
    pub fn group_name(&self, number: u32) -> &str {
        self.setup.groups.get(number as usize).map_or("?", String::as_str)
    }
}
