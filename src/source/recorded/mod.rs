//! The recorded day.
//!
//! - [`dataset`]: which files a day has, and reading them through [`mapping`].
//! - [`load`] reads them on all cores, [`lines`] piece by piece, into the [`arena`]: every record's
//!   frames, built once. A [`cache`] may have them from the last time. [`loaded`] is the result.
//! - [`line_stats`]: figures over a file's lines. [`file_kind`]: what is no JSONL, and the command that makes it so.
//! - [`replay`]: the clock that publishes them.
//! - [`trading`]: the same day on the JSON streams: prices, and the records of its folder `streams/`.

pub mod arena;
pub mod cache;
pub mod dataset;
pub mod file_kind;
pub mod line_stats;
pub mod lines;
pub mod load;
pub mod loaded;
pub mod mapping;
pub mod replay;
pub mod trading;
