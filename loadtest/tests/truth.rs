//! The swarm as a black box against a server that does right or wrong: what it says, and with which
//! exit code. A load generator that cannot fail proves nothing.

mod fake;

use std::time::{Duration, Instant};

use fake::outcome::{Outcome, swarm};
use fake::tls::TlsProxy;
use fake::{Behaviour, Fake, Ordered, Tamper};

#[test]
fn an_honest_server_is_proven_honest() {
    let server = Fake::start(Behaviour::default());
    let outcome = swarm(&server.url(), &[]);
    // The latencies may be invalid on a busy machine; the proof may not, and it is what the run claims.
    outcome.assert_exit(0);
    assert_eq!(outcome.report["summary"]["delivery"], "proven", "{}", outcome.output);
    assert!(outcome.report["facts"]["verified"].as_u64().unwrap() > 8 * 3 * 40, "{}", outcome.output);
    assert!(outcome.output.contains("DELIVERY PROVEN: 0 lost"));
    assert!(outcome.report["summary"]["latency"]["count"].as_u64().unwrap() > 1_000);
}

#[test]
fn a_run_that_claims_latency_succeeds_only_if_latency_was_measured() {
    let server = Fake::start(Behaviour::default());
    let outcome = swarm(&server.url(), &["--claim", "latency"]);
    assert_eq!(outcome.report["summary"]["delivery"], "proven", "{}", outcome.output);
    let is_valid = outcome.report["summary"]["measurement"] == "valid";
    outcome.assert_exit(if is_valid { 0 } else { 3 });
    assert_eq!(outcome.output.contains("MEASUREMENT NOT VALID"), !is_valid, "{}", outcome.output);
}

#[test]
fn every_client_answers_the_servers_pings() {
    let server = Fake::start(Behaviour { max_unanswered_pings: Some(100), ..Behaviour::default() });
    let outcome = swarm(&server.url(), &["--duration", "4s"]);
    outcome.assert_exit(0);
    assert!(server.fewest_pongs() > 100, "{} pongs", server.fewest_pongs());
}

/// Every kind of tampering, in every protocol: client n speaks protocol n % 4.
#[track_caller]
fn is_found(tamper: Tamper, expected: &[&str]) {
    for client in 0..4 {
        let server = Fake::start(Behaviour { tamper: Some((client, 40, tamper)), ..Behaviour::default() });
        let outcome = swarm(&server.url(), &[]);
        outcome.assert_exit(1);
        let expected: Vec<_> = expected.iter().map(|kind| ((*kind).to_owned(), client as u64)).collect();
        assert_eq!(outcome.faults(), expected, "{}", outcome.output);
    }
}

#[test]
fn a_dropped_frame_is_missing() {
    is_found(Tamper::Drop, &["missing"]);
}

#[test]
fn a_repeated_frame_is_a_duplicate() {
    is_found(Tamper::Duplicate, &["duplicate"]);
}

#[test]
fn a_forged_payload_is_corrupted() {
    is_found(Tamper::Forge, &["corrupted"]);
}

#[test]
fn an_unreadable_frame_is_corrupted_and_its_publication_missing() {
    is_found(Tamper::Break, &["corrupted", "missing"]);
}

/// The same in a group of another hub, and of another kind. Spot groups have the hub of what is beside them.
#[track_caller]
fn is_found_in(hub: &'static str, group: &'static str, arguments: &[&str], tamper: Tamper, expected: &[&str]) {
    for client in [1, 2] {
        let behaviour =
            Behaviour { tampered: (hub, group), tamper: Some((client, 40, tamper)), ..Behaviour::default() };
        let server = Fake::start(behaviour);
        let outcome = swarm(&server.url(), arguments);
        outcome.assert_exit(1);
        let expected: Vec<_> = expected.iter().map(|kind| ((*kind).to_owned(), client as u64)).collect();
        assert_eq!(outcome.faults(), expected, "{tamper:?} {}", outcome.output);
        assert!(outcome.output.contains(group), "{}", outcome.output);
    }
}

