//! Every hub of GexBot: which groups it carries, what their payloads are to the byte, and spot beside them.

use std::fs;

use xxhash_rust::xxh3::xxh3_64;

use crate::common::client::{Client, Data, JSON, JSON_RELIABLE, PROTOBUF, PROTOBUF_RELIABLE, WS};
use crate::common::dataset::{DATE, Dataset, line};
use crate::common::protobuf::Fields;
use crate::common::server::Server;

const GEX: &str = include_str!("../fixtures/gexbot/gex_full.jsonl");
const GEX_PAYLOAD: &[u8] = include_bytes!("../fixtures/gexbot/gex_full.payload.bin");
const GREEK: &str = include_str!("../fixtures/gexbot/gamma_zero.jsonl");
const GREEK_PAYLOAD: &[u8] = include_bytes!("../fixtures/gexbot/gamma_zero.payload.bin");
const SPOT_PAYLOAD: &[u8] = include_bytes!("../fixtures/gexbot/spot.payload.bin");

/// Each hub's topic, one of its groups of SPX, and the type URL and payload of that group's record.
const GROUPS: [(&str, &str, &str, &[u8]); 5] = [
    ("classic", "SPX_classic_gex_full", "proto.gex", GEX_PAYLOAD),
    ("state_gex", "SPX_state_gex_zero", "proto.gex", GEX_PAYLOAD),
    ("state_greeks_zero", "SPX_state_gamma_zero", "proto.greek", GREEK_PAYLOAD),
    ("state_greeks_one", "SPX_state_charm_one", "proto.greek", GREEK_PAYLOAD),
    ("state_greeks", "SPX_state_vanna_20260717", "proto.greek", GREEK_PAYLOAD),
];

