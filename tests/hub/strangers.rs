//! What strangers can make the server keep, hold or write: all of it is bounded, and nobody else notices.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::common::client::{CLIENT, Client, JSON, PROTOBUF, Said};
use crate::common::dataset::{Dataset, line};
use crate::common::http::{Response, head};
use crate::common::server::Server;
use crate::common::socket::{Frame, Socket, masked};
use crate::common::streams::{SECRET, publish, publisher};
use crate::common::{PATIENCE, eventually};

const WITH_SECRET: (&str, &str) = ("WS_AUTH_SECRET", SECRET);

/// Sends the beginning of a request, and says nothing more.
fn begin(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // A server that has refused already may not read the rest.
    let _ = stream.write_all(bytes);
    stream
}

/// A request to publish with these headers and the beginning of its body.
fn begin_publishing(server: &Server, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
    begin(server, &[head(server.address, "POST", "/api/publish", headers, "").as_bytes(), body].concat())
}

fn bearer() -> String {
    format!("Bearer {}", publisher())
}

/// The status of the answer, and its body as far as it is there.
fn answer(stream: TcpStream) -> Response {
    let mut lines = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(lines.read_line(&mut head).unwrap() > 0, "expected an answer, got {head:?}");
    }
    let mut response = Response::from_head(head.trim_end());
    let length: usize = response.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    lines.read_exact(&mut body).unwrap();
    response.body = String::from_utf8(body).unwrap();
    response
}

#[test]
fn what_comes_without_a_token_is_answered_and_not_kept() {
    let server = Server::with(&Dataset::usual(), &[WITH_SECRET]);
    let before = server.resident();
    let megabyte = vec![b'x'; 1 << 20];
    let strangers: Vec<TcpStream> =
        (0..40).map(|_| begin_publishing(&server, &[("Content-Length", "8000000")], &megabyte)).collect();
    assert_eq!(server.metric("flowcast_held_bytes{what=\"request_bodies\"}"), 0);
    for stranger in strangers {
        assert_eq!(answer(stranger).status, 401);
    }
    assert!(server.resident() < before + (20 << 20), "{} after {before}", server.resident());
}

#[test]
fn who_writes_a_whole_body_before_reading_sees_why_it_is_refused() {
    let server = Server::with(&Dataset::usual(), &[WITH_SECRET]);
    let body = "x".repeat(4 << 20);
    for _ in 0..5 {
        let refused = publish(&server, "no.such.token", &body);
        assert_eq!(refused.status, 401, "{refused:?}");
    }
}

#[test]
fn a_body_of_single_bytes_takes_no_more_memory_than_its_length() {
    const LENGTH: usize = 20_000;
    let server = Server::with(&Dataset::usual(), &[WITH_SECRET]);
    let before = server.resident();
    let mut publishing =
        begin_publishing(&server, &[("Authorization", &bearer()), ("Transfer-Encoding", "chunked")], b"");
    for _ in 0..LENGTH {
        publishing.write_all(b"1\r\n \r\n").unwrap();
    }
    eventually("it is read", || {
        (server.metric("flowcast_held_bytes{what=\"request_bodies\"}") >= LENGTH as u64).then_some(())
    });
    let held = server.metric("flowcast_held_bytes{what=\"request_bodies\"}");
    assert!(held <= 2 * LENGTH as u64, "{held}");
    assert!(server.resident() < before + (20 << 20), "{} after {before}", server.resident());
    publishing.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(answer(publishing).status, 422);
    server.metric_until("flowcast_held_bytes{what=\"request_bodies\"}", |held| held == 0);
}

#[test]
fn a_body_that_never_ends_is_answered_when_its_time_is_over() {
    let server = Server::with(&Dataset::usual(), &[WITH_SECRET, ("FLOWCAST_HTTP_TIMEOUT_SECONDS", "1")]);
    let publishing = begin_publishing(&server, &[("Authorization", &bearer()), ("Content-Length", "100")], b"{");
    let late = answer(publishing);
    assert_eq!((late.status, late.error()), (408, "expected the whole body within 1 seconds".to_owned()));
    let negotiate = head(server.address, "POST", "/v2/negotiate?key=k", &[("Content-Length", "9")], "");
    assert_eq!(answer(begin(&server, negotiate.as_bytes())).status, 408);
}