const GEX: [&str; 2] = ["--groups", "classic/gex_full"];
const SPOT: [&str; 4] = ["--negotiate", "post", "--groups", "classic/gex_full,spot"];

#[test]
fn what_is_wrong_in_a_gex_group_is_found() {
    for (tamper, expected) in [
        (Tamper::Drop, &["missing"][..]),
        (Tamper::Duplicate, &["duplicate"]),
        (Tamper::Forge, &["corrupted"]),
        (Tamper::Break, &["corrupted", "missing"]),
        (Tamper::Misplace, &["corrupted", "missing"]),
        (Tamper::Mistype, &["corrupted", "missing"]),
    ] {
        is_found_in("classic", "blue_SPX_classic_gex_full", &GEX, tamper, expected);
    }
}

#[test]
fn what_is_wrong_in_a_spot_group_that_the_server_joined_is_found() {
    for (tamper, expected) in [
        (Tamper::Drop, &["missing"][..]),
        (Tamper::Duplicate, &["duplicate"]),
        (Tamper::Forge, &["corrupted"]),
        (Tamper::Mistype, &["corrupted", "missing"]),
    ] {
        is_found_in("v2_classic", "blue_SPX_spot", &SPOT, tamper, expected);
    }
}

/// Fifteen groups of each ticker: five hubs.
const MARKET: &str = "classic/*,state/*,orderflow/*";

#[test]
fn a_client_of_several_hubs_has_a_connection_to_each_and_all_of_them_are_proven() {
    let server = Fake::start(Behaviour::default());
    let outcome = swarm(&server.url(), &["--groups", MARKET, "--connections", "4"]);
    outcome.assert_exit(0);
    let setup = &outcome.report["facts"]["setup"];
    assert_eq!((&setup["connections"], &setup["sockets"]), (&4.into(), &20.into()), "{}", outcome.output);
    assert_eq!((setup["groups"].as_array().unwrap().len(), setup["hubs"].as_array().unwrap().len()), (45, 5));
    assert_eq!(outcome.report["facts"]["receipts"]["frames"].as_array().unwrap().len(), 4, "one number per client");
    assert!(outcome.report["facts"]["verified"].as_u64().unwrap() > 4 * 45 * 30, "{}", outcome.output);
    assert!(
        outcome.output.contains("20, each client one per hub: classic, orderflow, state_gex"),
        "{}",
        outcome.output
    );
}

#[test]
fn a_client_that_posts_is_joined_by_the_server_under_a_key_of_its_own() {
    let server = Fake::start(Behaviour::default());
    let arguments = ["--negotiate", "post", "--groups", "classic/*,state/*,orderflow/*,spot", "--connections", "4"];
    let outcome = swarm(&server.url(), &arguments);
    outcome.assert_exit(0);
    assert_eq!(outcome.report["facts"]["setup"]["sockets"], 20, "{}", outcome.output);
    let frames: Vec<u64> = outcome.report["facts"]["receipts"]["frames"]
        .as_array()
        .unwrap()
        .iter()
        .map(|frames| frames.as_u64().unwrap())
        .collect();
    // 15 groups of three tickers, and the spot of each on five hubs, 50 times a second.
    assert!(frames.iter().all(|&frames| frames > (45 + 15) * 30), "{frames:?}");
    let mut keys = server.keys();
    keys.sort();
    keys.dedup();
    assert_eq!(keys, ["swarm-0", "swarm-1", "swarm-2", "swarm-3"]);
}

