//! The swarm on the JSON streams, as a black box: against a server that passes numbered messages on
//! as it should, and against servers that do not.

#[allow(dead_code, reason = "every test file uses its own part")]
mod fake;

use fake::outcome::Outcome;
use fake::{Behaviour, Fake, Ordered, Tamper};

/// Clients on `lines`, which the swarm itself publishes to, for a second.
fn swarm(server: &Fake, arguments: &[&str]) -> Outcome {
    let own = ["--protocols", "streams", "--publish-rate", "100"];
    let channels = fake::outcome::default_of("--channels", "lines", arguments);
    fake::outcome::swarm(&server.url(), &[&own, &channels[..], arguments].concat())
}

/// The same, of what another producer numbers.
fn heard(server: &Fake, arguments: &[&str]) -> Outcome {
    swarm(server, &[&["--publish-rate", "0", "--external-producer"], arguments].concat())
}

#[track_caller]
fn proven(outcome: &Outcome) {
    // The measurement may be invalid on a busy machine; the proof may not.
    assert_eq!(outcome.report["summary"]["delivery"], "proven", "{}", outcome.output);
    assert!(outcome.output.contains("DELIVERY PROVEN: 0 lost"), "{}", outcome.output);
}

#[track_caller]
fn unproven(outcome: &Outcome, reason: &str) {
    outcome.assert_exit(3);
    assert_eq!(outcome.report["summary"]["delivery"], "not_verified", "{}", outcome.output);
    assert!(outcome.output.contains(reason), "{}", outcome.output);
}

#[test]
fn an_honest_server_is_proven_honest() {
    let outcome = swarm(&Fake::start(Behaviour::default()), &["--publish-bytes", "120"]);
    proven(&outcome);
    let (facts, summary) = (&outcome.report["facts"], &outcome.report["summary"]);
    assert_eq!(facts["ledger"]["source"], "publisher");
    let published = facts["ledger"]["publications"].as_u64().unwrap();
    assert!(published > 90, "{}", outcome.output);
    assert_eq!(facts["verified"], published * 8, "everything accepted, to every client: {}", outcome.output);
    assert_eq!(summary["latency"]["count"], summary["most_frames"].as_u64().unwrap() * 8);
    assert!(summary["decoded_share"].as_f64().unwrap() < 0.5, "copies are compared: {}", outcome.output);
}

#[test]
fn what_was_ordered_and_happened_is_no_failure_and_whatever_else_is_told() {
    let expected = ["--faults", "expected"];
    let order = |client, publication, kind, does| Ordered { client, publication, kind, does };
    let done = [
        ("drop", Tamper::Drop),
        ("duplicate", Tamper::Duplicate),
        ("reorder", Tamper::Swap),
        ("corrupt", Tamper::Flip(500)),
    ];
    let orders: Vec<Ordered> =
        done.iter().zip(1..).map(|(&(kind, does), at)| order(1, 10 * at, Some(kind), Some(does))).collect();
    let outcome = swarm(&Fake::start(Behaviour { orders: orders.clone(), ..Behaviour::default() }), &expected);
    outcome.assert_exit(0);
    for (kind, _) in done {
        let counts = &outcome.report["facts"]["orders"]["kinds"][kind];
        assert_eq!((&counts["ordered"], &counts["seen"]), (&1.into(), &1.into()), "{kind} {}", outcome.output);
    }
    let beside = [&orders[..], &[order(2, 60, None, Some(Tamper::Drop))]].concat();
    let outcome = swarm(&Fake::start(Behaviour { orders: beside, ..Behaviour::default() }), &expected);
    outcome.assert_exit(1);
    assert_eq!(outcome.faults(), [("missing".to_owned(), 2)], "{}", outcome.output);
    let undone = [&orders[..], &[order(2, 60, Some("drop"), None)]].concat();
    let outcome = swarm(&Fake::start(Behaviour { orders: undone, ..Behaviour::default() }), &expected);
    outcome.assert_exit(1);
    assert!(outcome.output.contains("ordered drop (fault 3) that did not happen: client 2"), "{}", outcome.output);
}

#[test]
fn every_channel_has_a_sequence_of_its_own() {
    let outcome = swarm(&Fake::start(Behaviour::default()), &["--channels", "lines,analytics"]);
    proven(&outcome);
    assert_eq!(outcome.report["facts"]["setup"]["groups"], serde_json::json!(["analytics", "lines"]));
}

/// A number of the fake's producer that comes when the clients of a run of three seconds are up.
const LATER: u64 = 400;

