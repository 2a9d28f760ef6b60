//! Which facts make which verdict and exit code.

use super::*;
use crate::ledger::offset::Offset;
use crate::report::facts::{Evidence, LedgerFacts, Machine, OwnMemory, Receipts, Setup, Window};
use crate::stats::ticks::Ticks;
use crate::verify::fault::FaultKind;
use crate::wire::form::{Profile, Protocol};

/// The facts of a perfect run.
pub(crate) fn perfect() -> Facts {
    Facts {
        setup: Setup {
            command: vec!["swarm".to_owned()],
            claim: Claim::Latency,
            target: "http://127.0.0.1:1".to_owned(),
            profile: Profile::V2,
            protocols: vec![Protocol::Json],
            groups: vec!["blue_SPX_orderflow_orderflow".to_owned()],
            channels: Vec::new(),
            groups_per_connection: 1,
            hubs: vec!["orderflow".to_owned()],
            connections: 2,
            sockets: 2,
            attentive: 2,
            ramp: 10,
            processes: 1,
            workers: 1,
        },
        machine: Machine::default(),
        started_unix_ms: 1,
        notes: Vec::new(),
        aborted: None,
        ledger: Some(LedgerFacts {
            source: Evidence::TickLedger,
            is_foreign_clock: false,
            offset: Offset::same_clock(),
            ticks: 10,
            publications: 10,
            lost: 0,
            is_incomplete: false,
            unhashed: 0,
        }),
        verified: 20,
        unjudged: 0,
        silent: Vec::new(),
        fault_counts: [].into(),
        faults: Vec::new(),
        failures: [].into(),
        drops: [].into(),
        recovered: 0,
        reconnected: 0,
        resets: 0,
        resent: 0,
        skipped: 0,
        epochs: Vec::new(),
        orders: None,
        stream_messages: 0,
        up_at_end: 2,
        ramp_ns: SECOND,
        connect: Pairs::default(),
        latency: Pairs(vec![(2_000_000, 20)]),
        loop_delay: Pairs(vec![(50_000, 20)]),
        shed: Pairs::default(),
        shed_causes: [].into(),
        ticks: Ticks::default(),
        window: Window {
            until_ns: SECOND,
            frames: 20,
            verified: 20,
            worker_seconds: 1,
            worker_ns: SECOND,
            cpu_ns: SECOND / 2,
            ..Window::default()
        },
        window_seconds: Some((0, 1)),
        seconds: Vec::new(),
        receipts: Receipts { frames: vec![10, 10], mean_us: vec![1.0, 1.0], max_us: vec![2.0, 2.0] },
        memory: OwnMemory { before_bytes: 1_000, up_bytes: 3_000, up: 2 },
        server: None,
    }
}

fn verdict(change: impl FnOnce(&mut Facts)) -> (Delivery, Measurement, u8) {
    let mut facts = perfect();
    change(&mut facts);
    let summary = Summary::of(&facts);
    (summary.delivery, summary.measurement, summary.exit_code)
}

#[test]
fn a_perfect_run_is_proven_and_valid() {
    assert_eq!(verdict(|_| {}), (Delivery::Proven, Measurement::Valid, 0));
    let summary = Summary::of(&perfect());
    assert!((summary.verified_per_cpu_s - 40.0).abs() < 1e-9);
    assert!((summary.bytes_per_connection - 1_000.0).abs() < 1e-9);
    assert!((summary.fairness - 1.0).abs() < 1e-9);
}

#[test]
fn one_lost_frame_fails_the_run() {
    let (delivery, _, exit_code) = verdict(|facts| {
        facts.fault_counts.insert(FaultKind::Missing, 1);
    });
    assert_eq!((delivery, exit_code), (Delivery::Failed, 1));
}

#[test]
fn one_client_that_does_not_come_up_or_stay_fails_the_run() {
    let fails = |change: fn(&mut Facts)| verdict(change).2;
    assert_eq!(fails(|facts| facts.failures = [("refused".to_owned(), 1)].into()), 1);
    assert_eq!(fails(|facts| facts.drops = [("closed".to_owned(), 1)].into()), 1);
    assert_eq!(fails(|facts| facts.aborted = Some("half of them failed".to_owned())), 1);
}

#[test]
fn a_client_that_came_back_without_loss_does_not_fail_the_run() {
    let (delivery, _, exit_code) = verdict(|facts| {
        facts.drops.insert("closed".to_owned(), 1);
        facts.recovered = 1;
    });
    assert_eq!((delivery, exit_code), (Delivery::Proven, 0));
}

