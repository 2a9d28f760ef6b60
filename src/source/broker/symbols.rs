//! Which instrument a symbol means at a broker, and how much of it is asked for.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::instrument::{Exchange, Instrument};
use super::setting_values::{SettingsError, Whole, read};
use crate::source::broker::kite::packet;
use crate::source::broker::xts::event_fields::{self, Key};

/// How much data of an instrument is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The last price. Kite `ltp`, XTS 1512.
    Ltp,
    /// And volumes and the day's prices. Kite `quote`, XTS 1501.
    #[default]
    Quote,
    /// And depth and open interest. Kite `full`, XTS 1502 and 1510.
    Full,
}

impl Mode {
    /// Every mode, with the name that the settings use.
    pub const NAMES: [(&'static str, Self); 3] = [("ltp", Self::Ltp), ("quote", Self::Quote), ("full", Self::Full)];

    /// As Kite's wire and the settings write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ltp => "ltp",
            Self::Quote => "quote",
            Self::Full => "full",
        }
    }
}

/// How a broker names an instrument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// Kite's instrument token, whose low byte is the segment.
    Kite(u32),
    /// XTS's segment and instrument.
    Xts(Key),
}

/// An instrument that the settings give a symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedInstrument {
    /// The instrument, as records name it.
    pub instrument: Instrument,
    /// How the broker names it.
    pub address: Address,
    /// How much is asked for, if not what the feed asks for.
    pub mode: Option<Mode>,
}

/// Symbols that one feed may have.
const SYMBOLS: usize = 100_000;

/// Reads the `symbols` of the block at `path` and the file `symbols_file`, ordered by symbol.
pub fn mapped(
    path: &str,
    symbols: toml::Table,
    symbols_file: Option<PathBuf>,
    is_kite: bool,
) -> Result<Vec<MappedInstrument>, SettingsError> {
    let mut all = symbols;
    if let Some(file) = symbols_file {
        let key = || format!("{path}.symbols_file");
        let wrong = |reason: &str| {
            SettingsError::new(key(), "a TOML file of symbols", format_args!("{}: {reason}", file.display()))
        };
        let text = std::fs::read_to_string(&file).map_err(|error| wrong(&error.to_string()))?;
        let more: toml::Table = toml::from_str(&text).map_err(|error| wrong(error.message()))?;
        for (symbol, value) in more {
            if all.insert(symbol.clone(), value).is_some() {
                return Err(SettingsError::new(key(), "each symbol in one place", format_args!("{symbol:?} twice")));
            }
        }
    }
    if all.len() > SYMBOLS {
        return Err(SettingsError::new(format!("{path}.symbols"), format!("at most {SYMBOLS} symbols"), all.len()));
    }
    let mut seen = HashSet::new();
    let mut mapped = Vec::with_capacity(all.len());
    for (symbol, value) in all {
        let path = format!("{path}.symbols.{symbol}");
        if symbol.is_empty() || symbol.len() > 128 || symbol.chars().any(char::is_control) {
            let expected = "a symbol of 1 to 128 bytes without control characters";
            return Err(SettingsError::new(path, expected, format_args!("{} bytes", symbol.len())));
        }
        let one = if is_kite { kite(&symbol, &path, value)? } else { xts(&symbol, &path, value)? };
        if !seen.insert(one.address) {
            return Err(SettingsError::missing(path, "an instrument of its own; another symbol has this one"));
        }
        mapped.push(one);
    }
    Ok(mapped)
}

/// `408065` or `{ token = 408065, mode = "full", exchange = "BSE_INDEX" }`.
fn kite(symbol: &str, path: &str, value: toml::Value) -> Result<MappedInstrument, SettingsError> {
    #[derive(Deserialize)]
    #[serde(
        deny_unknown_fields,
        expecting = "an instrument token such as 408065, or { token = 408065, mode = \"full\" }"
    )]
    struct KiteSymbol {
        token: Whole<1, { u32::MAX as u64 }>,
        mode: Option<Mode>,
        exchange: Option<Exchange>,
    }
    let value = match value {
        token @ toml::Value::Integer(_) => toml::Value::Table([("token".to_owned(), token)].into_iter().collect()),
        other => other,
    };
    let KiteSymbol { token: Whole(token), mode, exchange } = read(path, value)?;
    let token = token as u32;
    if packet::places(token).is_none() {
        // Kite gives no price unit for it, and a wrong one would be wrong by a factor of 100 or more.
        let expected = format!("a token of a segment with a documented price unit ({})", packet::SEGMENTS);
        return Err(SettingsError::new(path, expected, format_args!("segment {}", token & 0xff)));
    }
    let exchange = exchange.unwrap_or_else(|| packet::exchange(token));
    let instrument = Instrument { symbol: symbol.into(), exchange, id: token.into() };
    Ok(MappedInstrument { instrument, address: Address::Kite(token), mode })
}

