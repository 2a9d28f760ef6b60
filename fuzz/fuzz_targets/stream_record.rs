//! Is a published record ever a panic, or sent on as something that it does not say?
//!
//! The first byte chooses the channel, the rest is the payload. The message that goes out must be JSON
//! whose numbers have the digits that came in.
#![no_main]

use std::collections::BTreeMap;

use flowcast::wire::streams::messages::{self, PriceState};
use flowcast::wire::streams::portfolio::Portfolio;
use flowcast::wire::streams::shapes::{Price, Trade, TradingSignal};
use flowcast::wire::websocket;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

type Fields<'a> = BTreeMap<String, &'a RawValue>;

fuzz_target!(|input: &[u8]| {
    let Some((&channel, payload)) = input.split_first() else { return };
    match channel % 5 {
        0 => passthrough(payload),
        1 => {
            if let Ok(price) = Price::parse(payload) {
                let Price { price, volume, high, low, open, prev_close, .. } = price;
                let (change, change_pct) = (None, None);
                let state = PriceState { price, change, change_pct, volume, high, low, open, prev_close };
                let piece = messages::price_piece(&state);
                same_digits(payload, piece.get(), &["price", "volume", "high", "low", "open", "prev_close"]);
            }
        }
        2 => {
            if let Ok(signal) = TradingSignal::parse(payload) {
                assert_eq!(signal, signal.clone().into_owned());
                same_digits(
                    payload,
                    text(&messages::signal(&signal, 0).finish(None)),
                    &["price", "quantity", "confidence"],
                );
            }
        }
        3 => {
            if let Ok(trade) = Trade::parse(payload) {
                assert_eq!(trade, trade.clone().into_owned());
                same_digits(payload, text(&messages::trade(&trade, 0).finish(None)), &["price", "quantity"]);
            }
        }
        _ => {
            let Ok(portfolio) = Portfolio::parse(payload) else { return };
            assert_eq!(portfolio, portfolio.clone().into_owned());
            let pieces: Vec<_> = portfolio
                .positions
                .iter()
                .map(|(symbol, position)| (symbol, messages::position_piece(symbol, position)))
                .collect();
            let pieces: Vec<_> = pieces.iter().map(|(symbol, piece)| (symbol.as_ref(), &**piece)).collect();
            let frame = messages::portfolio_update(&pieces, portfolio.total_pnl, pieces.len() as u64, 0).finish(None);
            let message: Fields<'_> = serde_json::from_str(text(&frame)).expect("a message is JSON");
            same_digits(payload, message["data"].get(), &["total_pnl"]);
        }
    }
});

fn text(frame: &[u8]) -> &str {
    std::str::from_utf8(websocket::payload(frame)).expect("a text frame is UTF-8")
}

/// JSON passes to the byte; the payload is its own key here.
fn passthrough(payload: &[u8]) {
    let frame = messages::message("lines", payload, Some(payload), 0).finish(None);
    let message: Fields<'_> = serde_json::from_str(text(&frame)).expect("a message is JSON");
    let json = std::str::from_utf8(payload).ok().and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
    match json {
        Some(json) => assert_eq!(message["payload"].get(), json.get()),
        None => assert_eq!(message["encoding"].get(), r#""base64""#),
    }
}

fn same_digits(payload: &[u8], sent: &str, numbers: &[&str]) {
    let came: Fields<'_> = serde_json::from_slice(payload).expect("the shape was read from it");
    let sent: Fields<'_> = serde_json::from_str(sent).expect("a message is JSON");
    for &number in numbers {
        let came = came.get(number).map(|json| json.get()).filter(|&json| json != "null");
        let sent = sent.get(number).map(|json| json.get());
        assert_eq!(came.is_some(), sent.is_some(), "{number}");
        let (Some(came), Some(sent)) = (came, sent) else { continue };
        // An exponent is written out, and a zero may lose its sign.
        if !came.contains(['e', 'E']) && came.contains(|digit| ('1'..='9').contains(&digit)) {
            assert_eq!(came, sent, "{number}");
        }
    }
}
