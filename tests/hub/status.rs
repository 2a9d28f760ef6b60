//! What the server tells about itself.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use crate::common::client::{CLIENT, Client, Data, JSON_RELIABLE, PROTOBUF_RELIABLE, RELIABLE, WS};
use crate::common::dataset::{Dataset, group, line};
use crate::common::http;
use crate::common::server::Server;
use crate::common::streams::StreamClient;
use crate::common::{PATIENCE, eventually};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

/// A feed is healthy until three ticks are missing: seldom enough that a busy machine misses none.
const CALM: (&str, &str) = ("WS_STREAM_INTERVAL", "500ms");

#[test]
fn tickers_are_listed_by_kind() {
    let dataset = Dataset::empty();
    for ticker in ["SPX", "NDX", "VIX", "ES_SPX", "NQ_NDX", "SPY", "TSLA"] {
        dataset.write(ticker, line(ticker, 0));
    }
    let server = Server::start(&dataset);
    let expected =
        json!({ "stocks": ["SPY", "TSLA"], "indexes": ["NDX", "SPX", "VIX"], "futures": ["ES_SPX", "NQ_NDX"] });
    assert_eq!(server.get("/tickers").json(), expected);
}

#[test]
fn the_status_has_the_shape_its_monitors_know() {
    let settings = [CALM, ("WEBSOCKET_PING_INTERVAL", "31"), ("WEBSOCKET_MAX_CONNECTIONS", "5")];
    let server = Server::with(&Dataset::usual(), &settings);
    let _clients: Vec<Client> = RELIABLE.map(|subprotocol| Client::open(&server, subprotocol).joined(&["SPX"])).into();
    let _streams = StreamClient::at(&server, "/ws").unwrap();
    server.ticks(1);
    let status = server.get("/websocket/status").json();
    for (key, value) in [
        ("enabled", json!(true)),
        ("active_connections", json!(1)),
        ("max_connections", json!(5)),
        ("ping_interval", json!(31)),
        ("price_update_interval", json!(3)),
        ("portfolio_update_interval", json!(5)),
    ] {
        assert_eq!(status[key], value, "{key}");
    }
    let health = &status["stream_health"]["orderflow"];
    assert_eq!((&health["error_count"], &health["recovery_attempts"]), (&json!(0), &json!(0)));
    assert_eq!(health["is_healthy"], true);
    for time in ["last_update", "started_at"] {
        let time = health[time].as_str().unwrap();
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    }
    for (key, value) in [("connections", 2), ("subscribers", 2), ("groups", 4)] {
        assert_eq!(status["gexbot"][key], value, "{key}: of each ticker records and spot");
    }
    assert_eq!(status["hubs"]["streams"]["connections"], 1);
}

#[test]
fn connections_and_groups_are_told_by_the_hub_that_the_client_knows() {
    let server = Server::start(&Dataset::usual());
    let clients = ["orderflow", "v2_classic", "v2_classic"].map(|hub| Client::open_hub(&server, hub, JSON_RELIABLE));
    let status = server.get("/websocket/status").json();
    for (hub, connections, groups) in
        [("orderflow", 1, 2), ("v2_classic", 2, 2), ("v2_orderflow", 0, 4), ("classic", 0, 0)]
    {
        assert_eq!(status["hubs"][hub], json!({ "connections": connections, "groups": groups }), "{hub}");
        let metric = |name: &str| server.metric(&format!("{name}{{hub=\"{hub}\"}}"));
        assert_eq!((metric("flowcast_hub_connections"), metric("flowcast_hub_groups")), (connections, groups), "{hub}");
    }
    drop(clients);
    server.metric_until("flowcast_hub_connections{hub=\"v2_classic\"}", |connections| connections == 0);
}

