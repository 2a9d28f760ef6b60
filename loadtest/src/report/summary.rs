//! The verdicts, and the figures people look for.

use serde::{Deserialize, Serialize};

use super::facts::Facts;
use crate::clock::SECOND;
use crate::reference::Source;
use crate::stats::histogram::{self, Pairs, Percentiles};
use crate::verify::fault::FaultKind;
use crate::wire::form::Protocol;

/// A worker second is saturated when this share of it was not spent waiting for events.
pub const SATURATED: f64 = 0.95;

/// What may be said about delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Every frame the ledger says a client had to receive was received, once, in order, unchanged.
    Proven,
    /// No fault was found, but the ledger does not cover everything.
    NotVerified,
    /// Something was lost, or a client could not be served.
    Failed,
}

/// What may be said about the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measurement {
    /// The server was measured.
    Valid,
    /// The generator was (also) measured.
    NotValid,
}

/// See the module's documentation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// About delivery.
    pub delivery: Delivery,
    /// About the figures.
    pub measurement: Measurement,
    /// Why not better; empty for a perfect run.
    pub reasons: Vec<String>,
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
        summary.judge_delivery(facts);
        summary.judge_measurement(facts);
        summary.exit_code = match (summary.delivery, summary.measurement) {
            (Delivery::Failed, _) => 1,
            (Delivery::Proven, Measurement::Valid) => 0,
            _ => 3,
        };
        summary
    }

    fn judge_delivery(&mut self, facts: &Facts) {
        let mut failures = Vec::new();
        failures.extend(facts.aborted.clone());
        for kind in FaultKind::ALL {
            if let Some(count) = facts.fault_counts.get(&kind).filter(|&&count| count > 0) {
                failures.push(format!("{count} {}", kind.name()));
            }
        }
        failures.extend(facts.failures.iter().map(|(cause, count)| format!("{count} did not come up: {cause}")));
        // A client that came back was told to cope with drops; what it missed is among the faults.
        let came_back = facts.recovered + facts.reconnected;
        let drops: u64 = facts.drops.values().sum();
        if drops > came_back {
            failures.extend(facts.drops.iter().map(|(cause, count)| format!("{count} dropped: {cause}")));
        }
        if !failures.is_empty() {
            self.delivery = Delivery::Failed;
            self.reasons.append(&mut failures);
            return;
        }
        let mut gaps = Vec::new();
        let is_streams = facts.setup.protocols.contains(&Protocol::Streams);
        match &facts.ledger {
            None if is_streams => gaps.push(
                "messages carry no number that could be missing: they were counted and checked for shape \
                 (--publish-rate and --external-producer make loss visible)"
                    .to_owned(),
            ),
            None => gaps.push("no tick ledger: clients were compared with each other only".to_owned()),
            Some(ledger) => {
                let without: Vec<&str> = facts
                    .setup
                    .channels
                    .iter()
                    .filter(|name| !facts.setup.groups.contains(name))
                    .map(String::as_str)
                    .collect();
                if !without.is_empty() {
                    gaps.push(format!(
                        "messages of {} carry no number: only their shape was checked",
                        without.join(", ")
                    ));
                }
                if is_streams && ledger.publications == 0 {
                    gaps.push("nothing was published".to_owned());
                }
                if ledger.is_foreign_clock {
                    gaps.push("the producer's sent_ns are not of this host's CLOCK_MONOTONIC".to_owned());
                }
                if ledger.lost > 0 {
                    gaps.push(format!("{} ticks were gone from the ledger before they were read", ledger.lost));
                }
                if ledger.is_incomplete {
                    gaps.push(match ledger.source {
                        Source::TickLedger => "the ledger could not be read up to the end".to_owned(),
                        Source::Publisher => "not everything published was heard of in time".to_owned(),
                        Source::Witness => "nothing sent after the end was heard, so the last number heard need \
                                            not be the producer's last (--last-seq says which is)"
                            .to_owned(),
                    });
                }
                if ledger.unhashed > 0 {
                    gaps.push(format!("{} publications have no frame id for this profile", ledger.unhashed));
                }
            }
        }
        if facts.unjudged > 0 {
            gaps.push(format!("{} frames could not be judged", facts.unjudged));
        }
        if facts.verified == 0 && !facts.setup.groups.is_empty() {
            gaps.push("no frame was received".to_owned());
        }
        // Idle connections have nothing to be delivered.
        let is_idle = facts.setup.groups.is_empty() && facts.stream_messages == 0;
        if !gaps.is_empty() && !is_idle {
            self.delivery = Delivery::NotVerified;
            self.reasons.append(&mut gaps);
        }
    }

    fn judge_measurement(&mut self, facts: &Facts) {
        let mut reasons = Vec::new();
        let window = &facts.window;
        if window.saturated * 20 > window.worker_seconds {
            reasons.push(format!(
                "the generator was saturated: in {} of {} worker seconds it was busy for more than 95 %",
                window.saturated, window.worker_seconds
            ));
        }
        if self.starved > 0.1 {
            reasons.push(format!("the generator waited for a processor {:.0} % of the time", self.starved * 100.0));
        }
        let allowed_us = 1_000.0 + self.latency.p99_us * 0.1;
        if self.loop_delay.p99_us > allowed_us {
            reasons.push(format!(
                "the generator's own delay is too large a part: p99 {:.1} ms, allowed {:.1} ms",
                self.loop_delay.p99_us / 1_000.0,
                allowed_us / 1_000.0
            ));
        }
        if !reasons.is_empty() {
            self.measurement = Measurement::NotValid;
            self.reasons.append(&mut reasons);
        }
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
