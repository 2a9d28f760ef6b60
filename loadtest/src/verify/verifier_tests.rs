//! Random runs with known faults: whatever the interleaving of frames and ledger, each fault must be
//! found, at the client that has it, and nothing else.

use proptest::prelude::*;

use super::*;
use crate::verify::slot::LedgerTimes;

const PUBLICATIONS: u64 = 12;
const TICK_NS: u64 = 1_000;

struct FewClients(Vec<Member>);

impl Members for FewClients {
    fn member(&mut self, member_id: MemberId) -> Option<&mut Member> {
        self.0.get_mut(member_id.client as usize)
    }

    fn for_each_in(&mut self, _log: u32, visit: &mut dyn FnMut(u32, &mut Member)) {
        for (client, member) in self.0.iter_mut().enumerate() {
            visit(client as u32, member);
        }
    }
}

/// What is done to one client's stream.
#[derive(Clone, Copy, Debug)]
enum Tamper {
    Nothing,
    Drop(u64),
    Duplicate(u64),
    Swap(u64),
    Corrupt(u64),
    Invent(u64),
}

#[derive(Clone, Debug)]
struct ClientPlan {
    joined_after: u64,
    tamper: Tamper,
    delays: Vec<u64>,
}

fn identity(key: Key, publication: u64, is_corrupted: bool) -> Identity {
    Identity {
        sequence_id: if key == Key::Sequence { 500 + publication } else { 0 },
        hash: Some(publication * 77 + u64::from(is_corrupted)),
        // Three publications share a record time, as records within one second do.
        timestamp: 1_000 + (publication / 3).cast_signed(),
    }
}

fn published_ns(publication: u64) -> u64 {
    publication * TICK_NS + 7
}

/// The frames one client reads: (time, publication, is corrupted).
fn stream(plan: &ClientPlan) -> Vec<(u64, u64, bool)> {
    let mut order: Vec<(u64, bool)> = (plan.joined_after + 1..=PUBLICATIONS).map(|p| (p, false)).collect();
    let position = |order: &[(u64, bool)], publication| order.iter().position(|&(p, _)| p == publication);
    match plan.tamper {
        Tamper::Nothing => {}
        Tamper::Drop(p) => order.retain(|&(other, _)| other != p),
        Tamper::Duplicate(p) => {
            let at = position(&order, p).unwrap();
            order.insert(at + 1, (p, false));
        }
        Tamper::Swap(p) => {
            let at = position(&order, p).unwrap();
            order.swap(at, at + 1);
        }
        Tamper::Corrupt(p) => {
            let at = position(&order, p).unwrap();
            order[at].1 = true;
        }
        Tamper::Invent(p) => {
            let at = position(&order, p).unwrap();
            order.insert(at + 1, (900, false));
        }
    }
    let mut now = 0;
    order
        .into_iter()
        .enumerate()
        .map(|(number, (publication, is_corrupted))| {
            let published = published_ns(publication.min(PUBLICATIONS));
            let published = if publication == 900 { now } else { published };
            now = (now + 1).max(published + plan.delays[number % plan.delays.len()]);
            (now, publication, is_corrupted)
        })
        .collect()
}

fn expected_fault(tamper: Tamper) -> Option<(FaultKind, u64)> {
    match tamper {
        Tamper::Nothing => None,
        Tamper::Drop(p) => Some((FaultKind::Missing, p)),
        Tamper::Duplicate(p) => Some((FaultKind::Duplicate, p)),
        Tamper::Swap(p) => Some((FaultKind::Reordered, p)),
        Tamper::Corrupt(p) => Some((FaultKind::Corrupted, p)),
        Tamper::Invent(_) => Some((FaultKind::Unexpected, 900)),
    }
}

