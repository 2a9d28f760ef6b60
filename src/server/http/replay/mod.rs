//! Steering what is replayed (`docs/replay.md`): the clock as a resource, its dates, its events, its sessions.
//!
//! A request that changes something takes this way: `Controller` (may it) → [`on_replay`] (is there a clock) →
//! `Change` (what does it want) → the clock → [`clock_json`] (what became of it). None of it waits for a shard.
//!
//! - [`resource`]: `/replay`. [`loads`]: `/replay/load`, `/replay/dates`. [`clock_events`]: `/replay/events`.
//! - [`session_routes`]: `/replay/sessions`. [`session_choice`]: the session that negotiate and a token name.
//!
//! `rest::faker_clock` has the same under the names of other imitations of the vendor.

pub mod clock_events;
pub mod clock_json;
pub mod loads;
pub mod on_replay;
pub mod replay_refusal;
pub mod replay_state;
pub mod resource;
pub mod session_choice;
pub mod session_options;
pub mod session_routes;

#[cfg(test)]
mod replay_tests;
