//! Faults on demand that end, stall or flood connections (`docs/faults.md`): each strikes the client that the plan means,
//! and nobody else.

use serde_json::{Value, json};

use crate::common::client::{ALL, Client, Data, JSON, JSON_RELIABLE, PROTOBUF, RELIABLE, Said};
use crate::common::dataset::Dataset;
use crate::common::faults::{clear, entries, entries_until, keyed, order, standing, step, struck};
use crate::common::http::{self, Response};
use crate::common::server::{Server, refusal, serve};
use crate::common::socket::Frame;

fn indexes(data: &[Data]) -> Vec<u64> {
    data.iter().map(Data::index).collect()
}

/// A plan of one fault that strikes the client with the key `bad` at tick 2.
fn at_tick_2(fault: &str) -> String {
    format!("[[fault]]\nat = 2\nwho = {{ key = \"bad\" }}\n{fault}\n")
}

/// A standing server, the client that is struck, and another.
fn two(subprotocol: &str) -> (Server, Client, Client) {
    let server = standing(&Dataset::usual(), &[]);
    let (bad, good) = (keyed(&server, "bad", subprotocol), keyed(&server, "good", JSON_RELIABLE));
    (server, bad, good)
}

#[test]
fn a_reset_is_a_reset_and_a_reliable_session_loses_nothing() {
    for subprotocol in [JSON, JSON_RELIABLE] {
        let (server, mut bad, mut good) = two(subprotocol);
        order(&server, &at_tick_2("do = \"reset\""));
        step(&server, 1);
        assert_eq!(indexes(&bad.take(1)), [0]);
        step(&server, 2);
        assert_eq!(bad.rest().last(), Some(&Said::Reset), "{subprotocol}");
        assert_eq!(indexes(&good.take(3)), [0, 1, 2], "the other client loses nothing");
        if subprotocol == JSON_RELIABLE {
            let mut back = bad.session.recover().expect("its session waits");
            assert_eq!(indexes(&back.take(3)), [0, 1, 2], "none of it was confirmed");
        }
        let entry = &entries_until(&server, 1)[0];
        assert_eq!(
            (&entry["do"], &entry["tick"], &entry["fired"], &entry["nth"]),
            (&json!("reset"), &json!(2), &json!(2), &json!(1))
        );
        assert_eq!(entry["connection"], bad.connected().connection_id.as_str());
        assert_eq!((&entry["hub"], &entry["plan"], &entry["fault"]), (&json!("orderflow"), &json!(1), &json!(1)));
        assert_eq!((struck(&server, "reset"), server.closed("fault")), (1, 1));
    }
}

#[test]
fn half_a_frame_comes_before_a_reset_in_the_middle() {
    for subprotocol in ALL {
        let (server, mut bad, mut good) = two(subprotocol);
        order(&server, &at_tick_2("do = \"reset-mid-frame\""));
        step(&server, 3);
        assert_eq!(indexes(&bad.take(1)), [0]);
        assert_eq!(bad.said(), Said::Reset, "{subprotocol}");
        let entry = &entries_until(&server, 1)[0];
        let frame = &entry["frames"][0];
        assert_eq!(frame["kept"], bad.socket.unfinished().len(), "{subprotocol}: {entry}");
        assert_eq!(frame["kept"].as_u64().unwrap(), frame["bytes"].as_u64().unwrap().div_ceil(2));
        let good = good.take(3);
        assert_eq!((indexes(&good), &frame["sequence_id"]), (vec![0, 1, 2], &json!(good[1].id())));
        if RELIABLE.contains(&subprotocol) {
            assert_eq!(indexes(&bad.session.recover().expect("its session waits").take(3)), [0, 1, 2]);
        }
    }
}

#[test]
fn a_close_has_the_code_and_the_reason_of_the_plan() {
    let (server, mut bad, mut good) = two(JSON_RELIABLE);
    order(&server, &at_tick_2("do = \"close\"\ncode = 1013\nreason = \"try again\""));
    step(&server, 3);
    let rest = bad.rest();
    let close = Said::Closed(Some((1013, "try again".to_owned())));
    assert_eq!(rest[rest.len() - 2..], [close, Said::End]);
    assert_eq!(indexes(&good.take(3)), [0, 1, 2]);
    let entry = &entries_until(&server, 1)[0];
    assert_eq!((&entry["code"], &entry["reason"]), (&json!(1013), &json!("try again")));
    server.closed_until("fault", 1);
    let mut back = bad.session.recover().expect("only the codes 1000 and 1008 end a session");
    assert_eq!(indexes(&back.take(3)), [0, 1, 2]);
    order(&server, "[[fault]]\nat = 1\nwho = { key = \"bad\" }\ndo = \"close\"\ncode = 1008\n");
    step(&server, 1);
    back.rest();
    server.closed_until("fault", 2);
    assert!(back.session.recover().expect_err("it has ended").is_final());
}

