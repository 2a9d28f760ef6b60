//! Can an XTS server's REST answers panic their readers, or put a token into an error?
//!
//! The first two bytes are the HTTP status, the rest is the body.
#![no_main]

use std::time::Duration;

use flowcast::source::broker::instrument::{Broker, Exchange, Instrument};
use flowcast::source::broker::net::http_client::HttpAnswer;
use flowcast::source::broker::quote::ReceivedAt;
use flowcast::source::broker::xts::rest::{Login, RestError, Snapshots};
use flowcast::source::broker::xts::xts_events::{self, XtsUpdate};
use libfuzzer_sys::fuzz_target;

const NOW_MS: i64 = 1_736_142_368_000;

fuzz_target!(|input: &[u8]| {
    let Some((status, body)) = input.split_first_chunk() else { return };
    let status = u16::from_be_bytes(*status);
    if let Ok(login) = Login::read(body) {
        assert!(!format!("{login:?}").is_empty());
    }
    for snapshot in Snapshots::read(body).quotes {
        let Ok(XtsUpdate::Data(_, code, fields)) = xts_events::snapshot(&snapshot, NOW_MS) else { continue };
        let instrument = Instrument { symbol: "X".into(), exchange: Exchange::Nse, id: 1 };
        let record = fields.market_data(code, Broker::XtsPro, &"xts".into(), &instrument, ReceivedAt::now());
        let _ = record.to_json();
    }
    let retry_after = Some(Duration::from_secs(1));
    let answer = HttpAnswer { status, retry_after, body: body.to_vec().into() };
    let refusal = RestError::of_answer(&answer, |text| text.replace("token", "***"));
    assert!(!refusal.to_string().contains("token"));
    assert_eq!(status == 429, matches!(refusal, RestError::Busy { .. }));
});