#[test]
fn what_the_ledger_does_not_cover_is_not_proven() {
    let is_open = |change: fn(&mut Facts)| verdict(change);
    let open = (Delivery::NotVerified, Measurement::Valid, 3);
    assert_eq!(is_open(|facts| facts.ledger = None), open);
    assert_eq!(is_open(|facts| facts.ledger.as_mut().unwrap().lost = 1), open);
    assert_eq!(is_open(|facts| facts.ledger.as_mut().unwrap().is_incomplete = true), open);
    assert_eq!(is_open(|facts| facts.unjudged = 1), open);
    assert_eq!(is_open(|facts| facts.verified = 0), open);
}

#[test]
fn a_sequence_proves_only_the_channels_that_have_one() {
    let streams = |change: fn(&mut Facts)| {
        verdict(|facts| {
            facts.setup.protocols = vec![Protocol::Streams];
            facts.setup.groups = vec!["lines".to_owned()];
            facts.setup.channels = vec!["lines".to_owned()];
            facts.ledger.as_mut().unwrap().source = Evidence::Publisher;
            change(facts);
        })
    };
    let open = (Delivery::NotVerified, Measurement::Valid, 3);
    assert_eq!(streams(|_| {}), (Delivery::Proven, Measurement::Valid, 0));
    assert_eq!(streams(|facts| facts.setup.channels.push("signals".to_owned())), open);
    assert_eq!(streams(|facts| facts.ledger.as_mut().unwrap().is_foreign_clock = true), open);
    assert_eq!(streams(|facts| facts.ledger.as_mut().unwrap().publications = 0), open);
    assert_eq!(streams(|facts| facts.ledger.as_mut().unwrap().is_incomplete = true), open);
}

#[test]
fn a_generator_that_is_the_bottleneck_makes_the_run_not_valid() {
    let not_valid = (Delivery::Proven, Measurement::NotValid, 3);
    assert_eq!(verdict(|facts| facts.window.saturated = 1), not_valid);
    assert_eq!(verdict(|facts| facts.window.starved_ns = SECOND / 5), not_valid);
    assert_eq!(verdict(|facts| facts.loop_delay = Pairs(vec![(1_500_000, 20)])), not_valid);
}

#[test]
fn a_run_that_claims_delivery_only_succeeds_when_the_generator_is_the_bottleneck() {
    let busy = |change: fn(&mut Facts)| {
        let mut facts = perfect();
        facts.setup.claim = Claim::Delivery;
        facts.window.saturated = 1;
        change(&mut facts);
        let Summary { delivery, measurement, exit_code, reasons, warnings, .. } = Summary::of(&facts);
        assert_eq!((measurement, warnings.len()), (Measurement::NotValid, 1));
        (delivery, exit_code, reasons.len())
    };
    assert_eq!(busy(|_| {}), (Delivery::Proven, 0, 0));
    assert_eq!(busy(|facts| facts.ledger = None), (Delivery::NotVerified, 3, 1));
    assert_eq!(busy(|facts| facts.aborted = Some("half of them failed".to_owned())), (Delivery::Failed, 1, 1));
}

#[test]
fn parts_that_claim_latency_make_a_whole_that_does() {
    let mut sum = perfect();
    sum.setup.claim = Claim::Delivery;
    sum.merge(perfect());
    assert_eq!(sum.setup.claim, Claim::Latency);
}

#[test]
fn parts_add_up_to_one_run() {
    let mut sum = perfect();
    let mut part = perfect();
    part.setup.groups.insert(0, "blue_NDX_orderflow_orderflow".to_owned());
    part.fault_counts.insert(FaultKind::Missing, 1);
    part.faults.push(crate::verify::fault::Fault {
        kind: FaultKind::Missing,
        client: 7,
        hub: String::new(),
        group: 1,
        epoch: None,
        tick: Some(3),
        sequence_id: None,
        record_timestamp: None,
        at_ns: 0,
        detail: String::new(),
    });
    sum.merge(part);
    assert_eq!(sum.setup.connections, 4);
    assert_eq!(sum.group_name(sum.faults[0].group), "blue_SPX_orderflow_orderflow");
    let summary = Summary::of(&sum);
    assert_eq!(summary.latency.count, 40);
    assert_eq!(summary.exit_code, 1);
}