#[test]
fn a_fault_of_a_client_with_several_connections_names_client_and_hub() {
    let behaviour = Behaviour {
        tampered: ("v2_state_greeks_zero", "blue_SPX_spot"),
        tamper: Some((1, 40, Tamper::Drop)),
        ..Behaviour::default()
    };
    let server = Fake::start(behaviour);
    let arguments = ["--negotiate", "post", "--groups", "classic/gex_full,state/gamma_zero,spot,SPX"];
    let outcome = swarm(&server.url(), &arguments);
    outcome.assert_exit(1);
    assert_eq!(outcome.faults(), [("missing".to_owned(), 1)], "{}", outcome.output);
    assert!(
        outcome.output.contains("missing: client 1, hub v2_state_greeks_zero, blue_SPX_spot"),
        "{}",
        outcome.output
    );
}

#[test]
fn groups_without_data_are_named() {
    let server = Fake::start(Behaviour { silent: "_gamma_zero", ..Behaviour::default() });
    let outcome = swarm(&server.url(), &["--groups", "classic/gex_full,state/gamma_zero,SPX"]);
    outcome.assert_exit(0);
    assert_eq!(outcome.report["facts"]["silent"], serde_json::json!(["blue_SPX_state_gamma_zero"]));
    assert!(outcome.output.contains("1 of 2 groups had nothing published"), "{}", outcome.output);
}

#[test]
fn a_group_that_cannot_be_had_ends_the_run_with_the_servers_words() {
    let (server, started) = (Fake::start(Behaviour::default()), Instant::now());
    let outcome = swarm(&server.url(), &["--groups", "classic/gex_full", "--hub", "orderflow"]);
    fails(&outcome, 1, "join of blue_ES_SPX_classic_gex_full refused: Forbidden: not yours", started);
    let outcome = swarm(&server.url(), &["--groups", "classic/gex_full,spot"]);
    fails(&outcome, 2, "v2_classic", Instant::now());
    let outcome = swarm(
        &server.url(),
        &["--negotiate", "post", "--groups", "blue_SPX_spot,blue_SPX_classic_gex_full,blue_NDX_classic_gex_full"],
    );
    fails(&outcome, 2, "expected NDX_spot beside NDX_classic_gex_full", Instant::now());
}

#[test]
fn frames_out_of_order_are_reordered() {
    // The held frame is overtaken by the next tick's frame of another group: on a plain wire no rule
    // forbids that, on a reliable one the SDKs would drop it.
    for client in [1, 3] {
        let tamper = Some((client, 40, Tamper::Swap));
        let server = Fake::start(Behaviour { tamper, ..Behaviour::default() });
        let outcome = swarm(&server.url(), &[]);
        outcome.assert_exit(1);
        assert_eq!(outcome.faults(), [("reordered".to_owned(), client as u64)], "{}", outcome.output);
    }
    for client in [0, 2] {
        let tamper = Some((client, 40, Tamper::Swap));
        let server = Fake::start(Behaviour { tamper, ..Behaviour::default() });
        let outcome = swarm(&server.url(), &["--groups", "SPX"]);
        outcome.assert_exit(1);
        assert_eq!(outcome.faults(), [("reordered".to_owned(), client as u64)], "{}", outcome.output);
    }
}

/// A seek, a step back and the end of the day while the swarm runs.
const JUMPS: [(u64, &str, u64); 3] = [(20, "seek", 500), (30, "step_back", 508), (40, "loop", 0)];

#[test]
fn delivery_is_proven_in_every_epoch_and_the_report_says_what_was_published_in_each() {
    let server = Fake::start(Behaviour { jumps: JUMPS.to_vec(), ..Behaviour::default() });
    let outcome = swarm(&server.url(), &[]);
    outcome.assert_exit(0);
    let epochs = outcome.report["facts"]["epochs"].as_array().unwrap();
    let causes: Vec<&str> = epochs.iter().map(|epoch| epoch["cause"].as_str().unwrap()).collect();
    assert_eq!(causes, ["", "seek", "step_back", "loop"], "{}", outcome.output);
    // Ten ticks, three groups, eight clients.
    for epoch in &epochs[1..3] {
        assert_eq!((&epoch["publications"], &epoch["frames"], &epoch["faults"]), (&30.into(), &240.into(), &0.into()));
        assert!(epoch["to_last_copy_us"].as_u64() >= epoch["to_first_copy_us"].as_u64(), "{epoch}");
    }
    let frames: u64 = epochs.iter().map(|epoch| epoch["frames"].as_u64().unwrap()).sum();
    assert_eq!(&outcome.report["facts"]["verified"], frames, "{}", outcome.output);
    assert!(outcome.output.contains("4: 1 loop, 1 seek, 1 step_back"), "{}", outcome.output);
    assert!(outcome.output.contains("2 (seek 2025-11-28T14:30:00Z → 2025-11-28T14:31:00Z): 30 publications, 240"));
}

