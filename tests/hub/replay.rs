//! What arrives is what the files say, in order, on one clock.

use crate::common;
use crate::common::client::{ALL, CLIENT, Client, Data, JSON_RELIABLE, Said, WS};
use crate::common::dataset::{Dataset, Profile, group, payload};
use crate::common::eventually;
use crate::common::server::Server;

const TICKERS: [(&str, u64); 2] = [("SPX", 20), ("ES_SPX", 7)];

fn records(ticker: &str) -> u64 {
    TICKERS.iter().find(|(name, _)| *name == ticker).unwrap().1
}

fn of<'a>(data: &'a [Data], ticker: &str) -> Vec<&'a Data> {
    data.iter().filter(|data| data.group == group(ticker)).collect()
}

/// Every record equals its source line, and follows the one before, from the last back to the first.
fn assert_faithful(data: &[Data], ticker: &str, profile: Profile) {
    let data = of(data, ticker);
    assert!(data.len() > 2, "expected data of {ticker}");
    let mut expected = data[0].index();
    for data in data {
        assert_eq!(data.payload(), payload(ticker, expected, profile));
        expected = (expected + 1) % records(ticker);
    }
}

#[test]
fn records_equal_their_source_lines_in_order_and_wrap_on_every_wire_and_profile() {
    let server = Server::with(&Dataset::new(&TICKERS), &[("WS_STREAM_INTERVAL", "2ms")]);
    for (endpoint, profile) in [(CLIENT, Profile::V2026), (WS, Profile::V2025)] {
        for subprotocol in ALL {
            let mut client = Client::open_at(&server, endpoint, subprotocol).joined(&["SPX", "ES_SPX"]);
            let data = client.take(2 * 50);
            assert_faithful(&data, "SPX", profile);
            assert_faithful(&data, "ES_SPX", profile);
        }
    }
}

#[test]
fn a_pinned_profile_is_spoken_on_every_endpoint() {
    for (name, profile) in [("2025-11", Profile::V2025), ("2026-04", Profile::V2026)] {
        let settings = [("FLOWCAST_PROFILE", name), ("FLOWCAST_PIN_PROFILE", "true"), ("WS_STREAM_INTERVAL", "2ms")];
        let server = Server::with(&Dataset::new(&TICKERS), &settings);
        for endpoint in [CLIENT, WS] {
            for subprotocol in ALL {
                let data = Client::open_at(&server, endpoint, subprotocol).joined(&["SPX"]).take(25);
                assert_faithful(&data, "SPX", profile);
            }
        }
    }
}

#[test]
fn the_profile_built_at_start_changes_nothing_of_what_is_spoken() {
    let settings = [("FLOWCAST_PROFILE", "2025-11"), ("WS_STREAM_INTERVAL", "2ms"), ("FLOWCAST_ZSTD_LEVEL", "19")];
    let server = Server::with(&Dataset::new(&TICKERS), &settings);
    for (endpoint, profile) in [(CLIENT, Profile::V2026), (WS, Profile::V2025)] {
        for subprotocol in ALL {
            let data = Client::open_at(&server, endpoint, subprotocol).joined(&["SPX"]).take(25);
            assert_faithful(&data, "SPX", profile);
        }
    }
}

#[test]
fn both_generations_get_the_same_record_at_the_same_tick() {
    let server = Server::with(&Dataset::new(&TICKERS), &[("WS_STREAM_INTERVAL", "5ms")]);
    let mut new = Client::open_at(&server, CLIENT, JSON_RELIABLE).joined(&["SPX"]);
    let mut old = Client::open_at(&server, WS, JSON_RELIABLE).joined(&["SPX"]);
    let (new, old) = (new.take(60), old.take(40));
    let shared: Vec<_> =
        new.iter().filter_map(|new| Some((new, old.iter().find(|old| old.id() == new.id())?))).collect();
    assert!(shared.len() >= 5, "expected ticks that both saw");
    for (new, old) in shared {
        assert_eq!(new.index(), old.index());
        assert_eq!(old.payload(), payload("SPX", new.index(), Profile::V2025));
        assert_eq!(new.payload(), payload("SPX", new.index(), Profile::V2026));
    }
}

