//! Can bytes of a Kite ticker panic the decoder, loop it, or make a record out of nothing?
#![no_main]

use flowcast::source::broker::instrument::Instrument;
use flowcast::source::broker::kite::packet::{self, Body, Fault};
use flowcast::source::broker::quote::ReceivedAt;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    if packet::is_heartbeat(frame) {
        return;
    }
    let announced = usize::from(u16::from_be_bytes([frame[0], frame[1]]));
    let (mut packets, mut unknown, mut ended, mut bytes) = (0, 0, false, 2);
    for item in packet::packets(frame) {
        assert!(!ended, "a frame ends once");
        match item {
            Ok(packet) => {
                packets += 1;
                bytes += 2 + match packet.body {
                    Body::Ltp => 8,
                    Body::Index { exchange_time: 0, .. } => 28,
                    Body::Index { .. } => 32,
                    Body::Quote(_) => 44,
                    Body::Full(..) => 184,
                };
                let exchange = packet::exchange(packet.token);
                let instrument = Instrument { symbol: "X".into(), exchange, id: packet.token.into() };
                let record = packet.market_data(&"kite".into(), &instrument, ReceivedAt::now());
                assert!(record.bids.iter().chain(record.asks.iter()).all(|level| level.quantity > 0));
                assert_eq!(record.price_update().is_some(), record.last_price.is_some());
                assert!(packet.last_price == 0 || record.last_price.is_some(), "only 0 is no price");
                let read: serde_json::Value = serde_json::from_str(&record.to_json()).expect("JSON");
                assert_eq!(read["last_price"].is_number(), record.last_price.is_some());
            }
            Err(Fault::UnknownLength(length)) => {
                unknown += 1;
                bytes += 2 + length;
            }
            Err(Fault::UnknownSegment(segment)) => {
                assert_eq!(packet::places(segment.into()), None);
                // Of a length that is known: at least 8.
                unknown += 1;
                bytes += 2 + 8;
            }
            Err(Fault::Truncated { .. } | Fault::TrailingBytes(_)) => ended = true,
        }
    }
    assert!(packets + unknown <= announced && bytes <= frame.len());
});