#[test]
fn a_stalled_client_gets_nothing_and_everything_afterwards() {
    let (server, mut bad, mut good) = two(PROTOBUF);
    order(&server, &at_tick_2("do = \"stall\"\nfor = \"5m\""));
    step(&server, 4);
    assert_eq!(indexes(&good.take(4)), [0, 1, 2, 3]);
    entries_until(&server, 1);
    assert_eq!(indexes(&bad.take(1)), [0]);
    let sent = server.metric_until("flowcast_frames_out_total", |sent| sent >= 5);
    assert_eq!(sent, 5, "of eight");
    assert_eq!(clear(&server)["active"], false, "and when the plan ends the stall does");
    assert_eq!(indexes(&bad.take(3)), [1, 2, 3]);
    order(&server, "[[fault]]\nat = 1\nwho = { key = \"bad\" }\ndo = \"stall\"\nfor = \"100ms\"\n");
    step(&server, 2);
    assert_eq!(indexes(&bad.take(2)), [4, 5], "it ends by itself too");
    assert_eq!((struck(&server, "stall"), &entries(&server)[1]["ms"]), (2, &json!(100)));
}

#[test]
fn a_flood_of_pings_is_so_many_pings() {
    let (server, mut bad, mut good) = two(JSON);
    order(&server, &at_tick_2("do = \"ping-flood\"\ncount = 300\nfor = 2"));
    step(&server, 3);
    let (mut pings, mut data) = (0, 0);
    while data < 3 || pings < 600 {
        match bad.socket.frame() {
            Frame::Ping(_) => pings += 1,
            Frame::Text(_) => data += 1,
            other => panic!("expected pings and data, got {other:?}"),
        }
    }
    assert_eq!((pings, data, indexes(&good.take(3))), (600, 3, vec![0, 1, 2]));
    let entries = entries_until(&server, 2);
    assert_eq!((&entries[0]["count"], entries.len(), struck(&server, "ping-flood")), (&json!(300), 2, 2));
}

#[test]
fn a_plan_means_whom_it_selects() {
    let server = standing(&Dataset::usual(), &[]);
    let mut clients: Vec<Client> = ["a1", "a2", "b1"].map(|key| keyed(&server, key, JSON)).into();
    let mut of_es = Client::open_at(&server, "/client/hubs/orderflow?access_token=a3:1", JSON).joined(&["ES_SPX"]);
    let mut elsewhere = Client::open_at(&server, "/client/hubs/v2_orderflow?access_token=a4:1", JSON).joined(&["SPX"]);
    let first = clients[0].connected().connection_id.clone();
    for who in [
        format!("connection = \"{first}\""),
        "key = \"a1\"".to_owned(),
        "key = \"a*\", group = \"*_ES_SPX_*\"".to_owned(),
        "key = \"a?\", hub = \"v2_*\"".to_owned(),
        "share = 1".to_owned(),
    ] {
        order(&server, &format!("[[fault]]\nat = 1\ndo = \"ping-flood\"\ncount = 1\nwho = {{ {who} }}\n"));
        step(&server, 1);
    }
    let entries = entries_until(&server, 4 + 5);
    let of_plan = |plan: u64| -> Vec<&Value> {
        entries.iter().filter(|entry| entry["plan"] == plan).map(|entry| &entry["connection"]).collect()
    };
    let id = |client: &Client| json!(client.connected().connection_id);
    assert_eq!(of_plan(1), [&id(&clients[0])]);
    assert_eq!(of_plan(2), [&id(&clients[0])]);
    assert_eq!(of_plan(3), [&id(&of_es)]);
    assert_eq!(of_plan(4), [&id(&elsewhere)]);
    assert_eq!(of_plan(5).len(), 5);
    for client in clients.iter_mut().chain([&mut of_es, &mut elsewhere]) {
        assert_eq!(indexes(&client.take(5)), [0, 1, 2, 3, 4]);
    }
}