#[test]
fn all_bodies_together_have_a_budget() {
    let settings = [("FLOWCAST_REQUEST_BODIES_BYTES", "100000"), ("FLOWCAST_MAX_BODY_BYTES", "100000")];
    let server = Server::with(&Dataset::usual(), &[&[WITH_SECRET], &settings[..]].concat());
    let bearer = bearer();
    let headers = [("Authorization", bearer.as_str()), ("Content-Length", "99999")];
    let slow = begin_publishing(&server, &headers, &vec![b' '; 60_000]);
    server.metric_until("flowcast_held_bytes{what=\"request_bodies\"}", |held| held >= 60_000);
    let refused = publish(&server, &publisher(), &" ".repeat(90_000));
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
    assert!(server.metric("flowcast_held_refused_total{what=\"request_bodies\"}") > 0);
    drop(slow);
    server.metric_until("flowcast_held_bytes{what=\"request_bodies\"}", |held| held == 0);
    assert_eq!(publish(&server, &publisher(), &" ".repeat(90_000)).status, 422);
}

#[test]
fn slow_clients_lose_their_places_to_new_ones_and_those_being_served_do_not() {
    let server = Server::with(&Dataset::usual(), &[WITH_SECRET, ("FLOWCAST_MAX_HTTP_CONNECTIONS", "4")]);
    let accept = [("Accept", "text/event-stream")];
    let mut follower = BufReader::new(begin(&server, head(server.address, "GET", "/ticks", &accept, "").as_bytes()));
    let mut line = String::new();
    follower.read_line(&mut line).unwrap();
    let bearer = bearer();
    let body = [("Authorization", bearer.as_str()), ("Content-Length", "9")];
    let slow: Vec<TcpStream> = (0..20)
        .map(|at| match at % 3 {
            0 => begin(&server, b""),
            1 => begin(&server, b"GET /healthz HT"),
            _ => begin_publishing(&server, &body, b"{"),
        })
        .collect();
    for _ in 0..5 {
        assert_eq!(server.get("/healthz").status, 200);
    }
    assert!(server.metric("flowcast_http_connections_dropped_total{reason=\"place\"}") >= 17);
    assert!(server.metric("flowcast_http_connections") <= 4);
    for _ in 0..20 {
        assert!(follower.read_line(&mut line).unwrap() > 0, "the follower is still served");
    }
    drop(slow);
}

/// Bytes with which a message of so many bytes begins, and does not end.
fn fragment(bytes: usize) -> Vec<u8> {
    masked(0x01, &vec![b' '; bytes])
}

