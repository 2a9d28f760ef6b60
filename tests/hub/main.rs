//! The Web PubSub hub, from a recorded file to a client's socket: bytes over real sockets to the built server.

#[path = "../common/mod.rs"]
mod common;

mod bad_days;
mod data;
mod encodings;
mod faults;
mod faults_again;
mod faults_of_frames;
mod faults_of_requests;
mod golden;
mod groups;
mod hubs;
mod keepalive;
mod lag;
mod live;
mod live_control;
mod memberships;
mod negotiate;
mod protocol_errors;
mod reliable;
mod replay;
mod replay_clock;
mod replay_control;
mod rest;
mod rest_files;
mod session_key;
mod shutdown;
mod status;
mod strangers;
mod upgrade;
