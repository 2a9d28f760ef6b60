//! HTTP: what a client does before a shard has its socket, and what operators ask for.

mod answers;
pub mod app;
mod auth;
pub mod control_access;
pub mod control_options;
mod controller;
pub mod faults;
pub mod http_options;
pub mod jwt;
mod jwt_crypto;
pub mod listen;
pub mod live;
mod metrics;
pub mod negotiate;
mod places;
mod publish;
mod readiness;
pub mod replay;
mod request_body;
pub mod rest;
mod route_table;
pub mod routes;
mod stream_upgrade;
mod ticks;
pub mod token_keys;
mod upgrade;
mod websocket_status;
