//! The recorded day.
//!
//! - [`dataset`]: which files a day has; [`strays`]: what else is in its folder. [`market`]: each of them as a [`track`] on the clock.
//! - [`line_stats`]: figures over a file's lines. [`file_kind`]: files that must be imported first.
//! - [`index`]: how many lines begin in each block of a file, read through [`mapping`].
//! - [`window`]: which blocks are in memory, and which is built next; [`block_builder`] builds a [`block`], whose frames are [`pages`], from its
//!   [`lines`].
//! - [`clock`]: which recorded time it is, and when a tick is due; [`playhead`]: what is due then, on a [`stand`];
//!   [`player`]: the thread of both, with what a beat does, what is asked of it (orders), and `--anchor wall`. [`clocks`]: all clocks of a server, on their stages.
//! - [`trading`], [`day_prices`], together the [`score`]: the same days on the JSON streams.
//! - [`slot_reader`]: single lines, for REST.

mod alarm;
mod beat;
pub mod block;
pub mod block_builder;
pub mod clock;
pub mod clocks;
pub mod dataset;
pub mod day_prices;
mod early_wake;
pub mod file_kind;
mod glance;
pub mod index;
mod lateness;
pub mod line_stats;
pub mod lines;
pub mod mapping;
pub mod market;
mod orders;
mod pages;
pub mod parts;
pub mod player;
pub mod player_options;
#[cfg(test)]
mod player_tests;
pub mod playhead;
mod priority;
pub mod score;
pub mod slot_reader;
pub mod stage;
pub mod stand;
mod strays;
pub mod tick_schedule;
pub mod track;
pub mod trading;
mod walk;
mod wall;
pub mod window;
pub mod window_figures;
pub mod window_options;
