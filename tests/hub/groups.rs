//! Join, leave and what else clients ask for: `docs/protocols/webpubsub.md`, "Messages from the client", "Acks".

use crate::common;
use crate::common::client::{ALL, Client, HUBS, JSON, JSON_RELIABLE, PROTOBUF, Said};
use crate::common::dataset::{Dataset, group};
use crate::common::server::Server;
use crate::common::socket::{Frame, Socket};

#[test]
fn a_join_is_acknowledged_and_data_of_that_group_follows() {
    let server = Server::start(&Dataset::usual());
    for subprotocol in ALL {
        let mut client = Client::open(&server, subprotocol);
        let ack = client.join(&group("ES_SPX"));
        assert_eq!((ack.success, ack.error), (true, None));
        for data in client.take(5) {
            assert_eq!(
                (data.group.as_str(), data.type_url.as_str()),
                ("blue_ES_SPX_orderflow_orderflow", "proto.orderflow")
            );
        }
    }
}

#[test]
fn acks_and_pongs_are_azures_messages_byte_for_byte() {
    let server = Server::with(&Dataset::usual(), &[("WS_STREAM_INTERVAL", "1h")]);
    let mut json = Socket::open(server.address, common::client::CLIENT, &[("Sec-WebSocket-Protocol", JSON)]).unwrap();
    assert!(matches!(json.frame(), Frame::Text(_)), "connected");
    // A silent group: the clock's first tick must not come between.
    json.send_text(r#"{"type":"joinGroup","group":"blue_NONE_orderflow_orderflow","ackId":18446744073709551615}"#);
    assert_eq!(json.frame(), Frame::Text(r#"{"type":"ack","ackId":18446744073709551615,"success":true}"#.to_owned()));
    json.send_text(r#"{"type":"ping"}"#);
    assert_eq!(json.frame(), Frame::Text(r#"{"type":"pong"}"#.to_owned()));

    let mut protobuf = Socket::open(server.address, common::client::WS, &[]).unwrap();
    assert!(matches!(protobuf.frame(), Frame::Binary(_)), "connected");
    // The add-on's own test bytes: join "group" with ack id 44133 (`docs/protocols/webpubsub.md`, "Golden bytes").
    protobuf.send_binary(&[0x32, 0x0b, 0x0a, 0x05, b'g', b'r', b'o', b'u', b'p', 0x10, 0xe5, 0xd8, 0x02]);
    let Frame::Binary(refused) = protobuf.frame() else { panic!("expected an ack") };
    let ack = common::protobuf::Fields::read(&refused).expect(1).message();
    assert_eq!((ack.number(1), ack.number(2)), (44_133, 0));
    assert_eq!(ack.expect(3).message().text(1), "BadRequest");
    let leave = [common::protobuf::bytes_field(1, b"group"), common::protobuf::number_field(2, 123)].concat();
    protobuf.send_binary(&common::protobuf::bytes_field(7, &leave));
    // The add-on's golden ack 123 (`docs/protocols/webpubsub.md`, "Golden bytes").
    assert_eq!(protobuf.frame(), Frame::Binary(vec![0x0a, 0x04, 0x08, 0x7b, 0x10, 0x01]));
    protobuf.send_binary(&[0x4a, 0x00]);
    assert_eq!(protobuf.frame(), Frame::Binary(vec![0x22, 0x00]), "pong");
}

#[test]
fn a_type_is_read_whatever_its_case() {
    let server = Server::start(&Dataset::usual());
    let mut client = Client::open(&server, JSON);
    client.socket.send_text(r#"{"group":"blue_SPX_orderflow_orderflow","ackId":1,"TYPE":7,"type":"JOINgroup"}"#);
    assert!(client.ack(1).success);
}

#[test]
fn names_that_are_none_of_the_hubs_get_azures_errors_with_name_and_message() {
    let server = Server::start(&Dataset::usual());
    for subprotocol in ALL {
        let mut client = Client::open(&server, subprotocol);
        for (name, error) in [
            ("SPX", "BadRequest"),
            ("blue__orderflow_orderflow", "BadRequest"),
            ("blue_SPX_orderflow_gamma", "BadRequest"),
            ("blue_SPX_classic_gex_full", "Forbidden"),
            ("blue_SPX_state_gamma_zero", "Forbidden"),
            ("red_SPX_orderflow_orderflow", "Forbidden"),
        ] {
            let ack = client.join(name);
            assert!(!ack.success, "{name}");
            assert_eq!(ack.error_name(), error, "{name}");
            assert!(ack.error.is_some_and(|(_, message)| !message.is_empty()), "{name}");
        }
        assert!(client.join(&group("SPX")).success, "the connection goes on");
    }
}

#[test]
fn a_hub_carries_its_own_groups_and_a_refusal_names_the_hub_that_carries_the_group() {
    let server = Server::start(&Dataset::usual());
    let groups = [
        ("classic", "classic_gex_full"),
        ("state_gex", "state_gex_20260717"),
        ("state_greeks_zero", "state_gamma_zero"),
        ("state_greeks_one", "state_charm_one"),
        ("state_greeks", "state_vanna_20260717"),
        ("orderflow", "orderflow_orderflow"),
    ];
    for hub in HUBS.iter().flat_map(|hub| [(*hub).to_owned(), format!("v2_{hub}")]) {
        let mut client = Client::open_hub(&server, &hub, PROTOBUF);
        for (carrier, group) in groups {
            let ack = client.join(&format!("blue_SPX_{group}"));
            assert_eq!(
                ack.success,
                hub.ends_with(carrier) && hub.len() <= carrier.len() + 3,
                "{hub}: {group}: {ack:?}"
            );
            if let Some((name, message)) = ack.error {
                assert_eq!(name, "Forbidden");
                assert!(message.contains(&format!("on the hub {hub};")), "{message}");
                assert!(message.ends_with(&format!("on the hubs {carrier} and v2_{carrier}")), "{message}");
            }
        }
        let spot = client.join("blue_SPX_spot");
        assert_eq!(spot.success, hub.starts_with("v2_"), "{hub}");
        if let Some((name, message)) = spot.error {
            assert!(name == "Forbidden" && message.ends_with("on the v2 hubs"), "{message}");
        }
        let (name, message) = client.join("SPX").error.expect("a refusal");
        assert_eq!(name, "BadRequest");
        assert!(message.contains("blue_TICKER_"), "{message}");
    }
}

#[test]
fn orderflow_of_the_v2_hub_is_the_same_data() {
    let server = Server::start(&Dataset::usual());
    let clients =
        ["orderflow", "v2_orderflow"].map(|hub| Client::open_hub(&server, hub, JSON_RELIABLE).joined(&["SPX"]));
    let mut both = clients.map(|mut client| client.take(50));
    let from = both[1][0].id();
    both[0].retain(|data| data.id() >= from);
    assert!(both[0].len() >= 2, "both were joined within a few ticks");
    assert_eq!(both[0], both[1][..both[0].len()]);
}

#[test]
fn a_ticker_that_is_not_loaded_joins_and_stays_silent() {
    let server = Server::start(&Dataset::usual());
    let mut clients: Vec<Client> = (0..4).map(|at| Client::open(&server, ALL[at])).collect();
    for client in &mut clients {
        for name in ["blue_NONE_orderflow_orderflow", "blue_SPX_orderflow_20251219"] {
            let ack = client.join(name);
            assert_eq!((ack.success, ack.error), (true, None), "{name}");
        }
        // Whatever the clock publishes meanwhile, none of it is for this client.
        server.ticks(2);
        assert_eq!(client.ping(), []);
    }
    assert_eq!(server.metric("flowcast_groups_silent"), 2);
}

#[test]
fn a_silent_name_is_logged_once_on_however_many_connections() {
    let server = Server::with(&Dataset::usual(), &[("FLOWCAST_LOG_LEVEL", "debug"), ("FLOWCAST_SHARDS", "2")]);
    let _joined: Vec<Client> = ALL.map(|subprotocol| Client::open(&server, subprotocol).joined(&["NONE"])).into();
    let log = common::eventually("every join is in the log", || {
        let log = server.log();
        (log.matches("joined connection=").count() == 4).then_some(log)
    });
    let lines: Vec<&str> =
        log.lines().filter(|line| line.contains("blue_NONE_") && line.contains("without data")).collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");
}

#[test]
fn the_number_of_silent_names_is_bounded_and_freed_with_the_last_leave() {
    let server = Server::with(&Dataset::usual(), &[("FLOWCAST_MAX_SILENT_GROUPS", "2")]);
    let mut client = Client::open(&server, JSON);
    let mut other = Client::open(&server, PROTOBUF);
    assert!(client.join(&group("A")).success);
    assert!(other.join(&group("A")).success, "a name that is there already counts once");
    assert!(client.join(&group("B")).success);
    assert_eq!(other.join(&group("C")).error_name(), "Forbidden");
    assert!(other.join(&group("SPX")).success, "what has data is not bounded");
    assert!(client.leave(&group("B")).success);
    assert!(other.join(&group("C")).success);
}

#[test]
fn a_connection_may_join_150_groups_unless_set_otherwise() {
    let dataset = Dataset::usual();
    let server = Server::start(&dataset);
    let mut client = Client::open(&server, PROTOBUF);
    for at in 0..150 {
        assert!(client.join(&group(&format!("T{at}"))).success, "group {at}");
    }
    let refused = client.join(&group("SPX"));
    assert_eq!(refused.error_name(), "Forbidden");
    assert!(refused.error.unwrap().1.contains("150"));
    assert!(client.join(&group("T7")).success, "joining twice takes no second place");
    assert!(client.leave(&group("T7")).success);
    assert!(client.join(&group("SPX")).success);

    let server = Server::with(&dataset, &[("FLOWCAST_MAX_GROUPS_PER_CONNECTION", "1")]);
    let mut client = Client::open(&server, JSON).joined(&["SPX"]);
    assert_eq!(client.join(&group("ES_SPX")).error_name(), "Forbidden");
}

#[test]
fn joining_twice_succeeds_and_delivers_once() {
    let server = Server::start(&Dataset::usual());
    for subprotocol in ALL {
        let mut client = Client::open(&server, subprotocol).joined(&["SPX", "SPX", "SPX"]);
        let indexes: Vec<u64> = client.take(12).iter().map(common::client::Data::index).collect();
        for pair in indexes.windows(2) {
            assert_eq!(pair[1], (pair[0] + 1) % 100, "{subprotocol}: {indexes:?}");
        }
    }
}

#[test]
fn after_a_leave_ack_no_data_of_the_group_follows() {
    let server = Server::with(&Dataset::usual(), &[("WS_STREAM_INTERVAL", "2ms")]);
    for subprotocol in ALL {
        let mut client = Client::open(&server, subprotocol).joined(&["SPX", "ES_SPX"]);
        client.take(10);
        client.send_leave(&group("SPX"), Some(900));
        assert!(client.ack(900).success);
        for _ in 0..20 {
            let Said::Data(data) = client.said() else { panic!("expected data") };
            assert_eq!(data.group, group("ES_SPX"), "{subprotocol}");
        }
        assert!(client.leave(&group("SPX")).success, "leaving twice");
        assert!(client.leave(&group("NEVER")).success, "leaving what was never joined");
        assert!(client.join(&group("SPX")).success, "and back again");
        while client.data().group != group("SPX") {}
    }
}

#[test]
fn publishing_is_forbidden_and_events_have_no_handler() {
    let server = Server::start(&Dataset::usual());
    for subprotocol in ALL {
        let mut client = Client::open(&server, subprotocol);
        client.send_to_group(&group("SPX"), Some(7));
        let ack = client.ack(7);
        assert_eq!((ack.success, ack.error_name()), (false, "Forbidden"), "{subprotocol}");
        client.send_event(Some(8));
        let ack = client.ack(8);
        assert_eq!((ack.success, ack.error_name()), (false, "InternalServerError"), "{subprotocol}");
    }
    assert_eq!(server.metric("flowcast_requests_refused_total"), 8);
}

#[test]
fn requests_without_an_ack_id_are_done_and_not_answered() {
    let server = Server::with(&Dataset::usual(), &[("WS_STREAM_INTERVAL", "1h"), ("FLOWCAST_ACK_DELAY_MS", "0")]);
    for subprotocol in ALL {
        let mut client = Client::open(&server, subprotocol);
        client.send_join(&group("SPX"), None);
        client.send_join("nonsense", None);
        client.send_to_group(&group("SPX"), None);
        client.send_event(None);
        // Fails at an ack; the clock's first tick may come before the pong.
        client.ping();
        assert!(client.leave(&group("SPX")).success);
    }
    let mut joined = Client::open(&server, JSON);
    joined.send_join(&group("SPX"), None);
    joined.ping();
    assert_eq!(server.metric("flowcast_subscribers"), 1, "the last one is joined, the others have left");
}

#[test]
fn an_ack_id_that_succeeded_is_a_duplicate_and_not_executed_again() {
    let server = Server::start(&Dataset::usual());
    for subprotocol in ALL {
        let mut client = Client::open(&server, subprotocol);
        client.send_join("nonsense", Some(5));
        assert_eq!(client.ack(5).error_name(), "BadRequest");
        client.send_join(&group("SPX"), Some(5));
        assert!(client.ack(5).success, "refused ids are not remembered");
        client.send_leave(&group("SPX"), Some(5));
        let ack = client.ack(5);
        assert_eq!((ack.success, ack.error_name()), (false, "Duplicate"), "{subprotocol}");
        client.take(3);

        let mut fresh = Client::open(&server, subprotocol);
        fresh.send_join(&group("SPX"), Some(5));
        assert!(fresh.ack(5).success, "a new connection inherits nothing");
    }
}

#[test]
fn acks_come_in_the_order_of_the_requests() {
    let server = Server::with(&Dataset::usual(), &[("WS_STREAM_INTERVAL", "1h")]);
    let mut client = Client::open(&server, PROTOBUF);
    for id in 1..=200 {
        client.send_join(&group(&format!("T{}", id % 7)), Some(id));
    }
    for id in 1..=200 {
        assert!(client.ack(id).success);
    }
}
