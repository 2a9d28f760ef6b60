//! Sessions that outlive their socket: `docs/protocols/webpubsub.md`, "Recovery".

use crate::common;
use std::collections::HashMap;

use crate::common::client::{
    CLIENT, Client, Data, JSON, JSON_RELIABLE, PLAIN, PROTOBUF_RELIABLE, RELIABLE, Refused, Said, hub_path, recover,
    recover_as, recover_at,
};
use crate::common::dataset::{Dataset, group};
use crate::common::eventually;
use crate::common::server::Server;

/// Long enough that an index tells a record's tick for as long as a test runs.
fn dataset() -> Dataset {
    Dataset::new(&[("SPX", 20_000), ("ES_SPX", 19_997)])
}

fn fast() -> Server {
    Server::with(&dataset(), &[("WS_STREAM_INTERVAL", "2ms")])
}

/// What an SDK hands out: data whose sequence id is larger than every one before.
fn deduplicated(data: Vec<Data>) -> Vec<Data> {
    let mut largest = 0;
    data.into_iter()
        .filter(|data| {
            let newer = data.id() > largest;
            largest = largest.max(data.id());
            newer
        })
        .collect()
}

/// Each group's records follow one another without a hole.
fn assert_whole(data: &[Data]) {
    let mut last: HashMap<&str, u64> = HashMap::new();
    for data in data {
        let index = data.index();
        if let Some(before) = last.insert(&data.group, index) {
            assert_eq!(index, before + 1, "{}", data.group);
        }
    }
}

/// A recovery that is refused: with a close for nearly all clients, and with 404 for the one that loses the code.
fn assert_unknown(server: &Server, id: &str, token: &str) {
    let refused = recover(server.address, JSON_RELIABLE, id, token).expect_err("no such session");
    assert!(refused.is_final(), "{refused:?}");
    let python = "azsdk-python-webpubsub-client/1.1.0 Python/3.11.2 (Linux)";
    let refused = recover_as(python, CLIENT, server.address, (JSON_RELIABLE, id, token)).expect_err("no such session");
    assert!(matches!(&refused, Refused::Answer(404, reason) if reason.contains("session")), "{refused:?}");
}

#[test]
fn a_session_is_recovered_on_its_own_hub_only() {
    let server = Server::start(&Dataset::usual());
    let session = Client::open_hub(&server, "v2_orderflow", JSON_RELIABLE).joined(&["SPX"]).reset();
    let (id, token) = (&session.connected.connection_id, session.connected.token.as_deref().unwrap());
    let recover = |hub| recover_at(&hub_path(hub), server.address, JSON_RELIABLE, id, token);
    for hub in ["orderflow", "v2_classic"] {
        assert!(recover(hub).expect_err("another hub").is_final());
    }
    assert_eq!(recover("v2_orderflow").expect("its own hub").data().group, group("SPX"));
}

#[test]
fn a_recovery_needs_no_access_token() {
    let server = fast();
    for path in ["/client/hubs/orderflow", "/ws/orderflow", "/client?hub=orderflow"] {
        let mut client = Client::open_at(&server, CLIENT, JSON_RELIABLE).joined(&["SPX"]);
        let before = client.data();
        client.confirm(before.id());
        let session = client.reset();
        let (id, token) = (&session.connected.connection_id, session.connected.token.as_deref().unwrap());
        let mut back = recover_at(path, server.address, JSON_RELIABLE, id, token).expect("its session");
        assert_eq!(back.connected(), &session.connected);
        assert_eq!(back.data().index(), before.index() + 1);
    }
    let refused = recover_at("/client/hubs/orderflow", server.address, JSON_RELIABLE, "nonsense", "x");
    assert!(refused.expect_err("no such session").is_final());
    server.closed_until("not_recovered", 1);
}

