//! POST and PATCH negotiate: groups that the server joins. `docs/protocols/gexbot.md`, "POST: memberships by the
//! server", "PATCH: another set of groups", "Errors of POST and PATCH".

use serde_json::{Value, json};

use crate::common::client::{ALL, Client, Data, HUBS, JSON_RELIABLE, PROTOBUF, RELIABLE, Said};
use crate::common::dataset::{Dataset, group};
use crate::common::eventually;
use crate::common::http::{self, Response};
use crate::common::server::Server;
use crate::common::socket::Socket;

const KEY: (&str, &str) = ("Authorization", "Bearer some-key");

fn post(server: &Server, groups: &[&str]) -> Response {
    http::request_with(server.address, "POST", "/v2/negotiate", &[KEY], &json!({ "groups": groups }).to_string())
}

fn patch(server: &Server, pairs: &[(&str, &str)]) -> Response {
    patch_with(server, "some-key", pairs)
}

fn patch_with(server: &Server, key: &str, pairs: &[(&str, &str)]) -> Response {
    let pairs: Vec<Value> = pairs.iter().map(|(hub, group)| json!({ "hub": hub, "group": group })).collect();
    let body = json!({ "groups": pairs }).to_string();
    http::request_with(server.address, "PATCH", "/v2/negotiate", &[("Authorization", &format!("Bearer {key}"))], &body)
}

/// The URL of a hub in an answer, without scheme and host.
fn path(server: &Server, answer: &Response, hub: &str) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    let url = answer.json()["websocket_urls"][hub].as_str().unwrap_or_else(|| panic!("{hub} in {answer:?}")).to_owned();
    url.strip_prefix(&format!("ws://{}", server.address)).unwrap_or_else(|| panic!("{url}")).to_owned()
}

fn keys(object: &Value) -> Vec<String> {
    object.as_object().unwrap().keys().cloned().collect()
}

fn v2_hubs() -> [String; 6] {
    HUBS.map(|hub| format!("v2_{hub}"))
}

fn refused(server: &Server, path: &str) -> Response {
    Socket::open(server.address, path, &[("Sec-WebSocket-Protocol", PROTOBUF)]).expect_err("a refusal")
}

/// Orderflow of SPX, ES_SPX and NDX, long enough for the longest test, every 2 ms.
fn fast(settings: &[(&str, &str)]) -> Server {
    let dataset = Dataset::new(&[("SPX", 20_000), ("ES_SPX", 20_000), ("NDX", 20_000)]);
    Server::with(&dataset, &[&[("WS_STREAM_INTERVAL", "2ms")], settings].concat())
}

/// Sequence ids of a group's publications from one id to another, from `/ticks`.
fn published(server: &Server, group: &str, from: u64, to: u64) -> Vec<u64> {
    let (mut ids, mut after) = (Vec::new(), 0);
    loop {
        let page = server.get(&format!("/ticks?after={after}&limit=1000")).json();
        let ticks = page["ticks"].as_array().unwrap().clone();
        let Some(last) = ticks.last() else { return ids };
        after = last["seq"].as_u64().unwrap();
        for publication in ticks.iter().flat_map(|tick| tick["publications"].as_array().unwrap()) {
            let id = publication["sequence_id"].as_u64().unwrap();
            if publication["group"] == group && (from..=to).contains(&id) {
                ids.push(id);
            }
            if id > to {
                return ids;
            }
        }
    }
}

#[test]
fn post_answers_with_the_current_hubs_of_its_path_and_no_prefix() {
    let server = Server::start(&Dataset::usual());
    let body = json!({ "groups": ["SPX_classic_gex_full"] }).to_string();
    for (negotiate, endpoint) in [("/negotiate", "/ws"), ("/v2/negotiate", "/client/hubs")] {
        let answer = http::request_with(server.address, "POST", negotiate, &[KEY], &body);
        assert_eq!(keys(&answer.json()), ["websocket_urls"]);
        assert_eq!(keys(&answer.json()["websocket_urls"]), HUBS);
        for hub in HUBS {
            let path = path(&server, &answer, hub);
            assert!(path.starts_with(&format!("{endpoint}/{hub}?access_token=some-key:slot-")), "{path}");
        }
    }
}

