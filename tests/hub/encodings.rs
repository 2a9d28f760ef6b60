//! A record is encoded once per form in use, never per subscriber.

use crate::common;
use crate::common::client::{CLIENT, Client, JSON, JSON_RELIABLE, PROTOBUF, PROTOBUF_RELIABLE, WS};
use crate::common::dataset::Dataset;
use crate::common::eventually;
use crate::common::server::Server;

const RECORDS: u64 = 100 + 70;

/// Frames built, by syntax and profile.
fn built(server: &Server) -> [(&'static str, &'static str, u64); 4] {
    [("protobuf", "2025-11"), ("protobuf", "2026-04"), ("json", "2025-11"), ("json", "2026-04")].map(
        |(syntax, profile)| {
            let name = format!("flowcast_frames_built_total{{syntax=\"{syntax}\",profile=\"{profile}\"}}");
            (syntax, profile, server.metric(&name))
        },
    )
}

fn assert_built(server: &Server, expected: [u64; 4]) {
    eventually(&format!("the frames built are {expected:?}"), || {
        (built(server).map(|(.., count)| count) == expected).then_some(())
    });
}

#[test]
fn at_start_only_the_first_profile_is_built() {
    let dataset = Dataset::usual();
    assert_built(&Server::start(&dataset), [0, RECORDS, 0, RECORDS]);
    let pinned = [("FLOWCAST_PROFILE", "2025-11"), ("FLOWCAST_PIN_PROFILE", "true")];
    assert_built(&Server::with(&dataset, &pinned), [RECORDS, 0, RECORDS, 0]);
}

#[test]
fn subscribers_cost_no_encoding_on_any_wire() {
    let server = Server::with(&Dataset::usual(), &[("WS_STREAM_INTERVAL", "2ms")]);
    let wires = [(CLIENT, PROTOBUF), (CLIENT, JSON), (CLIENT, PROTOBUF_RELIABLE), (CLIENT, JSON_RELIABLE)];
    let open =
        |endpoint: &str, subprotocol: &str| Client::open_at(&server, endpoint, subprotocol).joined(&["SPX", "ES_SPX"]);
    let mut clients: Vec<Client> = wires.iter().cycle().take(40).map(|(endpoint, wire)| open(endpoint, wire)).collect();
    // Two whole rounds of the longest ticker, so every record was sent at least twice.
    for client in &mut clients {
        client.take(2 * 2 * 100);
    }
    assert_built(&server, [0, RECORDS, 0, RECORDS]);

    clients.extend((0..5).map(|_| open(WS, PROTOBUF)));
    clients[40..].iter_mut().for_each(|client| drop(client.take(400)));
    assert_built(&server, [RECORDS, RECORDS, 0, RECORDS]);
    clients.extend((0..5).map(|_| open(WS, JSON_RELIABLE)));
    clients[45..].iter_mut().for_each(|client| drop(client.take(400)));
    assert_built(&server, [RECORDS; 4]);
    assert_eq!(server.metric("flowcast_blocks_missing_total"), 0, "no record was late");
}

#[test]
fn a_reliable_frame_is_finished_once_per_shard_and_publication() {
    let settings = [("WS_STREAM_INTERVAL", "2ms"), ("FLOWCAST_SHARDS", "1")];
    let server = Server::with(&Dataset::usual(), &settings);
    let mut clients: Vec<Client> = (0..10).map(|_| Client::open(&server, JSON_RELIABLE)).collect();
    assert_eq!(server.metric("flowcast_reliable_frames_finished_total"), 0);
    for client in &mut clients {
        assert!(client.join(&common::dataset::group("SPX")).success);
    }
    for client in &mut clients {
        client.take(100);
    }
    for client in &mut clients {
        client.send_close(1000);
        client.rest();
    }
    server.closed_until("client", 10);
    let finished = server.metric("flowcast_reliable_frames_finished_total");
    let published = server.metric("flowcast_publications_total");
    assert!(finished >= 100 && finished <= published, "{finished} of {published} publications, for ten clients");
}

#[test]
fn plain_connections_finish_no_reliable_frames() {
    let server = Server::with(&Dataset::usual(), &[("WS_STREAM_INTERVAL", "2ms")]);
    Client::open(&server, JSON).joined(&["SPX"]).take(20);
    assert_eq!(server.metric("flowcast_reliable_frames_finished_total"), 0);
}