#[test]
fn sequence_ids_rise_across_groups_and_fit_a_javascript_number() {
    let server = fast();
    for subprotocol in RELIABLE {
        let data = Client::open(&server, subprotocol).joined(&["SPX", "ES_SPX"]).take(200);
        assert!(data.windows(2).all(|pair| pair[1].id() > pair[0].id()), "{subprotocol}");
        assert!(data.iter().all(|data| (1..1 << 53).contains(&data.id())));
        assert!(["SPX", "ES_SPX"].iter().all(|ticker| data.iter().any(|data| data.group == group(ticker))));
        assert_whole(&data);
    }
}

#[test]
fn plain_connections_carry_no_sequence_id() {
    let server = fast();
    for subprotocol in PLAIN {
        let data = Client::open(&server, subprotocol).joined(&["SPX"]).take(5);
        assert!(data.iter().all(|data| data.sequence_id.is_none()), "{subprotocol}");
    }
}

#[test]
fn the_frame_of_a_publication_is_the_same_for_every_connection() {
    let server = fast();
    let mut one = Client::open(&server, JSON_RELIABLE).joined(&["SPX"]);
    let mut other = Client::open(&server, PROTOBUF_RELIABLE).joined(&["SPX"]);
    let (one, other) = (one.take(100), other.take(50));
    let shared = other.iter().filter(|data| one.contains(data)).count();
    assert!(shared > 0, "same group, id and payload on both syntaxes");
}

#[test]
fn a_cut_connection_is_recovered_with_nothing_lost_and_nothing_twice() {
    let server = fast();
    for subprotocol in RELIABLE {
        let mut client = Client::open(&server, subprotocol).joined(&["SPX", "ES_SPX"]);
        let (first, mut data) = (client.session.connected.clone(), Vec::new());
        for round in 0..5 {
            let received = client.take(20 + round);
            data.extend(received);
            if round % 2 == 1 {
                client.confirm(data.last().unwrap().id());
            }
            let session = client.reset();
            client = session.recover().expect("the session is there");
            assert_eq!(client.connected(), &first, "same id, token and user");
        }
        data.extend(client.take(50));
        assert_whole(&deduplicated(data));
    }
    server.metric_until("flowcast_recoveries_total", |recoveries| recoveries == 10);
    assert_eq!(server.metric("flowcast_recovery_gap_frames_total"), 0);
}

#[test]
fn what_was_not_confirmed_is_sent_again_from_the_oldest_on() {
    let server = fast();
    for subprotocol in RELIABLE {
        let mut client = Client::open(&server, subprotocol).joined(&["SPX", "ES_SPX"]);
        let received = client.take(30);
        let session = client.reset();
        let mut client = session.recover().unwrap();
        assert_eq!(client.take(30), received, "{subprotocol}: nothing was confirmed");

        client.confirm(received[9].id());
        let mut client = client.reset().recover().unwrap();
        assert_eq!(client.take(20), received[10..], "{subprotocol}: ten were confirmed");
        client.confirm(received[4].id());
        let mut client = client.reset().recover().unwrap();
        assert_eq!(client.take(1)[0], received[10], "{subprotocol}: an older confirmation takes nothing back");
    }
}

#[test]
fn an_id_that_was_never_sent_confirms_nothing() {
    let server = fast();
    let mut client = Client::open(&server, JSON_RELIABLE).joined(&["SPX"]);
    let received = client.take(5);
    client.confirm(u64::MAX);
    let mut client = client.reset().recover().unwrap();
    assert_eq!(client.take(5), received);
}

#[test]
fn nothing_from_before_the_join_is_sent_to_a_recovered_client() {
    let server = fast();
    let mut other = Client::open(&server, JSON_RELIABLE).joined(&["SPX", "ES_SPX"]);
    let before = other.take(20).last().unwrap().id();
    let mut client = Client::open(&server, JSON_RELIABLE).joined(&["SPX"]);
    let first = client.data();
    let mut client = client.reset().recover().unwrap();
    let again = client.data();
    assert_eq!(again, first);
    assert!(again.id() > before);
}