#[test]
fn a_first_tick_that_is_lost_at_a_jump_is_named() {
    for (publication, cause) in [(20, "epoch 2 (seek)"), (30, "epoch 3 (step_back)"), (40, "epoch 4 (loop)")] {
        for client in 0..4 {
            let tamper = Some((client, publication, Tamper::Drop));
            let server = Fake::start(Behaviour { jumps: JUMPS.to_vec(), tamper, ..Behaviour::default() });
            let outcome = swarm(&server.url(), &[]);
            outcome.assert_exit(1);
            assert_eq!(outcome.faults(), [("missing".to_owned(), client as u64)], "{}", outcome.output);
            let line = outcome.output.lines().find(|line| line.contains("missing: client")).unwrap();
            assert!(line.contains(cause) && line.contains("the first tick of its epoch"), "{line}");
        }
    }
}

#[test]
fn a_first_tick_that_nobody_gets_after_a_jump_is_missing_everywhere() {
    let server = Fake::start(Behaviour { jumps: JUMPS.to_vec(), unsent: vec![20], ..Behaviour::default() });
    let outcome = swarm(&server.url(), &[]);
    outcome.assert_exit(1);
    let expected: Vec<_> = (0..8).map(|client| ("missing".to_owned(), client)).collect();
    assert_eq!(outcome.faults(), expected, "{}", outcome.output);
    let epochs = outcome.report["facts"]["epochs"].as_array().unwrap();
    let faults: Vec<u64> = epochs.iter().map(|epoch| epoch["faults"].as_u64().unwrap()).collect();
    assert_eq!(faults, [0, 8, 0, 0], "{}", outcome.output);
}

#[test]
fn only_the_ticks_of_its_session_count_for_a_client() {
    let behaviour = Behaviour { session: Some("lab"), jumps: JUMPS.to_vec(), ..Behaviour::default() };
    let server = Fake::start(behaviour.clone());
    let outcome = swarm(&server.url(), &["--session", "lab"]);
    outcome.assert_exit(0);
    assert_eq!(outcome.report["facts"]["epochs"].as_array().unwrap().len(), 4, "{}", outcome.output);
    assert_eq!(server.queries(), ["session=lab"]);
    let server = Fake::start(Behaviour { tamper: Some((1, 20, Tamper::Drop)), ..behaviour.clone() });
    let outcome = swarm(&server.url(), &["--session", "lab"]);
    outcome.assert_exit(1);
    assert_eq!(outcome.faults(), [("missing".to_owned(), 1)], "{}", outcome.output);
    // What the common clock publishes is not what these clients receive.
    swarm(&Fake::start(behaviour).url(), &[]).assert_exit(1);
}

#[test]
fn what_the_ledger_has_and_nobody_received_is_missing_everywhere() {
    let server = Fake::start(Behaviour { unsent: vec![45], ..Behaviour::default() });
    let outcome = swarm(&server.url(), &[]);
    outcome.assert_exit(1);
    let expected: Vec<_> = (0..8).map(|client| ("missing".to_owned(), client)).collect();
    assert_eq!(outcome.faults(), expected, "{}", outcome.output);
}

