//! The price of a ticker's underlying, for the `{ticker}_spot` groups of the v2 hubs.
//!
//! It has no file of its own: it is made from whichever record of the ticker is due. Fields and factors:
//! `docs/protocols/gexbot.md`.

pub use crate::wire::proto::spot_price::SpotPrice;

/// The spot of a record: its time (Unix seconds), ticker and price ×100, as they stand in the record's message.
pub fn of_record(timestamp: i64, ticker: &str, spot: u32) -> SpotPrice {
    SpotPrice { timestamp, ticker: ticker.to_owned(), spot, source_timestamp_ms: None }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::wire::payload::gex;

    #[test]
    fn the_spot_of_a_record_gives_the_bytes_of_a_foreign_encoder() {
        let line = include_bytes!("../../../tests/fixtures/gexbot/gex_full.jsonl");
        let record = gex::parse(line.trim_ascii_end()).unwrap().record;
        let spot = of_record(record.timestamp, &record.ticker, record.spot);
        assert_eq!(spot.encode_to_vec(), include_bytes!("../../../tests/fixtures/gexbot/spot.payload.bin"));
    }
}