#[test]
fn the_metrics_tell_of_each_stream_what_the_status_does() {
    let server = Server::with(&Dataset::usual(), &[CALM]);
    server.ticks(1);
    let health = server.get("/websocket/status").json()["stream_health"].as_object().unwrap().clone();
    let metrics = server.get("/metrics").body;
    assert!(health.contains_key("orderflow"));
    for (name, stream) in health {
        for (metric, value) in [
            ("stream_healthy", i64::from(stream["is_healthy"].as_bool().unwrap())),
            ("stream_errors_total", stream["error_count"].as_i64().unwrap()),
            ("stream_recoveries_total", stream["recovery_attempts"].as_i64().unwrap()),
        ] {
            let line = format!("flowcast_{metric}{{stream=\"{name}\"}} {value}\n");
            assert!(metrics.contains(&line), "expected {line} in {metrics}");
        }
    }
}

#[test]
fn metrics_are_prometheus_text_and_count_what_happens() {
    let server = Server::start(&Dataset::usual());
    let mut client = Client::open(&server, JSON_RELIABLE).joined(&["SPX", "NONE"]);
    client.take(5);
    let answer = server.get("/metrics");
    assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"), "{answer:?}");
    assert!(answer.body.ends_with("# EOF\n"));
    for (name, value) in [
        ("flowcast_connections", 1),
        ("flowcast_connections_opened_total", 1),
        ("flowcast_subscribers", 2),
        ("flowcast_groups", 5),
        ("flowcast_groups_silent", 1),
        ("flowcast_shard_overruns_total", 0),
    ] {
        assert_eq!(server.metric(name), value, "{name}");
    }
    for name in ["frames_out", "bytes_out", "sends", "publications", "reliable_frames_finished"] {
        // A shard counts a send after the kernel took it, when the client may have read it already.
        server.metric_until(&format!("flowcast_{name}_total"), |count| count >= 5);
    }
    assert!(server.metric("flowcast_tick_drift_seconds_count") >= 5, "a histogram of how late ticks are");
    assert!(answer.body.contains("flowcast_tick_drift_seconds_bucket{le="));
    client.send_close(1000);
    client.rest();
    server.closed_until("client", 1);
    assert_eq!(server.metric("flowcast_connections"), 0);
    assert_eq!(server.metric("flowcast_subscribers"), 0);
    assert_eq!(server.metric("flowcast_groups"), 4, "a silent group goes with its last subscriber");
}

/// The ledger's publication with this sequence id.
fn publication<'a>(ticks: &'a [Value], data: &Data) -> &'a Value {
    let publications = ticks.iter().flat_map(|tick| tick["publications"].as_array().unwrap());
    publications.into_iter().find(|publication| publication["sequence_id"] == data.id()).expect("in the ledger")
}

/// The ledger, once it holds the last of `data`: a tick is entered after the shards are rung.
fn ledger_with(server: &Server, data: &[Data]) -> Value {
    let last = data.last().unwrap().id();
    eventually("the ledger has the last publication", || {
        let ledger = server.get("/ticks").json();
        let newest = ledger["ticks"].as_array()?.last()?["publications"].as_array()?.last()?["sequence_id"].as_u64()?;
        (newest >= last).then_some(ledger)
    })
}

fn assert_told(ticks: &[Value], data: &[Data], profile: &str) {
    for data in data {
        let told = publication(ticks, data);
        assert_eq!(told["group"], data.group.as_str());
        assert_eq!(told["record_timestamp"], data.payload().timestamp);
        assert_eq!(told["payloads"][profile], format!("{:016x}", xxh3_64(&data.payload)), "{profile}");
    }
}

#[test]
fn the_ledger_tells_every_publication_with_the_hash_of_its_payload() {
    let server = Server::with(&Dataset::usual(), &[("WS_STREAM_INTERVAL", "5ms")]);
    let mut new = Client::open_at(&server, CLIENT, PROTOBUF_RELIABLE).joined(&["SPX", "ES_SPX"]);
    let new = new.take(40);
    let ledger = ledger_with(&server, &new);
    let ticks = ledger["ticks"].as_array().unwrap();
    assert_told(ticks, &new, "2026-04");
    for tick in ticks {
        let number = |key: &str| tick[key].as_u64().unwrap();
        assert!(number("published_ns") >= number("scheduled_ns"));
        assert!(number("published_unix_ns") >= number("scheduled_unix_ns"));
    }
    let seqs: Vec<u64> = ticks.iter().map(|tick| tick["seq"].as_u64().unwrap()).collect();
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1));
    assert_eq!(ledger["hub"], "orderflow");
    assert!(ledger["now"]["monotonic_ns"].is_u64() && ledger["now"]["unix_ns"].is_u64());
}