#[test]
fn the_server_joins_at_the_connect_and_sends_no_ack() {
    let server = Server::start(&Dataset::usual());
    let groups = ["SPX_orderflow_orderflow", "ES_SPX_orderflow_orderflow", "SPX_classic_gex_full"];
    for subprotocol in ALL {
        let answer = post(&server, &groups);
        let mut client = Client::open_at(&server, &path(&server, &answer, "orderflow"), subprotocol);
        assert_eq!(client.connected().user_id, "some-key");
        let said: Vec<Said> = (0..10).map(|_| client.said()).collect();
        let mut heard: Vec<String> = said
            .into_iter()
            .map(|said| match said {
                Said::Data(data) => data.group,
                other => panic!("expected data after connected, got {other:?}"),
            })
            .collect();
        heard.sort();
        heard.dedup();
        assert_eq!(heard, [group("ES_SPX"), group("SPX")], "{subprotocol}");
        assert_eq!(server.metric("flowcast_requests_refused_total"), 0);
    }
}

#[test]
fn what_the_server_joins_begins_with_the_next_publication_in_a_form_that_nobody_has_asked_for_before() {
    let server = fast(&[]);
    // Frames of 2025 are not built before somebody wants them.
    let body = json!({ "groups": ["SPX_orderflow_orderflow"] }).to_string();
    let answer = http::request_with(server.address, "POST", "/negotiate", &[KEY], &body);
    let mut client = Client::open_at(&server, &path(&server, &answer, "orderflow"), JSON_RELIABLE);
    let first = client.data().id();
    // A tick is entered after the shards are rung.
    server.ticks(2);
    assert_eq!(published(&server, &group("SPX"), 0, first), [first], "nothing was published before it");

    let both = [("orderflow", "SPX_orderflow_orderflow"), ("orderflow", "NDX_orderflow_orderflow")];
    assert_eq!(patch(&server, &both).status, 200);
    let told = server.get("/websocket/status").json()["gexbot"]["sequence_id"].as_u64().unwrap();
    let ndx = loop {
        let data = client.data();
        if data.group == group("NDX") && data.id() > told {
            break data.id();
        }
    };
    server.ticks(2);
    assert_eq!(published(&server, &group("NDX"), told + 1, ndx), [ndx], "the first after the answer came");
}

#[test]
fn a_hub_without_data_is_joined_and_silent() {
    let server = Server::start(&Dataset::usual());
    let answer = post(&server, &["SPX_classic_gex_full", "SPX_state_gamma_zero"]);
    let mut classic = Client::open_at(&server, &path(&server, &answer, "classic"), PROTOBUF);
    let mut one = Client::open_at(&server, &path(&server, &answer, "state_greeks_one"), PROTOBUF);
    server.ticks(3);
    assert_eq!((classic.ping(), one.ping()), (vec![], vec![]));
    assert_eq!(server.metric("flowcast_subscribers"), 1);
}

#[test]
fn with_spot_groups_the_v2_hubs_are_named_and_each_gets_its_groups_and_spot() {
    let server = Server::start(&Dataset::usual());
    // The example of the section.
    let answer = post(
        &server,
        &["SPX_classic_gex_full", "SPX_state_gamma_zero", "SPX_spot", "ES_SPX_orderflow_orderflow", "ES_SPX_spot"],
    );
    assert_eq!(keys(&answer.json()["websocket_urls"]), v2_hubs());
    let (mut joined, mut clients) = (0, Vec::new());
    for (hub, groups) in [
        ("v2_classic", ["SPX_classic_gex_full", "SPX_spot"]),
        ("v2_state_greeks_zero", ["SPX_state_gamma_zero", "SPX_spot"]),
        ("v2_orderflow", ["ES_SPX_orderflow_orderflow", "ES_SPX_spot"]),
    ] {
        let mut client = Client::open_at(&server, &path(&server, &answer, hub), PROTOBUF);
        joined += 2;
        server.metric_until("flowcast_subscribers", |subscribers| subscribers == joined);
        for name in groups {
            assert!(client.join(&format!("blue_{name}")).success, "{hub}: {name} was joined and may be again");
        }
        assert_eq!(server.metric("flowcast_subscribers"), joined, "{hub}");
        if hub == "v2_orderflow" {
            assert!(client.data().group.starts_with("blue_ES_SPX_"));
        }
        clients.push(client);
    }
    let answer = refused(&server, &path(&server, &answer, "v2_classic").replace("v2_classic", "classic"));
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(answer.error().contains("v2 hubs"), "{}", answer.error());
}

