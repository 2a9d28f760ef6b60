//! How it is: what sources, shards and the clock report of themselves, for whoever asks.
//!
//! - [`status`]: the registry of streams and figures behind `/metrics` and `/websocket/status`.
//! - [`log_limit`]: keeps repeated log lines short.

pub mod log_limit;
pub mod status;
