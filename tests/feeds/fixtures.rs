//! The brokers' own bytes, decoded: `tests/fixtures/kite` against what the official Python client makes
//! of them, `tests/fixtures/xts` against what the captures say of themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flowcast::source::broker::instrument::{Broker, Exchange, Instrument};
use flowcast::source::broker::kite::packet::{self, Fault};
use flowcast::source::broker::price;
use flowcast::source::broker::quote::{Level, MarketData, QuoteKind, ReceivedAt};
use flowcast::source::broker::xts::event_fields::{Code, Fields, Key};
use flowcast::source::broker::xts::partial::{self, Store};
use flowcast::source::broker::xts::socketio::{self, Frame};
use flowcast::source::broker::xts::xts_events::{self, XtsUpdate};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde_json::Value;

fn fixtures(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(folder)
}

fn kite(name: &str) -> Vec<u8> {
    fs::read(fixtures("kite").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn record(packet: &packet::Packet) -> MarketData {
    let exchange = packet::exchange(packet.token);
    let instrument = Instrument { symbol: "X".into(), exchange, id: packet.token.into() };
    packet.market_data(&"kite".into(), &instrument, ReceivedAt::now())
}

fn decoded(frame: &[u8]) -> (Vec<MarketData>, Vec<Fault>) {
    let (mut records, mut faults) = (Vec::new(), Vec::new());
    if !packet::is_heartbeat(frame) {
        for item in packet::packets(frame) {
            match item {
                Ok(packet) => records.push(record(&packet)),
                Err(fault) => faults.push(fault),
            }
        }
    }
    (records, faults)
}

/// The exact decimal of a JSON number of the official client, which printed the shortest float.
fn price(value: &Value) -> Option<Decimal> {
    value.is_number().then(|| price::parse(&value.to_string()).unwrap())
}

/// 0 there is absent here.
fn milliseconds(value: &Value) -> Option<i64> {
    value["epoch_s"].as_i64().filter(|&seconds| seconds > 0).map(|seconds| seconds * 1000)
}

fn levels(side: &Value) -> Vec<Level> {
    let side = side.as_array().map(Vec::as_slice).unwrap_or_default();
    side.iter()
        .map(|level| Level {
            price: price(&level["price"]).unwrap(),
            quantity: level["quantity"].as_u64().unwrap(),
            orders: level["orders"].as_u64().unwrap() as u32,
        })
        .filter(|level| level.quantity > 0)
        .collect()
}

fn assert_same(record: &MarketData, tick: &Value, name: &str) {
    let is_index = record.instrument_id & 0xff == 9;
    let kind = match tick["mode"].as_str().unwrap() {
        "quote" | "full" if is_index => QuoteKind::Index,
        "ltp" => QuoteKind::Ltp,
        "quote" => QuoteKind::Quote,
        "full" => QuoteKind::Full,
        other => panic!("{name}: {other}"),
    };
    assert_eq!(record.kind, kind, "{name}");
    assert_eq!(record.tradable, tick["tradable"].as_bool(), "{name}");
    assert_eq!(Some(record.instrument_id), tick["instrument_token"].as_u64(), "{name}");
    assert_eq!(record.last_price, price(&tick["last_price"]), "{name}");
    assert_eq!(record.last_quantity, tick["last_traded_quantity"].as_u64(), "{name}");
    assert_eq!(record.average_price, price(&tick["average_traded_price"]), "{name}");
    assert_eq!(record.volume, tick["volume_traded"].as_u64(), "{name}");
    assert_eq!(record.total_buy_quantity, tick["total_buy_quantity"].as_u64(), "{name}");
    assert_eq!(record.total_sell_quantity, tick["total_sell_quantity"].as_u64(), "{name}");
    let day = &tick["ohlc"];
    assert_eq!([record.open, record.high, record.low], ["open", "high", "low"].map(|key| price(&day[key])), "{name}");
    assert_eq!(record.prev_close, price(&day["close"]).filter(|close| !close.is_zero()), "{name}");
    assert_eq!(record.oi, tick["oi"].as_u64(), "{name}");
    assert_eq!(record.oi_day_high, tick["oi_day_high"].as_u64(), "{name}");
    assert_eq!(record.oi_day_low, tick["oi_day_low"].as_u64(), "{name}");
    assert_eq!(record.last_trade_time, milliseconds(&tick["last_trade_time"]), "{name}");
    assert_eq!(record.exchange_time, milliseconds(&tick["exchange_timestamp"]), "{name}");
    assert_eq!(*record.bids, *levels(&tick["depth"]["buy"]), "{name}");
    assert_eq!(*record.asks, *levels(&tick["depth"]["sell"]), "{name}");
    match record.change_pct() {
        Some(change) => {
            let theirs = tick["change"].as_f64().unwrap();
            assert!((change.to_f64().unwrap() - theirs).abs() <= 5.1e-7, "{name}: {change} and {theirs}");
        }
        None => assert!(tick.get("change").is_none_or(|change| change.as_f64() == Some(0.0)), "{name}"),
    }
}

#[test]
fn every_good_kite_fixture_decodes_to_what_the_official_client_says() {
    let mut files = 0;
    for entry in fs::read_dir(fixtures("kite")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let is_message = path.extension().is_some_and(|end| end == "bin") || name.ends_with("Mode_binary.packet");
        if !is_message || name.starts_with("bad_") {
            continue;
        }
        let expected: Value =
            serde_json::from_slice(&kite(&format!("{}.expected.json", path.file_stem().unwrap().to_str().unwrap())))
                .unwrap();
        let (records, faults) = decoded(&kite(&name));
        assert_eq!(faults, [], "{name}");
        let ticks = expected["ticks"].as_array().unwrap();
        assert_eq!(records.len(), ticks.len(), "{name}");
        records.iter().zip(ticks).for_each(|(record, tick)| assert_same(record, tick, &name));
        files += 1;
    }
    assert_eq!(files, 13, "the fixtures are there: 12 messages and a heartbeat");
}

#[test]
fn the_two_real_single_packets_decode_to_the_values_beside_them() {
    for stem in ["ticker_full", "ticker_quote"] {
        let text = String::from_utf8(kite(&format!("{stem}.packet"))).unwrap();
        let packet = STANDARD.decode(text.trim()).unwrap();
        let mut frame = vec![0, 1];
        frame.extend((packet.len() as u16).to_be_bytes());
        frame.extend(&packet);
        let (records, faults) = decoded(&frame);
        assert_eq!((records.len(), faults.len()), (1, 0));
        let expected: Value = serde_json::from_slice(&kite(&format!("{stem}.json"))).unwrap();
        let record = &records[0];
        assert_eq!(record.last_price, price(&expected["last_price"]));
        assert_eq!(record.prev_close, price(&expected["ohlc"]["close"]));
        assert_eq!(record.volume, expected["volume"].as_u64());
        assert_eq!(*record.bids, *levels(&expected["depth"]["buy"]));
        assert_eq!(*record.asks, *levels(&expected["depth"]["sell"]));
        // This client's change is absolute, and a float.
        let change = record.change().unwrap();
        assert_eq!(change, Decimal::new(if stem == "ticker_full" { 590 } else { 535 }, 2));
    }
}

/// A frame of packets, from their hexadecimal digits.
fn frame(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn commodities_of_the_nse_have_four_decimals_and_an_undocumented_segment_has_no_price() {
    let ltp = "0004000801db0b0c0039b570000801dbe70c002c7ea0000801e0b30c1000fc20000801ffc40c051014e0";
    let (records, faults) = decoded(&frame(ltp));
    assert_eq!(faults, []);
    let told: Vec<String> =
        records.iter().map(|record| price::shortest(record.last_price.unwrap()).to_string()).collect();
    assert_eq!(told, ["378.2", "291.6", "26850", "8494"]);
    assert!(records.iter().all(|record| record.exchange == Exchange::Nco));
    for (segment, places) in [(0, None), (1, Some(2)), (3, Some(7)), (6, Some(4)), (9, Some(2)), (12, Some(4))] {
        assert_eq!(packet::places(0x100 | segment), places, "{segment}");
    }
    let known: Vec<u32> = (0..256).filter(|&segment| packet::places(segment).is_some()).collect();
    assert_eq!(known, [1, 2, 3, 4, 5, 6, 7, 8, 9, 12]);
    let (records, faults) = decoded(&frame("0002000801db0b0b0039b570000800063a010002646c"));
    assert_eq!((records.len(), faults), (1, vec![Fault::UnknownSegment(11)]), "the rest is read");
}

#[test]
fn zeros_before_the_open_are_absent() {
    let quiet = "0001002c00063a010002646c000000000000000000000000000004b0000003840000000000000000000000000002646c";
    let (records, _) = decoded(&frame(quiet));
    let record = &records[0];
    assert_eq!(record.last_price, Some(Decimal::new(156_780, 2)));
    assert_eq!([record.open, record.high, record.low, record.average_price], [None; 4]);
    assert_eq!((record.volume, record.total_buy_quantity), (Some(0), Some(1200)), "nothing traded is a number");
    let never = "0001002c00063a010000000000000000000000000000000000000000000000000000000000000000000000000002646c";
    let (records, _) = decoded(&frame(never));
    assert_eq!((records[0].last_price, records[0].change_pct()), (None, None));
    assert_eq!(records[0].price_update(), None, "what has not traded has no price");
    let (records, _) = decoded(&frame("0001000800063a0100000000"));
    assert_eq!(records[0].price_update(), None, "nor does it lower the day's low");
}

#[test]
fn bad_kite_frames_give_what_lies_wholly_inside_and_one_fault() {
    let quote = |name: &str| {
        let (records, faults) = decoded(&kite(name));
        assert_eq!(records.len(), 1, "{name}");
        let expected: Value = serde_json::from_slice(&kite("msg_quote_infy.expected.json")).unwrap();
        assert_same(&records[0], &expected["ticks"][0], name);
        faults
    };
    assert_eq!(quote("bad_trailing_bytes.bin"), [Fault::TrailingBytes(3)]);
    assert_eq!(quote("bad_unknown_length.bin"), [Fault::UnknownLength(12)]);
    assert_eq!(quote("bad_count_too_big.bin"), [Fault::Truncated { missing: 2, short: 2 }]);
    let nothing = |name: &str| {
        let (records, faults) = decoded(&kite(name));
        assert_eq!(records, [], "{name}");
        faults
    };
    assert_eq!(nothing("bad_truncated_full.bin"), [Fault::Truncated { missing: 1, short: 20 }]);
    // The official client takes this packet; a length that does not fit is not one.
    assert_eq!(nothing("bad_length_too_big.bin"), [Fault::Truncated { missing: 1, short: 3956 }]);
    assert_eq!(nothing("bad_zero_packets.bin"), []);
    assert!(packet::is_heartbeat(&kite("heartbeat.bin")));
}

fn lines(name: &str) -> Vec<Value> {
    let text = fs::read_to_string(fixtures("xts").join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The capture's noon.
const NOW_MS: i64 = 1_736_142_368_000;

fn said(payload: &str, code: u64) -> XtsUpdate {
    let mut all = Vec::new();
    xts_events::full(Code::from_number(code).unwrap(), payload, NOW_MS, |said| all.push(said)).unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn market_data(fields: &Fields, code: Code, exchange: Exchange) -> MarketData {
    let instrument = Instrument { symbol: "X".into(), exchange, id: 1 };
    fields.market_data(code, Broker::XtsPro, &Arc::from("xts"), &instrument, ReceivedAt::now())
}

#[test]
fn every_captured_xts_event_decodes_and_its_percentage_is_the_servers() {
    let mut events = 0;
    for line in lines("captured-session.jsonl") {
        let frame = line["frame"].as_str().unwrap();
        let Frame::Event { name, payload } = socketio::parse(frame).unwrap() else { continue };
        let Some(code) = name.strip_suffix("-json-full") else { continue };
        let XtsUpdate::Data(key, code, fields) = said(&payload, code.parse().unwrap()) else { panic!("{frame}") };
        let is_index = key.id == 26_000;
        let record = market_data(&fields, code, if is_index { Exchange::NseIndex } else { Exchange::Nse });
        let json: Value = serde_json::from_str(&payload).unwrap();
        let line = if json["Touchline"].is_object() { &json["Touchline"] } else { &json };
        assert_eq!(record.last_price, price(&line["LastTradedPrice"]));
        assert_eq!(record.prev_close, price(&line["Close"]));
        assert_eq!(record.volume, line["TotalTradedQuantity"].as_u64());
        assert_eq!(record.open, price(&line["Open"]));
        assert_eq!(record.sequence, json["SequenceNumber"].as_u64());
        assert_eq!(record.extra.total_value_traded, None, "null");
        // Indices' percentages are rounded to two places.
        let (ours, theirs) = (record.change_pct().unwrap().to_f64().unwrap(), line["PercentChange"].as_f64().unwrap());
        assert!((ours - theirs).abs() <= if is_index { 5.1e-3 } else { 5.1e-7 }, "{ours} and {theirs} in {frame}");
        let sides = match code {
            Code::Depth => 5,
            Code::Touchline => 1,
            _ => 0,
        };
        assert_eq!((record.bids.len(), record.asks.len()), if is_index { (0, 0) } else { (sides, sides) });
        // 11:16:01 to 11:16:53 IST, and a little before.
        let time = record.exchange_time.unwrap();
        assert!((NOW_MS - 60_000..NOW_MS + 60_000).contains(&time), "{time}");
        events += 1;
    }
    assert_eq!(events, 180, "the fixtures are there");
}

#[test]
fn every_xts_sample_says_what_its_kind_should() {
    let mut store = Store::new(100);
    let mut kinds = Vec::new();
    for line in lines("samples.jsonl") {
        let frame = line["frame"].as_str().unwrap();
        let Frame::Event { name, payload } = socketio::parse(frame).unwrap() else { continue };
        let Some((code, form)) = name.split_once("-json-") else { continue };
        let code: u64 = code.parse().unwrap();
        let said = match form {
            "full" => said(&payload, code),
            _ => {
                let (code, partial) = (Code::from_number(code).unwrap(), partial::split(&payload).unwrap());
                XtsUpdate::Data(partial.key, code, Box::new(store.merge(code, &partial, NOW_MS)))
            }
        };
        match said {
            XtsUpdate::Market(text) => assert_eq!(text, "THE REGULAR SEGMENT HAS CLOSED FOR 07 NOV 2024"),
            XtsUpdate::Data(_, code, fields) => kinds.push(market_data(&fields, code, Exchange::Nse).kind),
        }
    }
    let count = |kind| kinds.iter().filter(|&&one| one == kind).count();
    let counted =
        [QuoteKind::Quote, QuoteKind::Full, QuoteKind::Depth, QuoteKind::Ltp, QuoteKind::Candle, QuoteKind::Oi]
            .map(count);
    assert_eq!(counted, [6, 2, 1, 3, 2, 3], "{kinds:?}");
}

#[test]
fn bars_open_interest_and_snapshots_have_their_exact_values() {
    let samples = lines("samples.jsonl");
    let of = |name: &str| {
        let line = samples.iter().find(|line| line["name"] == name).unwrap();
        let Frame::Event { name, payload } = socketio::parse(line["frame"].as_str().unwrap()).unwrap() else {
            panic!()
        };
        let XtsUpdate::Data(_, _, fields) = said(&payload, name.split_once('-').unwrap().0.parse().unwrap()) else {
            panic!()
        };
        *fields
    };
    let bar = of("1505 full");
    assert_eq!((bar.open, bar.last_price), (price::parse("606.55"), price::parse("607.45")));
    assert_eq!((bar.volume, bar.exchange_time), (Some(1_760_422), Some(1_736_145_179_000)));
    let oi = of("1510 full with underlying");
    assert_eq!((oi.oi, oi.underlying_oi, oi.last_price), (Some(169_260), Some(757_154_175), None));
    let rest = lines("rest.jsonl");
    let snapshots: Vec<_> =
        rest.iter().filter_map(|line| line["body"]["result"]["listQuotes"].as_array()).flatten().collect();
    assert_eq!(snapshots.len(), 6);
    for snapshot in snapshots {
        let XtsUpdate::Data(Key { segment: 1, id: 2885 | 26_000 }, _, fields) =
            xts_events::snapshot(snapshot.as_str().unwrap(), NOW_MS).unwrap()
        else {
            panic!("{snapshot}")
        };
        assert!(fields.last_price.is_some());
    }
}

#[test]
fn fields_of_odd_types_are_absent_and_their_message_is_not_lost() {
    let XtsUpdate::Data(key, _, fields) = said(
        r#"{"ExchangeSegment":"1","ExchangeInstrumentID":2885.0,"LastTradedPrice":"1234.5","Open":{},"High":[1],"Low":null,
           "LastTradedQuantity":7,"TotalBuyQuantity":-1,"BidInfo":5,"Bids":"none","Close":0,"Unknown":[[["x"]]]}"#,
        1502,
    ) else {
        panic!()
    };
    assert_eq!(key, Key { segment: 1, id: 2885 });
    assert_eq!((fields.last_price, fields.last_quantity), (price::parse("1234.5"), Some(7)));
    assert_eq!((fields.open, fields.high, fields.low, fields.total_buy_quantity), (None, None, None, None));
    let record = market_data(&fields, Code::Depth, Exchange::Nse);
    assert_eq!((record.prev_close, record.change_pct(), record.bids.len()), (None, None, 0));
    for bad in ["", "[", "5", "{}", "null", r#"{"ExchangeSegment":70000,"ExchangeInstrumentID":1}"#] {
        assert!(xts_events::full(Code::Ltp, bad, NOW_MS, |_| {}).is_err(), "{bad}");
    }
}
