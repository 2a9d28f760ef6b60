//! The JSON streams (`docs/streams.md`): text frames of one JSON object each.
//!
//! ```text
//! client ─▶ StreamRequest::parse ─▶ Filter per channel ─▶ names of groups
//! input  ─▶ StreamRecord (checked, numbers kept to the digit) ─▶ messages ─▶ one finished frame for everybody
//! ```
//!
//! - [`request`]: what clients ask for.
//! - [`channels`], [`filters`]: which channels a server has, and which symbols of one a client wants.
//! - [`shapes`], [`portfolio`]: what may be published to each channel.
//! - [`messages`]: what the server sends.
//! - [`position`]: where a client stands in a channel, and why it cannot go on from there.
//! - [`slow_policy`]: what becomes of a subscription whose client reads too slowly.
//! - [`checks`], [`exact`], [`rfc3339`]: rules that requests and records share; decimals that keep their digits; times.

pub mod channels;
pub mod checks;
pub mod exact;
pub mod filters;
pub mod messages;
pub mod portfolio;
pub mod position;
pub mod request;
pub mod rfc3339;
pub mod shapes;
pub mod slow_policy;

pub use channels::{Channel, ChannelKind, Channels, PORTFOLIO, PRICE_UPDATES, SIGNALS, TRADES};
pub use checks::{is_symbol, object};
pub use filters::{Filter, group_of_symbol, symbols_of_group};