#[test]
fn a_group_that_was_left_stays_left_after_a_recovery() {
    let server = fast();
    let mut client = Client::open(&server, PROTOBUF_RELIABLE).joined(&["SPX", "ES_SPX"]);
    client.take(10);
    assert!(client.leave(&group("SPX")).success);
    let mut client = client.reset().recover().unwrap();
    assert!(client.take(30).iter().all(|data| data.group == group("ES_SPX")));
}

#[test]
fn an_open_socket_is_aborted_when_its_session_is_recovered() {
    let server = fast();
    let mut old = Client::open(&server, JSON_RELIABLE).joined(&["SPX"]);
    let mut new = old.session.recover().unwrap();
    let mut data = new.take(20);
    data = deduplicated(data);
    assert_whole(&data);
    let rest = old.rest();
    assert!(!rest.iter().any(|said| matches!(said, Said::Closed(_))), "no close code: it would end the session");
    assert_eq!(server.closed("recovered"), 1);
}

#[test]
fn the_subprotocol_of_the_session_wins() {
    let server = fast();
    let client = Client::open(&server, JSON_RELIABLE).joined(&["SPX"]);
    let session = client.reset();
    let token = session.connected.token.clone().unwrap();
    let path = format!(
        "{}&awps_connection_id={}&awps_reconnection_token={token}",
        common::client::CLIENT,
        session.connected.connection_id
    );
    let offered = [("Sec-WebSocket-Protocol", PROTOBUF_RELIABLE)];
    let socket = common::socket::Socket::open(session.address, &path, &offered).unwrap();
    assert_eq!(socket.response.header("sec-websocket-protocol"), Some(JSON_RELIABLE));
    let mut client = Client::on(socket, session.address, JSON_RELIABLE);
    client.data();
}

#[test]
fn ack_ids_are_remembered_over_a_recovery() {
    let server = fast();
    let mut client = Client::open(&server, JSON_RELIABLE).joined(&["SPX"]);
    client.take(3);
    let mut client = client.reset().recover().unwrap();
    client.send_join(&group("ES_SPX"), Some(1));
    assert_eq!(client.ack(1).error_name(), "Duplicate");
}

#[test]
fn sessions_that_cannot_be_recovered_are_closed_with_1008_or_404_for_azures_python_sdk() {
    let server = fast();
    let mut client = Client::open(&server, JSON_RELIABLE).joined(&["SPX"]);
    let Session { id, token } = Session::of(&client);
    assert_unknown(&server, "00000000-0000-4000-8000-000000000000", &token);
    assert_unknown(&server, "nonsense", "nonsense");
    assert_unknown(&server, &id, "00000000000040008000000000000000");
    assert_unknown(&server, &id, "");
    client.take(3);

    let plain = Client::open(&server, JSON);
    assert_unknown(&server, &plain.connected().connection_id, "");
    assert_unknown(&server, &plain.connected().connection_id, "00000000000000000000000000000000");
}

struct Session {
    id: String,
    token: String,
}

impl Session {
    fn of(client: &Client) -> Self {
        let connected = client.connected().clone();
        Self { id: connected.connection_id, token: connected.token.unwrap() }
    }
}

#[test]
fn close_1000_ends_a_session_and_other_closes_leave_it() {
    let server = fast();
    for subprotocol in RELIABLE {
        let mut client = Client::open(&server, subprotocol).joined(&["SPX"]);
        client.take(3);
        client.send_close(1000);
        assert!(client.rest().contains(&Said::Closed(Some((1000, String::new())))));
        let Session { id, token } = Session::of(&client);
        assert_unknown(&server, &id, &token);

        for code in [1001, 1011, 4000] {
            let mut client = Client::open(&server, subprotocol).joined(&["SPX"]);
            let first = client.data();
            client.send_close(code);
            client.rest();
            let mut client = client.session.recover().unwrap_or_else(|answer| panic!("{code}: {answer:?}"));
            assert_eq!(client.data(), first, "{code}");
        }
    }
}

