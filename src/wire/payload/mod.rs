//! Payloads: a record encoded once, independent of any wire.
//!
//! ```text
//! JSONL line ─▶ Orderflow, Gex or OptionProfile at the finest scale ─▶ (profile) ─▶ protobuf ─▶ zstd = payload
//! ```

pub mod decimal;
pub mod gex;
pub mod greek;
pub mod orderflow;
pub mod record_line;
pub mod spot;

mod encoder;
mod fields;
mod profile;
mod record;
mod rows;

pub use encoder::{Encoder, EncoderOptions, decompress};
pub use fields::{Noticed, Parsed, RecordError};
pub use profile::Profile;
pub use record::Record;
