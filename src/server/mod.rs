//! The server: owns sockets, sessions and HTTP.
//!
//! A client's way in: [`listen`] → [`http`] → [`negotiate`] → [`upgrade`] → [`shard`]. From there on a
//! shard's thread owns its [`connection`] and [`session`]: [`lifecycle`] says how they begin and
//! end, [`requests`] what clients ask for, [`sending`] how frames leave, [`groups`] what the
//! subscribers of a group share.

pub mod app;
mod auth;
mod connection;
mod groups;
pub mod http;
mod keepalive;
mod lifecycle;
pub mod limiter;
pub mod listen;
mod metrics;
mod negotiate;
mod refusal;
mod requests;
mod sending;
mod session;
pub mod shard;
pub mod stats;
mod status;
pub mod streams;
mod ticks;
mod timeouts;
mod upgrade;
