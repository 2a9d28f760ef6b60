//! The engine: fans a publication out to the subscribers of its group.
//!
//! It parses nothing and does no IO. Sources publish into it, the server's shards take out of it,
//! and neither knows the other.
//!
//! - [`frames`]: the handle that travels, and which forms of it are in use.
//! - [`hub`]: groups by name, and the sequencer every publication passes through.
//! - [`group`]: one broadcast sender and its counters.
//! - [`ring`]: what one shard keeps of one group: lag and recovery.
//! - [`policy`]: what lag means.
//! - [`ledger`]: what was published when.
//! - [`watermark`], [`live_groups`], [`room`]: what publishers and shards synchronize with.

pub mod clock;
pub mod frames;
pub mod group;
pub mod hub;
pub mod ledger;
mod live_groups;
pub mod policy;
pub mod ring;
mod room;
mod watermark;