#[test]
fn a_client_of_post_may_join_only_what_it_negotiated() {
    let server = Server::start(&Dataset::usual());
    let answer = post(&server, &["SPX_orderflow_orderflow", "SPX_classic_gex_full"]);
    let mut client = Client::open_at(&server, &path(&server, &answer, "orderflow"), JSON_RELIABLE);
    assert!(client.join(&group("SPX")).success);
    for (name, words) in [
        (group("ES_SPX"), "negotiated"),
        ("blue_SPX_classic_gex_full".to_owned(), "on the hubs classic and v2_classic"),
        ("red_SPX_orderflow_orderflow".to_owned(), "prefix blue"),
    ] {
        let ack = client.join(&name);
        assert_eq!(ack.error_name(), "Forbidden", "{name}");
        let (_, message) = ack.error.unwrap();
        assert!(message.contains(words), "{message}");
    }
    assert!(client.leave(&group("SPX")).success);
    assert!(client.join(&group("SPX")).success, "it may come back to what it left");
    client.data();
}

#[test]
fn the_same_url_opens_a_connection_again() {
    let server = Server::start(&Dataset::usual());
    let url = path(&server, &post(&server, &["SPX_orderflow_orderflow"]), "orderflow");
    for _ in 0..3 {
        assert_eq!(Client::open_at(&server, &url, PROTOBUF).data().group, group("SPX"));
    }
}

#[test]
fn patch_on_an_open_socket_loses_nothing_of_what_stays() {
    let server = fast(&[("FLOWCAST_SHARDS", "2")]);
    let sets = ["ES_SPX", "NDX"].map(|ticker| ["SPX", ticker].map(|it| format!("{it}_orderflow_orderflow")));
    let start: Vec<&str> = sets[0].iter().map(String::as_str).collect();
    for subprotocol in RELIABLE {
        let answer = post(&server, &start);
        let url = path(&server, &answer, "orderflow");
        // Several connections of the slot, on both shards.
        let mut clients = [(); 3].map(|()| Client::open_at(&server, &url, subprotocol));
        let mut data = clients.each_mut().map(|client| client.take(10));
        for at in 1..=10 {
            let [kept, other] = &sets[at % 2];
            let answer = patch(&server, &[("orderflow", kept), ("orderflow", other)]);
            assert_eq!((answer.status, &answer.json()["updated_groups"]), (200, &json!(2)), "{answer:?}");
            for (client, data) in clients.iter_mut().zip(&mut data) {
                // What was sent before the answer is read; from here on only the new groups may come.
                data.extend(client.ping());
                let after = client.take(20);
                let allowed = [kept, other].map(|name| format!("blue_{name}"));
                assert!(after.iter().all(|data| allowed.contains(&data.group)), "{allowed:?}: {after:?}");
                assert!(after.iter().any(|data| data.group == allowed[1]), "what comes begins");
                data.extend(after);
            }
        }
        for data in data {
            let ids: Vec<u64> = data.iter().filter(|data| data.group == group("SPX")).map(Data::id).collect();
            assert!(ids.len() > 50);
            assert_eq!(ids, published(&server, &group("SPX"), ids[0], *ids.last().unwrap()), "{subprotocol}");
            assert!(data.windows(2).all(|pair| pair[0].id() < pair[1].id()), "ids rise over all groups");
        }
    }
}

#[test]
fn patch_answers_with_all_six_hubs_of_the_generation() {
    let server = Server::start(&Dataset::usual());
    let v2 = ["SPX_classic_gex_full", "SPX_spot"];
    assert_eq!(post(&server, &v2).status, 200);
    let answer = patch(
        &server,
        &[
            ("v2_classic", "SPX_classic_gex_full"),
            ("v2_classic", "SPX_spot"),
            ("v2_state_greeks_zero", "SPX_state_gamma_zero"),
            ("v2_state_greeks_zero", "SPX_spot"),
            ("v2_orderflow", "ES_SPX_orderflow_orderflow"),
            ("v2_orderflow", "ES_SPX_spot"),
            ("v2_orderflow", "ES_SPX_spot"),
        ],
    );
    let hubs = json!({
        "v2_classic": 2, "v2_state_gex": 0, "v2_state_greeks_zero": 2, "v2_state_greeks": 0,
        "v2_state_greeks_one": 0, "v2_orderflow": 2
    });
    assert_eq!((answer.status, answer.json()), (200, json!({ "updated_groups": 6, "hubs": hubs })));

    assert_eq!(post(&server, &["SPX_classic_gex_full"]).status, 200);
    let answer = patch(&server, &[("state_gex", "SPX_state_gex_zero")]).json();
    assert_eq!((answer["updated_groups"].clone(), keys(&answer["hubs"])), (json!(1), HUBS.map(str::to_owned).to_vec()));
}

