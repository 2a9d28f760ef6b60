//! The live page (`docs/live.md`): what goes on, for people, and what they may do about it.
//!
//! ```text
//! shards (who is behind) ─┐
//! counters, groups, day  ─┴▶ gatherer ─▶ snapshot ─▶ feed (once a second) ─▶ events ─▶ page, `flowcast top`
//! ```
//!
//! - [`snapshot`]: the one type that page, terminal and reports show. [`gatherer`] makes it, of [`totals`],
//!   [`group_census`], [`connection_rows`], [`tick_delays`], [`source_tables`], [`process`] and [`problems`].
//! - [`reader`]: one snapshot a second for all readers, and without any a row of the [`history`], kept in [`figure_history`];
//!   [`feed`]; [`snapshot_json`]; [`merge_patch`]; [`events`].
//! - [`page`]: the file. [`choices`], [`decode`]: what it needs to build a group's name and to show a message.
//! - [`connections`], [`injection`], [`verdict`]: what operators do.

pub mod choices;
mod connection_rows;
pub mod connections;
pub mod decode;
pub mod events;
mod feed;
mod figure_history;
mod gatherer;
mod group_census;
pub mod history;
pub mod injection;
pub mod live_options;
mod live_refusal;
pub mod live_state;
pub mod merge_patch;
mod on_live;
pub mod page;
mod problems;
mod process;
pub mod reader;
#[expect(missing_docs, reason = "figures whose names say it; docs/live.md describes them all")]
pub mod snapshot;
mod snapshot_json;
pub mod source_tables;
mod tick_delays;
mod totals;
pub mod verdict;
