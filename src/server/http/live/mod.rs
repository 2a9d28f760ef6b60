//! The live page (`docs/live.md`): what goes on, for people, and what they may do about it.
//!
//! ```text
//! shards (who is behind) ─┐
//! counters, groups, day  ─┴▶ gatherer ─▶ snapshot ─▶ feed (once a second) ─▶ events ─▶ page, `flowcast top`
//! ```
//!
//! - [`live_snapshot`]: the one type that page, terminal and reports show. [`gatherer`] makes it, of [`totals`],
//!   [`group_census`], [`connection_rows`], [`tick_delays`], [`source_tables`], [`process`] and [`problems`].
//! - [`reader`]: one snapshot a second for all readers, and without any a row of the [`history_json`], kept in [`figure_history`];
//!   [`live_feed`]; [`snapshot_json`]; [`merge_patch`]; [`event_stream`].
//! - [`page`]: the file. [`choices`], [`decode`]: what it needs to build a group's name and to show a message.
//! - [`connections`], [`injection`], [`verdict`]: what operators do.

pub mod choices;
mod connection_rows;
pub mod connections;
pub mod decode;
pub mod event_stream;
mod figure_history;
mod gatherer;
mod group_census;
pub mod history_json;
pub mod injection;
mod live_feed;
pub mod live_options;
mod live_refusal;
#[expect(missing_docs, reason = "figures whose names say it; docs/live.md describes them all")]
pub mod live_snapshot;
pub mod live_state;
pub mod merge_patch;
mod on_live;
pub mod page;
mod problems;
mod process;
pub mod reader;
mod snapshot_json;
pub mod source_tables;
mod tick_delays;
mod totals;
pub mod verdict;
