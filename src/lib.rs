//! flowcast: replays recorded market data to thousands of WebSocket subscribers.
//!
//! One publication's way from file to socket, in reading order:
//!
//! 1. [`serve`] puts the parts together.
//! 2. `source::replay` beats the clock: the next record of every ticker, as handles.
//! 3. `source::arena` holds every record's frames, built once.
//! 4. `engine::hub` numbers a publication and rings the shards.
//! 5. `engine::group` carries it to every shard with subscribers.
//! 6. `server::shard` moves it into a ring and sweeps its sessions.
//! 7. `server::sending` joins what is due for a session and writes it once.
//!
//! Imports run one way: `source` and `server` stand on `streams`, `engine` and `wire` and never meet;
//! `config` composes what the parts own; `main → cli → serve → all`.

pub mod commands;
pub mod config;
pub mod engine;
pub mod health;
pub mod server;
pub mod source;
pub mod streams;
pub mod wire;