/// A day with the example records in a file of each hub.
fn market() -> Dataset {
    let dataset = Dataset::empty();
    let ticker = dataset.path().join(DATE).join("SPX");
    for (file, text) in [
        ("classic/gex_full", GEX),
        ("state/gex_zero", GEX),
        ("state/gamma_zero", GREEK),
        ("state/charm_one", GREEK),
        ("state/vanna_20260717", GREEK),
    ] {
        let path = ticker.join(file).with_extension("jsonl");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dataset
}

fn message(data: &Data) -> Vec<u8> {
    zstd::decode_all(data.payload.as_slice()).expect("a zstd frame")
}

fn joined(mut client: Client, group: &str) -> Client {
    let ack = client.join(group);
    assert!(ack.success, "{group}: {ack:?}");
    client
}

#[test]
fn each_hub_sends_its_records_to_the_byte_in_every_protocol_and_generation() {
    let server = Server::start(&market());
    for (hub, group, type_url, payload) in GROUPS {
        for hub in [hub.to_owned(), format!("v2_{hub}")] {
            for subprotocol in [JSON, JSON_RELIABLE, PROTOBUF, PROTOBUF_RELIABLE] {
                let mut client = joined(Client::open_hub(&server, &hub, subprotocol), &format!("blue_{group}"));
                let data = client.data();
                assert_eq!((data.group.as_str(), data.type_url.as_str()), (format!("blue_{group}").as_str(), type_url));
                assert_eq!(message(&data), payload, "{group} on {hub} in {subprotocol}");
            }
        }
        let old = WS.replace("orderflow", hub);
        let mut client = joined(Client::open_at(&server, &old, PROTOBUF), &format!("blue_{group}"));
        assert_eq!(message(&client.data()), payload, "{group} for clients of 2025: only orderflow differs");
    }
}

#[test]
fn every_v2_hub_has_the_spot_price_and_no_other_hub_has() {
    let server = Server::start(&market());
    for (hub, group, ..) in GROUPS {
        let mut client = Client::open_hub(&server, &format!("v2_{hub}"), JSON_RELIABLE);
        client = joined(joined(client, &format!("blue_{group}")), "blue_SPX_spot");
        let data = client.take(6);
        let spot: Vec<&Data> = data.iter().filter(|data| data.group == "blue_SPX_spot").collect();
        assert!(spot.len() >= 2 && spot.len() < data.len(), "both come: {data:?}");
        for data in spot {
            assert_eq!((data.type_url.as_str(), message(data)), ("proto.spot", SPOT_PAYLOAD.to_vec()));
        }
        let refused = Client::open_hub(&server, hub, JSON).join("blue_SPX_spot");
        assert_eq!(refused.error_name(), "Forbidden", "{hub}: {refused:?}");
    }
}

#[test]
fn records_and_spot_of_one_tick_have_the_same_time() {
    let dataset = Dataset::new(&[("SPX", 50)]);
    let server = Server::with(&dataset, &[("WS_STREAM_INTERVAL", "5ms")]);
    let mut client = Client::open_hub(&server, "v2_orderflow", JSON_RELIABLE);
    client = joined(joined(client, "blue_SPX_orderflow_orderflow"), "blue_SPX_spot");
    let data = client.take(40);
    let time = |data: &Data| Fields::read(&message(data)).number(1);
    let of = |group: &str| data.iter().filter(|data| data.group == group).map(time).collect::<Vec<_>>();
    let (records, spots) = (of("blue_SPX_orderflow_orderflow"), of("blue_SPX_spot"));
    let start = records.iter().position(|time| *time == spots[0]).unwrap();
    let both = records[start..].iter().zip(&spots);
    assert!(both.len() >= 10 && both.into_iter().all(|(record, spot)| record == spot), "{records:?} {spots:?}");
    let ticks = server.get("/ticks").json();
    let publications =
        ticks["ticks"].as_array().unwrap().iter().flat_map(|tick| tick["publications"].as_array().unwrap());
    let sent: Vec<u64> = data.iter().map(Data::id).collect();
    for publication in publications.filter(|one| one["sequence_id"].as_u64().is_some_and(|id| sent.contains(&id))) {
        let data = data.iter().find(|data| publication["sequence_id"] == data.id()).unwrap();
        let hash = format!("{:016x}", xxh3_64(&data.payload));
        assert_eq!(publication["payloads"]["2026-04"], hash.as_str(), "{publication}");
    }
}

#[test]
fn negotiate_lists_the_hubs_that_have_data() {
    let server = Server::start(&market());
    let answer = server.get("/v2/negotiate?key=k").json();
    let hubs: Vec<&str> = answer["websocket_urls"].as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = GROUPS.map(|(hub, ..)| hub);
    expected.sort_unstable();
    let mut hubs = hubs;
    hubs.sort_unstable();
    assert_eq!(hubs, expected);
}

#[test]
fn a_group_of_a_category_without_a_file_joins_and_stays_silent() {
    let server = Server::start(&market());
    let mut client = joined(Client::open_hub(&server, "classic", JSON), "blue_SPX_classic_gex_one");
    server.ticks(3);
    assert_eq!(client.ping(), []);
}

#[test]
fn a_bad_line_costs_its_own_tick_and_the_files_of_a_ticker_stay_aligned() {
    let dataset = Dataset::empty();
    let lines = |bad: bool| {
        let line = |n: u64| if bad && n == 3 { "nonsense\n".to_owned() } else { line("SPX", n) + "\n" };
        (0..10).map(line).collect::<String>()
    };
    dataset.write("SPX", lines(true));
    let gex = dataset.path().join(DATE).join("SPX/classic/gex_full.jsonl");
    fs::create_dir_all(gex.parent().unwrap()).unwrap();
    fs::write(&gex, lines(false)).unwrap();
    let server = Server::with(&dataset, &[("WS_STREAM_INTERVAL", "5ms")]);
    let _orderflow = joined(Client::open_hub(&server, "orderflow", JSON), "blue_SPX_orderflow_orderflow");
    let mut classic = joined(Client::open_hub(&server, "classic", JSON_RELIABLE), "blue_SPX_classic_gex_full");
    let heard = classic.take(30);
    let heard = heard[0].id()..=heard[29].id();
    let ledger = server.get("/ticks").json();
    let mut alone = 0;
    for tick in ledger["ticks"].as_array().unwrap() {
        let publications = tick["publications"].as_array().unwrap();
        if !publications.iter().any(|one| heard.contains(&one["sequence_id"].as_u64().unwrap())) {
            continue;
        }
        let times: Vec<i64> = publications.iter().map(|one| one["record_timestamp"].as_i64().unwrap()).collect();
        match times[..] {
            [one, two] => assert_eq!(one, two, "{tick}"),
            [_] => alone += 1,
            _ => {}
        }
    }
    assert_eq!(alone, 3, "one tick of ten has GEX alone");
}
