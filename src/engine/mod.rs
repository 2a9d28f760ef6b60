//! The engine: fans a publication out to the subscribers of its group.
//!
//! It parses nothing and does no IO. Sources publish into it, the server's shards take out of it,
//! and neither knows the other.
//!
//! - [`frames`]: the handle that travels.
//! - [`hub`]: groups by name; [`sequencer`]: the one sequence of their publications; [`batch`]: those that belong together.
//! - [`audience`]: the shards, which are told of every batch and say how far they are.
//! - [`group`]: one broadcast sender, its counters, and the forms its subscribers want.
//! - [`ring`]: what one shard keeps of one group: lag and recovery.
//! - [`policy`]: what lag means.
//! - [`ledger`]: what was published when.
//! - [`watermark`], [`live_groups`], [`room`], [`sweep_report`]: what publishers and shards synchronize with.

pub mod audience;
pub mod batch;
pub mod frames;
pub mod group;
pub mod hub;
pub mod ledger;
mod live_groups;
pub mod policy;
pub mod ring;
mod room;
pub mod sequencer;
pub mod sweep_report;
pub mod system_clock;
pub mod wanted_form;
mod watermark;
