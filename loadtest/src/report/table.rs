//! The summary as people read it on a terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Report;
use super::verdict::{Delivery, Measurement};
use crate::cli::Claim;
use crate::report::facts::Evidence;
use crate::stats::histogram::Percentiles;

/// How many faults the terminal shows.
const SHOWN_FAULTS: usize = 20;

/// How many groups without data the terminal names.
const SHOWN_SILENT: usize = 5;

/// How many epochs the terminal shows.
const SHOWN_EPOCHS: usize = 12;

/// The table.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_all(&mut text, report);
    text
}

fn write_all(out: &mut String, report: &Report) -> std::fmt::Result {
    let (summary, facts) = (&report.summary, &report.facts);
    writeln!(out)?;
    row(out, "server", &facts.setup.target)?;
    let protocols: Vec<&str> = facts.setup.protocols.iter().map(|protocol| protocol.name()).collect();
    row(
        out,
        "clients",
        &format!(
            "{} ({}), {} of {} groups each, {} process(es), {} worker(s)",
            facts.setup.connections,
            protocols.join(", "),
            facts.setup.groups_per_connection,
            facts.setup.groups.len(),
            facts.setup.processes,
            facts.setup.workers
        ),
    )?;
    if facts.setup.hubs.len() > 1 {
        let hubs = facts.setup.hubs.join(", ");
        row(
            out,
            "connections",
            &format!("{}, each client one per hub: {hubs}", thousands(facts.setup.sockets as f64)),
        )?;
    }
    row(
        out,
        "ramp",
        &format!(
            "{} up in {:.2} s, {:.0} per second; connect to last ack {}",
            facts.memory.up,
            facts.ramp_ns as f64 / 1e9,
            summary.ramp_per_s,
            times(&summary.connect)
        ),
    )?;
    row(out, "measured", &format!("{:.1} s", summary.measured_s))?;
    row(
        out,
        "throughput",
        &format!(
            "{} frames/s, {:.1} MB/s, {:.1} frames per read",
            thousands(summary.frames_per_s),
            summary.bytes_per_s / 1e6,
            summary.frames_per_read
        ),
    )?;
    write_latencies(out, report)?;
    write_clients(out, report)?;
    write_epochs(out, report)?;
    write_orders(out, report)?;
    write_processes(out, report)?;
    if !facts.silent.is_empty() {
        let named = facts.silent.iter().take(SHOWN_SILENT).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if facts.silent.len() > SHOWN_SILENT { ", …" } else { "" };
        let (silent, all) = (facts.silent.len(), facts.setup.groups.len());
        row(out, "silent", &format!("{silent} of {all} groups had nothing published: {named}{more}"))?;
    }
    for note in &facts.notes {
        row(out, "note", note)?;
    }
    verdict(out, report)
}

/// From when to when, and how long it took.
fn write_latencies(out: &mut String, report: &Report) -> std::fmt::Result {
    let (summary, facts) = (&report.summary, &report.facts);
    if summary.latency.count > 0 {
        let from = match facts.ledger.as_ref().map(|ledger| ledger.source) {
            Some(Evidence::TickLedger) => "latency from scheduled tick",
            Some(Evidence::Publisher | Evidence::Witness) => "latency from sent_ns",
            None => "latency from sending time",
        };
        row(out, from, &times(&summary.latency))?;
    }
    if summary.spread.count > 0 {
        row(out, "first to last subscriber", &times(&summary.spread))?;
        let source = facts.ledger.as_ref().map(|ledger| ledger.source).unwrap_or_default();
        let (to_last, drift) = match source {
            Evidence::TickLedger => ("tick to last subscriber", Some("server's drift")),
            Evidence::Publisher => ("sent_ns to last subscriber", Some("publisher's drift")),
            Evidence::Witness => ("sent_ns to last subscriber", None),
        };
        row(out, to_last, &times(&summary.last_copy))?;
        if let Some(drift) = drift {
            row(out, drift, &times(&summary.drift))?;
        }
    }
    Ok(())
}

/// What became of the clients.
fn write_clients(out: &mut String, report: &Report) -> std::fmt::Result {
    let (summary, facts) = (&report.summary, &report.facts);
    row(
        out,
        "fairness",
        &format!(
            "{} to {} frames per client, ratio {:.4}",
            summary.fewest_frames, summary.most_frames, summary.fairness
        ),
    )?;
    if summary.shed.count > 0 {
        row(out, "slow and stalled dropped", &format!("{}: {}", summary.shed.count, times(&summary.shed)))?;
        for (cause, count) in &facts.shed_causes {
            row(out, "", &format!("{count}: {cause}"))?;
        }
    }
    if facts.skipped > 0 {
        row(out, "left out for slow", &format!("{} messages, each told", facts.skipped))?;
    }
    if facts.recovered + facts.reconnected + facts.resets > 0 {
        row(
            out,
            "came back",
            &format!(
                "{} recovered ({} frames resent), {} connected anew, {} resets of ours",
                facts.recovered, facts.resent, facts.reconnected, facts.resets
            ),
        )?;
    }
    Ok(())
}

