//! The server: owns sockets, sessions and HTTP.
//!
//! A client's way in: [`http::listen`] → [`http::routes`] → `http::negotiate` → `http::upgrade` (Web PubSub) or
//! `http::stream_upgrade` (the JSON streams, with a [`http::jwt`]) → [`shard`]. From there on a shard's thread owns
//! its connection and session.

pub mod http;
pub mod shard;
