//! The verdicts, and the figures people look for.

use serde::{Deserialize, Serialize};

use super::facts::Facts;
use super::judge;
use super::verdict::{Delivery, Measurement};
use crate::cli::Claim;
use crate::clock::SECOND;
use crate::stats::histogram::{self, Pairs, Percentiles};

/// See the module's documentation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// About delivery.
    pub delivery: Delivery,
    /// About the figures.
    pub measurement: Measurement,
    /// Why the run does not prove what it claims; empty for a perfect run.
    pub reasons: Vec<String>,
    /// Why the latencies are not valid, when the run does not claim them.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// What the process exits with.
    pub exit_code: u8,
    /// Faults in all.
    pub faults: u64,
    /// Length of the measured time.
    pub measured_s: f64,
    /// Connections per second while ramping.
    pub ramp_per_s: f64,
    /// From connecting to the last join's ack.
    pub connect: Percentiles,
    /// From scheduled tick to receipt.
    pub latency: Percentiles,
    /// From the first to the last copy of a tick.
    pub spread: Percentiles,
    /// From scheduled tick to its last copy.
    pub last_copy: Percentiles,
    /// From scheduled tick to publication, as the ledger has it.
    pub drift: Percentiles,
    /// From coming up to being dropped, for stalled and slow clients.
    pub shed: Percentiles,
    /// Data frames per second.
    pub frames_per_s: f64,
    /// Bytes per second.
    pub bytes_per_s: f64,
    /// Frames found right per CPU second of the workers.
    pub verified_per_cpu_s: f64,
    /// Share of frames that had to be decoded.
    pub decoded_share: f64,
    /// Frames per read.
    pub frames_per_read: f64,
    /// The receive loops' own delay.
    pub loop_delay: Percentiles,
    /// Share of the workers' time not spent waiting for events.
    pub busy: f64,
    /// Share of the workers' time spent waiting for a processor.
    pub starved: f64,
    /// The client with the fewest frames.
    pub fewest_frames: u64,
    /// The client with the most.
    pub most_frames: u64,
    /// Their ratio; 1 is fair.
    pub fairness: f64,
    /// Resident memory of the generator per connection.
    pub bytes_per_connection: f64,
    /// Frames per CPU second of the server, where its process was named.
    pub frames_per_server_cpu_s: Option<f64>,
    /// Share of one processor the server used.
    pub server_cpu: Option<f64>,
}

impl Summary {
    /// Draws the conclusions.
    pub fn of(facts: &Facts) -> Self {
        let window = &facts.window;
        let measured_s = window.until_ns.saturating_sub(window.from_ns) as f64 / SECOND as f64;
        let latency = percentiles(&facts.latency);
        let loop_delay = percentiles(&facts.loop_delay);
        let (spread, last_copy, drift) = tick_percentiles(facts);
        let fewest = facts.receipts.frames.iter().copied().min().unwrap_or_default();
        let most = facts.receipts.frames.iter().copied().max().unwrap_or_default();
        let memory = &facts.memory;
        let mut summary = Self {
            delivery: Delivery::Proven,
            measurement: Measurement::Valid,
            reasons: Vec::new(),
            warnings: Vec::new(),
            exit_code: 0,
            faults: facts.fault_counts.values().sum(),
            measured_s,
            ramp_per_s: ratio(facts.memory.up as f64, facts.ramp_ns as f64 / SECOND as f64),
            connect: percentiles(&facts.connect),
            latency,
            spread,
            last_copy,
            drift,
            shed: percentiles(&facts.shed),
            frames_per_s: ratio(window.frames as f64, measured_s),
            bytes_per_s: ratio(window.bytes as f64, measured_s),
            verified_per_cpu_s: ratio(window.verified as f64, window.cpu_ns as f64 / SECOND as f64),
            decoded_share: ratio(window.decoded as f64, window.frames as f64),
            frames_per_read: ratio(window.frames as f64, window.reads as f64),
            loop_delay,
            busy: ratio(window.busy_ns as f64, window.worker_ns as f64),
            starved: ratio(window.starved_ns as f64, window.worker_ns as f64),
            fewest_frames: fewest,
            most_frames: most,
            fairness: ratio(fewest as f64, most as f64),
            bytes_per_connection: ratio(memory.up_bytes.saturating_sub(memory.before_bytes) as f64, memory.up as f64),
            frames_per_server_cpu_s: facts
                .server
                .as_ref()
                .map(|server| ratio(window.frames as f64, server.cpu_ns as f64 / SECOND as f64)),
            server_cpu: facts.server.as_ref().map(|server| ratio(server.cpu_ns as f64 / SECOND as f64, measured_s)),
        };
        let delivery = judge::delivery(facts);
        let measurement = judge::measurement(window, summary.starved, &summary.latency, &summary.loop_delay);
        summary.delivery = delivery.verdict;
        summary.measurement = measurement.verdict;
        summary.reasons = delivery.reasons;
        match facts.setup.claim {
            Claim::Latency => summary.reasons.extend(measurement.reasons),
            Claim::Delivery => summary.warnings = measurement.reasons,
        }
        summary.exit_code = judge::exit_code(facts.setup.claim, summary.delivery, summary.measurement);
        summary
    }
}

/// Spread, time to the last copy, and drift over the ticks due in the measured time.
fn tick_percentiles(facts: &Facts) -> (Percentiles, Percentiles, Percentiles) {
    let (mut spread, mut last_copy, mut drift) = (histogram::new(), histogram::new(), histogram::new());
    for tick in facts.ticks.due_in(facts.window.from_ns, facts.window.until_ns) {
        histogram::record(&mut spread, tick.last_ns.saturating_sub(tick.first_ns), 1);
        histogram::record(&mut last_copy, tick.last_ns.saturating_sub(tick.scheduled_ns), 1);
        histogram::record(&mut drift, tick.published_ns.saturating_sub(tick.scheduled_ns), 1);
    }
    (Percentiles::of(&spread), Percentiles::of(&last_copy), Percentiles::of(&drift))
}

fn percentiles(pairs: &Pairs) -> Percentiles {
    let mut histogram = histogram::new();
    pairs.add_to(&mut histogram);
    Percentiles::of(&histogram)
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

#[cfg(test)]
#[path = "summary_tests.rs"]
pub(crate) mod tests;
