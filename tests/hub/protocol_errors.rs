//! Literal bytes against RFC 6455 and the subprotocols: `docs/protocols/webpubsub.md`, "Subprotocols".

use crate::common;
use crate::common::client::{ALL, CLIENT, Client, JSON, PROTOBUF, Said};
use crate::common::dataset::Dataset;
use crate::common::server::Server;
use crate::common::socket::{Frame, Socket, masked};

fn server() -> Server {
    Server::with(&Dataset::usual(), &[("WS_STREAM_INTERVAL", "1h"), ("FLOWCAST_MAX_MESSAGE_BYTES", "1000")])
}

fn open(server: &Server, subprotocol: &str) -> Socket {
    let mut socket = Socket::open(server.address, CLIENT, &[("Sec-WebSocket-Protocol", subprotocol)]).unwrap();
    assert!(matches!(socket.frame(), Frame::Text(_) | Frame::Binary(_)), "connected");
    socket
}

fn is_json(subprotocol: &str) -> bool {
    subprotocol.starts_with("json")
}

/// Bytes that end a connection with this code.
fn assert_closes(server: &Server, subprotocol: &str, bytes: &[u8], code: u16) {
    let mut socket = open(server, subprotocol);
    socket.send_raw(bytes);
    match socket.frame() {
        Frame::Close(Some((actual, reason))) => {
            assert_eq!(actual, code, "{subprotocol}: {bytes:02x?}: {reason}");
            assert!(!reason.is_empty(), "the reason says what was expected");
        }
        other => panic!("{subprotocol}: {bytes:02x?}: expected close {code}, got {other:?}"),
    }
    socket.send(0x88, &code.to_be_bytes());
    assert!(matches!(socket.frame(), Frame::End | Frame::Reset));
}

#[test]
fn frames_against_rfc_6455_close_with_1002() {
    let server = server();
    for bytes in [
        b"\x81\x0f{\"type\":\"ping\"}".to_vec(),
        masked(0xc1, b"{}"),
        masked(0xa1, b"{}"),
        masked(0x91, b"{}"),
        masked(0x83, b"x"),
        masked(0x8b, b"x"),
        masked(0x09, b"x"),
        masked(0x89, &[0; 126]),
        masked(0x80, b"continues nothing"),
        [masked(0x01, b"first"), masked(0x81, b"another")].concat(),
        masked(0x88, b"x"),
        masked(0x88, &1005u16.to_be_bytes()),
        masked(0x88, &1006u16.to_be_bytes()),
        masked(0x88, &999u16.to_be_bytes()),
        masked(0x88, &5000u16.to_be_bytes()),
    ] {
        for subprotocol in ALL {
            assert_closes(&server, subprotocol, &bytes, 1002);
        }
    }
}

