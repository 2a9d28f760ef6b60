//! The server: owns sockets, sessions and HTTP.
//!
//! A client's way in: [`listen`] → [`http`] → [`negotiate`] → [`upgrade`] (Web PubSub) or
//! [`stream_upgrade`] (the JSON streams, with a [`jwt`]) → [`shard`]. From there on a
//! shard's thread owns its [`connection`] and [`session`]: [`lifecycle`] says how they begin and
//! end, [`requests`] and [`subscriptions`] what clients ask for, [`sending`] how frames leave, [`groups`] what the
//! subscribers of a group share.

pub mod app;
mod auth;
mod bell;
mod connection;
pub mod groups;
pub mod http;
pub mod jwt;
mod keepalive;
mod lifecycle;
pub mod limiter;
pub mod listen;
mod marks;
mod metrics;
mod negotiate;
mod publish;
mod refusal;
mod requests;
mod sending;
mod session;
pub mod shard;
pub mod stats;
mod status;
mod stream_upgrade;
mod subscriptions;
mod ticks;
mod timeouts;
mod upgrade;
#[cfg_attr(not(feature = "io-uring"), path = "no_uring.rs")]
mod uring;
