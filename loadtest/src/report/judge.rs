//! The rules by which facts become verdicts.

use super::facts::{Evidence, Facts, LedgerFacts, Window};
use super::verdict::{Delivery, Measurement};
use crate::cli::Claim;
use crate::stats::histogram::Percentiles;
use crate::verify::fault::FaultKind;
use crate::wire::form::Protocol;

/// A worker second is saturated when this share of it was not spent waiting for events.
pub const SATURATED: f64 = 0.95;

/// Problems with orders that are told on the terminal.
const SHOWN_PROBLEMS: usize = 20;

/// A verdict, and why it is not better.
pub struct Judged<V> {
    /// The verdict.
    pub verdict: V,
    /// Empty for the best verdict.
    pub reasons: Vec<String>,
}

/// What the process exits with: 0 if the run proves what it claims.
pub fn exit_code(claim: Claim, delivery: Delivery, measurement: Measurement) -> u8 {
    match (claim, delivery, measurement) {
        (_, Delivery::Failed, _) => 1,
        (_, Delivery::Proven, Measurement::Valid) | (Claim::Delivery, Delivery::Proven, _) => 0,
        _ => 3,
    }
}

/// Whether every client received everything.
pub fn delivery(facts: &Facts) -> Judged<Delivery> {
    let failures = failures(facts);
    if !failures.is_empty() {
        return Judged { verdict: Delivery::Failed, reasons: failures };
    }
    let gaps = gaps(facts);
    // Idle connections have nothing to be delivered.
    let is_idle = facts.setup.groups.is_empty() && facts.stream_messages == 0;
    if gaps.is_empty() || is_idle {
        return Judged { verdict: Delivery::Proven, reasons: Vec::new() };
    }
    Judged { verdict: Delivery::NotVerified, reasons: gaps }
}

/// What went wrong.
fn failures(facts: &Facts) -> Vec<String> {
    let mut failures: Vec<String> = facts.aborted.iter().cloned().collect();
    for kind in FaultKind::ALL {
        if let Some(count) = facts.fault_counts.get(&kind).filter(|&&count| count > 0) {
            let unordered = if facts.orders.is_some() { " without an order" } else { "" };
            failures.push(format!("{count} {}{unordered}", kind.name()));
        }
    }
    failures.extend(facts.failures.iter().map(|(cause, count)| format!("{count} did not come up: {cause}")));
    if let Some(orders) = &facts.orders {
        failures.extend(orders.problems.iter().take(SHOWN_PROBLEMS).cloned());
        if orders.problem_count > SHOWN_PROBLEMS as u64 {
            failures.push(format!("{} problems with orders in all", orders.problem_count));
        }
    }
    // A client that came back was told to cope with drops; what it missed is among the faults.
    let came_back = facts.recovered + facts.reconnected;
    let drops: u64 = facts.drops.values().sum();
    if drops > came_back || facts.orders.is_some() {
        failures.extend(facts.drops.iter().map(|(cause, count)| format!("{count} dropped: {cause}")));
    }
    failures
}

/// What nobody can vouch for.
fn gaps(facts: &Facts) -> Vec<String> {
    let mut gaps = Vec::new();
    match &facts.ledger {
        None if facts.setup.protocols.contains(&Protocol::Streams) => gaps.push(
            "messages carry no number that could be missing: they were counted and checked for shape \
             (--publish-rate and --external-producer make loss visible)"
                .to_owned(),
        ),
        None => gaps.push("no tick ledger: clients were compared with each other only".to_owned()),
        Some(ledger) => gaps.extend(ledger_gaps(facts, ledger)),
    }
    if facts.unjudged > 0 {
        gaps.push(format!("{} frames could not be judged", facts.unjudged));
    }
    if facts.verified == 0 && !facts.setup.groups.is_empty() {
        gaps.push("no frame was received".to_owned());
    }
    gaps
}

/// What the ledger, or whatever takes its place, does not cover.
fn ledger_gaps(facts: &Facts, ledger: &LedgerFacts) -> Vec<String> {
    let mut gaps = Vec::new();
    let setup = &facts.setup;
    let without: Vec<&str> =
        setup.channels.iter().filter(|name| !setup.groups.contains(name)).map(String::as_str).collect();
    if !without.is_empty() {
        gaps.push(format!("messages of {} carry no number: only their shape was checked", without.join(", ")));
    }
    if setup.protocols.contains(&Protocol::Streams) && ledger.publications == 0 {
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
            Evidence::TickLedger => "the ledger could not be read up to the end".to_owned(),
            Evidence::Publisher => "not everything published was heard of in time".to_owned(),
            Evidence::Witness => "nothing sent after the end was heard, so the last number heard need not be the \
                                  producer's last (--last-seq says which is)"
                .to_owned(),
        });
    }
    if ledger.unhashed > 0 {
        gaps.push(format!("{} frames are of publications without a frame id for this profile", ledger.unhashed));
    }
    gaps
}

/// Whether the figures are the server's, or also the generator's own.
///
/// `starved` is the share of the workers' time spent waiting for a processor.
pub fn measurement(
    window: &Window,
    starved: f64,
    latency: &Percentiles,
    loop_delay: &Percentiles,
) -> Judged<Measurement> {
    let mut reasons = Vec::new();
    if window.saturated * 20 > window.worker_seconds {
        reasons.push(format!(
            "the generator was saturated: in {} of {} worker seconds it was busy for more than 95 %",
            window.saturated, window.worker_seconds
        ));
    }
    if starved > 0.1 {
        reasons.push(format!("the generator waited for a processor {:.0} % of the time", starved * 100.0));
    }
    let allowed_us = 1_000.0 + latency.p99_us * 0.1;
    if loop_delay.p99_us > allowed_us {
        reasons.push(format!(
            "the generator's own delay is too large a part: p99 {:.1} ms, allowed {:.1} ms",
            loop_delay.p99_us / 1_000.0,
            allowed_us / 1_000.0
        ));
    }
    let verdict = if reasons.is_empty() { Measurement::Valid } else { Measurement::NotValid };
    Judged { verdict, reasons }
}
