//! A shard: one thread that owns its connections and shares nothing with the others.
//!
//! ```text
//! doorbell ─▶ drain (receivers ─▶ rings) ─▶ sweep (128 sessions a turn) ─▶ one send each
//! epoll    ─▶ receive ─▶ requests (join, leave, …) ─▶ acks
//! ```
//!
//! The sweep rolls: between two turns the shard looks at the doorbell, the sockets and the timers, so a session
//! that was not served yet gets a newer publication in the same send. One slow socket delays nobody: the kernel
//! takes what it takes, and a cursor remembers the rest.
//!
//! Each part owns its state; [`event_loop`] lends one to another, and it alone ends connections.
//!
//! - [`mailbox`]: what the rest of the server tells a shard; [`bell`], [`poller`]: what it sleeps on.
//! - [`lanes`]: the groups with members here, and their rings.
//! - [`sessions`]: the [`session`]s, their [`connection`]s, and how they begin and end; [`marks`]; [`session_token`]: what lets
//!   another node take a session back.
//! - [`assignment`]: groups that the server joins for a client.
//! - [`outbox`]: what is due, joined, sent, settled; [`uring`]. [`pull`]: what is read from histories.
//! - [`inbox`]: what clients send; [`dialect`]: what the two client protocols make of it.
//! - [`keepalive`], [`timers`]: what happens later. [`close`]: every way a connection ends; [`closed_log`].
//! - [`question`]: what operators ask; [`looks`]: answered a piece at a time; [`user_agents`], [`shown_text`]: what clients say of
//!   themselves.

pub mod assignment;
mod bell;
pub mod close;
pub mod closed_log;
mod connection;
pub mod connection_id;
pub mod context;
mod dialect;
pub mod event_loop;
pub mod grant;
mod inbox;
mod keepalive;
mod lanes;
mod looks;
pub mod mailbox;
mod marks;
mod outbound;
mod outbox;
mod poller;
mod pull;
pub mod question;
mod session;
pub mod session_token;
mod sessions;
pub mod shard_options;
pub mod shown_text;
pub mod stats;
mod timers;
mod uring;
pub mod user_agents;
