//! The payload of a data message: `Any { type_url: "proto.orderflow", value: zstd(Orderflow) }`.

use prost::Message as _;
use xxhash_rust::xxh3::xxh3_64;

use super::orderflow::Orderflow;
use super::webpubsub::Any;

/// The largest record a payload may hold; an orderflow record is about 250 bytes.
const MAX_RECORD_BYTES: usize = 64 * 1024;

/// What the type URL of an orderflow payload must contain (the vendor's client looks for a substring).
const TYPE_URL: &str = "proto.orderflow";

/// What a payload is, as far as verification needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// xxh3-64 of `Any.value`, the frame id in the tick ledger.
    pub hash: u64,
    /// The record's own time, Unix seconds.
    pub timestamp: i64,
    /// The record's ticker.
    pub ticker: String,
}

/// Why a payload cannot be read. Each is a corrupted frame, or a server of another kind.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// The bytes are not a `google.protobuf.Any`.
    #[error("the data is not an Any: {0}")]
    NotAny(prost::DecodeError),
    /// Another type of payload than orderflow.
    #[error("expected the type URL {TYPE_URL}, found {0:?}")]
    WrongType(String),
    /// `Any.value` is not a zstd frame of at most 64 KiB.
    #[error("Any.value is not a zstd frame of at most {MAX_RECORD_BYTES} bytes: {0}")]
    NotZstd(std::io::Error),
    /// What was compressed is not an orderflow record.
    #[error("the decompressed value is not an Orderflow: {0}")]
    NotOrderflow(prost::DecodeError),
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
        if !any.type_url.contains(TYPE_URL) {
            return Err(PayloadError::WrongType(any.type_url.clone()));
        }
        self.record.clear();
        self.zstd.decompress_to_buffer(&any.value, &mut self.record).map_err(PayloadError::NotZstd)?;
        let record = Orderflow::decode(self.record.as_slice()).map_err(PayloadError::NotOrderflow)?;
        if record.ticker.is_empty() || record.timestamp == 0 {
            return Err(PayloadError::Empty);
        }
        Ok(Payload { hash: xxh3_64(&any.value), timestamp: record.timestamp, ticker: record.ticker })
    }
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
    }

    #[test]
    fn each_layer_that_is_wrong_is_named() {
        let mut decoder = Decoder::new().unwrap();
        let good = any("SPX", 1);
        let wrong_type = Any { type_url: "proto.gex".to_owned(), ..good.clone() };
        assert!(matches!(decoder.any(&wrong_type), Err(PayloadError::WrongType(_))));
        let not_zstd = Any { value: b"plain".to_vec(), ..good.clone() };
        assert!(matches!(decoder.any(&not_zstd), Err(PayloadError::NotZstd(_))));
        let bomb = Any { value: zstd::bulk::compress(&vec![0; MAX_RECORD_BYTES + 1], 3).unwrap(), ..good.clone() };
        assert!(matches!(decoder.any(&bomb), Err(PayloadError::NotZstd(_))));
        let not_record = Any { value: zstd::bulk::compress(&[0xff; 9], 3).unwrap(), ..good };
        assert!(matches!(decoder.any(&not_record), Err(PayloadError::NotOrderflow(_))));
        assert!(matches!(decoder.any(&any("", 1)), Err(PayloadError::Empty)));
        assert!(matches!(decoder.serialized_any(&[0x0a, 0xff]), Err(PayloadError::NotAny(_))));
    }
}
