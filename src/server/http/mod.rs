//! HTTP: what a client does before a shard has its socket, and what operators ask for.

pub mod app;
mod auth;
mod body;
pub mod control_access;
pub mod control_options;
mod controller;
mod hs256;
pub mod http_options;
pub mod jwt;
pub mod listen;
mod metrics;
pub mod negotiate;
mod publish;
mod readiness;
pub mod replay;
pub mod rest;
mod route_table;
pub mod routes;
mod stream_upgrade;
mod ticks;
mod upgrade;
mod websocket_status;
