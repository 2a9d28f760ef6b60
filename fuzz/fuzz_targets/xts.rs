//! Can texts of an XTS server panic the framing, the event decoders or the store of partial events?
//!
//! Several frames, one a line, go through one store, as on one connection.
#![no_main]

use flowcast::source::broker::instrument::{Broker, Exchange, Instrument};
use flowcast::source::broker::quote::ReceivedAt;
use flowcast::source::broker::xts::event_fields::{Code, Fields};
use flowcast::source::broker::xts::partial::{self, Store};
use flowcast::source::broker::xts::socketio::{self, Frame};
use flowcast::source::broker::xts::xts_events::{self, XtsUpdate};
use libfuzzer_sys::fuzz_target;

const NOW_MS: i64 = 1_736_142_368_000;
const LIMIT: usize = 4;

fuzz_target!(|input: &str| {
    let mut store = Store::new(LIMIT);
    for text in input.lines() {
        let Ok(Frame::Event { name, payload }) = socketio::parse(text) else { continue };
        let _ = xts_events::snapshot(&payload, NOW_MS);
        let Some((code, form)) = name.split_once("-json-") else { continue };
        let Some(code) = code.parse().ok().and_then(Code::from_number) else { continue };
        let told = |code: Code, fields: &Fields| {
            let instrument = Instrument { symbol: "X".into(), exchange: Exchange::Nse, id: 1 };
            let record = fields.market_data(code, Broker::XtsPro, &"xts".into(), &instrument, ReceivedAt::now());
            assert!(record.prev_close.is_none_or(|close| !close.is_zero()));
            let read: serde_json::Value = serde_json::from_str(&record.to_json()).expect("JSON");
            assert_eq!(read["last_price"].is_number(), record.last_price.is_some());
            assert_eq!(record.price_update().is_some(), record.is_price());
        };
        if form == "full" {
            let _ = xts_events::full(code, &payload, NOW_MS, |said| {
                if let XtsUpdate::Data(key, code, fields) = said {
                    store.seed(code, key, &fields);
                    told(code, &fields);
                }
            });
        } else if let Ok(partial) = partial::split(&payload) {
            let fields = store.merge(code, &partial, NOW_MS);
            told(code, &fields);
        }
        assert!(store.len() <= LIMIT);
    }
});