/// Feeds all streams and the ledger in order of time; returns the verifier after the end of the run.
fn run(key: Key, plans: &[ClientPlan], ledger_delay: u64) -> Verifier {
    let mut verifier = Verifier::new(&[key], 1, true, 0);
    let mut clients = FewClients(
        plans
            .iter()
            .map(|plan| {
                let asked_ns = plan.joined_after * TICK_NS + 100;
                Member { acked_ns: asked_ns + 20, ..Member::new(0, asked_ns) }
            })
            .collect(),
    );
    // (time, client or the ledger, publication, is corrupted)
    let mut events: Vec<(u64, Option<u32>, u64, bool)> = Vec::new();
    for (client, plan) in plans.iter().enumerate() {
        events.extend(stream(plan).into_iter().map(|(at, p, bad)| (at, Some(client as u32), p, bad)));
    }
    events.extend((1..=PUBLICATIONS).map(|p| (published_ns(p) + ledger_delay, None, p, false)));
    events.sort_by_key(|&(at, ..)| at);
    for (at_ns, client, publication, is_corrupted) in events {
        let Some(client) = client else {
            let mut identity = identity(key, publication, false);
            identity.sequence_id = 500 + publication;
            let times = LedgerTimes {
                tick: publication,
                scheduled_ns: published_ns(publication) - 1,
                published_ns: published_ns(publication),
                ..LedgerTimes::default()
            };
            verifier.offer(&mut clients, 0, LedgerEntry { identity, times });
            verifier.heard(&mut clients, published_ns(publication));
            continue;
        };
        let identity = identity(key, publication, is_corrupted);
        let frame = format!("{identity:?}").into_bytes();
        // As the worker does it: first the comparison, then the decoder.
        if verifier.logs[0].take_next(&mut clients.0[client as usize], &frame).is_some() {
            verifier.verified += 1;
            continue;
        }
        let member_id = MemberId { client, session: 0, place: 0, is_measured: true };
        verifier.receive(&mut clients, member_id, &Arrival { identity, frame: &frame, at_ns });
    }
    verifier.heard(&mut clients, u64::MAX);
    for (client, member) in clients.0.iter_mut().enumerate() {
        verifier.judge_end(client as u32, member, u64::MAX, u64::MAX);
    }
    verifier
}

fn plan() -> impl Strategy<Value = ClientPlan> {
    (0..3u64, 0..6u8, 4..PUBLICATIONS, proptest::collection::vec(1..2_500u64, 12)).prop_map(
        |(joined_after, kind, at, delays)| {
            let tamper = match kind {
                0 => Tamper::Nothing,
                1 => Tamper::Drop(at),
                2 => Tamper::Duplicate(at),
                3 => Tamper::Swap(at),
                4 => Tamper::Corrupt(at),
                _ => Tamper::Invent(at),
            };
            ClientPlan { joined_after, tamper, delays }
        },
    )
}

fn found(verifier: &Verifier) -> Vec<(u32, FaultKind, Option<u64>)> {
    let mut found: Vec<_> =
        verifier.faults.listed().iter().map(|fault| (fault.client, fault.kind, fault.sequence_id)).collect();
    found.sort();
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn every_fault_is_found_at_the_client_that_has_it(
        plans in proptest::collection::vec(plan(), 1..5),
        ledger_delay in prop_oneof![Just(0u64), 1..500u64, 500..5_000u64],
        key in prop_oneof![Just(Key::Sequence), Just(Key::Payload)],
    ) {
        let verifier = run(key, &plans, ledger_delay);
        let mut expected: Vec<_> = plans
            .iter()
            .enumerate()
            .filter_map(|(client, plan)| expected_fault(plan.tamper).map(|(kind, p)| (client as u32, kind, p)))
            .map(|(client, kind, p)| match (key, p) {
                // An invented frame of a plain wire has no number.
                (Key::Payload, 900) => (client, kind, None),
                _ => (client, kind, Some(500 + p)),
            })
            .collect();
        expected.sort();
        let mut found = found(&verifier);
        // A sequence id from the future puts what follows out of order, and the SDKs would drop it.
        found.retain(|&(client, kind, _)| {
            let is_invented = matches!(plans[client as usize].tamper, Tamper::Invent(_));
            !(key == Key::Sequence && is_invented && kind == FaultKind::Reordered)
        });
        prop_assert_eq!(found, expected);
        prop_assert_eq!(verifier.parked(), 0);
        prop_assert_eq!(verifier.unjudged, 0);
        // Every copy is accounted for: right, or blamed.
        let due: u64 = plans.iter().map(|plan| PUBLICATIONS - plan.joined_after).sum();
        let lost = verifier.faults.count(FaultKind::Missing) + verifier.faults.count(FaultKind::Corrupted);
        prop_assert_eq!(verifier.verified + lost, due);
    }
}