#[test]
fn every_ticker_stands_on_the_one_clock_whether_subscribed_or_not() {
    let server = Server::with(&Dataset::new(&TICKERS), &[("WS_STREAM_INTERVAL", "2ms")]);
    // The clock runs before anybody listens, and while a ticker is left alone.
    server.ticks(30);
    let mut client = Client::open(&server, JSON_RELIABLE).joined(&["SPX"]);
    client.take(5);
    assert!(client.leave(&group("SPX")).success);
    server.ticks(30);
    let mut client = client.joined(&["ES_SPX", "SPX"]);
    client.take(30);
    let ledger = server.get("/ticks").json();
    let ticks = ledger["ticks"].as_array().unwrap();
    assert!(ticks.len() >= 15);
    let mut seen = 0;
    for tick in ticks {
        let ordinal = tick["ordinal"].as_u64().unwrap();
        for publication in tick["publications"].as_array().unwrap() {
            let ticker = if publication["group"] == group("SPX").as_str() { "SPX" } else { "ES_SPX" };
            let index = publication["record_timestamp"].as_i64().unwrap() - common::dataset::FIRST;
            assert_eq!(index.cast_unsigned(), ordinal % records(ticker), "{ticker} at tick {ordinal}");
            seen += 1;
        }
    }
    assert!(seen >= 30, "both tickers' publications are in the ledger");
}

#[test]
fn a_joiner_is_served_from_the_next_tick_on() {
    let server = Server::with(&Dataset::new(&TICKERS), &[("WS_STREAM_INTERVAL", "5ms")]);
    let mut first = Client::open(&server, JSON_RELIABLE).joined(&["SPX"]);
    first.take(10);
    let before = server.get("/websocket/status").json()["gexbot"]["sequence_id"].as_u64().unwrap();
    let mut second = Client::open(&server, JSON_RELIABLE).joined(&["SPX"]);
    let data = second.take(3);
    assert!(data[0].id() > before, "nothing that was published before the join");
    let all = first.take(40);
    let at = all.iter().position(|seen| seen.id() == data[0].id()).expect("the same publication");
    assert_eq!(all[at..at + 3], data, "and from there on everything, byte for byte");
}

#[test]
fn exhaust_falls_silent_after_each_tickers_last_record() {
    let dataset = Dataset::new(&[("SPX", 300), ("ES_SPX", 150)]);
    let server = Server::with(&dataset, &[("CACHE_MODE", "exhaust"), ("WS_STREAM_INTERVAL", "10ms")]);
    let mut client = Client::open(&server, JSON_RELIABLE).joined(&["SPX", "ES_SPX"]);
    eventually("the replay is at its end", || {
        let status = server.get("/websocket/status").json();
        (status["stream_health"]["orderflow"]["is_healthy"] == false).then_some(())
    });
    let mut data = Vec::new();
    // Whatever was held back while the joins were awaited comes first.
    while data.last().is_none_or(|data: &Data| data.index() != 299) {
        data.push(client.data());
    }
    for (ticker, records) in [("SPX", 300), ("ES_SPX", 150)] {
        let indexes: Vec<u64> = of(&data, ticker).iter().map(|data| data.index()).collect();
        assert_eq!(indexes.last(), Some(&(records - 1)), "{ticker} ends with its last record");
        assert!(indexes.windows(2).all(|pair| pair[1] == pair[0] + 1), "{ticker}: {indexes:?}");
    }
    assert_eq!(client.ping(), [], "then there is silence");
    let mut late = Client::open(&server, JSON_RELIABLE).joined(&["SPX"]);
    assert_eq!(late.ping(), [], "for a late joiner too");
    assert_eq!(server.get("/healthz").status, 200, "silence is no illness of the server");
}

#[test]
fn tickers_without_subscribers_are_not_published() {
    let server = Server::with(&Dataset::new(&TICKERS), &[("WS_STREAM_INTERVAL", "2ms")]);
    server.ticks(20);
    assert_eq!(server.metric("flowcast_publications_total"), 0);
    let mut client = Client::open(&server, JSON_RELIABLE).joined(&["SPX"]);
    let data = client.take(10);
    assert!(data.windows(2).all(|pair| pair[1].id() == pair[0].id() + 1), "no number went to the other ticker");
    assert!(client.leave(&group("SPX")).success);
    client.send_close(1000);
    assert!(client.rest().contains(&Said::Closed(Some((1000, String::new())))));
    let published = server.metric("flowcast_publications_total");
    server.ticks(20);
    assert_eq!(server.metric("flowcast_publications_total"), published);
}
