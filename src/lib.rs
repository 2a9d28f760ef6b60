//! flowcast: replays recorded market data to thousands of WebSocket subscribers.
//!
//! One publication's way from file to socket, in reading order:
//!
//! 1. `source::recorded::lines` reads a block of a file (record).
//! 2. [`source::recorded::block_builder`] parses its lines and encodes them (payload, frames), ahead of the clock.
//! 3. [`source::recorded::block`] keeps the frames, built once.
//! 4. [`source::recorded::playhead`] publishes what is due in every track, as handles; [`source::recorded::player`] says
//!    when.
//! 5. [`engine::batch`] numbers a publication, sends it into its group, and rings the shards.
//! 6. `server::shard::lanes::hub_share` moves it into the ring of its subscribers (group).
//! 7. `server::shard::outbox` finds what is due for a connection and joins it.
//! 8. `server::shard::connection` writes it once (socket).
//!
//! `source::recorded::window` decides which block is built next; `server::shard::event_loop` calls 6 to 8. Imports run one way: `source` and `server` stand on `streams`,
//! `engine` and `wire` and never meet; `config` composes what the parts own; `main → commands → config → all`.

pub mod commands;
pub mod config;
pub mod engine;
pub mod faults;
pub mod health;
pub mod replay;
pub mod server;
pub mod source;
pub mod streams;
pub mod wire;
