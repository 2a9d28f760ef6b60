//! The recorded day.
//!
//! - [`dataset`]: which files a day has. [`market`]: each of them as a [`track`] on the clock.
//! - [`line_stats`]: figures over a file's lines. [`file_kind`]: files that must be imported first.
//! - [`index`]: how many lines begin in each block of a file, read through [`mapping`].
//! - [`window`]: which blocks are in memory, and which is built next; [`block_builder`] builds a [`block`] from its
//!   [`lines`].
//! - [`player`]: the clock that publishes them; [`tick_schedule`]: when its ticks are due.
//! - [`trading`], [`day_prices`]: the same day on the JSON streams.

mod alarm;
pub mod block;
pub mod block_builder;
pub mod dataset;
pub mod day_prices;
pub mod file_kind;
pub mod index;
pub mod line_stats;
pub mod lines;
pub mod mapping;
pub mod market;
pub mod parts;
pub mod player;
pub mod player_options;
pub mod tick_schedule;
pub mod track;
pub mod trading;
mod walk;
pub mod window;
pub mod window_figures;
pub mod window_options;
