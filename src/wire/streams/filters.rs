//! Which symbols of a channel a client wants, and the groups that carry them.

use std::collections::BTreeSet;
use std::fmt;

use super::channels::Channel;

/// Which symbols of a channel somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Every symbol, and messages that name none.
    All,
    /// Only these, in the order of their names; never empty.
    Symbols(Box<BTreeSet<Box<str>>>),
}

impl Filter {
    /// Only these symbols.
    pub fn of<S: Into<Box<str>>>(symbols: impl IntoIterator<Item = S>) -> Self {
        Self::Symbols(Box::new(symbols.into_iter().map(Into::into).collect()))
    }

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

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Symbols(symbols) => write!(f, "{} symbols", symbols.len()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::streams::channels::{Channels, PRICE_UPDATES, SIGNALS, TRADES};

    fn symbols(symbols: &[&str]) -> Filter {
        Filter::of(symbols.iter().copied())
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
}
