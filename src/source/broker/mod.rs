//! Broker feeds.
pub mod price;
pub mod quote;
pub mod xts;
pub mod zerodha;