/// Each kind of tampering with one message of one client.
#[track_caller]
fn is_found(tamper: Tamper, expected: &[&str]) {
    let tampering = |seq| Behaviour { tamper: Some((2, seq, tamper)), ..Behaviour::default() };
    // Workers are told by the publisher what there was, and by the witness what others heard.
    let own = swarm(&Fake::start(tampering(40)), &[]);
    let external = Fake::start(Behaviour { produces: Some(u64::MAX), ..tampering(LATER) });
    for outcome in [own, heard(&external, &["--duration", "3s"])] {
        outcome.assert_exit(1);
        let kinds: Vec<String> = outcome.faults().into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, expected, "{}", outcome.output);
        let clients: std::collections::BTreeSet<u64> = outcome.faults().into_iter().map(|(_, one)| one).collect();
        assert_eq!(clients.len(), 1, "{}", outcome.output);
    }
}

#[test]
fn a_dropped_message_is_missing() {
    is_found(Tamper::Drop, &["missing"]);
}

#[test]
fn a_repeated_message_is_a_duplicate() {
    is_found(Tamper::Duplicate, &["duplicate"]);
}

#[test]
fn a_message_that_came_late_is_reordered() {
    is_found(Tamper::Swap, &["reordered"]);
}

#[test]
fn a_forged_payload_is_corrupted() {
    is_found(Tamper::Forge, &["corrupted"]);
}

#[test]
fn a_message_without_its_number_is_corrupted_and_the_number_missing() {
    is_found(Tamper::Break, &["corrupted", "missing"]);
}

#[test]
fn what_was_accepted_and_nobody_received_is_missing_everywhere() {
    let server = Fake::start(Behaviour { unsent: vec![45], ..Behaviour::default() });
    let outcome = swarm(&server, &[]);
    outcome.assert_exit(1);
    let expected: Vec<_> = (0..8).map(|client| ("missing".to_owned(), client)).collect();
    assert_eq!(outcome.faults(), expected, "{}", outcome.output);
}

#[test]
fn a_server_that_loses_the_end_for_everybody_is_found_out() {
    let server = Fake::start(Behaviour { unsent: (95..1_000).collect(), ..Behaviour::default() });
    let outcome = swarm(&server, &[]);
    outcome.assert_exit(1);
    assert!(outcome.output.contains("missing"), "{}", outcome.output);
}

#[test]
fn a_slow_consumer_close_fails_the_run_and_is_named() {
    let server = Fake::start(Behaviour { tamper: Some((2, 40, Tamper::Cut)), ..Behaviour::default() });
    let outcome = swarm(&server, &[]);
    outcome.assert_exit(1);
    let drop = "closed by the server with 1008 policy violation: slow consumer";
    assert_eq!(outcome.report["facts"]["drops"][drop], 1, "{}", outcome.output);
    assert!(outcome.output.contains(drop), "{}", outcome.output);
}

#[test]
fn a_channel_the_server_does_not_confirm_fails_every_client() {
    let server = Fake::start(Behaviour { unsubscribed: Some("analytics"), ..Behaviour::default() });
    let outcome = swarm(&server, &["--channels", "lines,analytics"]);
    outcome.assert_exit(1);
    assert!(outcome.output.contains("subscribed without analytics"), "{}", outcome.output);
}

/// Slow or stalled clients with a policy, on messages up to this number.
fn with_policy(who: &str, policy: &str, of_policy: (u64, u64)) -> Outcome {
    let server = Fake::start(Behaviour { produces: Some(LAST), of_policy, ..Behaviour::default() });
    let last = LAST.to_string();
    heard(&server, &[who, "25", "--policy", policy, "--duration", "2s", "--last-seq", &last])
}

/// The last number of the fake's producer, which comes in the measured time of these runs.
const LAST: u64 = 300;

#[test]
fn clients_with_a_policy_that_hear_of_the_last_message_prove_delivery() {
    for who in ["--slow", "--stalled"] {
        proven(&with_policy(who, "skip", (0, LAST)));
        proven(&with_policy(who, "latest", (0, LAST)));
    }
    proven(&with_policy("--slow", "latest", (LAST, LAST)));
}

#[test]
fn a_server_that_keeps_something_from_clients_with_a_policy_is_found_out() {
    for (policy, of_policy) in [
        // Nothing at all, all but the last message, all but the first ones.
        ("skip", (LAST + 1, LAST + 1)),
        ("latest", (LAST + 1, LAST + 1)),
        ("skip", (0, LAST - 1)),
        ("latest", (0, LAST - 1)),
        ("skip", (LAST - 1, LAST)),
    ] {
        let outcome = with_policy("--slow", policy, of_policy);
        outcome.assert_exit(1);
        let kinds: Vec<String> = outcome.faults().into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, ["missing"; 2], "{policy} {of_policy:?}: {}", outcome.output);
    }
}

