//! What a token of the JSON streams allows.

use std::num::NonZeroU64;

/// Seconds a token is good for after its end, since clocks differ.
pub const LEEWAY_SECONDS: u64 = 60;

/// What a token allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// Channels that may be subscribed to; `None`: all.
    pub channels: Option<Box<[Box<str>]>>,
    /// When the connection is closed, Unix seconds, [`LEEWAY_SECONDS`] not counted; `None`: never.
    pub expires_unix_s: Option<NonZeroU64>,
}

impl Grant {
    /// Whether a channel may be subscribed to.
    pub fn allows(&self, channel: &str) -> bool {
        self.channels.as_ref().is_none_or(|allowed| allowed.iter().any(|name| &**name == channel))
    }
}
