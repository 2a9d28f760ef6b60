//! The JSON streams (`docs/streams.md`): text frames of one JSON object each.
//!
//! ```text
//! client ─▶ StreamRequest::parse ─▶ Filter per channel ─▶ names of groups
//! input  ─▶ shapes (checked, numbers kept to the digit) ─▶ messages ─▶ one finished frame for everybody
//! ```
//!
//! - [`request`]: what clients ask for.
//! - [`shapes`]: what may be published to each channel.
//! - [`messages`]: what the server says.

pub mod messages;
pub mod request;
pub mod shapes;

use std::collections::BTreeSet;

/// The channel of prices.
pub const PRICE_UPDATES: &str = "price_updates";
/// The channel of signals.
pub const SIGNALS: &str = "signals";
/// The channel of executed trades.
pub const TRADES: &str = "trades";
/// The channel of the one shared portfolio.
pub const PORTFOLIO: &str = "portfolio";

/// Bytes of the longest symbol.
pub const MAX_SYMBOL: usize = 64;

/// What a channel carries, and so what its filter means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelKind {
    /// Any message, as it came; no filter.
    Topic,
    /// Prices: one message per interval, of every symbol that changed.
    Prices,
    /// Signals: one message each, of one symbol.
    Signals,
    /// Trades: one message each, of one symbol.
    Trades,
    /// The portfolio: one message per interval, of all positions.
    Portfolio,
}

impl ChannelKind {
    /// Whether symbols can be chosen.
    pub const fn is_filtered(self) -> bool {
        !matches!(self, Self::Topic)
    }

    /// Whether one message speaks of several symbols and holds the latest state.
    ///
    /// Such a message is encoded per set of symbols in use, any other one per symbol.
    pub const fn is_conflated(self) -> bool {
        matches!(self, Self::Prices | Self::Portfolio)
    }
}

/// A channel there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// Its name.
    pub name: Box<str>,
    /// What it carries.
    pub kind: ChannelKind,
}

/// The channels of a server: the four trading streams, then the topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channels(Box<[Channel]>);

impl Channels {
    /// The trading streams; auto-subscription gives these.
    pub const TRADING: [(&str, ChannelKind); 4] = [
        (PRICE_UPDATES, ChannelKind::Prices),
        (SIGNALS, ChannelKind::Signals),
        (TRADES, ChannelKind::Trades),
        (PORTFOLIO, ChannelKind::Portfolio),
    ];

    /// The trading streams and one channel for each other name in `topics`.
    pub fn new<'a>(topics: impl IntoIterator<Item = &'a str>) -> Self {
        let mut channels: Vec<Channel> =
            Self::TRADING.into_iter().map(|(name, kind)| Channel { name: name.into(), kind }).collect();
        for name in topics {
            if channels.iter().all(|channel| &*channel.name != name) {
                channels.push(Channel { name: name.into(), kind: ChannelKind::Topic });
            }
        }
        Self(channels.into())
    }

    /// The channel of this name and its number.
    pub fn find(&self, name: &str) -> Option<(usize, &Channel)> {
        self.0.iter().enumerate().find(|(_, channel)| &*channel.name == name)
    }

    /// All of them, by number.
    pub fn all(&self) -> &[Channel] {
        &self.0
    }
}

/// Which symbols of a channel somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Every symbol, and whatever has none.
    All,
    /// These; never empty.
    Symbols(BTreeSet<Box<str>>),
}

impl Filter {
    /// The groups that carry what the filter lets through.
    ///
    /// `signals` carries everything, `signals:AAPL` one symbol, `price_updates:AAPL,MSFT` a set.
    pub fn groups(&self, channel: &Channel) -> Vec<String> {
        match self {
            Self::All => vec![channel.name.to_string()],
            Self::Symbols(symbols) if channel.kind.is_conflated() => {
                let symbols: Vec<&str> = symbols.iter().map(AsRef::as_ref).collect();
                vec![format!("{}:{}", channel.name, symbols.join(","))]
            }
            Self::Symbols(symbols) => symbols.iter().map(|symbol| group_of_symbol(&channel.name, symbol)).collect(),
        }
    }
}

/// The group of one symbol's messages.
pub fn group_of_symbol(channel: &str, symbol: &str) -> String {
    format!("{channel}:{symbol}")
}

/// The symbols that a group's name says it carries; `None`: all.
pub fn symbols_of_group(group: &str) -> Option<impl Iterator<Item = &str>> {
    group.split_once(':').map(|(_, symbols)| symbols.split(','))
}

/// Parses one JSON object. serde would take an array for a structure, too.
pub fn object<'a, T: serde::Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    if !text.trim_start().starts_with('{') {
        return Err("expected one JSON object".to_owned());
    }
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// Whether `symbol` can be one: 1 to [`MAX_SYMBOL`] bytes of text, no comma and no control character.
pub fn is_symbol(symbol: &str) -> bool {
    (1..=MAX_SYMBOL).contains(&symbol.len()) && !symbol.contains(',') && !symbol.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols(symbols: &[&str]) -> Filter {
        Filter::Symbols(symbols.iter().map(|&symbol| symbol.into()).collect())
    }

    #[test]
    fn a_topic_named_like_a_trading_stream_is_that_stream() {
        let channels = Channels::new(["lines", "signals", "lines"]);
        let names: Vec<&str> = channels.all().iter().map(|channel| &*channel.name).collect();
        assert_eq!(names, [PRICE_UPDATES, SIGNALS, TRADES, PORTFOLIO, "lines"]);
        assert_eq!(channels.find("lines").map(|(at, channel)| (at, channel.kind)), Some((4, ChannelKind::Topic)));
        assert_eq!(channels.find("analytics"), None);
    }

    #[test]
    fn a_set_of_symbols_is_one_group_of_a_conflated_channel_and_several_of_any_other() {
        let channels = Channels::new([]);
        let groups = |filter: &Filter, name| filter.groups(channels.find(name).unwrap().1);
        assert_eq!(groups(&Filter::All, SIGNALS), ["signals"]);
        assert_eq!(groups(&symbols(&["MSFT", "AAPL"]), PRICE_UPDATES), ["price_updates:AAPL,MSFT"]);
        assert_eq!(groups(&symbols(&["MSFT", "AAPL"]), TRADES), ["trades:AAPL", "trades:MSFT"]);
    }

    #[test]
    fn a_groups_name_tells_its_symbols() {
        let of = |name| symbols_of_group(name).map(Iterator::collect::<Vec<_>>);
        assert_eq!(of("portfolio:AAPL,NSE:2885"), Some(vec!["AAPL", "NSE:2885"]));
        assert_eq!(of("portfolio"), None);
    }

    #[test]
    fn a_symbol_has_no_comma_and_no_control_character() {
        assert!(is_symbol("NSE:2885") && is_symbol("NIFTY 50") && is_symbol(&"é".repeat(32)));
        for bad in ["", "A,B", "A\n", &"A".repeat(65)] {
            assert!(!is_symbol(bad), "{bad:?}");
        }
    }
}
