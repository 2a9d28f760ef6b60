//! Faults on demand on `/ws` (`docs/faults.md`): a client that the plan means by its `client_id`, while another loses
//! nothing.

use serde_json::{Value, json};

use crate::common::dataset::Dataset;
use crate::common::faults::{clear, entries_until, frames, order, standing, step};
use crate::common::server::Server;
use crate::common::socket::Frame;
use crate::common::streams::{Heard, SECRET, StreamClient, signed};
use crate::messages::{accepted, signal};

/// A server whose streams are fed by the test and whose clock stands.
fn server() -> Server {
    standing(
        &Dataset::usual(),
        &[("FLOWCAST_REPLAY_TRADING", "false"), ("WS_AUTH_SECRET", SECRET), ("WEBSOCKET_AUTO_SUBSCRIBE", "false")],
    )
}

fn named(server: &Server, client_id: &str) -> StreamClient {
    let token = signed(&json!({"sub": "test"}), "HS256", SECRET);
    StreamClient::at(server, &format!("/ws?token={token}&client_id={client_id}")).unwrap().subscribed(&["signals"])
}

/// The quantities of the signals up to a pong.
fn quantities(client: &mut StreamClient) -> Vec<u64> {
    let heard = client.until_pong();
    heard.iter().filter_map(|message| message["data"]["quantity"].as_u64()).collect()
}

/// Publishes signals until every client has what it is to get.
fn publish(server: &Server, quantities: &[u64]) {
    let signals: Vec<Value> = quantities.iter().map(|quantity| signal("AAPL", *quantity)).collect();
    accepted(server, "signals", &signals);
}

#[test]
fn messages_published_in_a_tick_are_dropped_duplicated_or_late_for_one_client() {
    for (fault, expected) in [
        ("do = \"drop\"\ntimes = 1", vec![2, 3]),
        ("do = \"duplicate\"\ntimes = 1", vec![1, 1, 2, 3]),
        ("do = \"reorder\"\ntimes = 1", vec![2, 1, 3]),
        ("do = \"split\"\ntimes = 1", vec![1, 2, 3]),
        ("do = \"delay\"\nby = \"50ms\"", vec![1, 2, 3]),
    ] {
        let server = server();
        let (mut bad, mut good) = (named(&server, "bad"), named(&server, "good"));
        order(&server, &format!("[[fault]]\nat = 1\nwho = {{ key = \"bad\" }}\n{fault}\n"));
        step(&server, 1);
        publish(&server, &[1, 2, 3]);
        let mut heard = Vec::new();
        while heard.len() < expected.len() {
            let message = bad.next("signals");
            heard.push(message["data"]["quantity"].as_u64().unwrap());
        }
        assert_eq!(heard, expected, "{fault}");
        while good.next("signals")["data"]["quantity"] != 3 {}
        let entry = &entries_until(&server, 1)[0];
        assert_eq!((&entry["hub"], &entry["frames"][0]["channel"]), (&json!("ws"), &json!("signals")), "{entry}");
        assert!(entry["frames"][0]["seq"].is_u64(), "{entry}");
        // The next tick is as it should be.
        step(&server, 1);
        publish(&server, &[4]);
        assert_eq!([&mut bad, &mut good].map(|client| client.next("signals")["data"]["quantity"].clone()), [4, 4]);
        assert_eq!(quantities(&mut bad), Vec::<u64>::new(), "{fault}: and nothing else");
    }
}

#[test]
fn a_message_that_is_corrupted_is_still_text() {
    let server = server();
    let (mut bad, mut good) = (named(&server, "bad"), named(&server, "good"));
    order(&server, "[[fault]]\nat = 1\nwho = { key = \"bad\", group = \"signals*\" }\ntimes = 1\ndo = \"corrupt\"\n");
    step(&server, 1);
    publish(&server, &[1]);
    let (Frame::Text(broken), Frame::Text(whole)) = (bad.socket.frame(), good.socket.frame()) else {
        panic!("expected texts");
    };
    let bit = entries_until(&server, 1)[0]["frames"][0]["bit"].as_u64().unwrap();
    let mut restored = broken.clone().into_bytes();
    restored[usize::try_from(bit / 8).unwrap()] ^= 1 << (bit % 8);
    assert_eq!((restored == whole.as_bytes(), broken == whole), (true, false));
    assert_eq!(frames(&server, "corrupt"), 1);
}

#[test]
fn a_client_of_ws_is_reset_or_closed_and_the_others_stay() {
    let server = server();
    let (mut one, mut two, mut good) = (named(&server, "one"), named(&server, "two"), named(&server, "good"));
    order(
        &server,
        "[[fault]]\nat = 1\nwho = { key = \"one\" }\ndo = \"reset\"\n\
         [[fault]]\nat = 1\nwho = { key = \"two\" }\ndo = \"close\"\ncode = 4000\nreason = \"bye\"\n",
    );
    step(&server, 1);
    assert_eq!(one.rest(), [Heard::Reset]);
    assert_eq!(two.rest()[0], Heard::Closed(Some((4000, "bye".to_owned()))));
    publish(&server, &[1]);
    assert_eq!(good.next("signals")["data"]["quantity"], 1);
    clear(&server);
}
