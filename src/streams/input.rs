//! What may be handed to the channels, and why something is refused.

use super::latest_prices::TooManySymbols;
use crate::wire::streams::channels::UnknownChannel;
use crate::wire::streams::checks::ShapeError;

/// One message to publish, as its publisher wrote it.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// A record in the channel's shape; any bytes for a passthrough channel.
    pub payload: &'a [u8],
    /// Sent along on a passthrough channel, ignored on the others.
    pub key: Option<&'a [u8]>,
    /// The time that a passthrough message carries, Unix ms; `None`: the time of sending.
    pub timestamp_ms: Option<i64>,
    /// Partition and number in the log that it comes from.
    pub log: Option<(u32, u64)>,
}

impl<'a> Input<'a> {
    /// A payload without key, time and place in a log.
    pub fn new(payload: &'a [u8]) -> Self {
        Self { payload, key: None, timestamp_ms: None, log: None }
    }
}

/// Why an input is not published. The publisher must fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// This server has no such channel.
    #[error(transparent)]
    UnknownChannel(#[from] UnknownChannel),
    /// The payload is longer than the limit.
    #[error("expected at most {limit} bytes, got {actual}")]
    TooLarge {
        /// The setting `--max-publish-bytes`.
        limit: usize,
        /// Length of the payload, in bytes.
        actual: usize,
    },
    /// The record does not have its channel's shape.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A price of a new symbol, over `--max-symbols`.
    #[error(transparent)]
    TooManySymbols(#[from] TooManySymbols),
}
