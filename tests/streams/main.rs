//! The JSON streams of `/ws`: bytes over real sockets to the built server.

#[path = "../common/mod.rs"]
mod common;

mod access;
mod faults_on_streams;
mod messages;
mod policies;
mod resume;
