use super::*;
use crate::engine::frames::Form;
use crate::engine::group::Publication;
use crate::engine::hub::HubOptions;
use crate::engine::ledger::LedgerOptions;
use crate::wire::streams::shapes::{Trade, TradingSignal};
use crate::wire::websocket;
use clap::{Args as _, Command, FromArgMatches as _};
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;

fn options() -> StreamOptions {
    let command = StreamOptions::augment_args(Command::new("test").no_binary_name(true));
    StreamOptions::from_arg_matches(&command.get_matches_from(["--max-symbols=3", "--max-publish-bytes=200"])).unwrap()
}

fn streams() -> Arc<Streams> {
    let options_of_hub = HubOptions { max_silent_groups: 100, ledger: LedgerOptions { ledger_publications: 0 } };
    Streams::new(Arc::new(Hub::new(STREAMS_HUB, &options_of_hub)), ["lines"], options(), &Status::default())
}

fn json_of(frames: &Frames) -> Value {
    serde_json::from_slice(websocket::payload(&frames.frame(Form::new(0)))).unwrap()
}

fn join(streams: &Streams, group: &str) -> Receiver<Publication> {
    streams.hub.subscribe(group).unwrap().1
}

fn next(receiver: &mut Receiver<Publication>) -> Option<Value> {
    receiver.try_recv().ok().map(|publication| json_of(&publication.frames))
}

fn publish(streams: &Streams, channel: &str, payload: &Value) {
    streams.publish(channel, &Input::new(payload.to_string().as_bytes())).unwrap();
}

fn encoded(streams: &Streams, channel: &str) -> u64 {
    streams.outputs[streams.channels.find(channel).unwrap().0].encoded.load(Ordering::Relaxed)
}

#[test]
fn a_passthrough_message_is_encoded_once_for_all_its_subscribers_and_the_history() {
    let streams = streams();
    publish(&streams, "lines", &json!({"n": 1}));
    assert_eq!(encoded(&streams, "lines"), 1);
    let mut receivers: Vec<_> = (0..5).map(|_| join(&streams, "lines")).collect();
    publish(&streams, "lines", &json!({"n": 2}));
    for receiver in &mut receivers {
        assert_eq!(next(receiver).unwrap()["payload"], json!({"n": 2}));
    }
    assert_eq!(encoded(&streams, "lines"), 2);
    let (at, _) = streams.channels.find("lines").unwrap();
    let history = streams.history(at);
    let kept: Vec<_> = history.range(0..9).map(|(_, kept)| kept.place.unwrap().1).collect();
    assert_eq!((kept, history.seqs().of(0)), (vec![1, 2], 2));
}

