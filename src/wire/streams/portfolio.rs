//! What may be published to the channel `portfolio`: all positions of the one shared portfolio.

use std::borrow::Cow;
use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::checks::{self, ShapeError, object};
use super::exact;

/// Positions a portfolio may have.
pub const MAX_POSITIONS: usize = 10_000;

/// The whole portfolio; each one replaces the one before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Portfolio<'a> {
    /// Keyed by symbol; at most [`MAX_POSITIONS`].
    pub positions: BTreeMap<Cow<'a, str>, PortfolioPosition>,
    /// Profit or loss of all positions together.
    pub total_pnl: Option<Decimal>,
    /// The number of positions; counted if it is missing.
    pub position_count: Option<u64>,
}

/// A portfolio whose positions are not looked at yet.
#[derive(Deserialize)]
struct RawPortfolio<'a> {
    #[serde(borrow)]
    positions: BTreeMap<Cow<'a, str>, &'a RawValue>,
    #[serde(default, with = "exact::option")]
    total_pnl: Option<Decimal>,
    #[serde(default)]
    position_count: Option<u64>,
}

/// One position. The symbol is its key in the portfolio.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PortfolioPosition {
    /// If it is given it must equal the key.
    #[serde(default)]
    pub symbol: Option<Box<str>>,
    /// Negative for a short position.
    #[serde(with = "exact")]
    pub quantity: Decimal,
    /// What was paid, or received, per unit.
    #[serde(default, with = "exact::option")]
    pub average_price: Option<Decimal>,
    /// What a unit is worth now.
    #[serde(default, with = "exact::option")]
    pub market_price: Option<Decimal>,
    /// Profit or loss if it were closed now.
    #[serde(default, with = "exact::option")]
    pub unrealized_pnl: Option<Decimal>,
    /// The same in percent.
    #[serde(default, with = "exact::option")]
    pub unrealized_pnl_pct: Option<Decimal>,
}

impl<'a> Portfolio<'a> {
    /// Parses and checks a record.
    pub fn parse(payload: &'a [u8]) -> Result<Self, ShapeError> {
        let RawPortfolio { positions: raw, total_pnl, position_count } = checks::record(payload)?;
        if raw.len() > MAX_POSITIONS {
            return Err(ShapeError::new("positions", "expected at most 10000 of them"));
        }
        let mut positions = BTreeMap::new();
        for (name, position) in raw {
            checks::symbol(&name)?;
            let position: PortfolioPosition =
                object(position.get()).map_err(|reason| ShapeError::new("positions", format!("{name:?}: {reason}")))?;
            if position.symbol.as_deref().is_some_and(|symbol| *symbol != *name) {
                return Err(ShapeError::new(
                    "positions",
                    format!("expected the symbol {name:?} under the key {name:?}"),
                ));
            }
            positions.insert(name, position);
        }
        Ok(Self { positions, total_pnl, position_count })
    }

    /// The same record without borrowing from the text it was parsed from.
    pub fn into_owned(self) -> Portfolio<'static> {
        let positions =
            self.positions.into_iter().map(|(symbol, position)| (Cow::Owned(symbol.into_owned()), position));
        Portfolio { positions: positions.collect(), total_pnl: self.total_pnl, position_count: self.position_count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(payload: &[u8]) -> String {
        Portfolio::parse(payload).unwrap_err().to_string()
    }

    #[test]
    fn a_positions_symbol_is_its_key() {
        let portfolio = Portfolio::parse(br#"{"positions":{"AAPL":{"quantity":-10}},"total_pnl":12.5}"#).unwrap();
        assert_eq!(portfolio.positions["AAPL"].quantity, Decimal::from(-10));
        let other = br#"{"positions":{"AAPL":{"symbol":"MSFT","quantity":1}}}"#;
        assert!(refused(other).starts_with("positions: "));
        assert!(refused(br#"{"total_pnl":1}"#).contains("positions"));
        assert!(refused(br#"{"positions":{"A":[null,1]}}"#).contains("expected one JSON object"));
    }
}