#[test]
fn a_profile_that_is_in_use_has_its_hashes_whatever_the_syntax() {
    for subprotocol in RELIABLE {
        let server = Server::with(&Dataset::usual(), &[("WS_STREAM_INTERVAL", "5ms")]);
        let old = Client::open_at(&server, WS, subprotocol).joined(&["SPX"]).take(20);
        assert_told(ledger_with(&server, &old)["ticks"].as_array().unwrap(), &old, "2025-11");
    }
}

#[test]
fn the_ledger_is_read_in_pages_and_is_bounded() {
    let server =
        Server::with(&Dataset::usual(), &[("WS_STREAM_INTERVAL", "2ms"), ("FLOWCAST_LEDGER_PUBLICATIONS", "10")]);
    let mut client = Client::open(&server, JSON_RELIABLE).joined(&["SPX"]);
    client.take(40);
    let page = server.get("/ticks?limit=3").json();
    let ticks = page["ticks"].as_array().unwrap();
    assert_eq!(ticks.len(), 3);
    let (oldest, newest) = (page["oldest"].as_u64().unwrap(), page["newest"].as_u64().unwrap());
    assert!(oldest > 1 && newest >= oldest + 9, "{oldest} to {newest}");
    let after = ticks[1]["seq"].as_u64().unwrap();
    let next = server.get(&format!("/ticks?after={after}&limit=1")).json();
    assert!(next["ticks"][0]["seq"].as_u64().unwrap() > after);
    for query in ["?after=x", "?limit=-1", "?from=1"] {
        assert_eq!(server.get(&format!("/ticks{query}")).status, 400, "{query}");
    }
}

#[test]
fn the_ledger_streams_as_server_sent_events() {
    let server = Server::with(&Dataset::usual(), &[("WS_STREAM_INTERVAL", "5ms")]);
    let mut client = Client::open(&server, PROTOBUF_RELIABLE).joined(&["SPX"]);
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(http::head(server.address, "GET", "/ticks", &[("Accept", "text/event-stream")], "").as_bytes())
        .unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    assert!(head[0].starts_with("HTTP/1.1 200"), "{head:?}");
    assert!(head.iter().any(|line| line.to_ascii_lowercase().starts_with("content-type: text/event-stream")));

    // Chunk sizes stand between the events; the fields of an event are what has a colon.
    let mut fields =
        lines.filter_map(|line| line.split_once(": ").map(|(key, value)| (key.to_owned(), value.to_owned())));
    assert_eq!(fields.next().unwrap(), ("event".to_owned(), "now".to_owned()));
    let mut ticks: Vec<Value> = Vec::new();
    let mut ids: Vec<u64> = Vec::new();
    for (key, value) in fields {
        match key.as_str() {
            "id" => ids.push(value.parse().unwrap()),
            "data" if !ids.is_empty() || value.contains("publications") => {
                ticks.push(serde_json::from_str(&value).unwrap());
            }
            _ => {}
        }
        if ticks.len() == 30 {
            break;
        }
    }
    assert!(ids.windows(2).all(|pair| pair[1] == pair[0] + 1), "{ids:?}");
    let (first, last) = (&ticks[0]["publications"][0], &ticks[29]["publications"][0]);
    let within = |data: &Data| {
        (first["sequence_id"].as_u64().unwrap()..=last["sequence_id"].as_u64().unwrap()).contains(&data.id())
    };
    let streamed: Vec<Data> = client.take(30).into_iter().filter(within).collect();
    assert_told(&ticks, &streamed, "2026-04");
    assert!(!streamed.is_empty());
    assert_eq!(first["group"], group("SPX").as_str());
}
