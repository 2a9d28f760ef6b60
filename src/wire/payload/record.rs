//! A recorded line of any kind, as the message that its groups carry.

use super::encoder::Encoder;
use super::fields::{Parsed, RecordError};
use super::gex::{self, Gex};
use super::greek::{self, OptionProfile};
use super::orderflow::{self, Orderflow};
use super::profile::Profile;
use crate::wire::gexbot::PayloadKind;

/// A record of a file. Its numbers are integers at their fields' scale, see [`Record::rescale`].
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// Gamma exposure by strike.
    Gex(Gex),
    /// One greek by contract.
    Greek(OptionProfile),
    /// The figures of orderflow.
    Orderflow(Orderflow),
}

impl Record {
    /// Reads one JSONL line (without its line break) of a file that holds records of `kind`. Spot prices have no
    /// file: asking for one is an error.
    pub fn parse(kind: PayloadKind, line: &[u8]) -> Result<Parsed<Self>, RecordError> {
        match kind {
            PayloadKind::Gex => gex::parse(line).map(|parsed| parsed.map(Self::Gex)),
            PayloadKind::Greek => greek::parse(line).map(|parsed| parsed.map(Self::Greek)),
            PayloadKind::Orderflow => orderflow::parse(line).map(|parsed| parsed.map(Self::Orderflow)),
            PayloadKind::Spot => Err(RecordError::NotRecorded),
        }
    }

    /// Its time, Unix seconds.
    pub fn timestamp(&self) -> i64 {
        match self {
            Self::Gex(record) => record.timestamp,
            Self::Greek(record) => record.timestamp,
            Self::Orderflow(record) => record.timestamp,
        }
    }

    /// Moves its time by so many seconds.
    pub fn shift(&mut self, seconds: i64) {
        let timestamp = match self {
            Self::Gex(record) => &mut record.timestamp,
            Self::Greek(record) => &mut record.timestamp,
            Self::Orderflow(record) => &mut record.timestamp,
        };
        *timestamp = timestamp.saturating_add(seconds);
    }

    /// The ticker that the line names; the file's folder may have another name.
    pub fn ticker(&self) -> &str {
        match self {
            Self::Gex(record) => &record.ticker,
            Self::Greek(record) => &record.ticker,
            Self::Orderflow(record) => &record.ticker,
        }
    }

    /// The underlying's price, ×100 in every profile.
    pub fn spot(&self) -> u32 {
        match self {
            Self::Gex(record) => record.spot,
            Self::Greek(record) => record.spot,
            Self::Orderflow(record) => record.spot,
        }
    }

    /// Scales a record, as it was parsed, for `profile`. Only orderflow differs between profiles. To 2025-11 only once:
    /// a second call would scale it again.
    pub fn rescale(&mut self, profile: Profile) {
        match self {
            Self::Gex(_) | Self::Greek(_) => {}
            Self::Orderflow(record) => orderflow::rescale(record, profile),
        }
    }

    /// Its payload, valid until the encoder's next call.
    pub fn encode<'e>(&self, encoder: &'e mut Encoder) -> &'e [u8] {
        match self {
            Self::Gex(record) => encoder.encode(record),
            Self::Greek(record) => encoder.encode(record),
            Self::Orderflow(record) => encoder.encode(record),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::payload::{EncoderOptions, decompress};

    const GEX: &[u8] = include_bytes!("../../../tests/fixtures/gexbot/gex_full.jsonl");
    const GREEK: &[u8] = include_bytes!("../../../tests/fixtures/gexbot/gamma_zero.jsonl");
    const ORDERFLOW: &[u8] = br#"{"timestamp":1764340202,"ticker":"SPX","spot":6822.95,"zcvr":-12.59}"#;

    fn record(kind: PayloadKind, line: &[u8]) -> Record {
        Record::parse(kind, line.trim_ascii_end()).unwrap().record
    }

    fn message(record: &Record) -> Vec<u8> {
        let mut encoder = Encoder::new(EncoderOptions { zstd_level: 1 }).unwrap();
        decompress(record.encode(&mut encoder), 1 << 16).unwrap()
    }

    #[test]
    fn a_record_of_any_kind_tells_its_time_ticker_and_price() {
        for (kind, line) in [(PayloadKind::Gex, GEX), (PayloadKind::Greek, GREEK), (PayloadKind::Orderflow, ORDERFLOW)]
        {
            let record = record(kind, line);
            assert_eq!((record.timestamp(), record.ticker(), record.spot()), (1_764_340_202, "SPX", 682_295));
        }
    }

    #[test]
    fn its_payload_is_that_of_its_kind() {
        let golden: &[u8] = include_bytes!("../../../tests/fixtures/gexbot/gex_full.payload.bin");
        assert_eq!(message(&record(PayloadKind::Gex, GEX)), golden);
        let golden: &[u8] = include_bytes!("../../../tests/fixtures/gexbot/gamma_zero.payload.bin");
        assert_eq!(message(&record(PayloadKind::Greek, GREEK)), golden);
    }

    #[test]
    fn only_orderflow_differs_between_the_profiles() {
        for (kind, line, differs) in [
            (PayloadKind::Gex, GEX, false),
            (PayloadKind::Greek, GREEK, false),
            (PayloadKind::Orderflow, ORDERFLOW, true),
        ] {
            let newer = record(kind, line);
            let mut older = newer.clone();
            older.rescale(Profile::V2025_11);
            assert_eq!(older != newer, differs, "{kind:?}");
            assert_eq!(older.spot(), newer.spot());
        }
    }

    #[test]
    fn a_spot_price_is_never_recorded() {
        let error = Record::parse(PayloadKind::Spot, ORDERFLOW).unwrap_err().to_string();
        assert_eq!(error, "expected a kind that has records of its own, got spot");
    }
}
