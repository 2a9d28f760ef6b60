//! Faults on demand about frames (`docs/faults.md`): on every subprotocol, to the client that the plan means, while
//! another loses nothing.

use serde_json::{Value, json};

use crate::common::client::{ALL, Client, Data, JSON_RELIABLE, PROTOBUF};
use crate::common::dataset::{Dataset, group};
use crate::common::faults::{clear, entries_until, frames, keyed, order, standing, step, struck};
use crate::common::server::Server;
use crate::common::socket::Frame;

fn indexes(data: &[Data]) -> Vec<u64> {
    data.iter().map(Data::index).collect()
}

/// What became of a plan of one fault at tick 2, over five ticks.
struct Struck {
    server: Server,
    bad: Client,
    /// The one entry of the ledger.
    entry: Value,
}

fn strike(subprotocol: &str, fault: &str) -> Struck {
    let server = standing(&Dataset::usual(), &[]);
    let (bad, mut good) = (keyed(&server, "bad", subprotocol), keyed(&server, "good", JSON_RELIABLE));
    order(&server, &format!("[[fault]]\nat = 2\nwho = {{ key = \"bad\" }}\n{fault}\n"));
    step(&server, 5);
    let good = good.take(5);
    assert_eq!(indexes(&good), [0, 1, 2, 3, 4], "the other client gets everything once, in order");
    let entries = entries_until(&server, 1);
    assert_eq!(entries.len(), 1, "{entries:?}");
    let entry = entries.into_iter().next().unwrap();
    assert_eq!(entry["connection"], bad.connected().connection_id.as_str());
    assert_eq!(entry["frames"][0]["sequence_id"], good[1].id(), "{entry}");
    assert_eq!((&entry["frames"][0]["group"], &entry["tick"]), (&json!(group("SPX")), &json!(2)));
    Struck { server, bad, entry }
}

#[test]
fn a_frame_that_is_dropped_does_not_come() {
    for subprotocol in ALL {
        let Struck { server, mut bad, .. } = strike(subprotocol, "do = \"drop\"");
        assert_eq!(indexes(&bad.take(4)), [0, 2, 3, 4], "{subprotocol}");
        assert_eq!((struck(&server, "drop"), frames(&server, "drop")), (1, 1));
        assert_eq!(bad.ping(), []);
    }
}

#[test]
fn a_frame_that_is_duplicated_comes_twice() {
    for subprotocol in ALL {
        let Struck { server: _server, mut bad, .. } = strike(subprotocol, "do = \"duplicate\"");
        let data = bad.take(6);
        assert_eq!(indexes(&data), [0, 1, 1, 2, 3, 4], "{subprotocol}");
        assert_eq!(data[1], data[2], "with the same id");
    }
}

#[test]
fn a_frame_that_is_reordered_comes_after_the_next() {
    for subprotocol in ALL {
        let Struck { server: _server, mut bad, .. } = strike(subprotocol, "do = \"reorder\"");
        assert_eq!(indexes(&bad.take(5)), [0, 2, 1, 3, 4], "{subprotocol}");
    }
}

#[test]
fn a_frame_that_is_delayed_holds_up_those_behind_it() {
    for subprotocol in ALL {
        let Struck { server: _server, mut bad, entry } =
            strike(subprotocol, "do = \"delay\"\nby = \"150ms\"\njitter = \"50ms\"");
        assert_eq!(indexes(&bad.take(5)), [0, 1, 2, 3, 4], "{subprotocol}");
        let ms = entry["frames"][0]["ms"].as_u64().unwrap();
        assert!((150..=200).contains(&ms), "{entry}");
    }
}

#[test]
fn what_is_held_leaves_in_order_when_the_plan_ends() {
    let Struck { server, mut bad, .. } = strike(JSON_RELIABLE, "do = \"delay\"\nby = \"5m\"");
    assert_eq!(indexes(&bad.take(1)), [0]);
    assert_eq!(bad.ping(), [], "the rest is held");
    assert!(server.metric("flowcast_fault_held_bytes") > 0);
    clear(&server);
    assert_eq!(indexes(&bad.take(4)), [1, 2, 3, 4]);
    step(&server, 2);
    assert_eq!(indexes(&bad.take(2)), [5, 6], "and then it goes on as if nothing had been");
    assert_eq!(server.metric("flowcast_fault_held_bytes"), 0);
}

/// The bytes of the next messages.
fn messages(client: &mut Client, count: usize) -> Vec<Vec<u8>> {
    let message = |client: &mut Client| match client.socket.frame() {
        Frame::Text(text) => text.into_bytes(),
        Frame::Binary(bytes) => bytes,
        other => panic!("expected a message, got {other:?}"),
    };
    (0..count).map(|_| message(client)).collect()
}

/// What a client that is struck at tick 2 gets, what another one of its protocol gets, and the frame of the entry.
fn compared(subprotocol: &str, fault: &str) -> (Vec<Vec<u8>>, Vec<Vec<u8>>, Value) {
    let server = standing(&Dataset::usual(), &[]);
    let (mut bad, mut good) = (keyed(&server, "bad", subprotocol), keyed(&server, "good", subprotocol));
    order(&server, &format!("[[fault]]\nat = 2\nwho = {{ key = \"bad\" }}\n{fault}\n"));
    step(&server, 4);
    let frame = entries_until(&server, 1)[0]["frames"][0].clone();
    (messages(&mut bad, 4), messages(&mut good, 4), frame)
}