#[test]
fn a_socket_that_is_not_open_yet_counts_for_patch_and_gets_the_new_groups() {
    let server = Server::start(&Dataset::usual());
    let url = path(&server, &post(&server, &["SPX_orderflow_orderflow"]), "orderflow");
    assert_eq!(patch(&server, &[("orderflow", "ES_SPX_orderflow_orderflow")]).status, 200);
    let mut client = Client::open_at(&server, &url, PROTOBUF);
    assert!(client.take(5).iter().all(|data| data.group == group("ES_SPX")));
}

#[test]
fn patch_reaches_a_session_that_waits_for_its_client() {
    let server = fast(&[]);
    let both = ["SPX_orderflow_orderflow", "ES_SPX_orderflow_orderflow"];
    let url = path(&server, &post(&server, &both), "orderflow");
    let mut client = Client::open_at(&server, &url, JSON_RELIABLE);
    let before = client.take(10);
    let session = client.reset();
    server.metric_until("flowcast_sessions_detached", |sessions| sessions == 1);
    let answer = patch(&server, &[("orderflow", both[0]), ("orderflow", "NDX_orderflow_orderflow")]);
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut back = session.recover().expect("its session");
    let after = back.take(100);
    assert!(after.iter().all(|data| data.group != group("ES_SPX")), "what went is not sent again");
    assert!(after.iter().any(|data| data.group == group("NDX")));
    let of = |data: &Data| (data.group == group("SPX")).then(|| data.id());
    let mut ids: Vec<u64> = before.iter().chain(&after).filter_map(of).collect();
    ids.sort_unstable();
    ids.dedup();
    // The ledger is written after the shards were rung: a client may be faster.
    eventually("the ledger has what the client has", || {
        (published(&server, &group("SPX"), ids[0], *ids.last().unwrap()) == ids).then_some(())
    });
}

#[test]
fn another_post_with_the_key_closes_the_connections_of_the_slot() {
    let server = Server::with(&Dataset::usual(), &[("FLOWCAST_SHARDS", "2")]);
    let answer = post(&server, &["SPX_orderflow_orderflow", "SPX_classic_gex_full"]);
    let open = |hub, subprotocol| Client::open_at(&server, &path(&server, &answer, hub), subprotocol);
    let waiting = open("orderflow", JSON_RELIABLE).reset();
    server.metric_until("flowcast_sessions_detached", |sessions| sessions == 1);
    let clients = [open("orderflow", PROTOBUF), open("classic", JSON_RELIABLE), open("orderflow", JSON_RELIABLE)];
    let mut own = Client::open(&server, PROTOBUF).joined(&["SPX"]);
    let mut other_key = {
        let headers = [("Authorization", "Bearer other-key")];
        let body = r#"{"groups":["SPX_orderflow_orderflow"]}"#;
        let answer = http::request_with(server.address, "POST", "/v2/negotiate", &headers, body);
        Client::open_at(&server, &path(&server, &answer, "orderflow"), PROTOBUF)
    };
    assert_eq!(server.metric("flowcast_api_slots"), 2);

    assert_eq!(post(&server, &[]).status, 400);
    own.data();
    assert_eq!(server.closed("replaced"), 0, "only a POST with success closes");
    let again = post(&server, &["ES_SPX_orderflow_orderflow"]);
    for mut client in clients {
        let mut rest = client.rest();
        rest.retain(|said| !matches!(said, Said::Data(_)));
        let reason = "another negotiate took this slot".to_owned();
        assert_eq!(rest[..2], [Said::Disconnected(reason.clone()), Said::Closed(Some((1008, reason)))]);
    }
    server.closed_until("replaced", 3);
    assert_eq!(waiting.recover().expect_err("an ended session").status, 404);
    assert_eq!(server.metric("flowcast_sessions_detached"), 0);
    let old = refused(&server, &path(&server, &answer, "orderflow"));
    assert_eq!(old.status, 401, "{old:?}");
    assert!(old.error().contains("POST negotiate again"), "{}", old.error());
    let mut fresh = Client::open_at(&server, &path(&server, &again, "orderflow"), PROTOBUF);
    assert_eq!(fresh.data().group, group("ES_SPX"));
    assert_eq!((own.data().group, other_key.data().group), (group("SPX"), group("SPX")), "nobody else is closed");
    assert_eq!(server.metric("flowcast_api_slots"), 2);
}

