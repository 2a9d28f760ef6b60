//! Sessions that another node takes back, or the same one after a restart: `docs/protocols/webpubsub.md`, "Tokens that carry
//! the session".

use serde_json::json;

use crate::common::client::{
    CLIENT, Client, Data, JSON, JSON_RELIABLE, RELIABLE, Refused, Said, Session, hub_path, recover, recover_as,
    recover_at,
};
use crate::common::dataset::{Dataset, group};
use crate::common::http;
use crate::common::server::{Server, refusal, serve};

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// A node of a group that shares a key. Nothing but key and files is the same.
fn node(settings: &[(&str, &str)]) -> Server {
    let dataset = Dataset::new(&[("SPX", 20_000), ("ES_SPX", 19_997)]);
    let settings = [&[("WS_STREAM_INTERVAL", "2ms"), ("FLOWCAST_SESSION_KEY", KEY)], settings].concat();
    Server::with(&dataset, &settings)
}

fn token(session: &Session) -> &str {
    session.connected.token.as_deref().expect("a reliable connection")
}

fn is_plain(session: &Session) -> bool {
    token(session).len() == 32
}

/// Each id is larger than all before: the SDKs would drop it otherwise.
fn assert_rising(data: &[Data], above: u64) {
    let ids = data.iter().fold(above, |last, data| {
        assert!(data.id() > last, "{} after {last}", data.id());
        data.id()
    });
    assert!(ids < 1 << 53);
}

