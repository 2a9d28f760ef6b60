//! Payloads: a record encoded once, independent of any wire.
//!
//! ```text
//! JSONL line ─▶ Orderflow at the finest scale ─▶ (profile) ─▶ protobuf ─▶ zstd = payload
//! ```

pub mod decimal;
pub mod orderflow;

mod encoder;
mod profile;

pub use encoder::{Encoder, EncoderOptions, decompress};
pub use profile::Profile;