#[test]
fn with_the_policy_many_each_post_has_its_own_slot() {
    let server = Server::with(&Dataset::usual(), &[("FLOWCAST_SLOT_POLICY", "many")]);
    let open = || {
        let url = path(&server, &post(&server, &["SPX_orderflow_orderflow"]), "orderflow");
        let token = url.split_once('=').unwrap().1.to_owned();
        (Client::open_at(&server, &url, PROTOBUF), token)
    };
    let mut clients = [open(), open(), open()];
    for (client, _) in &mut clients {
        client.take(3);
    }
    let pairs = [("orderflow", "ES_SPX_orderflow_orderflow")];
    assert_eq!(patch(&server, &pairs).status, 200, "a key means its newest slot");
    assert_eq!(patch_with(&server, &clients[0].1, &pairs).status, 200, "a token its own");
    let heard = clients.each_mut().map(|(client, _)| {
        client.ping();
        client.data().group
    });
    assert_eq!(heard, ["ES_SPX", "SPX", "ES_SPX"].map(group));
    assert_eq!(server.closed("replaced"), 0);
}

#[test]
fn slots_are_bounded_and_the_oldest_without_a_connection_goes() {
    let settings = [("FLOWCAST_SLOT_POLICY", "many"), ("FLOWCAST_MAX_SLOTS", "2")];
    let server = Server::with(&Dataset::usual(), &settings);
    let url = || path(&server, &post(&server, &["SPX_orderflow_orderflow"]), "orderflow");
    let (first, second) = (url(), url());
    let first = Client::open_at(&server, &first, PROTOBUF);
    let third = url();
    assert_eq!(refused(&server, &second).status, 401, "its slot has gone");
    let _third = Client::open_at(&server, &third, PROTOBUF);
    let answer = post(&server, &["SPX_orderflow_orderflow"]);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.error().contains("--max-slots"), "{}", answer.error());
    drop(first);
    server.closed_until("gone", 1);
    assert_eq!(post(&server, &["SPX_orderflow_orderflow"]).status, 200);
}

#[test]
fn more_than_150_memberships_are_forbidden() {
    let server = Server::start(&Dataset::usual());
    let names: Vec<String> =
        (0..76).flat_map(|n| ["classic_gex_full", "spot"].map(|it| format!("T{n}_{it}"))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(post(&server, &names[..150]).status, 200);
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| ("v2_classic", *name)).collect();
    assert_eq!(patch(&server, &pairs[..150]).status, 200);
    for answer in [post(&server, &names), patch(&server, &pairs)] {
        assert_eq!((answer.status, answer.error().as_str()), (403, TOO_MANY));
    }
    let doubled = [&names[..150], &names[..150]].concat();
    assert_eq!(post(&server, &doubled).status, 200, "duplicates count once");

    let server = Server::with(&Dataset::usual(), &[("FLOWCAST_MAX_MEMBERSHIPS", "1")]);
    assert_eq!(post(&server, &["SPX_classic_gex_full", "SPX_state_gex_full"]).status, 403);
    let server = Server::with(&Dataset::usual(), &[("FLOWCAST_MAX_GROUPS_PER_CONNECTION", "1")]);
    assert_eq!(post(&server, &["SPX_classic_gex_full", "SPX_state_gex_full"]).status, 200, "one on each hub");
    let answer = post(&server, &["SPX_classic_gex_full", "SPX_classic_gex_one"]);
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(answer.error().ends_with("on one hub, got 2 on classic"), "{}", answer.error());
}

const TOO_MANY: &str = "expected at most 150 memberships (pairs of hub and group), got 152";