#[test]
fn a_session_whose_time_is_over_is_gone() {
    let server = Server::with(&dataset(), &[("FLOWCAST_SESSION_TIMEOUT_SECONDS", "0")]);
    let client = Client::open(&server, JSON_RELIABLE).joined(&["SPX"]);
    let Session { id, token } = Session::of(&client);
    client.reset();
    eventually("the session is given up", || {
        (server.closed("gone") == 1 && server.metric("flowcast_sessions_detached") == 0).then_some(())
    });
    assert_unknown(&server, &id, &token);
    assert_eq!(server.metric("flowcast_subscribers"), 0);
}

#[test]
fn detached_sessions_are_bounded_and_the_oldest_goes_first() {
    let server = Server::with(&dataset(), &[("FLOWCAST_MAX_DETACHED_SESSIONS", "2"), ("FLOWCAST_SHARDS", "1")]);
    let sessions: Vec<_> = (1..=3)
        .map(|count| {
            let session = Client::open(&server, JSON_RELIABLE).joined(&["SPX"]).reset();
            server.closed_until("gone", count);
            session
        })
        .collect();
    server.metric_until("flowcast_sessions_detached", |detached| detached == 2);
    assert!(sessions[0].recover().expect_err("the oldest").is_final());
    assert!(sessions[1].recover().is_ok());
    assert!(sessions[2].recover().is_ok());
}

#[test]
fn frames_that_are_no_longer_kept_are_a_gap_that_is_counted() {
    let settings = [("FLOWCAST_RECOVERY_FRAMES", "16"), ("WS_CLIENT_BUFFER", "8"), ("WS_STREAM_INTERVAL", "5ms")];
    let server = Server::with(&dataset(), &settings);
    for (round, subprotocol) in RELIABLE.into_iter().enumerate() {
        let mut client = Client::open(&server, subprotocol).joined(&["SPX"]);
        let before = client.data();
        let session = client.reset();
        server.closed_until("gone", round as u64 + 1);
        server.ticks(60);
        let mut client = session.recover().unwrap();
        let data = client.take(30);
        assert!(data[0].index() > before.index() + 1, "a gap");
        assert_whole(&data);
        assert!(server.metric("flowcast_recovery_gap_frames_total") > 0);
        client.send_close(1000);
        client.rest();
    }
}

#[test]
fn a_lagging_reliable_client_is_reset_and_can_come_back() {
    let settings = [("FLOWCAST_SEND_BUFFER_BYTES", "4096"), ("WS_CLIENT_BUFFER", "64"), ("WS_STREAM_INTERVAL", "1ms")];
    let server = Server::with(&dataset(), &settings);
    for (round, subprotocol) in RELIABLE.into_iter().enumerate() {
        let mut client = Client::open_small(&server, subprotocol).joined(&["SPX"]);
        server.closed_until("lag", round as u64 + 1);
        let end = client.rest();
        assert!(!end.iter().any(|said| matches!(said, Said::Closed(_))), "no close frame: it would end the session");
        let newest =
            end.iter().filter_map(|said| if let Said::Data(data) = said { Some(data.id()) } else { None }).max();
        let mut client = client.session.recover().expect("a lagging session is kept");
        let data = client.take(200);
        // Unconfirmed frames may repeat; behind the last that was seen there is one gap and no other.
        let newest = newest.unwrap_or(0);
        let fresh: Vec<Data> = deduplicated(data).into_iter().filter(|data| data.id() > newest).collect();
        assert_whole(&fresh);
        assert!(server.metric("flowcast_recovery_gap_frames_total") > 0, "skipped frames are counted");
        client.send_close(1000);
        client.rest();
    }
    assert_eq!(server.closed("lag"), 2, "who came back did not lag at once again");
}
