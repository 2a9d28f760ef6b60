//! Broker feeds against brokers of our own, over real sockets.

#[path = "../brokers/mod.rs"]
mod brokers;
#[path = "../common/mod.rs"]
mod common;

mod check;
mod fixtures;
mod kite;
mod prices;
mod supervision;
mod tail;
mod tls;
mod xts;