#[test]
fn what_was_received_and_is_not_in_the_ledger_is_unexpected_everywhere() {
    let server = Fake::start(Behaviour { unledgered: vec![45], ..Behaviour::default() });
    let outcome = swarm(&server.url(), &[]);
    outcome.assert_exit(1);
    let expected: Vec<_> = (0..8).map(|client| ("unexpected".to_owned(), client)).collect();
    assert_eq!(outcome.faults(), expected, "{}", outcome.output);
}

#[test]
fn a_gap_in_the_ledger_leaves_the_run_unverified() {
    let server = Fake::start(Behaviour { ledger_gap: Some(60), ..Behaviour::default() });
    let outcome = swarm(&server.url(), &[]);
    outcome.assert_exit(3);
    assert_eq!(outcome.report["summary"]["delivery"], "not_verified");
    assert!(outcome.output.contains("gone from the ledger"), "{}", outcome.output);
}

#[test]
fn without_a_ledger_clients_are_compared_and_the_run_says_so() {
    let server = Fake::start(Behaviour { has_ledger: false, ..Behaviour::default() });
    let outcome = swarm(&server.url(), &[]);
    outcome.assert_exit(3);
    assert!((outcome.report["summary"]["decoded_share"].as_f64().unwrap() - 1.0).abs() < 1e-9);
    let tamper = Some((2, 40, Tamper::Drop));
    let server = Fake::start(Behaviour { has_ledger: false, tamper, ..Behaviour::default() });
    let outcome = swarm(&server.url(), &[]);
    outcome.assert_exit(1);
    assert_eq!(outcome.faults(), [("missing".to_owned(), 2)], "{}", outcome.output);
    swarm(&server.url(), &["--ledger", "require"]).assert_exit(2);
}

#[test]
fn a_recovered_session_loses_nothing_and_a_lost_one_fails_the_run() {
    let tamper = Some((1, 40, Tamper::Cut));
    let server = Fake::start(Behaviour { tamper, ..Behaviour::default() });
    let outcome = swarm(&server.url(), &["--reconnect", "--duration", "3s"]);
    assert_eq!(outcome.report["summary"]["delivery"], "proven", "{}", outcome.output);
    assert_eq!(outcome.report["facts"]["recovered"], 1, "{}", outcome.output);
    let server = Fake::start(Behaviour { tamper, ..Behaviour::default() });
    let outcome = swarm(&server.url(), &[]);
    outcome.assert_exit(1);
    assert!(outcome.output.contains("1 dropped"), "{}", outcome.output);
}

#[test]
fn tls_is_spoken_where_the_server_wants_it() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = folder.path().join("certificate.pem");
    let proxy = TlsProxy::bind(&certificate);
    let (public, url) = (format!("wss://{}", proxy.address), format!("https://{}", proxy.address));
    let server = Fake::start(Behaviour { public: Some(public), ..Behaviour::default() });
    proxy.forward_to(server.address());
    let outcome = swarm(&url, &["--ca-file", certificate.to_str().unwrap()]);
    assert_eq!(outcome.report["summary"]["delivery"], "proven", "{}", outcome.output);
    let untrusted = swarm(&url, &[]);
    fails(&untrusted, 2, "certificate", Instant::now());
}

#[test]
fn several_processes_make_one_report() {
    let server = Fake::start(Behaviour { tamper: Some((2, 40, Tamper::Drop)), ..Behaviour::default() });
    let outcome = swarm(&server.url(), &["--processes", "2", "--connections", "9"]);
    outcome.assert_exit(1);
    assert_eq!(outcome.report["facts"]["setup"]["connections"], 9);
    assert_eq!(outcome.report["facts"]["setup"]["processes"], 2);
    assert_eq!(outcome.faults().len(), 1, "{}", outcome.output);
}

