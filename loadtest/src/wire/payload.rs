//! The payload of a data message: `Any { type_url, value: zstd(record) }`, with one of four records.

use prost::Message as _;
use xxhash_rust::xxh3::xxh3_64;

use super::gex_profile::Gex;
use super::option_profile::OptionProfile;
use super::orderflow::Orderflow;
use super::spot_price::SpotPrice;
use super::webpubsub::Any;

/// The largest record a payload may hold. An orderflow record is about 250 bytes, one with 90 strikes and
/// five priors each about 3 KB.
const MAX_RECORD_BYTES: usize = 256 * 1024;

/// What a record is about, and so which message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `gex_profile.Gex`
    Gex,
    /// `option_profile.OptionProfile`
    Greek,
    /// `orderflow_proto.Orderflow`
    Orderflow,
    /// `spot_price.SpotPrice`
    Spot,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Gex, Self::Greek, Self::Orderflow, Self::Spot];

    /// What the type URL must contain (the vendor's client looks for a substring).
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Gex => "proto.gex",
            Self::Greek => "proto.greek",
            Self::Orderflow => "proto.orderflow",
            Self::Spot => "proto.spot",
        }
    }
}

/// What a payload is, as far as verification needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Which record it holds; `None` for a JSON value, which an operator has published by hand.
    pub kind: Option<Kind>,
    /// xxh3-64 of `Any.value` or of the JSON text, the frame id in the tick ledger.
    pub hash: u64,
    /// The record's own time, Unix seconds; 0 for a JSON value.
    pub timestamp: i64,
    /// The record's ticker; empty for a JSON value.
    pub ticker: String,
}

impl Payload {
    /// A JSON value as its text stands in the message.
    pub fn of_json(text: &str) -> Self {
        Self { kind: None, hash: xxh3_64(text.as_bytes()), timestamp: 0, ticker: String::new() }
    }
}

/// Why a payload cannot be read. Each is a corrupted frame, or a server of another kind.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// The bytes are not a `google.protobuf.Any`.
    #[error("the data is not an Any: {0}")]
    NotAny(prost::DecodeError),
    /// A payload of none of the types there are.
    #[error("expected a type URL of proto.gex, proto.greek, proto.orderflow, proto.spot, found {0:?}")]
    WrongType(String),
    /// `Any.value` is not a zstd frame of at most 256 KiB.
    #[error("Any.value is not a zstd frame of at most {MAX_RECORD_BYTES} bytes: {0}")]
    NotZstd(std::io::Error),
    /// What was compressed is not the record that the type URL promises.
    #[error("the decompressed value is not a record of {type_url}: {source}")]
    NotRecord {
        /// The type URL.
        type_url: &'static str,
        /// What is wrong with it.
        source: prost::DecodeError,
    },
    /// A record without ticker or time: every field of proto3 is optional on the wire.
    #[error("the record lacks its ticker or its timestamp")]
    Empty,
}

/// Reads payloads; keeps the zstd context and the scratch buffer from one to the next.
pub struct Decoder {
    zstd: zstd::bulk::Decompressor<'static>,
    record: Vec<u8>,
}

impl Decoder {
    /// A decoder with its own context.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { zstd: zstd::bulk::Decompressor::new()?, record: Vec::with_capacity(MAX_RECORD_BYTES) })
    }

    /// Reads the serialized `Any` of a JSON data message.
    pub fn serialized_any(&mut self, bytes: &[u8]) -> Result<Payload, PayloadError> {
        let any = Any::decode(bytes).map_err(PayloadError::NotAny)?;
        self.any(&any)
    }

    /// Reads the `Any` of a protobuf data message.
    pub(crate) fn any(&mut self, any: &Any) -> Result<Payload, PayloadError> {
        let is_named = |kind: &Kind| any.type_url.contains(kind.type_url());
        let kind = Kind::ALL.into_iter().find(is_named).ok_or_else(|| PayloadError::WrongType(any.type_url.clone()))?;
        self.record.clear();
        self.zstd.decompress_to_buffer(&any.value, &mut self.record).map_err(PayloadError::NotZstd)?;
        let (timestamp, ticker) =
            read(kind, &self.record).map_err(|source| PayloadError::NotRecord { type_url: kind.type_url(), source })?;
        if ticker.is_empty() || timestamp == 0 {
            return Err(PayloadError::Empty);
        }
        Ok(Payload { kind: Some(kind), hash: xxh3_64(&any.value), timestamp, ticker })
    }
}