/// The epochs of a replay's clock, if there was more than one.
fn write_epochs(out: &mut String, report: &Report) -> std::fmt::Result {
    let epochs = &report.facts.epochs;
    if epochs.len() < 2 {
        return Ok(());
    }
    let mut causes: BTreeMap<&str, u64> = BTreeMap::new();
    epochs
        .iter()
        .filter(|epoch| !epoch.cause.is_empty())
        .for_each(|epoch| *causes.entry(&epoch.cause).or_default() += 1);
    let causes: Vec<String> = causes.into_iter().map(|(cause, count)| format!("{count} {cause}")).collect();
    row(out, "epochs", &format!("{}: {}", epochs.len(), causes.join(", ")))?;
    for epoch in epochs.iter().take(SHOWN_EPOCHS) {
        let unknown = || "?".to_owned();
        let began = match epoch.cause.as_str() {
            "" => "began before the run".to_owned(),
            cause => {
                let (from, to) = (epoch.from.clone().unwrap_or_else(unknown), epoch.to.clone().unwrap_or_else(unknown));
                format!("{cause} {from} → {to}")
            }
        };
        let reached = match epoch.to_last_copy_us {
            Some(us) => format!("; first tick at the last subscriber {} after the jump", time(us as f64)),
            None => String::new(),
        };
        let (publications, frames) = (epoch.publications, thousands(epoch.frames as f64));
        let faults = if epoch.faults > 0 { format!(", {} faults", epoch.faults) } else { String::new() };
        let line =
            format!("{} ({began}): {publications} publications, {frames} frames right{faults}{reached}", epoch.number);
        row(out, "", &line)?;
    }
    if epochs.len() > SHOWN_EPOCHS {
        row(out, "", &format!("… {} more in the JSON report", epochs.len() - SHOWN_EPOCHS))?;
    }
    Ok(())
}

/// Faults that were ordered, and whether they happened.
fn write_orders(out: &mut String, report: &Report) -> std::fmt::Result {
    let Some(orders) = &report.facts.orders else { return Ok(()) };
    let sum: u64 = orders.kinds.values().map(|counts| counts.ordered).sum();
    row(
        out,
        "faults",
        &format!("{} ordered for these clients, {} problems", thousands(sum as f64), orders.problem_count),
    )?;
    for (kind, counts) in &orders.kinds {
        let moot =
            if counts.moot > 0 { format!(", {} with nobody there to see it", counts.moot) } else { String::new() };
        row(out, "", &format!("{:>16}  ordered {:>7}, seen {:>7}{moot}", kind.name(), counts.ordered, counts.seen))?;
    }
    Ok(())
}

/// What generator, server and ledger say of themselves.
fn write_processes(out: &mut String, report: &Report) -> std::fmt::Result {
    let (summary, facts) = (&report.summary, &report.facts);
    row(
        out,
        "generator",
        &format!(
            "loop delay {}; busy {:.0} %, waited for a processor {:.1} %, {:.0} B per connection",
            times(&summary.loop_delay),
            summary.busy * 100.0,
            summary.starved * 100.0,
            summary.bytes_per_connection
        ),
    )?;
    row(
        out,
        "verification",
        &format!(
            "{} frames per CPU second of the generator, {:.2} % decoded, the rest compared",
            thousands(summary.verified_per_cpu_s),
            summary.decoded_share * 100.0
        ),
    )?;
    if let (Some(server), Some(frames), Some(cpu)) =
        (&facts.server, summary.frames_per_server_cpu_s, summary.server_cpu)
    {
        row(
            out,
            "server process",
            &format!(
                "{} frames per CPU second, {:.0} % of a processor, {:.1} MB resident ({:.1} MB before)",
                thousands(frames),
                cpu * 100.0,
                server.end_bytes as f64 / 1e6,
                server.before_bytes as f64 / 1e6
            ),
        )?;
    }
    if let Some(ledger) = &facts.ledger {
        let name = match ledger.source {
            Evidence::TickLedger => "ledger",
            Evidence::Publisher => "publisher",
            Evidence::Witness => "numbers heard",
        };
        row(
            out,
            name,
            &format!(
                "{} ticks, {} publications; clock: {} (± {:.1} µs)",
                ledger.ticks,
                ledger.publications,
                ledger.offset.method,
                ledger.offset.error_ns as f64 / 1e3
            ),
        )?;
    }
    Ok(())
}