/// `{ segment = 1, id = 2885 }`, and perhaps `mode`, `exchange`, `index = true`.
fn xts(symbol: &str, path: &str, value: toml::Value) -> Result<MappedInstrument, SettingsError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, expecting = "{ segment = 1, id = 2885 }")]
    struct XtsSymbol {
        segment: u16,
        id: u64,
        mode: Option<Mode>,
        exchange: Option<Exchange>,
        #[serde(default)]
        index: bool,
    }
    let XtsSymbol { segment, id, mode, exchange, index } = read(path, value)?;
    // Indices have the segment of their exchange.
    let exchange = exchange.unwrap_or_else(|| match event_fields::exchange(segment) {
        Exchange::Nse if index => Exchange::NseIndex,
        Exchange::Bse if index => Exchange::BseIndex,
        exchange => exchange,
    });
    let instrument = Instrument { symbol: symbol.into(), exchange, id };
    Ok(MappedInstrument { instrument, address: Address::Xts(Key { segment, id }), mode })
}

/// What a feed knows of symbols.
#[derive(Debug)]
pub struct SymbolMap {
    by_symbol: HashMap<Arc<str>, Arc<MappedInstrument>>,
    in_order: Vec<Arc<str>>,
    addresses: HashSet<Address>,
    unmapped: Option<fn(&str) -> Option<MappedInstrument>>,
}

impl SymbolMap {
    /// The configured instruments; `unmapped` reads symbols such as `NSE:2885`.
    pub fn new(mapped: &[MappedInstrument], unmapped: Option<fn(&str) -> Option<MappedInstrument>>) -> Self {
        let in_order = mapped.iter().map(|one| Arc::clone(&one.instrument.symbol)).collect();
        let by_symbol = mapped.iter().map(|one| (Arc::clone(&one.instrument.symbol), Arc::new(one.clone()))).collect();
        let addresses = mapped.iter().map(|one| one.address).collect();
        Self { by_symbol, in_order, addresses, unmapped }
    }

    /// The instrument of a symbol.
    pub fn find(&self, symbol: &str) -> Option<Arc<MappedInstrument>> {
        if let Some(mapped) = self.by_symbol.get(symbol) {
            return Some(Arc::clone(mapped));
        }
        let found = self.unmapped?(symbol)?;
        // One instrument has one symbol: the configured name.
        (!self.addresses.contains(&found.address)).then(|| Arc::new(found))
    }

    /// The symbols that the settings name, in their order; those made from an exchange and an id are not among them.
    pub fn symbols(&self) -> Vec<Arc<str>> {
        self.in_order.clone()
    }
}

/// `NSE:408065`: a token with its segment.
pub fn unmapped_kite(symbol: &str) -> Option<MappedInstrument> {
    let (named, token) = symbol.split_once(':')?;
    let token: u32 = token.parse().ok()?;
    packet::places(token)?;
    let exchange = packet::exchange(token);
    let instrument = Instrument { symbol: symbol.into(), exchange, id: token.into() };
    (exchange.to_string() == named).then_some(MappedInstrument {
        instrument,
        address: Address::Kite(token),
        mode: None,
    })
}

/// `NSE:2885`: an instrument of a segment.
pub fn unmapped_xts(symbol: &str) -> Option<MappedInstrument> {
    let (named, id) = symbol.split_once(':')?;
    let named = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(named);
    let exchange = Exchange::deserialize(named).ok()?;
    let key = Key { segment: event_fields::segment(exchange)?, id: id.parse().ok()? };
    let instrument = Instrument { symbol: symbol.into(), exchange, id: key.id };
    Some(MappedInstrument { instrument, address: Address::Xts(key), mode: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_without_a_name_are_an_exchange_and_a_number() {
        let map = |unmapped| SymbolMap::new(&[], Some(unmapped));
        let kite = map(unmapped_kite as fn(&str) -> Option<MappedInstrument>);
        assert_eq!(kite.find("NSE:408065").unwrap().address, Address::Kite(408_065));
        assert_eq!(kite.find("NSE:2885"), None, "not a token of that segment");
        assert_eq!(kite.find("NCO:31132428").unwrap().instrument.exchange, Exchange::Nco);
        assert_eq!(kite.find("SEGMENT11:31132427"), None, "nobody documents its price unit");
        let xts = map(unmapped_xts as fn(&str) -> Option<MappedInstrument>);
        assert_eq!(xts.find("MCX:7").unwrap().address, Address::Xts(Key { segment: 51, id: 7 }));
        for symbol in ["NSE", "NSE:", "NSE:x", "NOWHERE:1", "NSE_INDEX:26000"] {
            assert_eq!((kite.find(symbol), xts.find(symbol)), (None, None), "{symbol}");
        }
        let named = MappedInstrument {
            instrument: Instrument { symbol: "INFY".into(), exchange: Exchange::Nse, id: 408_065 },
            ..(*kite.find("NSE:408065").unwrap()).clone()
        };
        let map = SymbolMap::new(&[named], Some(unmapped_kite));
        assert!(map.find("INFY").is_some() && map.find("NSE:408065").is_none(), "one instrument, one symbol");
    }
}
