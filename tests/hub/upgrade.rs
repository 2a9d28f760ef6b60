//! From the handshake to `connected`: `docs/protocols/webpubsub.md`, "Endpoint and tokens", "Order of events".

use crate::common;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::common::client::{ALL, CLIENT, Client, HUBS, JSON, JSON_RELIABLE, PLAIN, PROTOBUF, RELIABLE, WS};
use crate::common::dataset::Dataset;
use crate::common::http::{self, Response};
use crate::common::server::Server;
use crate::common::socket::{ACCEPT, Frame, KEY, Socket, masked};

fn refused(server: &Server, path: &str, headers: &[(&str, &str)]) -> Response {
    Socket::open(server.address, path, headers).expect_err("a refusal before the upgrade")
}

#[test]
fn the_handshake_is_answered_as_rfc_6455_says_with_the_subprotocol_asked_for() {
    let server = Server::start(&Dataset::usual());
    for endpoint in [CLIENT, WS] {
        for subprotocol in ALL {
            let headers = [("Sec-WebSocket-Protocol", subprotocol)];
            let answer = Socket::open(server.address, endpoint, &headers).unwrap().response;
            assert_eq!(answer.status, 101);
            assert_eq!(answer.header("sec-websocket-accept"), Some(ACCEPT));
            assert_eq!(answer.header("sec-websocket-protocol"), Some(subprotocol));
            assert_eq!(answer.header("upgrade").map(str::to_ascii_lowercase).as_deref(), Some("websocket"));
            assert_eq!(answer.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"));
            assert_eq!(answer.header("sec-websocket-extensions"), None);
        }
    }
}

#[test]
fn the_first_supported_subprotocol_of_the_list_is_chosen() {
    let server = Server::start(&Dataset::usual());
    let list = format!("mqtt, {JSON_RELIABLE},{PROTOBUF}");
    let socket = Socket::open(server.address, CLIENT, &[("Sec-WebSocket-Protocol", &list)]).unwrap();
    assert_eq!(socket.response.header("sec-websocket-protocol"), Some(JSON_RELIABLE));
    let lists = [("Sec-WebSocket-Protocol", "mqtt"), ("Sec-WebSocket-Protocol", PROTOBUF)];
    let socket = Socket::open(server.address, CLIENT, &lists).unwrap();
    assert_eq!(socket.response.header("sec-websocket-protocol"), Some(PROTOBUF));
}

#[test]
fn connected_comes_first_with_the_user_and_a_token_on_reliable_connections_only() {
    let server = Server::start(&Dataset::usual());
    for subprotocol in ALL {
        let client = Client::open(&server, subprotocol);
        assert_eq!(client.connected().user_id, "some-key");
        assert!(!client.connected().connection_id.is_empty());
        assert_eq!(client.connected().token.is_some(), RELIABLE.contains(&subprotocol), "{subprotocol}");
    }
}

#[test]
fn connected_is_azures_message_byte_for_byte() {
    let server = Server::start(&Dataset::usual());
    let mut socket = Socket::open(server.address, CLIENT, &[("Sec-WebSocket-Protocol", JSON)]).unwrap();
    let Frame::Text(text) = socket.frame() else { panic!("expected text") };
    let id = serde_json::from_str::<serde_json::Value>(&text).unwrap()["connectionId"].as_str().unwrap().to_owned();
    assert_eq!(text, format!(r#"{{"type":"system","event":"connected","userId":"some-key","connectionId":"{id}"}}"#));
}

#[test]
fn the_101_and_what_the_server_says_first_are_one_packet() {
    let server = Server::start(&Dataset::usual());
    for subprotocol in ALL {
        let mut stream = TcpStream::connect(server.address).unwrap();
        let upgrade = format!(
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
        );
        let head = http::head(server.address, "GET", CLIENT, &[("Sec-WebSocket-Protocol", subprotocol)], &upgrade);
        stream.write_all(head.as_bytes()).unwrap();
        let mut read = [0; 4096];
        let length = stream.read(&mut read).unwrap();
        let end = read[..length].windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let text = String::from_utf8_lossy(&read[end..length]);
        assert!(read.starts_with(b"HTTP/1.1 101 ") && text.contains("some-key"), "{subprotocol}: {text:?}");
    }
}

#[test]
fn every_connection_has_an_id_of_its_own_though_the_url_is_the_same() {
    let server = Server::start(&Dataset::usual());
    let mut ids: Vec<_> =
        (0..8).map(|at| Client::open(&server, ALL[at % 4]).connected().connection_id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 8);
    for id in ids {
        let groups: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(groups, [8, 4, 4, 4, 12], "a UUID: {id}");
    }
}

#[test]
fn no_subprotocol_is_protobuf_on_ws_and_refused_on_client() {
    let server = Server::start(&Dataset::usual());
    let socket = Socket::open(server.address, WS, &[]).unwrap();
    assert_eq!(socket.response.header("sec-websocket-protocol"), None, "what was not offered is not echoed");
    let mut client = Client::on(socket, server.address, PROTOBUF).joined(&["SPX"]);
    assert_eq!(client.data().sequence_id, None);

    for path in [CLIENT, "/client?hub=orderflow&access_token=k:1"] {
        let answer = refused(&server, path, &[]);
        assert_eq!(answer.status, 400);
        for subprotocol in ALL {
            assert!(answer.error().contains(subprotocol), "the reason names what is supported: {}", answer.error());
        }
    }
}

#[test]
fn subprotocols_nobody_speaks_are_refused_everywhere() {
    let server = Server::start(&Dataset::usual());
    for path in [CLIENT, WS] {
        let answer = refused(&server, path, &[("Sec-WebSocket-Protocol", "mqtt")]);
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
    }
}

#[test]
fn any_token_opens_a_connection_and_none_is_401_before_the_upgrade() {
    let server = Server::start(&Dataset::usual());
    let protocol = ("Sec-WebSocket-Protocol", JSON);
    for endpoint in ["/client/hubs/orderflow", "/ws/orderflow"] {
        for query in ["", "?access_token=", "?token=x"] {
            let answer = refused(&server, &format!("{endpoint}{query}"), &[protocol]);
            assert_eq!((answer.status, answer.error().as_str()), (401, "missing access_token"), "{endpoint}{query}");
        }
        for (token, user) in [("key:uuid", "key"), ("key", "key"), ("a:b:c", "a"), ("a%20b:1", "a b")] {
            let client = Client::open_at(&server, &format!("{endpoint}?access_token={token}"), JSON);
            assert_eq!(client.connected().user_id, user, "{token}");
        }
        let headers = [protocol, ("Authorization", "Bearer header-key:1")];
        let socket = Socket::open(server.address, endpoint, &headers).unwrap();
        assert_eq!(Client::on(socket, server.address, JSON).connected().user_id, "header-key");
        let both = Socket::open(server.address, &format!("{endpoint}?access_token=query-key:1"), &headers).unwrap();
        assert_eq!(Client::on(both, server.address, JSON).connected().user_id, "query-key", "the query wins");
    }
}

#[test]
fn hub_names_have_no_case_and_unknown_hubs_are_not_found() {
    let server = Server::start(&Dataset::usual());
    for path in ["/client/hubs/OrderFlow?access_token=k:1", "/client?hub=ORDERFLOW&access_token=k:1"] {
        assert_eq!(Client::open_at(&server, path, JSON).connected().user_id, "k");
    }
    for path in ["/client/hubs/v3_classic?access_token=k:1", "/ws/gex?access_token=k:1", "/client?access_token=k:1"] {
        let answer = refused(&server, path, &[("Sec-WebSocket-Protocol", JSON)]);
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
        for hub in HUBS {
            assert!(answer.error().contains(&format!(" v2_{hub}")), "the reason names the hubs: {}", answer.error());
        }
    }
}

#[test]
fn every_hub_of_both_generations_can_be_connected_to_at_each_endpoint() {
    let server = Server::start(&Dataset::usual());
    for hub in HUBS.iter().flat_map(|hub| [(*hub).to_owned(), format!("v2_{hub}")]) {
        for path in [format!("/client/hubs/{hub}?"), format!("/ws/{hub}?"), format!("/client?hub={hub}&")] {
            let client = Client::open_at(&server, &format!("{path}access_token=k:1"), PROTOBUF);
            assert_eq!(client.connected().user_id, "k", "{path}");
        }
    }
}

#[test]
fn every_origin_is_accepted() {
    let server = Server::start(&Dataset::usual());
    let headers = [("Sec-WebSocket-Protocol", JSON), ("Origin", "https://anywhere.example")];
    assert!(Socket::open(server.address, CLIENT, &headers).is_ok());
}

#[test]
fn what_is_no_upgrade_is_told_what_was_expected() {
    let server = Server::start(&Dataset::usual());
    let answer = server.get(CLIENT);
    assert_eq!(answer.status, 426);
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    assert!(answer.error().contains("WebSocket"), "{}", answer.error());

    let complete = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", common::socket::KEY),
        ("Sec-WebSocket-Protocol", JSON),
    ];
    for (at, value) in [(2, "8"), (3, "short"), (1, "h2c")] {
        let mut headers = complete.to_vec();
        headers[at].1 = value;
        let answer = http::request(server.address, "GET", CLIENT, &headers);
        assert!((400..500).contains(&answer.status), "{:?}: {answer:?}", headers[at]);
        assert!(!answer.error().is_empty());
    }
}

#[test]
fn headers_that_are_lists_may_have_several_names_and_lines() {
    let server = Server::start(&Dataset::usual());
    let both = |upgrade: &[&str], connection: &[&str]| {
        let mut headers = vec![
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", common::socket::KEY),
            ("Sec-WebSocket-Protocol", JSON),
        ];
        headers.extend(upgrade.iter().map(|line| ("Upgrade", *line)));
        headers.extend(connection.iter().map(|line| ("Connection", *line)));
        let request = http::head(server.address, "GET", CLIENT, &headers, "");
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line[9..12].to_owned()
    };
    for (upgrade, connection) in [
        (&["websocket"][..], &["keep-alive", "Upgrade"][..]),
        (&["websocket"], &["Upgrade", "keep-alive"]),
        (&["websocket"], &["keep-alive, upgrade"]),
        (&["websocket, h2c"], &["Upgrade"]),
        (&["h2c", "WebSocket"], &["Upgrade"]),
        (&["websocket", "h2c"], &["Upgrade, HTTP2-Settings"]),
    ] {
        assert_eq!(both(upgrade, connection), "101", "{upgrade:?} {connection:?}");
    }
    assert_eq!(both(&["websocket"], &["keep-alive"]), "400");
    assert_eq!(both(&["h2c"], &["Upgrade"]), "400");
}

#[test]
fn another_version_of_the_protocol_is_told_the_version_that_is_spoken() {
    let server = Server::start(&Dataset::usual());
    let headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "8"),
        ("Sec-WebSocket-Key", common::socket::KEY),
        ("Sec-WebSocket-Protocol", JSON),
    ];
    let answer = http::request(server.address, "GET", CLIENT, &headers);
    assert!((400..500).contains(&answer.status), "{answer:?}");
    assert_eq!(answer.header("sec-websocket-version"), Some("13"), "RFC 6455 §4.2.2: the versions that are supported");
}

#[test]
fn frames_that_come_in_one_piece_with_the_handshake_are_heard() {
    let server = Server::start(&Dataset::usual());
    for endpoint in [CLIENT, WS] {
        let early = masked(0x81, br#"{"type":"ping"}"#);
        let stream = TcpStream::connect(server.address).unwrap();
        let socket = Socket::open_on(stream, endpoint, &[("Sec-WebSocket-Protocol", JSON)], &early).unwrap();
        let mut client = Client::on(socket, server.address, JSON);
        assert_eq!(client.said(), common::client::Said::Pong);
    }
}

#[test]
fn connections_beyond_the_limit_get_503() {
    let server = Server::with(&Dataset::usual(), &[("FLOWCAST_MAX_CONNECTIONS", "2")]);
    let _held: Vec<Client> = PLAIN.iter().map(|subprotocol| Client::open(&server, subprotocol)).collect();
    let answer = refused(&server, CLIENT, &[("Sec-WebSocket-Protocol", JSON)]);
    assert_eq!((answer.status, answer.error().as_str()), (503, "too many connections"));
}
