//! flowcast: replays recorded market data to thousands of WebSocket subscribers.
//!
//! One publication's way from file to socket, in reading order:
//!
//! 1. [`source::recorded::load`] cuts the files into pieces for all cores (record).
//! 2. `source::recorded::lines` parses a piece and encodes its records (payload, frames).
//! 3. [`source::recorded::arena`] keeps every record's frames, built once.
//! 4. [`source::recorded::replay`] beats the clock: the next record of every ticker, as handles.
//! 5. [`engine::hub`] numbers a publication, sends it into its group, and rings the shards.
//! 6. `server::shard::lanes` moves it into the ring of its subscribers (group).
//! 7. `server::shard::outbox` finds what is due for a connection and joins it.
//! 8. `server::shard::connection` writes it once (socket).
//!
//! `server::shard::event_loop` calls 6 to 8. Imports run one way: `source` and `server` stand on `streams`,
//! `engine` and `wire` and never meet; `config` composes what the parts own; `main → commands → config → all`.

pub mod commands;
pub mod config;
pub mod engine;
pub mod health;
pub mod server;
pub mod source;
pub mod streams;
pub mod wire;
