//! What sources and the replay clock report about themselves, for the metrics and the status pages.
//!
//! - [`status`]: the registry of sources and figures behind `/metrics` and `/websocket/status`.
//! - [`log_limit`]: keeps repeated log lines short.

pub mod log_limit;
pub mod status;