#[test]
fn what_arrives_together_becomes_visible_together_and_a_refusal_keeps_nothing_back() {
    let streams = streams();
    let (mut lines, mut signals) = (join(&streams, "lines"), join(&streams, "signals"));
    let before = streams.hub.sequencer().published();
    let mut batch = streams.batch();
    batch.publish("lines", &Input::new(b"1")).unwrap();
    batch.publish("nowhere", &Input::new(b"2")).unwrap_err();
    batch.publish("signals", &Input::new(br#"{"signal_type":"BUY","symbol":"AAPL"}"#)).unwrap();
    batch.publish("lines", &Input::new(b"3")).unwrap();
    assert_eq!((streams.hub.sequencer().published(), next(&mut lines)), (before, None), "not before all of it is");
    drop(batch);
    assert_eq!(streams.hub.sequencer().published(), before + 3);
    let payloads = [next(&mut lines).unwrap()["payload"].take(), next(&mut lines).unwrap()["payload"].take()];
    assert_eq!(payloads, [json!(1), json!(3)]);
    assert_eq!(next(&mut signals).unwrap()["symbol"], "AAPL");
}

#[test]
fn a_signal_goes_to_everybody_and_to_those_of_its_symbol_as_one_frame() {
    let streams = streams();
    let (mut all, mut apple, mut other) =
        (join(&streams, "signals"), join(&streams, "signals:AAPL"), join(&streams, "signals:MSFT"));
    publish(&streams, "signals", &json!({"signal_type": "BUY", "symbol": "AAPL"}));
    let (first, second) = (all.try_recv().unwrap(), apple.try_recv().unwrap());
    assert_eq!(first.frames.frame(Form::new(0)).as_ptr(), second.frames.frame(Form::new(0)).as_ptr());
    assert_eq!(next(&mut other), None);
    assert_eq!(encoded(&streams, "signals"), 1);
}

#[test]
fn a_full_group_of_a_symbol_is_waited_for_also_if_nobody_takes_the_whole_channel() {
    let streams = streams();
    let mut apple = join(&streams, "signals:AAPL");
    let batch = |symbol: &str| {
        let mut batch = streams.batch();
        for _ in 0..40 {
            let signal = json!({"signal_type": "BUY", "symbol": symbol}).to_string();
            batch.publish("signals", &Input::new(signal.as_bytes())).unwrap();
        }
        batch.try_send()
    };
    assert!(batch("AAPL").is_ok());
    assert_eq!(batch("AAPL").unwrap_err().len(), 40, "there is room for 24");
    assert!(batch("MSFT").is_ok());
    assert_eq!((0..40).filter_map(|_| next(&mut apple)).count(), 40);
    assert!(batch("AAPL").is_ok());
}

#[test]
fn prices_are_conflated_to_the_latest_of_each_symbol_that_changed() {
    let streams = streams();
    let (mut all, mut set) = (join(&streams, PRICE_UPDATES), join(&streams, "price_updates:B,C"));
    for (symbol, price) in [("A", 1), ("B", 1), ("A", 2)] {
        publish(&streams, PRICE_UPDATES, &json!({"symbol": symbol, "price": price, "high": 1}));
    }
    assert_eq!(next(&mut all), None, "not before the interval is over");
    streams.send_prices();
    let told = next(&mut all).unwrap();
    assert_eq!(told["symbols"]["A"], json!({"price": 2, "high": 2, "close": 2}), "a new high widens the range");
    let told = next(&mut set).unwrap();
    assert_eq!(told["symbols"], json!({"B": {"price": 1, "high": 1, "close": 1}}), "C is not known");
    publish(&streams, PRICE_UPDATES, &json!({"symbol": "A", "price": 2}));
    streams.send_prices();
    assert_eq!(next(&mut all), None, "the same price again is no change");
    publish(&streams, PRICE_UPDATES, &json!({"symbol": "A", "price": 3}));
    streams.send_prices();
    assert_eq!(next(&mut all).unwrap()["symbols"], json!({"A": {"price": 3, "high": 3, "close": 3}}));
    assert_eq!(next(&mut set), None);
}

#[test]
fn who_joins_late_gets_the_latest_state_encoded_once_per_filter() {
    let streams = streams();
    assert!(streams.hub.retained(PRICE_UPDATES).is_none());
    publish(&streams, PRICE_UPDATES, &json!({"symbol": "A", "price": 1}));
    publish(&streams, PRICE_UPDATES, &json!({"symbol": "B", "price": 1}));
    streams.send_prices();
    publish(&streams, PRICE_UPDATES, &json!({"symbol": "A", "price": 2}));
    streams.send_prices();
    let all = streams.hub.retained(PRICE_UPDATES).unwrap();
    assert_eq!(json_of(&all)["symbols"]["A"]["price"], 2);
    assert_eq!(json_of(&all)["symbols"]["B"]["price"], 1, "also what did not change last");
    let again = streams.hub.retained(PRICE_UPDATES).unwrap();
    assert_eq!(all.frame(Form::new(0)).as_ptr(), again.frame(Form::new(0)).as_ptr());
    assert_eq!(json_of(&streams.hub.retained("price_updates:B").unwrap())["symbols"].as_object().unwrap().len(), 1);
    assert!(streams.hub.retained("price_updates:X").is_none());
    assert!(streams.hub.retained("signals").is_none());
}

#[test]
fn a_portfolio_replaces_the_one_before_and_a_filter_chooses_positions() {
    let streams = streams();
    let (mut all, mut set) = (join(&streams, PORTFOLIO), join(&streams, "portfolio:A,X"));
    let position = json!({"quantity": 1});
    publish(&streams, PORTFOLIO, &json!({"positions": {"Z": position}}));
    publish(&streams, PORTFOLIO, &json!({"positions": {"A": position, "B": position}, "total_pnl": 1.5}));
    streams.send_portfolio();
    assert_eq!(next(&mut all).unwrap()["data"]["position_count"], 2);
    let data = next(&mut set).unwrap()["data"].clone();
    assert_eq!(data["positions"].as_object().unwrap().keys().collect::<Vec<_>>(), ["A"]);
    assert_eq!((&data["total_pnl"], &data["position_count"]), (&json!(1.5), &json!(2)), "totals are of all positions");
    streams.send_portfolio();
    assert_eq!(next(&mut all), None);
    assert!(streams.hub.retained("portfolio:A").is_some());
}

#[test]
fn what_is_out_of_shape_is_refused_and_counted() {
    let streams = streams();
    let refused = |channel: &str, payload: &[u8]| streams.publish(channel, &Input::new(payload)).unwrap_err();
    assert_eq!(refused("nope", b"1"), InputError::UnknownChannel(streams.channels.unknown("nope")));
    assert_eq!(refused("lines", &[b'1'; 201]), InputError::TooLarge { limit: 200, actual: 201 });
    assert!(matches!(refused(PRICE_UPDATES, b"{}"), InputError::Shape(_)));
    for symbol in ["A", "B", "C"] {
        publish(&streams, PRICE_UPDATES, &json!({"symbol": symbol, "price": 1}));
    }
    assert!(matches!(refused(PRICE_UPDATES, br#"{"symbol":"D","price":1}"#), InputError::TooManySymbols(_)));
    publish(&streams, PRICE_UPDATES, &json!({"symbol": "A", "price": 2}));
    assert!(streams.health("lines").is_some() && streams.health("nope").is_none());
}

#[test]
fn a_record_of_this_process_says_what_its_text_would_have_said() {
    let streams = streams();
    let (mut signals, mut trades) = (join(&streams, "signals"), join(&streams, "trades:A"));
    let signal = json!({"signal_type": "BUY", "symbol": "A", "price": 1.50});
    publish(&streams, "signals", &signal);
    streams
        .publish_record(&StreamRecord::Signal(TradingSignal::parse(signal.to_string().as_bytes()).unwrap()))
        .unwrap();
    let without_time = |mut message: Value| {
        for key in ["timestamp", "seq"] {
            message.as_object_mut().unwrap().remove(key);
        }
        message
    };
    let [first, second] = [(); 2].map(|()| next(&mut signals).unwrap());
    assert_eq!([&first["seq"], &second["seq"]], [&json!(1), &json!(2)]);
    assert_eq!(without_time(first), without_time(second));
    let trade = br#"{"symbol":"A","side":"BUY","quantity":1,"price":2}"#;
    streams.publish_record(&StreamRecord::Trade(Trade::parse(trade).unwrap())).unwrap();
    assert_eq!(next(&mut trades).unwrap()["price"], 2);
    let price =
        |symbol: &'static str| StreamRecord::Price(Price { symbol: symbol.into(), ..Price::parse(PRICE).unwrap() });
    for symbol in ["A", "B", "C"] {
        streams.publish_record(&price(symbol)).unwrap();
    }
    assert!(streams.publish_record(&price("D")).is_err(), "--max-symbols is for everybody");
}

const PRICE: &[u8] = br#"{"symbol":"A","price":1}"#;

#[test]
fn an_interval_that_was_missed_is_left_out() {
    let (due, second) = (Instant::now(), Duration::from_secs(1));
    let after = |ms| next_due(due, second, due + Duration::from_millis(ms)) - due;
    assert_eq!([0, 1, 999, 1000, 2500].map(|ms| after(ms).as_secs()), [1, 1, 1, 2, 3]);
}
