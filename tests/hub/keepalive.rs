//! Pings: a client that answers is kept, however busy its shard is; one that does not is dropped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common;
use crate::common::client::{CLIENT, Client, JSON, PROTOBUF, Said};
use crate::common::dataset::Dataset;
use crate::common::server::Server;
use crate::common::socket::{Frame, Socket};

/// A ping a second, and a second to answer it.
const SECONDS: [(&str, &str); 2] = [("FLOWCAST_PING_INTERVAL_SECONDS", "1"), ("FLOWCAST_PONG_TIMEOUT_SECONDS", "2")];

fn dataset() -> Dataset {
    Dataset::new(&[("SPX", 20_000)])
}

/// Answers every ping until `over`. Returns how many there were.
fn answer_pings(socket: &mut Socket, over: Instant) -> u32 {
    let mut pings = 0;
    while Instant::now() < over {
        match socket.frame() {
            Frame::Ping(payload) => {
                socket.send(0x8a, &payload);
                pings += 1;
            }
            frame @ (Frame::Close(_) | Frame::End | Frame::Reset) => panic!("{frame:?} after {pings} answered pings"),
            _ => {}
        }
    }
    pings
}

#[test]
fn a_client_that_answers_every_ping_is_kept_however_busy_its_shard_is() {
    const CLIENTS: usize = 300;
    let settings = [&SECONDS[..], &[("FLOWCAST_SHARDS", "1"), ("WS_STREAM_INTERVAL", "25ms")]].concat();
    let server = Server::with(&dataset(), &settings);
    let mut flooding = Client::open(&server, JSON);
    let flood_ends = AtomicBool::new(false);
    thread::scope(|scope| {
        // Each answers from its first ping on, however long it takes to open the others.
        let answering: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let mut client = Client::open(&server, PROTOBUF).joined(&["SPX"]);
                let answering = thread::Builder::new().stack_size(256 << 10);
                let over = Instant::now() + Duration::from_secs(8);
                answering.spawn_scoped(scope, move || answer_pings(&mut client.socket, over)).unwrap()
            })
            .collect();
        // Requests in pieces of a thousand, as fast as they are answered.
        scope.spawn(|| {
            let requests = common::socket::masked(0x81, br#"{"type":"ping"}"#).repeat(1000);
            while !flood_ends.load(Ordering::Relaxed) {
                flooding.socket.send_raw(&requests);
                (0..1000).for_each(|_| drop(flooding.said()));
            }
        });
        let pings: Vec<u32> = answering.into_iter().filter_map(|thread| thread.join().ok()).collect();
        flood_ends.store(true, Ordering::Relaxed);
        assert_eq!(pings.len(), CLIENTS, "the others were dropped");
        assert!(pings.iter().all(|&pings| pings >= 4), "{pings:?}");
    });
    assert_eq!(server.closed("pong_timeout"), 0);
}

#[test]
fn an_answer_that_a_stopped_server_could_not_read_counts() {
    // Nobody answers before all have a ping, so there is time for that.
    let settings = [
        ("FLOWCAST_PING_INTERVAL_SECONDS", "1"),
        ("FLOWCAST_PONG_TIMEOUT_SECONDS", "6"),
        ("FLOWCAST_SHARDS", "1"),
        ("WS_STREAM_INTERVAL", "1h"),
    ];
    let server = Server::with(&dataset(), &settings);
    // More than a shard looks at in one turn.
    let mut clients: Vec<Socket> =
        (0..300).map(|_| Socket::open(server.address, CLIENT, &[("Sec-WebSocket-Protocol", JSON)]).unwrap()).collect();
    for client in &mut clients {
        while !matches!(client.frame(), Frame::Ping(_)) {}
    }
    server.signal(rustix::process::Signal::STOP);
    for client in &mut clients {
        client.send(0x8a, b"");
    }
    // Long enough for every answer's time to be over.
    thread::sleep(Duration::from_millis(6500));
    server.signal(rustix::process::Signal::CONT);
    let over = Instant::now() + Duration::from_millis(500);
    while Instant::now() < over {
        assert_eq!(server.closed("pong_timeout"), 0);
    }
}

#[test]
fn a_client_that_stops_answering_pings_is_dropped() {
    let settings = [&SECONDS[..], &[("WS_STREAM_INTERVAL", "1h")]].concat();
    let server = Server::with(&dataset(), &settings);
    // `rest` never answers a ping.
    let mut silent = Client::open(&server, JSON);
    assert_eq!(silent.rest(), [Said::Reset]);
    server.closed_until("pong_timeout", 1);
}