fn plain(joined_after: u64, tamper: Tamper) -> ClientPlan {
    ClientPlan { joined_after, tamper, delays: vec![50] }
}

#[test]
fn a_first_frame_that_is_late_is_a_missing_frame() {
    let verifier = run(Key::Sequence, &[plain(2, Tamper::Drop(3)), plain(0, Tamper::Nothing)], 10);
    assert_eq!(found(&verifier), [(0, FaultKind::Missing, Some(503))]);
}

#[test]
fn a_last_frame_that_does_not_come_is_a_missing_frame() {
    let verifier = run(Key::Payload, &[plain(0, Tamper::Drop(PUBLICATIONS))], 10);
    assert_eq!(found(&verifier), [(0, FaultKind::Missing, Some(500 + PUBLICATIONS))]);
}

#[test]
fn a_fault_names_its_tick() {
    let verifier = run(Key::Payload, &[plain(0, Tamper::Drop(5))], 10);
    assert_eq!(verifier.faults.listed()[0].tick, Some(5));
}

#[test]
fn a_client_that_receives_nothing_misses_everything_after_its_ack() {
    let mut verifier = Verifier::new(&[Key::Sequence], 1, true, 0);
    let mut clients = FewClients(vec![Member { acked_ns: 2_500, ..Member::new(0, 2_400) }]);
    for publication in 1..=4 {
        let identity = identity(Key::Sequence, publication, false);
        let published_ns = published_ns(publication);
        let times =
            LedgerTimes { tick: publication, scheduled_ns: published_ns, published_ns, ..LedgerTimes::default() };
        verifier.offer(&mut clients, 0, LedgerEntry { identity, times });
    }
    verifier.judge_end(0, &mut clients.0[0], u64::MAX, 9_000);
    assert_eq!(verifier.faults.count(FaultKind::Missing), 2);
}

#[test]
fn without_a_ledger_clients_are_compared_with_each_other() {
    let mut verifier = Verifier::new(&[Key::Payload], 1, false, 0);
    let mut clients = FewClients((0..2).map(|_| Member { acked_ns: 1, ..Member::new(0, 1) }).collect());
    for (at_ns, client, publication) in
        [(10, 0, 1_u32), (11, 1, 1), (20, 0, 3), (21, 1, 2), (22, 1, 3), (30, 0, 4), (31, 1, 4)]
    {
        let identity =
            Identity { timestamp: i64::from(publication), ..identity(Key::Payload, u64::from(publication), false) };
        let member_id = MemberId { client, session: 0, place: 0, is_measured: true };
        verifier.receive(&mut clients, member_id, &Arrival { identity, frame: b"", at_ns });
    }
    assert_eq!(found(&verifier), [(0, FaultKind::Missing, None)]);
    assert_eq!(verifier.faults.listed()[0].record_timestamp, Some(2));
    assert_eq!(verifier.verified, 7);
}

#[test]
fn a_first_copy_in_fragments_is_not_taken_for_the_beginning_of_every_other_frame() {
    let mut verifier = Verifier::new(&[Key::Sequence], 1, true, 0);
    let mut clients = FewClients((0..2).map(|_| Member { acked_ns: 1, ..Member::new(0, 1) }).collect());
    let (identity, published_ns) = (identity(Key::Sequence, 1, false), published_ns(1));
    let times = LedgerTimes { tick: 1, scheduled_ns: published_ns, published_ns, ..LedgerTimes::default() };
    verifier.offer(&mut clients, 0, LedgerEntry { identity, times });
    let member_id = |client| MemberId { client, session: 0, place: 0, is_measured: true };
    verifier.receive(&mut clients, member_id(0), &Arrival { identity, frame: b"", at_ns: 2_000 });
    assert!(verifier.logs[0].take_next(&mut clients.0[1], b"frame").is_none());
    verifier.receive(&mut clients, member_id(1), &Arrival { identity, frame: b"frame", at_ns: 2_001 });
    assert_eq!((found(&verifier), verifier.verified), (vec![], 2));
}