#[test]
fn publishing_that_is_refused_ends_the_run_with_the_reason() {
    let outcome = swarm(&Fake::start(Behaviour { full_at: Some(40), ..Behaviour::default() }), &["--duration", "30s"]);
    outcome.assert_exit(1);
    assert!(outcome.output.contains("publishing ended"), "{}", outcome.output);
    assert!(outcome.output.contains("HTTP 503"), "{}", outcome.output);
}

#[test]
fn the_token_goes_with_clients_and_publisher() {
    let server = Fake::start(Behaviour { token: Some("abc"), ..Behaviour::default() });
    proven(&swarm(&server, &["--token", "abc"]));
    let without = swarm(&server, &[]);
    without.assert_exit(1);
    assert!(without.output.contains("upgrade refused: HTTP 401"), "{}", without.output);
    let other = swarm(&server, &["--token", "abc", "--publish-token", "stale-credential"]);
    other.assert_exit(1);
    assert!(other.output.contains("HTTP 401"), "{}", other.output);
    assert!(!other.output.contains("stale-credential"), "{}", other.output);
}

#[test]
fn numbers_of_another_producer_are_proven_while_it_goes_on() {
    let server = Fake::start(Behaviour { produces: Some(u64::MAX), ..Behaviour::default() });
    let outcome = heard(&server, &[]);
    proven(&outcome);
    assert_eq!(outcome.report["facts"]["ledger"]["source"], "witness");
    assert!(outcome.report["facts"]["verified"].as_u64().unwrap() > 8 * 100, "{}", outcome.output);
}

#[test]
fn a_producer_that_ended_proves_nothing_unless_its_last_number_is_known() {
    // Its end comes in the measured time, or a little before.
    let ended = || Fake::start(Behaviour { produces: Some(300), ..Behaviour::default() });
    unproven(&heard(&ended(), &["--duration", "2s", "--drain", "1s"]), "--last-seq");
    proven(&heard(&ended(), &["--duration", "2s", "--last-seq", "300"]));
    unproven(&heard(&ended(), &["--duration", "2s", "--drain", "1s", "--last-seq", "301"]), "--last-seq");
}

#[test]
fn a_number_no_client_heard_is_missing_everywhere() {
    let server = Fake::start(Behaviour { produces: Some(u64::MAX), unsent: vec![LATER], ..Behaviour::default() });
    let outcome = heard(&server, &["--duration", "3s"]);
    outcome.assert_exit(1);
    let expected: Vec<_> = (0..8).map(|client| ("missing".to_owned(), client)).collect();
    assert_eq!(outcome.faults(), expected, "{}", outcome.output);
}

#[test]
fn times_of_another_clock_prove_nothing() {
    let behaviour = Behaviour { produces: Some(u64::MAX), has_foreign_clock: true, ..Behaviour::default() };
    let outcome = heard(&Fake::start(behaviour), &["--drain", "1s"]);
    unproven(&outcome, "not of this host's CLOCK_MONOTONIC");
}

#[test]
fn several_processes_share_one_publisher() {
    let server = Fake::start(Behaviour::default());
    let outcome = swarm(&server, &["--processes", "2", "--duration", "2s"]);
    proven(&outcome);
    assert_eq!(outcome.report["facts"]["setup"]["processes"], 2);
    let server = Fake::start(Behaviour { full_at: Some(40), ..Behaviour::default() });
    let outcome = swarm(&server, &["--processes", "2", "--duration", "2s", "--drain", "1s"]);
    outcome.assert_exit(1);
    assert!(outcome.output.contains("HTTP 503"), "{}", outcome.output);
}

#[test]
fn without_a_sequence_messages_are_counted_and_the_run_says_so() {
    let server = Fake::start(Behaviour { produces: Some(u64::MAX), ..Behaviour::default() });
    unproven(&swarm(&server, &["--publish-rate", "0"]), "carry no number");
}

#[test]
fn a_trading_stream_beside_the_sequence_leaves_the_run_unproven() {
    let outcome = swarm(&Fake::start(Behaviour::default()), &["--channels", "lines,signals", "--symbols", "AAPL"]);
    unproven(&outcome, "messages of signals carry no number");
}