fn verdict(out: &mut String, report: &Report) -> std::fmt::Result {
    let (summary, facts) = (&report.summary, &report.facts);
    writeln!(out)?;
    match summary.delivery {
        Delivery::Proven if facts.verified > 0 => writeln!(
            out,
            "DELIVERY PROVEN: 0 lost; {} frames to {} clients were each the right one, once, in order",
            facts.verified, facts.setup.attentive
        )?,
        Delivery::Proven => writeln!(out, "NOTHING TO DELIVER: connections were opened and held")?,
        Delivery::NotVerified => {
            writeln!(out, "DELIVERY NOT VERIFIED: no fault found in {} frames, but", facts.verified)?;
        }
        Delivery::Failed => writeln!(out, "FAILED ({} faults, {} frames right):", summary.faults, facts.verified)?,
    }
    if summary.measurement == Measurement::NotValid && facts.setup.claim == Claim::Latency {
        writeln!(out, "MEASUREMENT NOT VALID: these figures are (also) the generator's own")?;
    }
    for reason in &summary.reasons {
        writeln!(out, "  - {reason}")?;
    }
    if !summary.warnings.is_empty() {
        writeln!(
            out,
            "warning: the machine was too busy to measure latency; the latencies above are not the server's"
        )?;
    }
    for warning in &summary.warnings {
        writeln!(out, "  - {warning}")?;
    }
    write_faults(out, report)
}

/// The first faults, with their places.
fn write_faults(out: &mut String, report: &Report) -> std::fmt::Result {
    let (summary, facts) = (&report.summary, &report.facts);
    for fault in facts.faults.iter().take(SHOWN_FAULTS) {
        let named = |epoch: u64| {
            let known = facts.epochs.iter().find(|known| known.number == epoch && !known.cause.is_empty());
            let cause = known.map_or(String::new(), |known| format!(" ({})", known.cause));
            format!(", epoch {epoch}{cause}")
        };
        let number =
            |name: &str, value: Option<String>| value.map_or(String::new(), |value| format!(", {name} {value}"));
        writeln!(
            out,
            "  {}: client {}, {}{}{}{}{}{}{}",
            fault.kind.name(),
            fault.client,
            if fault.hub.is_empty() { String::new() } else { format!("hub {}, ", fault.hub) },
            facts.group_name(fault.group),
            number("tick", fault.tick.map(|tick| tick.to_string())),
            fault.epoch.filter(|_| facts.epochs.len() > 1).map_or(String::new(), named),
            number("sequence id", fault.sequence_id.map(|id| id.to_string())),
            number("record time", fault.record_timestamp.map(|time| time.to_string())),
            if fault.detail.is_empty() { String::new() } else { format!(" ({})", fault.detail) }
        )?;
    }
    if facts.faults.len() > SHOWN_FAULTS {
        writeln!(out, "  … {} more in the JSON report", summary.faults - SHOWN_FAULTS as u64)?;
    }
    Ok(())
}

fn row(out: &mut String, name: &str, value: &str) -> std::fmt::Result {
    writeln!(out, "{name:>27}  {value}")
}

fn times(percentiles: &Percentiles) -> String {
    format!(
        "p50 {} p90 {} p99 {} p99.9 {} max {}",
        time(percentiles.p50_us),
        time(percentiles.p90_us),
        time(percentiles.p99_us),
        time(percentiles.p999_us),
        time(percentiles.max_us)
    )
}

/// A duration with three digits or so.
pub(crate) fn time(us: f64) -> String {
    match us {
        us if us < 1_000.0 => format!("{us:.0} µs"),
        us if us < 10_000.0 => format!("{:.2} ms", us / 1e3),
        us if us < 1_000_000.0 => format!("{:.1} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

/// A whole number with separators.
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::summary::tests::perfect;
    use crate::verify::fault::{Fault, FaultKind};

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(thousands(1_234_567.4), "1,234,567");
        assert_eq!(thousands(999.0), "999");
        assert_eq!(time(12.3), "12 µs");
        assert_eq!(time(1_234.0), "1.23 ms");
        assert_eq!(time(2_500_000.0), "2.50 s");
    }

    #[test]
    fn latencies_that_are_not_valid_are_a_warning_unless_the_run_claims_them() {
        let mut facts = perfect();
        facts.window.saturated = 1;
        let text = render(&Report::new(facts.clone()));
        assert!(text.contains("MEASUREMENT NOT VALID") && !text.contains("warning:"), "{text}");
        facts.setup.claim = Claim::Delivery;
        let text = render(&Report::new(facts));
        assert!(text.contains("DELIVERY PROVEN") && text.contains("warning:"), "{text}");
        assert!(text.contains("the generator was saturated") && !text.contains("NOT VALID"), "{text}");
    }

    #[test]
    fn a_proven_run_says_so_and_a_failed_one_shows_where() {
        assert!(render(&Report::new(perfect())).contains("DELIVERY PROVEN: 0 lost"));
        let mut facts = perfect();
        facts.fault_counts.insert(FaultKind::Missing, 1);
        facts.faults.push(Fault {
            kind: FaultKind::Missing,
            client: 7,
            hub: String::new(),
            group: 0,
            tick: Some(42),
            epoch: Some(3),
            sequence_id: Some(9),
            record_timestamp: Some(3),
            at_ns: 0,
            detail: String::new(),
        });
        let text = render(&Report::new(facts));
        assert!(text.contains("FAILED (1 faults"), "{text}");
        assert!(text.contains("missing: client 7, blue_SPX_orderflow_orderflow, tick 42, sequence id 9"), "{text}");
    }
}