fn groups_of(data: &[Data]) -> Vec<&str> {
    let mut groups: Vec<&str> = data.iter().map(|data| &*data.group).collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// A session that is refused as one without a signed token is.
fn assert_unknown(server: &Server, id: &str, token: &str) {
    let refused = recover(server.address, JSON_RELIABLE, id, token).expect_err("no such session");
    assert!(refused.is_final(), "{refused:?}");
    let python = "azsdk-python-webpubsub-client/1.1.0 Python/3.11.2 (Linux)";
    let refused = recover_as(python, CLIENT, server.address, (JSON_RELIABLE, id, token)).expect_err("no such session");
    assert!(matches!(&refused, Refused::Answer(404, _)), "{refused:?}");
}

#[test]
fn another_node_takes_a_session_back_with_its_groups_and_nothing_twice() {
    // Its counter began before the one of the node that the client comes from.
    let (other, first) = (node(&[]), node(&[]));
    for (round, subprotocol) in RELIABLE.into_iter().enumerate() {
        let mut client = Client::open(&first, subprotocol).joined(&["SPX", "ES_SPX"]);
        let before = client.take(50);
        let mut back = client.reset().at(&other).recover().expect("by its token");
        assert_eq!(back.connected().user_id, "some-key");
        let data = back.take(50);
        assert_rising(&data, before.last().unwrap().id());
        assert_eq!(groups_of(&data), [group("ES_SPX"), group("SPX")], "joined by the server, {subprotocol}");
        other.metric_until("flowcast_sessions_restored_total", |restored| restored == round as u64 + 1);

        // There it is a session like any other.
        let id = back.connected().connection_id.clone();
        back.confirm(data.last().unwrap().id());
        assert!(back.leave(&group("SPX")).success);
        let mut back = back.reset().recover().expect("its own session");
        assert_eq!(groups_of(&back.take(20)), [group("ES_SPX")]);
        assert_eq!(back.connected().connection_id, id, "the same all the time");
    }
    assert_eq!(other.metric("flowcast_sessions_restored_total"), 2);
    assert_eq!(other.metric("flowcast_recoveries_total"), 2);
    assert_eq!(other.metric("flowcast_recovery_gap_frames_total"), 0);
}

#[test]
fn a_restarted_node_takes_its_sessions_back() {
    let dataset = Dataset::new(&[("SPX", 20_000)]);
    let settings = [("WS_STREAM_INTERVAL", "2ms"), ("FLOWCAST_SESSION_KEY", KEY), ("FLOWCAST_SHARDS", "4")];
    let server = Server::with(&dataset, &settings);
    let sessions: Vec<(Session, u64)> = (0..8)
        .map(|at| {
            let mut client = Client::open(&server, RELIABLE[at % 2]).joined(&["SPX"]);
            let newest = client.data().id();
            (client.reset(), newest)
        })
        .collect();
    drop(server);
    // With another number of shards, whose numbers are in the connection ids.
    let server = Server::with(&dataset, &[&settings[..2], &[("FLOWCAST_SHARDS", "3")]].concat());
    for (session, newest) in sessions {
        let mut client = session.at(&server).recover().expect("by its token");
        assert_rising(&client.take(5), newest);
        client.reset().recover().expect("by its shard").take(5);
    }
    assert_eq!(server.metric("flowcast_sessions_restored_total"), 8);
    assert_eq!(server.metric("flowcast_recoveries_total"), 8);
}

#[test]
fn the_token_has_what_is_acknowledged() {
    let (first, other) = (node(&[]), node(&[]));
    for subprotocol in RELIABLE {
        let mut client = Client::open(&first, subprotocol);
        let mut tokens = vec![token(&client.session).to_owned()];
        assert!(client.join(&group("SPX")).success);
        tokens.push(token(&client.session).to_owned());
        // Without an ack id there is no ack, but a token.
        client.send_join(&group("ES_SPX"), None);
        while groups_of(&client.take(20)).len() < 2 || tokens.contains(&token(&client.session).to_owned()) {}
        tokens.push(token(&client.session).to_owned());
        // What changes nothing changes no token.
        assert!(client.join(&group("SPX")).success);
        assert_eq!(client.join("nonsense").error_name(), "BadRequest");
        assert_eq!(token(&client.session), tokens[2]);
        assert!(client.leave(&group("ES_SPX")).success);
        assert_ne!(token(&client.session), tokens[2]);
        let mut back = client.reset().at(&other).recover().expect("by its token");
        assert_eq!(groups_of(&back.take(20)), [group("SPX")], "{subprotocol}");
    }
}

#[test]
fn a_session_that_is_here_is_recovered_with_nothing_lost_whatever_its_token_says() {
    let server = node(&[]);
    for subprotocol in RELIABLE {
        let mut client = Client::open(&server, subprotocol).joined(&["SPX"]);
        let received = client.take(30);
        let mut client = client.reset().recover().expect("its own session");
        assert_eq!(client.take(30), received, "what was not confirmed");
    }
    assert_eq!(server.metric("flowcast_sessions_restored_total"), 0);
}

#[test]
fn what_is_left_of_a_session_gives_way_to_a_newer_token_of_another_node() {
    let (one, other) = (node(&[]), node(&[]));
    let session = Client::open(&one, JSON_RELIABLE).joined(&["SPX"]).reset();
    let old = session.clone();
    let mut client = session.at(&other).recover().expect("by its token");
    let _ = client.data();
    let mut client = client.joined(&["ES_SPX"]);
    let newest = client.take(20).last().unwrap().id();
    // The first node still has the session as it was when the client left.
    let mut client = client.reset().at(&one).recover().expect("by its newer token");
    let data = client.take(40);
    assert_rising(&data, newest);
    assert_eq!(groups_of(&data), [group("ES_SPX"), group("SPX")]);
    one.metric_until("flowcast_sessions_detached", |detached| detached == 0);

    // An answer may be lost on the way, so that the client comes with the older token again.
    let mut again = old.at(&one).recover().expect("by its older token");
    assert_eq!(groups_of(&again.take(20)), [group("SPX")]);
    assert!(
        !client.rest().iter().any(|said| matches!(said, Said::Closed(_))),
        "no close code: it would end the session"
    );
    assert_eq!(one.closed("recovered"), 1);
    one.metric_until("flowcast_connections", |connections| connections == 1);
    one.metric_until("flowcast_subscribers", |subscribers| subscribers == 1);
}

#[test]
fn tokens_that_are_forged_cut_or_of_another_key_hub_or_session_are_refused_as_before() {
    let (first, other) = (node(&[]), node(&[]));
    let client = Client::open(&first, JSON_RELIABLE).joined(&["SPX"]);
    let (id, token) = (client.connected().connection_id.clone(), token(&client.session).to_owned());
    let changed = token.replacen(&token[20..21], if &token[20..21] == "A" { "B" } else { "A" }, 1);
    for wrong in [&changed, &token[..token.len() - 4], &token[4..], &format!("{token}AAAA"), "", &"A".repeat(4096)] {
        assert_unknown(&other, &id, wrong);
        assert_unknown(&first, &id, wrong);
    }
    assert_unknown(&other, "00000000-0000-4000-8000-000000000000", &token);
    for hub in ["v2_orderflow", "classic"] {
        let refused = recover_at(&hub_path(hub), other.address, JSON_RELIABLE, &id, &token);
        assert!(refused.expect_err("another hub").is_final());
    }
    for settings in [("FLOWCAST_SESSION_KEY", "another key of more than 32 bytes"), ("WS_GROUP_PREFIX", "red")] {
        assert_unknown(&node(&[settings]), &id, &token);
    }
    let without = Server::start(&Dataset::usual());
    assert_unknown(&without, &id, &token);
    recover(other.address, JSON_RELIABLE, &id, &token).expect("the right one").data();
}

#[test]
fn a_node_that_allows_fewer_groups_takes_none_of_the_session() {
    let (first, small) = (node(&[]), node(&[("FLOWCAST_MAX_GROUPS_PER_CONNECTION", "1")]));
    let session = Client::open(&first, JSON_RELIABLE).joined(&["SPX", "ES_SPX"]).reset();
    let refused = session.at(&small).recover().expect_err("two groups");
    assert!(refused.is_final(), "{refused:?}");
}

#[test]
fn a_session_with_too_many_long_names_has_a_plain_token_until_it_leaves_some() {
    let (first, other) = (node(&[]), node(&[]));
    let mut client = Client::open(&first, JSON_RELIABLE).joined(&["SPX"]);
    let long: Vec<String> = (0..4).map(|at| group(&format!("{at}{}", "T".repeat(900)))).collect();
    let mut plain = Vec::new();
    for name in &long {
        assert!(client.join(name).success);
        plain.push(is_plain(&client.session));
    }
    assert_eq!(plain, [false, false, false, true]);
    let mut client = client.reset().recover().expect("where it is, as ever");
    assert!(is_plain(&client.session));
    assert_unknown(&other, &client.connected().connection_id.clone(), token(&client.session));
    assert!(client.leave(&long[0]).success);
    assert!(!is_plain(&client.session));
    client.reset().at(&other).recover().expect("by its token").data();
}

#[test]
fn a_hundred_and_fifty_groups_fit_into_a_url() {
    let (first, other) = (node(&[]), node(&[]));
    let mut client = Client::open(&first, JSON_RELIABLE);
    for at in 0..149 {
        client.send_join(&group(&format!("TICK{at}")), None);
    }
    let mut client = client.joined(&["SPX"]);
    assert!((1000..2500).contains(&token(&client.session).len()), "{}", token(&client.session).len());
    client.data();
    client.reset().at(&other).recover().expect("by its token").data();
    other.metric_until("flowcast_subscribers", |subscribers| subscribers == 150);
}

#[test]
fn plain_clients_slots_and_session_clocks_stay_as_they_are() {
    let (first, other) = (node(&[]), node(&[]));
    let plain = Client::open(&first, JSON).joined(&["SPX"]);
    assert_eq!(plain.connected().token, None);

    let headers = [("Authorization", "Bearer some-key")];
    let path = |answer: &http::Response, hub: &str| {
        let url = answer.json()["websocket_urls"][hub].as_str().unwrap().to_owned();
        url.strip_prefix(&format!("ws://{}", first.address)).unwrap().to_owned()
    };
    let body = json!({ "groups": ["SPX_orderflow_orderflow"] }).to_string();
    let slot = http::request_with(first.address, "POST", "/v2/negotiate", &headers, &body);
    let clock = http::request(first.address, "GET", "/v2/negotiate?session=mine", &headers);
    for path in [path(&slot, "orderflow"), path(&clock, "orderflow")] {
        let mut client = Client::open_at(&first, &path, JSON_RELIABLE);
        if path.contains("slot-") {
            client.data();
        } else {
            client = client.joined(&["SPX"]);
        }
        assert!(is_plain(&client.session), "one node has it alone");
        let session = client.reset();
        session.recover().expect("where it is").data();
        let refused = session.at(&other).recover().expect_err("elsewhere");
        assert!(refused.is_final(), "{refused:?}");
    }
}

#[test]
fn a_key_is_changed_in_two_steps() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    let with_file = |keys: &str| {
        std::fs::write(&file, keys).unwrap();
        let settings = [("WS_STREAM_INTERVAL", "2ms"), ("FLOWCAST_SESSION_KEY_FILE", file.to_str().unwrap())];
        Server::with(&Dataset::usual(), &settings)
    };
    let new = KEY.to_uppercase();
    let (old_node, both) = (with_file(&format!("{KEY}\n")), with_file(&format!("{new}\n{KEY}\n")));
    let new_node = with_file(&new);
    let mut client = Client::open(&old_node, JSON_RELIABLE).joined(&["SPX"]);
    client.data();
    let session = client.reset();
    assert!(session.clone().at(&new_node).recover().expect_err("the old key").is_final());
    let mut client = session.at(&both).recover().expect("the previous key");
    client.data();
    client.reset().at(&new_node).recover().expect("the new key signs").data();
}

