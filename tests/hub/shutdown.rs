//! SIGTERM and SIGINT: how a server stops.

use crate::common;
use crate::common::client::{ALL, CLIENT, Client, JSON, JSON_RELIABLE, PROTOBUF, Said};
use crate::common::dataset::Dataset;
use crate::common::server::Server;
use crate::common::socket::Socket;
use rustix::process::Signal;

const REASON: &str = "the server is shutting down";

#[test]
fn clients_are_told_and_closed_with_1001_and_the_process_ends_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start(&Dataset::usual());
        let clients: Vec<Client> = ALL.map(|subprotocol| Client::open(&server, subprotocol).joined(&["SPX"])).into();
        server.signal(signal);
        for mut client in clients {
            let mut rest = client.rest();
            rest.retain(|said| !matches!(said, Said::Data(_)));
            let told = Said::Disconnected(REASON.to_owned());
            assert_eq!(rest, [told, Said::Closed(Some((1001, REASON.to_owned()))), Said::End]);
        }
        assert_eq!(server.ended().code(), Some(0));
        server.logged("every connection is closed");
    }
}

#[test]
fn while_it_drains_upgrades_and_probes_get_503() {
    let mut server = Server::start(&Dataset::usual());
    // A client that does not answer the close keeps the server draining.
    let mut held = Client::open(&server, JSON);
    server.signal(Signal::TERM);
    assert_eq!(held.said(), Said::Disconnected(REASON.to_owned()));
    for path in ["/healthz", "/negotiate?key=k", "/v2/negotiate?key=k", "/tickers"] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.error().as_str()), (503, REASON), "{path}");
        assert!(answer.header("retry-after").is_some(), "{path}");
    }
    for subprotocol in [JSON, PROTOBUF] {
        let answer = Socket::open(server.address, CLIENT, &[("Sec-WebSocket-Protocol", subprotocol)]).unwrap_err();
        assert_eq!((answer.status, answer.error().as_str()), (503, REASON));
    }
    assert_eq!(server.get("/websocket/status").json()["stage"], "draining");
    assert_eq!(server.get("/metrics").status, 200);
    held.rest();
    assert_eq!(server.ended().code(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut server = Server::with(&Dataset::usual(), &[("WS_SHUTDOWN_TIMEOUT_SECONDS", "3600")]);
    let mut held = Client::open(&server, JSON);
    server.signal(Signal::TERM);
    assert_eq!(held.said(), Said::Disconnected(REASON.to_owned()));
    assert!(server.is_running(), "it waits for the client");
    server.signal(Signal::INT);
    assert_ne!(server.ended().code(), Some(0));
}

#[test]
fn a_stalled_client_cannot_hold_it_beyond_the_timeout() {
    let settings = [
        ("WS_SHUTDOWN_TIMEOUT_SECONDS", "1"),
        ("FLOWCAST_WRITE_TIMEOUT_SECONDS", "600"),
        ("FLOWCAST_SEND_BUFFER_BYTES", "4096"),
        ("WS_CLIENT_BUFFER", "1000000"),
        ("WS_STREAM_INTERVAL", "1ms"),
    ];
    let mut server = Server::with(&Dataset::usual(), &settings);
    let stalled = Client::open_small(&server, PROTOBUF).joined(&["SPX", "ES_SPX"]);
    server.ticks(500);
    server.signal(Signal::TERM);
    assert_eq!(server.ended().code(), Some(0));
    server.logged("shutdown timeout: cutting off these connections");
    drop(stalled);
}

#[test]
fn frames_on_their_way_are_flushed_before_the_close() {
    let settings =
        [("FLOWCAST_SEND_BUFFER_BYTES", "4096"), ("WS_CLIENT_BUFFER", "1000000"), ("WS_STREAM_INTERVAL", "1ms")];
    let mut server = Server::with(&Dataset::new(&[("SPX", 20_000)]), &settings);
    let mut slow = Client::open_small(&server, PROTOBUF).joined(&["SPX"]);
    server.ticks(500);
    server.signal(Signal::TERM);
    let rest = slow.rest();
    let indexes: Vec<u64> =
        rest.iter().filter_map(|said| if let Said::Data(data) = said { Some(data.index()) } else { None }).collect();
    assert!(indexes.windows(2).all(|pair| pair[1] == pair[0] + 1), "whole frames in order: {indexes:?}");
    assert_eq!(rest[indexes.len()..].iter().filter(|said| matches!(said, Said::Closed(Some((1001, _))))).count(), 1);
    assert_eq!(server.ended().code(), Some(0));
}

#[test]
fn detached_sessions_do_not_hold_it() {
    let mut server = Server::start(&Dataset::usual());
    Client::open(&server, JSON_RELIABLE).joined(&["SPX"]).reset();
    server.closed_until("gone", 1);
    server.signal(Signal::TERM);
    assert_eq!(server.ended().code(), Some(0));
}

#[test]
fn a_signal_while_loading_ends_it_with_0() {
    let content: String = (0..60_000).map(|n| common::dataset::line("SPX", n) + "\n").collect();
    let dataset = Dataset::empty();
    dataset.write("SPX", content);
    // Which reads everything before it serves.
    let mut server = Server::launch(&mut common::server::serve(&dataset, &[("FLOWCAST_STRICT", "true")]));
    server.signal(Signal::TERM);
    assert_eq!(server.ended().code(), Some(0));
}

#[test]
fn while_it_loads_probes_and_upgrades_get_503() {
    let content: String = (0..120_000).map(|n| common::dataset::line("SPX", n) + "\n").collect();
    let dataset = Dataset::empty();
    dataset.write("SPX", content);
    let server = Server::launch(&mut common::server::serve(&dataset, &[("FLOWCAST_STRICT", "true")]));
    // The port is bound before anything is loaded.
    let first = server.get("/healthz");
    assert_eq!((first.status, first.error().as_str()), (503, "the data is still being loaded"));
    let server = server.serving();
    assert_eq!(server.get("/healthz").json()["status"], "ok");
}