/// Decodes a whole record, and returns what every kind has.
fn read(kind: Kind, record: &[u8]) -> Result<(i64, String), prost::DecodeError> {
    Ok(match kind {
        Kind::Gex => Gex::decode(record).map(|record| (record.timestamp, record.ticker))?,
        Kind::Greek => OptionProfile::decode(record).map(|record| (record.timestamp, record.ticker))?,
        Kind::Orderflow => Orderflow::decode(record).map(|record| (record.timestamp, record.ticker))?,
        Kind::Spot => SpotPrice::decode(record).map(|record| (record.timestamp, record.ticker))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(ticker: &str, timestamp: i64) -> Any {
        let record = Orderflow { ticker: ticker.to_owned(), timestamp, spot: 682_295, ..Orderflow::default() };
        let value = zstd::bulk::compress(&record.encode_to_vec(), 3).unwrap();
        Any { type_url: "proto.orderflow".to_owned(), value }
    }

    #[test]
    fn a_payload_is_known_by_the_hash_of_its_value() {
        let any = any("SPX", 1_764_340_202);
        let payload = Decoder::new().unwrap().serialized_any(&any.encode_to_vec()).unwrap();
        assert_eq!(payload.hash, xxh3_64(&any.value));
        assert_eq!((payload.ticker.as_str(), payload.timestamp), ("SPX", 1_764_340_202));
        assert_eq!(payload.kind, Some(Kind::Orderflow));
    }

    // Made by Google's Python protobuf: tests/fixtures/gexbot/README.md.
    #[test]
    fn the_payloads_of_a_foreign_encoder_are_read() {
        const GEX: &[u8] = include_bytes!("../../../tests/fixtures/gexbot/gex_full.payload.bin");
        const GREEK: &[u8] = include_bytes!("../../../tests/fixtures/gexbot/gamma_zero.payload.bin");
        const SPOT: &[u8] = include_bytes!("../../../tests/fixtures/gexbot/spot.payload.bin");
        let mut decoder = Decoder::new().unwrap();
        for (kind, record) in [(Kind::Gex, GEX), (Kind::Greek, GREEK), (Kind::Spot, SPOT)] {
            let any = Any { type_url: kind.type_url().to_owned(), value: zstd::bulk::compress(record, 3).unwrap() };
            let payload = decoder.any(&any).unwrap();
            assert_eq!((payload.kind, payload.ticker.as_str(), payload.timestamp), (Some(kind), "SPX", 1_764_340_202));
        }
        let gex = Gex::decode(GEX).unwrap();
        assert_eq!((gex.spot, gex.strikes.len(), gex.sum_gex_vol), (682_295, 2, 1_522_117));
        assert_eq!(gex.max_priors.unwrap().tuples.len(), 6);
        let greek = OptionProfile::decode(GREEK).unwrap();
        assert_eq!((greek.mini_contracts.len(), greek.mini_contracts[1].put_cvolume), (2, Some(54)));
        let stored = decoder.serialized_any(include_bytes!("../../../tests/fixtures/gexbot/spot.any.bin")).unwrap();
        assert_eq!((stored.kind, stored.ticker.as_str()), (Some(Kind::Spot), "SPX"));
    }

    #[test]
    fn each_layer_that_is_wrong_is_named() {
        let mut decoder = Decoder::new().unwrap();
        let good = any("SPX", 1);
        let wrong_type = Any { type_url: "proto.volume".to_owned(), ..good.clone() };
        assert!(matches!(decoder.any(&wrong_type), Err(PayloadError::WrongType(_))));
        let not_zstd = Any { value: b"plain".to_vec(), ..good.clone() };
        assert!(matches!(decoder.any(&not_zstd), Err(PayloadError::NotZstd(_))));
        let bomb = Any { value: zstd::bulk::compress(&vec![0; MAX_RECORD_BYTES + 1], 3).unwrap(), ..good.clone() };
        assert!(matches!(decoder.any(&bomb), Err(PayloadError::NotZstd(_))));
        for kind in Kind::ALL {
            let value = zstd::bulk::compress(&[0xff; 9], 3).unwrap();
            let not_record = Any { type_url: kind.type_url().to_owned(), value };
            assert!(matches!(decoder.any(&not_record), Err(PayloadError::NotRecord { .. })), "{kind:?}");
        }
        // An orderflow record says the same as another kind of record up to field 2, and not in field 3.
        let other_kind = Any { type_url: "proto.gex".to_owned(), ..good };
        assert!(decoder.any(&other_kind).is_ok_and(|payload| payload.kind == Some(Kind::Gex)));
        assert!(matches!(decoder.any(&any("", 1)), Err(PayloadError::Empty)));
        assert!(matches!(decoder.serialized_any(&[0x0a, 0xff]), Err(PayloadError::NotAny(_))));
    }
}