#[test]
fn neither_key_nor_token_is_ever_logged_and_a_short_key_is_refused() {
    let server = node(&[("FLOWCAST_LOG_LEVEL", "trace")]);
    let client = Client::open(&server, JSON_RELIABLE).joined(&["SPX"]);
    let session = client.reset();
    server.closed_until("gone", 1);
    let other = node(&[("FLOWCAST_LOG_LEVEL", "trace")]);
    let mut back = session.clone().at(&other).recover().expect("by its token");
    back.data();
    let log = other.logged("session taken back by its token") + &server.log();
    for secret in [KEY, token(&session), token(&back.session), "some-key"] {
        assert!(!log.contains(secret), "{log}");
    }
    let dataset = Dataset::usual();
    let short = refusal(&mut serve(&dataset, &[("FLOWCAST_SESSION_KEY", "too-short")]));
    assert!(short.contains("32 bytes") && !short.contains("too-short"), "{short}");
    let both = [("FLOWCAST_SESSION_KEY", KEY), ("FLOWCAST_SESSION_KEY_FILE", "/nowhere")];
    let both = refusal(&mut serve(&dataset, &both));
    assert!(both.contains("expected one of them") && !both.contains(KEY), "{both}");
}

#[test]
fn a_session_that_is_taken_back_counts_against_the_limit_of_connections() {
    let (first, full) = (node(&[]), node(&[("FLOWCAST_MAX_CONNECTIONS", "1")]));
    let session = Client::open(&first, JSON_RELIABLE).joined(&["SPX"]).reset();
    let other = Client::open(&full, JSON);
    let refused = session.clone().at(&full).recover().expect_err("full");
    assert!(matches!(&refused, Refused::Answer(503, _)), "{refused:?}");
    drop(other);
    full.metric_until("flowcast_connections", |connections| connections == 0);
    session.at(&full).recover().expect("a place").data();
}
