//! Sources: read records and turn them into publications. No source knows a socket.
//!
//! - [`recorded`]: replays a day of JSONL files.
//! - [`live`]: orderflow records that come one by one.
//! - [`kafka`]: Kafka topics.
//! - [`broker`]: broker feeds, Zerodha Kite and XTS.

pub mod broker;
pub mod kafka;
pub mod live;
pub mod recorded;
