//! Sources: read records and turn them into publications.
//!
//! No source knows a socket. What is here today replays recorded files:
//!
//! - [`dataset`]: which files a day has, and reading them through [`mapping`].
//! - [`load`] reads them on all cores, [`lines`] piece by piece, into the [`arena`]: every record's
//!   frames, built once. A [`cache`] may have them from the last time.
//! - [`replay`]: the clock that publishes them.
//! - [`trading`]: the same day on the JSON streams: prices, and the records of its folder `streams/`.
//! - [`inspect`]: what a dataset holds.
//! - [`sample`]: synthetic days, for whoever has no recording.

pub mod arena;
pub mod broker;
pub mod cache;
pub mod dataset;
pub mod inspect;
pub mod kafka;
pub mod lines;
pub mod live;
pub mod load;
pub mod mapping;
pub mod replay;
pub mod sample;
mod sample_streams;
pub mod trading;