#[test]
fn the_wrong_kind_of_frame_closes_with_1003() {
    let server = server();
    for subprotocol in ALL {
        let wrong = if is_json(subprotocol) { 0x82 } else { 0x81 };
        assert_closes(&server, subprotocol, &masked(wrong, br#"{"type":"ping"}"#), 1003);
    }
}

#[test]
fn what_cannot_be_parsed_closes_with_1007() {
    let server = server();
    let long = "g".repeat(1025 - 100);
    for text in [
        "",
        "nonsense",
        "null",
        "[]",
        "{}",
        r#"{"type":"dance"}"#,
        r#"{"type":"joinGroup"}"#,
        r#"{"type":"joinGroup","group":""}"#,
        r#"{"type":"joinGroup","group":" \t "}"#,
        r#"{"type":"joinGroup","group":"g","ackId":-1}"#,
        r#"{"type":"joinGroup","group":"g","ackId":"1"}"#,
        r#"{"type":"leaveGroup","group":7}"#,
        r#"{"type":"sequenceAck"}"#,
        r#"{"type":"ping"}{"type":"ping"}"#,
    ] {
        for subprotocol in ALL.into_iter().filter(|subprotocol| is_json(subprotocol)) {
            assert_closes(&server, subprotocol, &masked(0x81, text.as_bytes()), 1007);
        }
    }
    assert_closes(&server, JSON, &masked(0x81, b"{\"type\":\"\xff\"}"), 1007);
    for bytes in [&b""[..], b"\xff", b"\x32\x05\x0a", b"\x9a\x06\x00", b"\x32\x03\x0a\x01 ", b"{\"type\":\"ping\"}"] {
        for subprotocol in ALL.into_iter().filter(|subprotocol| !is_json(subprotocol)) {
            assert_closes(&server, subprotocol, &masked(0x82, bytes), 1007);
        }
    }
    let name = serde_json::json!({ "type": "joinGroup", "group": long, "ackId": 1 }).to_string();
    let mut client = open(&server, JSON);
    client.send_text(&name);
    assert!(matches!(client.frame(), Frame::Text(text) if text.contains("BadRequest")), "long, but no error yet");
}

#[test]
fn group_names_over_1024_characters_close_with_1007() {
    let server = Server::with(&Dataset::usual(), &[("WS_STREAM_INTERVAL", "1h")]);
    for (length, character, closes) in [(1024, "g", false), (1025, "g", true), (1024, "€", false), (1025, "€", true)]
    {
        let name = character.repeat(length);
        let mut client = open(&server, JSON);
        client.send_text(&serde_json::json!({ "type": "joinGroup", "group": name, "ackId": 1 }).to_string());
        match client.frame() {
            Frame::Text(ack) => assert!(!closes && ack.contains("BadRequest"), "{length} {character}: {ack}"),
            Frame::Close(Some((1007, _))) => assert!(closes, "{length} {character} is a legal name"),
            other => panic!("{length} {character}: {other:?}"),
        }
    }
}

#[test]
fn what_is_too_large_closes_with_1009_before_it_has_arrived() {
    let server = server();
    for subprotocol in ALL {
        let opcode = if is_json(subprotocol) { 0x01 } else { 0x02 };
        assert_closes(&server, subprotocol, &masked(0x80 | opcode, &[b' '; 1001]), 1009);
        let fragments = [masked(opcode, &[b' '; 600]), masked(0x80, &[b' '; 600])].concat();
        assert_closes(&server, subprotocol, &fragments, 1009);
        // Only the header comes: 2^62 bytes are announced.
        let announced = [0x80 | opcode, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        assert_closes(&server, subprotocol, &announced, 1009);
    }
    let mut exact = open(&server, JSON);
    exact.send_text(&format!(r#"{{"type":"ping"{}}}"#, " ".repeat(1000 - 16)));
    assert_eq!(exact.frame(), Frame::Text(r#"{"type":"pong"}"#.to_owned()), "the limit itself is allowed");
}

#[test]
fn the_default_limit_is_512_kib() {
    let server = Server::with(&Dataset::usual(), &[("WS_STREAM_INTERVAL", "1h")]);
    let mut largest = open(&server, JSON);
    largest.send_text(&format!(r#"{{"type":"ping"{}}}"#, " ".repeat((512 << 10) - 16)));
    assert_eq!(largest.frame(), Frame::Text(r#"{"type":"pong"}"#.to_owned()));
    assert_closes(&server, JSON, &masked(0x81, &vec![b' '; (512 << 10) + 1]), 1009);
}

#[test]
fn a_ping_is_answered_with_its_own_payload() {
    let server = server();
    for subprotocol in ALL {
        let mut socket = open(&server, subprotocol);
        for payload in [&b""[..], b"hello", &[0xff; 125]] {
            socket.send(0x89, payload);
            assert_eq!(socket.frame(), Frame::Pong(payload.to_vec()), "{subprotocol}");
        }
        socket.send(0x8a, b"an unasked pong is ignored");
        socket.send(0x89, b"still there");
        assert_eq!(socket.frame(), Frame::Pong(b"still there".to_vec()));
    }
}

#[test]
fn an_application_ping_is_answered_on_every_subprotocol() {
    let server = server();
    for subprotocol in ALL {
        assert_eq!(Client::open(&server, subprotocol).ping(), []);
    }
}

#[test]
fn a_message_may_come_in_fragments_with_control_frames_between_and_byte_by_byte() {
    let server = server();
    let mut socket = open(&server, JSON);
    socket.send(0x01, br#"{"ty"#);
    socket.send(0x89, b"between");
    socket.send(0x00, br#"pe":"#);
    socket.send(0x00, b"");
    socket.send(0x80, br#""ping"}"#);
    assert_eq!(socket.frame(), Frame::Pong(b"between".to_vec()));
    assert_eq!(socket.frame(), Frame::Text(r#"{"type":"pong"}"#.to_owned()));
    for byte in masked(0x81, br#"{"type":"ping"}"#) {
        socket.send_raw(&[byte]);
    }
    assert_eq!(socket.frame(), Frame::Text(r#"{"type":"pong"}"#.to_owned()));

    let mut socket = open(&server, PROTOBUF);
    socket.send(0x02, &[0x4a]);
    socket.send(0x80, &[0x00]);
    assert_eq!(socket.frame(), Frame::Binary(vec![0x22, 0x00]));
}

#[test]
fn many_messages_in_one_piece_are_answered_in_order() {
    let server = server();
    let mut socket = open(&server, JSON);
    let pieces: Vec<u8> = (0..100u8).flat_map(|at| masked(0x89, &[at])).collect();
    socket.send_raw(&pieces);
    for at in 0..100u8 {
        assert_eq!(socket.frame(), Frame::Pong(vec![at]));
    }
}

#[test]
fn a_close_is_echoed_and_ends_the_connection_in_order() {
    let server = server();
    for subprotocol in ALL {
        for (payload, echo) in [
            (vec![], Frame::Close(None)),
            (vec![0x03, 0xe8], Frame::Close(Some((1000, String::new())))),
            (b"\x03\xe9going away".to_vec(), Frame::Close(Some((1001, String::new())))),
            (vec![0x0f, 0xa0], Frame::Close(Some((4000, String::new())))),
        ] {
            let mut socket = open(&server, subprotocol);
            socket.send(0x88, &payload);
            assert_eq!(socket.frame(), echo, "{subprotocol}");
            assert_eq!(socket.frame(), Frame::End, "{subprotocol}");
        }
    }
    server.closed_until("client", 16);
}

#[test]
fn nothing_is_answered_behind_a_close() {
    let server = server();
    let mut socket = open(&server, JSON);
    socket.send_raw(&[masked(0x88, &[0x03, 0xe8]), masked(0x89, b"too late")].concat());
    assert_eq!(socket.frame(), Frame::Close(Some((1000, String::new()))));
    assert!(matches!(socket.frame(), Frame::End | Frame::Reset));
}

#[test]
fn violations_end_the_session_and_are_counted_and_logged_without_the_content() {
    let server = server();
    let mut client = Client::open(&server, common::client::JSON_RELIABLE);
    client.socket.send_text(r#"{"type":"secret-content"}"#);
    assert!(matches!(client.rest()[..], [Said::Closed(Some((1007, _))), Said::End]));
    assert!(client.session.recover().expect_err("ended").is_final());
    server.closed_until("protocol", 1);
    server.logged("a client broke the protocol");
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_flood_of_violations_fills_neither_log_nor_server() {
    let server = server();
    for _ in 0..60 {
        assert_closes(&server, JSON, &masked(0x81, b"nonsense"), 1007);
    }
    server.closed_until("protocol", 60);
    let warnings = server.log().lines().filter(|line| line.contains("a client broke the protocol")).count();
    assert!(warnings < 60, "{warnings} lines for 60 violations");
}