#[test]
fn whatever_is_wrong_with_a_body_is_400_and_named() {
    let server = Server::start(&Dataset::usual());
    assert_eq!(post(&server, &["SPX_classic_gex_full", "SPX_spot"]).status, 200);
    for (method, body, words) in [
        ("POST", "", "expected JSON in the body"),
        ("POST", "{", "expected JSON in the body"),
        ("POST", "[]", r#"expected an object such as {"groups":[…]} as the body, got an array"#),
        ("POST", "{}", "expected an array as groups, got nothing"),
        ("POST", r#"{"groups":[]}"#, "expected at least one group in groups, got none"),
        ("POST", r#"{"groups":[1]}"#, "expected a string as groups[0], got a number"),
        ("POST", r#"{"groups":["SPX"]}"#, r#"groups[0]: unknown group "SPX"; expected"#),
        ("POST", r#"{"groups":["SPX_classic_gamma_zero"]}"#, "unknown group"),
        ("POST", r#"{"groups":["blue_SPX_classic_gex_full"]}"#, "without its prefix, SPX_classic_gex_full"),
        ("POST", r#"{"groups":["SPX_spot"]}"#, "expected analytics of SPX"),
        ("POST", r#"{"groups":["SPX_classic_gex_full","NDX_spot","NDX_classic_gex_full"]}"#, NO_SPOT),
        ("PATCH", "nonsense", "expected JSON in the body"),
        ("PATCH", r#"{"groups":[]}"#, "expected at least one group"),
        ("PATCH", r#"{"groups":["SPX_spot"]}"#, "as groups[0], got a string"),
        ("PATCH", r#"{"groups":[{"hub":"v2_classic"}]}"#, "expected a string as groups[0].group, got nothing"),
        ("PATCH", r#"{"groups":[{"hub":"x","group":"SPX_spot"}]}"#, r#"unknown hub "x"; expected one of classic, "#),
        ("PATCH", r#"{"groups":[{"hub":"v2_orderflow","group":"SPX_classic_gex_full"}]}"#, "not of v2_orderflow"),
        ("PATCH", r#"{"groups":[{"hub":"classic","group":"SPX_spot"}]}"#, "is a group of the v2 hubs, not of classic"),
        ("PATCH", r#"{"groups":[{"hub":"v2_classic","group":"SPX_classic_gex_full"}]}"#, NO_SPOT),
        ("PATCH", r#"{"groups":[{"hub":"v2_classic","group":"SPX_spot"}]}"#, "beside SPX_spot on v2_classic"),
        ("PATCH", r#"{"groups":[{"hub":"classic","group":"SPX_classic_gex_full"}]}"#, "no connection on classic"),
    ] {
        let answer = http::request_with(server.address, method, "/v2/negotiate", &[KEY], body);
        assert_eq!(answer.status, 400, "{method} {body}: {answer:?}");
        assert!(answer.error().contains(words), "{method} {body}: {}", answer.error());
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    let answer = patch_with(&server, "stranger", &[("classic", "SPX_classic_gex_full")]);
    assert_eq!((answer.status, answer.error().contains("POST")), (400, true), "{answer:?}");
    let long = format!(r#"{{"groups":["{}"]}}"#, "x".repeat(100_000));
    let answer = http::request_with(server.address, "POST", "/v2/negotiate", &[KEY], &long);
    assert_eq!(answer.status, 413, "{answer:?}");
}

const NO_SPOT: &str = "expected SPX_spot beside the analytics of SPX";

#[test]
fn without_a_key_post_and_patch_answer_as_gexbot_does() {
    let server = Server::start(&Dataset::usual());
    let body = r#"{"groups":["SPX_classic_gex_full"]}"#;
    for (method, path) in
        ["POST", "PATCH"].into_iter().flat_map(|method| ["/negotiate", "/v2/negotiate"].map(|path| (method, path)))
    {
        let answer = http::request_with(server.address, method, path, &[], body);
        assert_eq!((answer.status, answer.error().as_str()), (400, "Authorization header not found."));
        for header in ["Basic", "Bearer ", "Digest x"] {
            let answer = http::request_with(server.address, method, path, &[("Authorization", header)], body);
            assert_eq!(answer.status, 401, "{header}: {answer:?}");
        }
    }
    for (query, header) in [("", "Basic k"), ("", "Bearer k"), ("", "k"), ("?key=k", "")] {
        let headers: &[(&str, &str)] = if header.is_empty() { &[] } else { &[("Authorization", header)] };
        let answer = http::request_with(server.address, "POST", &format!("/v2/negotiate{query}"), headers, body);
        assert!(path(&server, &answer, "classic").contains("access_token=k:slot-"), "{header:?}");
    }
}

#[test]
fn keys_and_tokens_stay_out_of_the_log() {
    let server = Server::with(&Dataset::usual(), &[("FLOWCAST_LOG_LEVEL", "trace")]);
    let url = path(&server, &post(&server, &["SPX_orderflow_orderflow"]), "orderflow");
    Client::open_at(&server, &url, PROTOBUF).data();
    patch(&server, &[("orderflow", "ES_SPX_orderflow_orderflow")]);
    server.closed_until("gone", 1);
    let slot = url.rsplit_once("slot-").unwrap().1;
    let log = server.log();
    assert!(!log.contains("some-key") && !log.contains(slot), "{log}");
}
