//! One slow socket delays nobody.

use crate::common;
use crate::common::client::{Client, JSON, PLAIN, PROTOBUF, Said};
use crate::common::dataset::Dataset;
use crate::common::server::Server;

fn dataset() -> Dataset {
    Dataset::new(&[("SPX", 20_000)])
}

/// Small buffers, so that a client that does not read is noticed soon.
const SMALL: [(&str, &str); 3] =
    [("FLOWCAST_SEND_BUFFER_BYTES", "4096"), ("WS_CLIENT_BUFFER", "64"), ("WS_STREAM_INTERVAL", "1ms")];

fn settings<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&SMALL, more].concat()
}

/// The indexes of the data in what a client heard, and what came after.
fn split(said: Vec<Said>) -> (Vec<u64>, Vec<Said>) {
    let (mut indexes, mut others) = (Vec::new(), Vec::new());
    for said in said {
        match said {
            Said::Data(data) => {
                assert!(others.is_empty(), "no data after {others:?}");
                indexes.push(data.index());
            }
            other => others.push(other),
        }
    }
    (indexes, others)
}

fn assert_whole(indexes: &[u64]) {
    assert!(indexes.windows(2).all(|pair| pair[1] == pair[0] + 1), "{indexes:?}");
}

#[test]
fn a_stalled_plain_client_that_reads_again_finds_whole_frames_and_close_1008() {
    let server = Server::with(&dataset(), &settings(&[]));
    for (round, subprotocol) in PLAIN.into_iter().enumerate() {
        let mut stalled = Client::open_small(&server, subprotocol).joined(&["SPX"]);
        let id = stalled.connected().connection_id.clone();
        server.logged(&format!("too slow: further behind than --client-buffer allows connection={id}"));
        let (indexes, others) = split(stalled.rest());
        assert_whole(&indexes);
        assert_eq!(others, [Said::Closed(Some((1008, "slow consumer".to_owned()))), Said::End]);
        drop(stalled);
        server.closed_until("lag", round as u64 + 1);
    }
}

#[test]
fn a_stalled_plain_client_that_never_reads_is_reset_after_the_write_timeout() {
    let server = Server::with(&dataset(), &settings(&[("FLOWCAST_WRITE_TIMEOUT_SECONDS", "1")]));
    let mut stalled = Client::open_small(&server, PROTOBUF).joined(&["SPX"]);
    server.closed_until("lag", 1);
    assert_eq!(server.metric("flowcast_connections"), 0);
    assert_eq!(server.metric("flowcast_subscribers"), 0);
    assert_eq!(stalled.rest().last(), Some(&Said::Reset));
}

#[test]
fn the_others_lose_nothing_when_one_stalls() {
    let server =
        Server::with(&dataset(), &settings(&[("FLOWCAST_SHARDS", "1"), ("FLOWCAST_WRITE_TIMEOUT_SECONDS", "1")]));
    let mut healthy: Vec<Client> =
        [PROTOBUF, JSON].map(|subprotocol| Client::open(&server, subprotocol).joined(&["SPX"])).into();
    let _stalled: Vec<Client> = (0..4).map(|_| Client::open_small(&server, PROTOBUF).joined(&["SPX"])).collect();
    let mut seen: Vec<Vec<u64>> = vec![Vec::new(); healthy.len()];
    let mut rounds = 0;
    while server.closed("lag") < 4 {
        for (client, seen) in healthy.iter_mut().zip(&mut seen) {
            seen.extend(client.take(50).iter().map(common::client::Data::index));
        }
        rounds += 1;
        assert!(rounds < 1000, "the stalled ones are never dropped");
    }
    for (client, seen) in healthy.iter_mut().zip(&mut seen) {
        seen.extend(client.take(50).iter().map(common::client::Data::index));
        assert_whole(seen);
    }
    assert_eq!(server.metric("flowcast_connections"), 2);
    assert_eq!(server.metric("flowcast_shard_overruns_total"), 0);
}

#[test]
fn bytes_bound_lag_too() {
    let settings = [
        ("FLOWCAST_SEND_BUFFER_BYTES", "4096"),
        ("WS_CLIENT_BUFFER", "1000000"),
        ("FLOWCAST_CLIENT_BUFFER_BYTES", "10000"),
        ("WS_STREAM_INTERVAL", "1ms"),
    ];
    let server = Server::with(&dataset(), &settings);
    let mut stalled = Client::open_small(&server, PROTOBUF).joined(&["SPX"]);
    server.logged("too slow");
    let (indexes, others) = split(stalled.rest());
    assert_whole(&indexes);
    assert_eq!(others, [Said::Closed(Some((1008, "slow consumer".to_owned()))), Said::End]);
}

#[test]
fn a_client_that_does_not_read_its_answers_is_closed() {
    let settings =
        [("FLOWCAST_SEND_BUFFER_BYTES", "4096"), ("FLOWCAST_MAX_REPLY_BYTES", "1000"), ("WS_STREAM_INTERVAL", "1h")];
    let server = Server::with(&dataset(), &settings);
    let mut stalled = Client::open_small(&server, JSON);
    stalled.socket.send_raw(&common::socket::masked(0x81, br#"{"type":"ping"}"#).repeat(2000));
    let rest = stalled.rest();
    assert!(rest.iter().any(|said| matches!(said, Said::Closed(Some((1008, _))))) || rest.last() == Some(&Said::Reset));
    server.closed_until("replies", 1);
}
