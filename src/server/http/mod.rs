//! HTTP: everything a client does before its socket belongs to a shard, and what operators ask.

pub mod app;
mod auth;
mod hs256;
pub mod http_options;
pub mod jwt;
pub mod listen;
mod metrics;
mod negotiate;
mod publish;
pub mod routes;
mod stream_upgrade;
mod ticks;
mod upgrade;
mod websocket_status;