#[test]
fn all_unfinished_messages_together_have_a_budget() {
    let settings = [("FLOWCAST_UNFINISHED_BYTES", "100000"), ("FLOWCAST_MAX_MESSAGE_BYTES", "100000")];
    let server = Server::with(&Dataset::usual(), &settings);
    let mut first = Client::open(&server, JSON);
    first.socket.send_raw(&fragment(60_000));
    server.metric_until("flowcast_held_bytes{what=\"unfinished_messages\"}", |held| held >= 60_000);
    let mut second = Client::open(&server, JSON);
    second.socket.send_raw(&fragment(60_000));
    let rest = second.rest();
    assert!(matches!(&rest[0], Said::Closed(Some((1013, reason))) if reason.contains("no room")), "{rest:?}");
    server.closed_until("unfinished", 1);

    // A request that TCP has cut is always kept.
    let mut cut = Client::open(&server, JSON);
    let ping = masked(0x81, br#"{"type":"ping"}"#);
    cut.socket.send_raw(&ping[..9]);
    assert!(cut.socket.local_port() > 0 && server.get("/healthz").status == 200);
    cut.socket.send_raw(&ping[9..]);
    assert_eq!(cut.said(), Said::Pong);

    first.socket.send_raw(&masked(0x80, br#"{"type":"ping"}"#));
    assert_eq!(first.said(), Said::Pong, "blanks before JSON are allowed");
    server.metric_until("flowcast_held_bytes{what=\"unfinished_messages\"}", |held| held == 0);
}

#[test]
fn a_message_that_is_never_finished_is_given_up() {
    let server = Server::with(&Dataset::usual(), &[("FLOWCAST_PING_INTERVAL_SECONDS", "1")]);
    let headers = [("Sec-WebSocket-Protocol", PROTOBUF)];
    let mut socket = Socket::open(server.address, CLIENT, &headers).unwrap();
    socket.send_raw(&masked(0x02, b"begun"));
    let close = loop {
        match socket.frame() {
            Frame::Ping(payload) => socket.send(0x8a, &payload),
            Frame::Close(close) => break close,
            Frame::Binary(_) => {}
            other => panic!("expected a close, got {other:?}"),
        }
    };
    assert_eq!(close, Some((1008, "policy violation: a message was not finished in time".to_owned())));
    drop(socket);
    server.closed_until("unfinished", 1);
}

/// A socket that takes next to nothing of what is sent to it.
fn begin_small(server: &Server, path: &str) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    socket.connect(&server.address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    let request = head(server.address, "GET", path, &[("Authorization", "Bearer key")], "");
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

#[test]
fn answers_that_nobody_takes_have_a_budget_and_their_clients_are_dropped() {
    const FILE: &str = "/download/2025-11-28/LARGE/orderflow";
    let dataset = Dataset::new(&[("SPX", 5)]);
    dataset.write("LARGE", line("LARGE", 0) + "\n" + &" \n".repeat(8 << 20));
    let settings = [
        ("FLOWCAST_ANSWERS_BYTES", "1048576"),
        ("FLOWCAST_SEND_BUFFER_BYTES", "4096"),
        ("FLOWCAST_ANSWER_TIMEOUT_SECONDS", "2"),
    ];
    let server = Server::with(&dataset, &settings);
    let stalled: Vec<TcpStream> = (0..30).map(|_| begin_small(&server, FILE)).collect();
    server.metric_until("flowcast_held_bytes{what=\"answers\"}", |held| held == 1 << 20);
    assert!(server.metric("flowcast_held_refused_total{what=\"answers\"}") > 0);
    // Who has stalled for a second makes room for others.
    let whole = eventually("a client that reads gets the file", || {
        Some(server.get(&format!("{FILE}?key=k"))).filter(|answer| answer.status == 200)
    });
    assert!(whole.body.len() > 16 << 20);
    server.metric_until("flowcast_held_bytes{what=\"answers\"}", |held| held == 0);
    server.metric_until("flowcast_http_connections", |connections| connections <= 2);
    drop(stalled);
}

#[test]
fn connecting_again_and_again_writes_few_lines_and_the_rest_is_counted() {
    const CLIENTS: u64 = 150;
    let server = Server::with(&Dataset::usual(), &[("FLOWCAST_CLIENT_LOG_LINES", "3")]);
    for _ in 0..CLIENTS {
        drop(Client::open(&server, JSON));
    }
    server.metric_until("flowcast_connections", |connections| connections == 0);
    let lines = |words: &str| server.log().matches(words).count() as u64;
    let left_out = eventually("every line is written or counted", || {
        let left_out = server.metric("flowcast_client_log_lines_left_out_total");
        let written = lines("connection opened") + lines("connection closed");
        (written + left_out == 2 * CLIENTS).then_some(left_out)
    });
    assert!(left_out > CLIENTS, "{left_out}");
    // The next line that is written says so.
    eventually("the log says so", || {
        drop(Client::open(&server, JSON));
        server.log().contains("lines about clients were left out").then_some(())
    });
}