#[test]
fn a_frame_that_is_corrupted_has_one_wrong_bit_and_the_entry_says_which() {
    for subprotocol in ALL {
        let (mut bad, good, frame) = compared(subprotocol, "do = \"corrupt\"");
        assert_ne!(bad, good);
        let bit = frame["bit"].as_u64().unwrap();
        bad[1][usize::try_from(bit / 8).unwrap()] ^= 1 << (bit % 8);
        assert_eq!(bad, good, "{subprotocol}: the same but for that bit, and nobody else's is flipped");
    }
}

#[test]
fn a_frame_that_is_truncated_ends_early_in_a_whole_websocket_frame() {
    for subprotocol in ALL {
        let (bad, good, frame) = compared(subprotocol, "do = \"truncate\"");
        let (kept, bytes) = (frame["kept"].as_u64().unwrap(), frame["bytes"].as_u64().unwrap());
        assert_eq!((kept, bytes), (bad[1].len() as u64, good[1].len() as u64));
        assert!(kept < bytes && good[1].starts_with(&bad[1]), "{subprotocol}");
        assert_eq!([&bad[0], &bad[2], &bad[3]], [&good[0], &good[2], &good[3]]);
    }
}

#[test]
fn a_frame_that_is_split_leaves_byte_by_byte_and_arrives_whole() {
    for subprotocol in ALL {
        let server = standing(&Dataset::usual(), &[]);
        let (mut bad, mut good) = (keyed(&server, "bad", subprotocol), keyed(&server, "good", subprotocol));
        order(&server, "[[fault]]\nat = 2\nwho = { key = \"bad\" }\ndo = \"split\"\n");
        let before = server.metric("flowcast_sends_total");
        step(&server, 4);
        let good = messages(&mut good, 4);
        assert_eq!(messages(&mut bad, 4), good, "{subprotocol}");
        let sends = server.metric_until("flowcast_sends_total", |sends| sends - before >= good[1].len() as u64);
        assert!(sends - before < good[1].len() as u64 + 30, "{subprotocol}: one frame, a send for each byte");
    }
}

#[test]
fn a_silent_group_is_silent_for_everybody_and_the_others_are_not() {
    let server = standing(&Dataset::usual(), &[]);
    let mut clients: Vec<Client> = ["a", "b", "c"].map(|key| keyed(&server, key, PROTOBUF).joined(&["ES_SPX"])).into();
    order(&server, "[[fault]]\nat = 2\nfor = 2\nwho = { group = \"*_SPX_orderflow_*\" }\ndo = \"drop\"\n");
    order(&server, "[[fault]]\nat = 2\nfor = 2\nwho = { group = \"blue_SPX_*\" }\ndo = \"silence\"\n");
    step(&server, 4);
    for client in &mut clients {
        let data = client.take(6);
        let of = |ticker: &str| -> Vec<u64> {
            data.iter().filter(|data| data.group == group(ticker)).map(Data::index).collect()
        };
        assert_eq!((of("SPX"), of("ES_SPX")), (vec![0, 3], vec![0, 1, 2, 3]));
    }
    // One entry for a shard and a tick, whoever many there are.
    let entries = entries_until(&server, 2);
    for entry in &entries {
        assert_eq!(
            (&entry["everyone"], &entry["connection"], &entry["user"]),
            (&json!(true), &json!(null), &json!(null))
        );
        assert_eq!(entry["frames"].as_array().unwrap().len(), 1, "{entry}");
    }
    assert!(entries.len() <= 4, "{entries:?}");
}

#[test]
fn times_and_for_limit_what_a_firing_strikes() {
    let server = standing(&Dataset::usual(), &[]);
    let mut client = keyed(&server, "bad", JSON_RELIABLE);
    order(&server, "[[fault]]\nevery = 5\nfor = 4\ntimes = 2\ndo = \"drop\"\n");
    step(&server, 14);
    assert_eq!(indexes(&client.take(10)), [0, 1, 2, 3, 6, 7, 8, 11, 12, 13]);
    assert_eq!(frames(&server, "drop"), 4);
}

#[test]
fn several_faults_strike_one_frame_in_the_order_of_the_plan() {
    let server = standing(&Dataset::usual(), &[]);
    let mut client = keyed(&server, "k", JSON_RELIABLE);
    let twice = "[[fault]]\nat = 1\ndo = \"duplicate\"\n";
    order(&server, &format!("{twice}[[fault]]\nat = 1\ndo = \"reorder\"\n[[fault]]\nat = 3\ndo = \"drop\"\n"));
    step(&server, 4);
    assert_eq!(indexes(&client.take(4)), [0, 1, 0, 3]);
    let kinds: Vec<Value> = entries_until(&server, 3).iter().map(|entry| entry["do"].clone()).collect();
    assert_eq!(kinds, ["duplicate", "reorder", "drop"]);
}

#[test]
fn a_client_behind_a_long_delay_is_a_client_that_is_too_slow() {
    let server = standing(&Dataset::usual(), &[("WS_CLIENT_BUFFER", "5")]);
    let (mut bad, mut good) = (keyed(&server, "bad", PROTOBUF), keyed(&server, "good", PROTOBUF));
    order(&server, "[[fault]]\nat = 1\nwho = { key = \"bad\" }\ndo = \"delay\"\nby = \"5m\"\n");
    for tick in 0..8 {
        step(&server, 1);
        assert_eq!(good.data().index(), tick);
    }
    server.closed_until("lag", 1);
    bad.rest();
}