#[test]
fn misbehaving_clients_do_not_count() {
    let server = Fake::start(Behaviour::default());
    let arguments = ["--stalled", "25", "--slow", "12.5", "--reset", "12.5", "--reset-after", "300ms"];
    let outcome = swarm(&server.url(), &[&arguments[..], &["--duration", "2s"]].concat());
    assert_eq!(outcome.report["summary"]["delivery"], "proven", "{}", outcome.output);
    assert_eq!(outcome.report["facts"]["setup"]["attentive"], 4);
    assert!(outcome.report["facts"]["resets"].as_u64().unwrap() >= 1, "{}", outcome.output);
}

const EXPECTED: [&str; 2] = ["--faults", "expected"];

/// A run against a server of which these faults were ordered and done.
fn ordered(orders: &[(Option<&'static str>, Option<Tamper>)], client: usize) -> Outcome {
    let orders =
        orders.iter().zip(0..).map(|(&(kind, does), at)| Ordered { client, publication: 30 + 5 * at, kind, does });
    let server = Fake::start(Behaviour { orders: orders.collect(), ..Behaviour::default() });
    swarm(&server.url(), &EXPECTED)
}

/// Each kind of fault about a frame, and what is done for it.
const FRAME_FAULTS: [(&str, Tamper); 6] = [
    ("drop", Tamper::Drop),
    ("silence", Tamper::Drop),
    ("duplicate", Tamper::Duplicate),
    ("corrupt", Tamper::Flip(301)),
    ("truncate", Tamper::Shorten(60)),
    ("reorder", Tamper::Swap),
];

#[test]
fn what_was_ordered_and_happened_is_no_failure() {
    for client in 0..4 {
        let orders = FRAME_FAULTS.map(|(kind, tamper)| (Some(kind), Some(tamper)));
        // The last one: on a plain wire a frame that is overtaken by another group's shows nothing.
        let orders = if client % 2 == 1 { &orders[..] } else { &orders[..5] };
        let outcome = ordered(orders, client);
        outcome.assert_exit(0);
        for (kind, _) in &FRAME_FAULTS[..orders.len()] {
            let counts = &outcome.report["facts"]["orders"]["kinds"][kind];
            assert_eq!((&counts["ordered"], &counts["seen"]), (&1.into(), &1.into()), "{kind} {}", outcome.output);
        }
        assert!(outcome.output.contains("faults  5 ordered") || client % 2 == 1, "{}", outcome.output);
    }
}

#[test]
fn whatever_bit_is_flipped_an_ordered_corruption_is_recognised() {
    // In names, numbers, the group, the payload; of text, and of protobuf.
    for (client, bits) in [(1, [8, 21, 130, 355, 900]), (3, [3, 18, 130, 355, 700])] {
        for bit in bits {
            let outcome = ordered(&[(Some("corrupt"), Some(Tamper::Flip(bit)))], client);
            outcome.assert_exit(0);
            assert_eq!(outcome.report["facts"]["orders"]["kinds"]["corrupt"]["seen"], 1, "{bit} {}", outcome.output);
        }
    }
}

#[test]
fn what_happened_beside_the_orders_is_told() {
    for (tamper, expected) in [
        (Tamper::Drop, "1 missing without an order"),
        (Tamper::Duplicate, "1 duplicate without an order"),
        (Tamper::Forge, "1 corrupted without an order"),
        (Tamper::Flip(900), "1 corrupted without an order"),
        (Tamper::Cut, "without an order: client 1: closed without a close frame"),
        (Tamper::Close(1011), "without an order: client 1: closed by the server with 1011"),
    ] {
        let outcome = ordered(&[(Some("drop"), Some(Tamper::Drop)), (None, Some(tamper))], 1);
        outcome.assert_exit(1);
        assert!(outcome.output.contains(expected), "{tamper:?} {}", outcome.output);
        assert_eq!(outcome.report["facts"]["orders"]["kinds"]["drop"]["seen"], 1, "{}", outcome.output);
    }
}

#[test]
fn an_order_that_did_not_happen_is_told() {
    for (kind, expected) in [
        ("drop", "ordered drop (fault 3) that did not happen: client 3"),
        ("silence", "ordered silence (fault 3) that did not happen: client 3"),
        ("duplicate", "came once only"),
        ("reorder", "came in order"),
        ("corrupt", "arrived unharmed"),
    ] {
        let outcome = ordered(&[(Some(kind), None)], 3);
        outcome.assert_exit(1);
        assert!(outcome.output.contains(expected), "{kind} {}", outcome.output);
        assert_eq!(outcome.faults(), [], "{kind} {}", outcome.output);
    }
}

#[test]
fn a_corruption_of_another_bit_than_ordered_is_told() {
    let server = Fake::start(Behaviour {
        orders: vec![Ordered { client: 2, publication: 30, kind: Some("corrupt"), does: None }],
        tamper: Some((2, 30, Tamper::Flip(601))),
        ..Behaviour::default()
    });
    let outcome = swarm(&server.url(), &EXPECTED);
    outcome.assert_exit(1);
    assert!(outcome.output.contains("without an order"), "{}", outcome.output);
}

#[test]
fn connections_that_end_as_ordered_come_back_and_one_that_does_not_end_is_told() {
    for (kind, tamper) in [("reset", Tamper::Cut), ("close", Tamper::Close(1011))] {
        for client in [0, 1] {
            let outcome = ordered(&[(Some(kind), Some(tamper))], client);
            outcome.assert_exit(0);
            assert_eq!(outcome.report["facts"]["orders"]["kinds"][kind]["seen"], 1, "{}", outcome.output);
            let back = if client == 0 { "reconnected" } else { "recovered" };
            assert_eq!(outcome.report["facts"][back], 1, "{kind} {}", outcome.output);
        }
        let orders = vec![Ordered { client: 1, publication: 30, kind: Some(kind), does: None }];
        let server = Fake::start(Behaviour { orders, ..Behaviour::default() });
        let outcome = swarm(&server.url(), &["--faults", "expected", "--duration", "4s"]);
        outcome.assert_exit(1);
        let expected = format!("ordered {kind} (fault 3) that did not happen: client 1");
        assert!(outcome.output.contains(&expected), "{}", outcome.output);
    }
}

#[test]
fn a_request_that_is_refused_as_ordered_is_made_again() {
    for (is_ordered, code) in [(true, 0), (false, 1)] {
        let server = Fake::start(Behaviour { refuse_key: Some(("swarm-2", 2, is_ordered)), ..Behaviour::default() });
        let outcome = swarm(&server.url(), &EXPECTED);
        outcome.assert_exit(code);
        let is_told = outcome.output.contains("without an order: client 2: negotiate: ");
        assert_eq!(is_told, !is_ordered, "{}", outcome.output);
        assert!(outcome.report["facts"]["verified"].as_u64().unwrap() > 500, "{}", outcome.output);
    }
}

#[test]
fn clients_that_misbehave_on_purpose_may_miss_what_was_ordered_too() {
    let orders =
        (0..8).map(|client| Ordered { client, publication: 30, kind: Some("corrupt"), does: Some(Tamper::Flip(300)) });
    let server = Fake::start(Behaviour { orders: orders.collect(), ..Behaviour::default() });
    let mix = ["--reset", "25", "--reset-after", "200ms", "--stalled", "12.5", "--duration", "2s"];
    let outcome = swarm(&server.url(), &[&EXPECTED[..], &mix].concat());
    outcome.assert_exit(0);
    assert!(outcome.report["facts"]["resets"].as_u64().unwrap() > 0, "{}", outcome.output);
    assert!(outcome.report["facts"]["orders"]["kinds"]["corrupt"]["seen"].as_u64().unwrap() >= 5, "{}", outcome.output);
}

#[test]
fn without_expecting_faults_an_ordered_one_is_a_loss() {
    let orders = vec![Ordered { client: 1, publication: 30, kind: Some("drop"), does: Some(Tamper::Drop) }];
    let server = Fake::start(Behaviour { orders, ..Behaviour::default() });
    let outcome = swarm(&server.url(), &[]);
    outcome.assert_exit(1);
    assert_eq!(outcome.faults(), [("missing".to_owned(), 1)], "{}", outcome.output);
}

/// Bad input ends in time, with a cause.
#[track_caller]
fn fails(outcome: &Outcome, code: i32, cause: &str, started: Instant) {
    outcome.assert_exit(code);
    assert!(outcome.output.contains(cause), "{}", outcome.output);
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_server_that_is_not_there_ends_the_run_at_once() {
    let outcome = swarm("http://127.0.0.1:9", &[]);
    fails(&outcome, 2, "Connection refused", Instant::now());
    let outcome = swarm("ws://127.0.0.1:9/client/hubs/x", &["--groups", "SPX"]);
    fails(&outcome, 1, "connect: Connection refused", Instant::now());
}

#[test]
fn a_server_that_never_answers_runs_into_the_setup_timeout() {
    let (server, started) = (Fake::start(Behaviour { is_mute: true, ..Behaviour::default() }), Instant::now());
    let outcome = swarm(&server.url(), &["--setup-timeout", "1s"]);
    fails(&outcome, 1, "waiting for the upgrade", started);
}

#[test]
fn half_the_connections_failing_ends_the_run_with_the_cause() {
    let behaviour = Behaviour { refuse_every: Some(2), ..Behaviour::default() };
    let (server, started) = (Fake::start(behaviour), Instant::now());
    fails(&swarm(&server.url(), &[]), 1, "upgrade refused: HTTP 503 full", started);
}

#[test]
fn one_connection_failing_fails_a_run_that_goes_on() {
    let behaviour = Behaviour { refuse_every: Some(100), ..Behaviour::default() };
    let server = Fake::start(behaviour);
    let outcome = swarm(&server.url(), &[]);
    outcome.assert_exit(1);
    assert_eq!(outcome.report["facts"]["failures"]["upgrade refused: HTTP 503 full"], 1, "{}", outcome.output);
    assert!(outcome.report["facts"]["verified"].as_u64().unwrap() > 500);
}

#[test]
fn a_refused_group_is_named() {
    let behaviour = Behaviour { forbidden: Some("NDX"), ..Behaviour::default() };
    let (server, started) = (Fake::start(behaviour), Instant::now());
    let outcome = swarm(&server.url(), &[]);
    fails(&outcome, 1, "join of blue_NDX_orderflow_orderflow refused: Forbidden: not yours", started);
}

#[test]
fn arguments_that_make_no_run_are_refused() {
    for arguments in [
        &["--stalled", "70", "--slow", "70"][..],
        &["--ramp", "0"],
        &["--url", "ftp://127.0.0.1"],
        &["--protocols", "streams,json"],
        &["--protocols", "streams", "--publish-rate", "10"],
        &["--protocols", "streams", "--channels", "signals", "--publish-rate", "10"],
        &["--protocols", "streams", "--channels", "lines", "--publish-rate", "10", "--external-producer"],
        &["--protocols", "streams", "--channels", "lines", "--symbols", "AAPL"],
        &["--publish-rate", "10"],
        &["--groups", "all,SPX"],
        &["--groups", "classic/gamma_zero"],
        &["--groups", "spot"],
        &["--session", "a b"],
        &["--faults", "expected", "--ledger", "off"],
        &["--protocols", "streams", "--channels", "lines", "--faults", "expected"],
        &["--protocols", "streams", "--session", "lab"],
        &["--negotiate", "post", "--groups", "none"],
        &["--negotiate", "post", "--groups", "classic/*,spot", "--groups-per-connection", "2"],
    ] {
        let server = Fake::start(Behaviour::default());
        swarm(&server.url(), arguments).assert_exit(2);
    }
}