#[test]
fn a_plan_that_is_replaced_or_ended_has_struck_at_all_that_was_published() {
    let server = standing(&Dataset::usual(), &[]);
    let mut clients: Vec<Client> = (0..6).map(|number| keyed(&server, &format!("k{number}"), JSON)).collect();
    for round in 1..=60_u64 {
        order(&server, "[[fault]]\nat = 1\ndo = \"drop\"\n");
        step(&server, 1);
        if round % 2 == 0 {
            assert_eq!(clear(&server)["total"]["drop"], 6 * round, "the answer has all that it did");
        }
    }
    step(&server, 1);
    for client in &mut clients {
        assert_eq!(indexes(&client.take(1)), [60], "all others were dropped");
    }
    assert_eq!(struck(&server, "drop"), 360);
}

fn put(server: &Server, headers: &[(&str, &str)], body: &str) -> Response {
    http::request_with(server.address, "PUT", "/faults", headers, body)
}

#[test]
fn a_plan_is_shown_with_what_it_has_done_and_keys_only_to_those_who_may_steer() {
    let server = standing(&Dataset::usual(), &[("FLOWCAST_CONTROL_TOKEN", "s3cret")]);
    let never = json!({"active": false, "plan": 0, "fault": [], "total": {}});
    assert_eq!(server.get("/faults").json(), never);
    let plan =
        json!({"seed": 3, "fault": [{"at": "10s", "who": {"key": "k*", "share": 0.5}, "do": "reset"}]}).to_string();
    let json = ("Content-Type", "application/json");
    assert_eq!(put(&server, &[json], &plan).status, 401);
    let token = ("Authorization", "Bearer s3cret");
    let begun = put(&server, &[json, token], &plan).json();
    let shown = json!({
        "active": true, "plan": 1, "seed": 3, "tick": 0, "elapsed_ms": 0, "total": {},
        "fault": [{"number": 1, "at": "10s", "who": {"key": "k*", "share": 0.5}, "do": "reset",
                   "in_force": false, "fired": null, "struck": 0, "frames": 0}],
    });
    assert_eq!(begun, shown);
    assert_eq!(server.get("/faults").json()["fault"][0]["who"]["key"], "***");
    let read = http::request(server.address, "GET", "/faults", &[token]).json();
    assert_eq!(read["fault"][0]["who"]["key"], "k*");
    assert_eq!((server.metric("flowcast_faults_active"), server.metric("flowcast_faults_plan")), (1, 1));
    let refused = put(&server, &[json, token], r#"{"fault":[{"at":1,"do":"explode"}]}"#);
    assert!(
        refused.status == 400 && refused.error().starts_with("fault 1: do: expected one of reset, "),
        "{refused:?}"
    );
    let text = put(&server, &[("Content-Type", "text/plain"), token], &plan);
    assert_eq!(text.status, 415);
    let large = put(&server, &[json, token], &" ".repeat(70_000));
    assert_eq!(large.status, 413);
    assert_eq!(server.get("/faults").json()["plan"], 1, "the plan goes on");
    let ended = http::request_with(server.address, "DELETE", "/faults", &[token], "").json();
    assert_eq!((&ended["active"], &ended["plan"]), (&json!(false), &json!(1)));
}

#[test]
fn a_server_begins_with_the_plan_of_a_file_and_refuses_a_bad_one() {
    let dataset = Dataset::usual();
    let file = dataset.path().join("plan.toml");
    std::fs::write(&file, "[[fault]]\nat = 1\nwho = { key = \"bad\" }\ndo = \"reset\"\n").unwrap();
    let path = file.to_str().unwrap().to_owned();
    let server = standing(&dataset, &[("FLOWCAST_FAULTS", &path)]);
    assert_eq!(server.get("/faults").json()["active"], true);
    server.logged("serving with a plan of faults");
    let (mut bad, mut good) = (keyed(&server, "bad", JSON), keyed(&server, "good", JSON));
    step(&server, 1);
    assert_eq!((bad.said(), good.data().index()), (Said::Reset, 0));
    std::fs::write(&file, "[[fault]]\nat = 1\ndo = \"rest\"\n").unwrap();
    let said = refusal(&mut serve(&dataset, &[("FLOWCAST_FAULTS", &path)]));
    assert!(said.contains("plan.toml: fault 1: do: expected one of") && said.contains("got \"rest\""), "{said}");
    let said = refusal(&mut serve(&dataset, &[("FLOWCAST_FAULTS", "/nowhere/plan.toml")]));
    assert!(said.contains("/nowhere/plan.toml: expected a readable plan of faults"), "{said}");
}
