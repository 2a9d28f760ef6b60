//! From a message to the payload: protobuf bytes in one zstd frame.

use prost::Message;
use zstd::bulk::{Compressor, Decompressor};

/// How payloads are compressed.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct EncoderOptions {
    /// zstd level of the payloads, -131072 to 22. A record is some 170 bytes of protobuf, which no
    /// level shrinks: choose by speed (-7 takes a quarter of a microsecond, 1 takes four)
    #[arg(long, env = "FLOWCAST_ZSTD_LEVEL", default_value_t = -7, value_name = "LEVEL", allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(i32).range(-131_072..=22))]
    pub zstd_level: i32,
}

/// Encodes messages into payloads. One per thread: its zstd context and buffers are reused.
pub struct Encoder {
    compressor: Compressor<'static>,
    message: Vec<u8>,
    payload: Vec<u8>,
}

impl Encoder {
    /// An encoder with its own zstd context.
    pub fn new(options: EncoderOptions) -> std::io::Result<Self> {
        Ok(Self { compressor: Compressor::new(options.zstd_level)?, message: Vec::new(), payload: Vec::new() })
    }

    /// `zstd(protobuf(message))`, valid until the next call.
    pub fn encode(&mut self, message: &impl Message) -> &[u8] {
        self.message.clear();
        message.encode(&mut self.message).expect("a Vec grows as needed");
        self.payload.clear();
        self.payload.reserve(zstd::zstd_safe::compress_bound(self.message.len()));
        let compressed = self.compressor.compress_to_buffer(&self.message, &mut self.payload);
        compressed.expect("zstd fails only for want of room, and compress_bound is enough");
        &self.payload
    }
}

/// The protobuf bytes inside a payload; refused over `limit` bytes.
pub fn decompress(payload: &[u8], limit: usize) -> std::io::Result<Vec<u8>> {
    Decompressor::new()?.decompress(payload, limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::payload::orderflow::{Orderflow, parse};

    #[test]
    fn a_payload_holds_the_message_at_every_level() {
        let line = br#"{"timestamp":1764340202,"ticker":"ES_SPX","spot":6822.95,"zcvr":-3.25}"#;
        let record = parse(line).unwrap().record;
        for level in [-131_072, -7, -1, 1, 3, 22] {
            let mut encoder = Encoder::new(EncoderOptions { zstd_level: level }).unwrap();
            for _ in 0..2 {
                let payload = encoder.encode(&record);
                let message = decompress(payload, 1024).unwrap();
                assert_eq!(Orderflow::decode(message.as_slice()).unwrap(), record, "level {level}");
            }
        }
    }

    #[test]
    fn a_payload_that_would_grow_beyond_the_limit_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; 1 << 20], 1).unwrap();
        assert!(decompress(&bomb, 1024).is_err());
    }
}
