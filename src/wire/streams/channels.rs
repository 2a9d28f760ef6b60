//! The channels of `/ws`: four trading streams, and those the operator names.

use std::fmt;
use std::sync::Arc;

/// Channel of the latest prices, one message per interval.
pub const PRICE_UPDATES: &str = "price_updates";
/// Channel of trading signals, one message each.
pub const SIGNALS: &str = "signals";
/// Channel of executed trades, one message each.
pub const TRADES: &str = "trades";
/// The channel of the one portfolio that all clients share.
pub const PORTFOLIO: &str = "portfolio";

/// What a channel carries, and so what its filter means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelKind {
    /// Any message, sent on as it came; no filter.
    Passthrough,
    /// Prices: one message per interval, with every symbol that changed.
    Prices,
    /// Signals: one message each, about one symbol.
    Signals,
    /// Trades: one message each, about one symbol.
    Trades,
    /// The portfolio: one message per interval, with all positions.
    Portfolio,
}

impl ChannelKind {
    /// Whether a client may choose symbols.
    pub const fn is_filtered(self) -> bool {
        !matches!(self, Self::Passthrough)
    }

    /// Whether one message holds the latest state of several symbols.
    ///
    /// Such a message is encoded once per set of symbols in use, any other one once per symbol.
    pub const fn is_conflated(self) -> bool {
        matches!(self, Self::Prices | Self::Portfolio)
    }
}

/// One channel of this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// As clients write it; also the name of its group.
    pub name: Box<str>,
    /// Decides what may be published to it, and what its filter means.
    pub kind: ChannelKind,
}

/// The channels of a server, by number: the four trading streams, then those the operator names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channels(Arc<[Channel]>);

/// A channel that this server does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownChannel {
    /// The name that was asked for, cut to [`UnknownChannel::SHOWN`] characters.
    name: Box<str>,
    channels: Channels,
}

impl UnknownChannel {
    /// Characters of the name that the error repeats.
    const SHOWN: usize = 64;
}

impl std::error::Error for UnknownChannel {}

impl fmt::Display for UnknownChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown channel {:?}; this server has ", self.name)?;
        for (at, channel) in self.channels.all().iter().enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { ", " }, channel.name)?;
        }
        Ok(())
    }
}

impl Channels {
    /// The trading streams; auto-subscription gives these.
    pub const TRADING: [(&str, ChannelKind); 4] = [
        (PRICE_UPDATES, ChannelKind::Prices),
        (SIGNALS, ChannelKind::Signals),
        (TRADES, ChannelKind::Trades),
        (PORTFOLIO, ChannelKind::Portfolio),
    ];

    /// The trading streams, and one channel for each other name in `named`.
    pub fn new<'a>(named: impl IntoIterator<Item = &'a str>) -> Self {
        let mut channels: Vec<Channel> =
            Self::TRADING.into_iter().map(|(name, kind)| Channel { name: name.into(), kind }).collect();
        for name in named {
            if channels.iter().all(|channel| &*channel.name != name) {
                channels.push(Channel { name: name.into(), kind: ChannelKind::Passthrough });
            }
        }
        Self(channels.into())
    }

    /// The channel of this name and its number.
    pub fn find(&self, name: &str) -> Option<(usize, &Channel)> {
        self.0.iter().enumerate().find(|(_, channel)| &*channel.name == name)
    }

    /// The error for a `name` that [`Channels::find`] does not know.
    pub fn unknown(&self, name: &str) -> UnknownChannel {
        UnknownChannel { name: name.chars().take(UnknownChannel::SHOWN).collect(), channels: self.clone() }
    }

    /// All of them, by number.
    pub fn all(&self) -> &[Channel] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_named_like_a_trading_stream_is_that_stream() {
        let channels = Channels::new(["lines", "signals", "lines"]);
        let names: Vec<&str> = channels.all().iter().map(|channel| &*channel.name).collect();
        assert_eq!(names, [PRICE_UPDATES, SIGNALS, TRADES, PORTFOLIO, "lines"]);
        assert_eq!(channels.find("lines").map(|(at, channel)| (at, channel.kind)), Some((4, ChannelKind::Passthrough)));
        assert_eq!(channels.find("analytics"), None);
    }

    #[test]
    fn an_unknown_channel_is_answered_with_those_there_are() {
        let error = Channels::new(["lines"]).unknown("line").to_string();
        assert_eq!(error, "unknown channel \"line\"; this server has price_updates, signals, trades, portfolio, lines");
        assert!(Channels::new([]).unknown(&"x".repeat(1000)).to_string().len() < 200);
    }
}
