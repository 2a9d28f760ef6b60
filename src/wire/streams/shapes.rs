//! What may be published to the trading streams: one shape per channel, the same for Kafka, HTTP and
//! files.
//!
//! Numbers are decimals from end to end: what came as `150.10` leaves as `150.10`, and a computed
//! change has no digits that binary fractions invent.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use rust_decimal::{Decimal, RoundingStrategy};
use serde::de::{Deserialize, Deserializer, Error};
use serde_json::value::RawValue;

use super::{is_symbol, object};

/// Positions a portfolio may have.
pub const MAX_POSITIONS: usize = 10_000;

/// A JSON number, exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number(pub Decimal);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        if !raw.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
            return Err(D::Error::custom("expected a number"));
        }
        let exact = if raw.contains(['e', 'E']) { Decimal::from_scientific(raw) } else { Decimal::from_str_exact(raw) };
        exact.map(Number).map_err(|_| D::Error::custom("expected a number of at most 28 digits"))
    }
}

/// Why an input is out of shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct ShapeError {
    /// Which field.
    pub field: Cow<'static, str>,
    /// What was expected of it.
    pub reason: Cow<'static, str>,
}

impl ShapeError {
    fn new(field: impl Into<Cow<'static, str>>, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

/// serde names the field of most errors in its message; the record as a whole is the field.
fn parse<'a, T: serde::Deserialize<'a>>(payload: &'a [u8]) -> Result<T, ShapeError> {
    let text = std::str::from_utf8(payload).map_err(|_| ShapeError::new("record", "expected UTF-8"))?;
    object(text).map_err(|reason| ShapeError::new("record", reason))
}

fn symbol(symbol: &str) -> Result<(), ShapeError> {
    if is_symbol(symbol) {
        return Ok(());
    }
    Err(ShapeError::new("symbol", "expected 1 to 64 bytes without commas and control characters"))
}

fn required(field: &'static str, number: Option<Number>) -> Result<Number, ShapeError> {
    number.ok_or_else(|| ShapeError::new(field, "expected a number, it is missing"))
}

fn not_negative(field: &'static str, number: Option<Number>) -> Result<(), ShapeError> {
    match number {
        Some(Number(value)) if value.is_sign_negative() && !value.is_zero() => {
            Err(ShapeError::new(field, "expected a number of at least 0"))
        }
        _ => Ok(()),
    }
}

/// One symbol's price. Only symbol and price are required.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Price<'a> {
    /// Whose.
    #[serde(borrow)]
    pub symbol: Cow<'a, str>,
    /// The last price; any sign (spreads).
    pub price: Number,
    /// Traded today, at least 0.
    #[serde(default)]
    pub volume: Option<Number>,
    /// Today's highest.
    #[serde(default)]
    pub high: Option<Number>,
    /// Today's lowest.
    #[serde(default)]
    pub low: Option<Number>,
    /// Today's first.
    #[serde(default)]
    pub open: Option<Number>,
    /// The previous day's last; change and percentage are against it.
    #[serde(default)]
    pub prev_close: Option<Number>,
    /// What the change is against while no previous close is known: a replay's first record of the
    /// day. Not part of a record.
    #[serde(skip)]
    pub reference: Option<Number>,
}

impl<'a> Price<'a> {
    /// Parses and checks a record.
    pub fn parse(payload: &'a [u8]) -> Result<Self, ShapeError> {
        let price: Self = parse(payload)?;
        symbol(&price.symbol)?;
        not_negative("volume", price.volume)?;
        Ok(price)
    }
}

/// `price − reference`, and that in percent of the reference with two decimals: none against 0.
pub fn change(price: Number, reference: Number) -> Option<(Number, Option<Number>)> {
    let change = price.0.checked_sub(reference.0)?;
    let percent = change.checked_mul(Decimal::ONE_HUNDRED).and_then(|hundredfold| hundredfold.checked_div(reference.0));
    let percent =
        percent.map(|percent| percent.round_dp_with_strategy(2, RoundingStrategy::MidpointAwayFromZero).normalize());
    Some((Number(change), percent.map(Number)))
}

/// A trading signal.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct TradingSignal<'a> {
    /// `BUY`, `SELL` or `HOLD`.
    #[serde(borrow)]
    pub signal_type: Cow<'a, str>,
    /// Of what.
    #[serde(borrow)]
    pub symbol: Cow<'a, str>,
    /// At which price.
    #[serde(default)]
    pub price: Option<Number>,
    /// How many, at least 0.
    #[serde(default)]
    pub quantity: Option<Number>,
    /// From 0 to 1.
    #[serde(default)]
    pub confidence: Option<Number>,
    /// RFC 3339; set on arrival if missing.
    #[serde(borrow, default)]
    pub timestamp: Option<Cow<'a, str>>,
}

impl<'a> TradingSignal<'a> {
    /// Parses and checks a record.
    pub fn parse(payload: &'a [u8]) -> Result<Self, ShapeError> {
        let signal: Self = parse(payload)?;
        if !["BUY", "SELL", "HOLD"].contains(&&*signal.signal_type) {
            return Err(ShapeError::new("signal_type", "expected BUY, SELL or HOLD"));
        }
        symbol(&signal.symbol)?;
        not_negative("quantity", signal.quantity)?;
        if signal.confidence.is_some_and(|Number(value)| !(Decimal::ZERO..=Decimal::ONE).contains(&value)) {
            return Err(ShapeError::new("confidence", "expected a number from 0 to 1"));
        }
        timestamp(signal.timestamp.as_deref())?;
        Ok(signal)
    }
}

/// An executed trade.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Trade<'a> {
    /// Of what.
    #[serde(borrow)]
    pub symbol: Cow<'a, str>,
    /// `BUY` or `SELL`.
    #[serde(borrow)]
    pub side: Cow<'a, str>,
    /// How many, at least 0.
    #[serde(default)]
    pub quantity: Option<Number>,
    /// At which price.
    #[serde(default)]
    pub price: Option<Number>,
    /// RFC 3339; set on arrival if missing.
    #[serde(borrow, default)]
    pub timestamp: Option<Cow<'a, str>>,
}

impl<'a> Trade<'a> {
    /// Parses and checks a record.
    pub fn parse(payload: &'a [u8]) -> Result<Self, ShapeError> {
        let trade: Self = parse(payload)?;
        symbol(&trade.symbol)?;
        if !["BUY", "SELL"].contains(&&*trade.side) {
            return Err(ShapeError::new("side", "expected BUY or SELL"));
        }
        required("quantity", trade.quantity)?;
        required("price", trade.price)?;
        not_negative("quantity", trade.quantity)?;
        timestamp(trade.timestamp.as_deref())?;
        Ok(trade)
    }
}

fn timestamp(text: Option<&str>) -> Result<(), ShapeError> {
    match text.map(str::parse::<jiff::Timestamp>) {
        Some(Err(_)) => Err(ShapeError::new("timestamp", "expected RFC 3339, such as 2024-12-19T12:00:00Z")),
        _ => Ok(()),
    }
}

/// The whole portfolio: what it held before is forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Portfolio<'a> {
    /// By symbol.
    pub positions: BTreeMap<Cow<'a, str>, PortfolioPosition>,
    /// Profit or loss of all positions.
    pub total_pnl: Option<Number>,
    /// How many positions; counted if missing.
    pub position_count: Option<u64>,
}

/// A portfolio whose positions are not looked at yet.
#[derive(serde::Deserialize)]
struct RawPortfolio<'a> {
    #[serde(borrow)]
    positions: BTreeMap<Cow<'a, str>, &'a RawValue>,
    #[serde(default)]
    total_pnl: Option<Number>,
    #[serde(default)]
    position_count: Option<u64>,
}

/// One position. The symbol is its key in the portfolio.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct PortfolioPosition {
    /// The key again, if given.
    #[serde(default)]
    pub symbol: Option<Box<str>>,
    /// How many; negative if short.
    pub quantity: Number,
    /// Bought or sold at.
    #[serde(default)]
    pub average_price: Option<Number>,
    /// Worth now.
    #[serde(default)]
    pub market_price: Option<Number>,
    /// Profit or loss if it were closed now.
    #[serde(default)]
    pub unrealized_pnl: Option<Number>,
    /// That in percent.
    #[serde(default)]
    pub unrealized_pnl_pct: Option<Number>,
}

impl<'a> Portfolio<'a> {
    /// Parses and checks a record.
    pub fn parse(payload: &'a [u8]) -> Result<Self, ShapeError> {
        let RawPortfolio { positions: raw, total_pnl, position_count } = parse(payload)?;
        if raw.len() > MAX_POSITIONS {
            return Err(ShapeError::new("positions", "expected at most 10000 of them"));
        }
        let mut positions = BTreeMap::new();
        for (name, position) in raw {
            symbol(&name)?;
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        serde_json::from_str(text).unwrap()
    }

    fn refused<T: fmt::Debug>(result: Result<T, ShapeError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn numbers_keep_their_digits() {
        for text in ["150.10", "0", "-0.05", "123456789012345678.123456789"] {
            assert_eq!(number(text).to_string(), text);
        }
        assert_eq!(number("1.5e3").to_string(), "1500");
        for text in ["\"1\"", "true", "null", "[1]", "1e400", "12345678901234567890123456789012345"] {
            assert!(serde_json::from_str::<Number>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn change_is_exact_and_its_percentage_has_two_decimals() {
        let (absolute, percent) = change(number("150.25"), number("149.75")).unwrap();
        assert_eq!((absolute.to_string(), percent.unwrap().to_string()), ("0.50".to_owned(), "0.33".to_owned()));
        let (absolute, percent) = change(number("380.5"), number("381.7")).unwrap();
        assert_eq!((absolute.to_string(), percent.unwrap().to_string()), ("-1.2".to_owned(), "-0.31".to_owned()));
        assert_eq!(change(number("1"), number("0")), Some((number("1"), None)));
    }

    #[test]
    fn a_price_needs_a_symbol_and_a_price() {
        let price = Price::parse(br#"{"symbol":"AAPL","price":150.25,"volume":null,"extra":[1]}"#).unwrap();
        assert_eq!((&*price.symbol, price.price, price.volume), ("AAPL", number("150.25"), None));
        assert!(refused(Price::parse(br#"{"symbol":"AAPL"}"#)).contains("price"));
        assert!(refused(Price::parse(br#"{"symbol":"AAPL","price":"1"}"#)).contains("expected a number"));
        assert!(refused(Price::parse(br#"{"symbol":"A,B","price":1}"#)).starts_with("symbol: expected"));
        assert!(refused(Price::parse(br#"{"symbol":"A","price":1,"volume":-1}"#)).starts_with("volume: expected"));
        assert!(refused(Price::parse(b"\xff")).starts_with("record: "));
        assert!(refused(Price::parse(br#"["AAPL",150]"#)).contains("expected one JSON object"));
    }

    #[test]
    fn a_signal_is_to_buy_sell_or_hold() {
        let signal =
            |kind: &str, rest: &str| format!(r#"{{"signal_type":"{kind}","symbol":"AAPL"{rest}}}"#).into_bytes();
        for kind in ["BUY", "SELL", "HOLD"] {
            assert!(TradingSignal::parse(&signal(kind, "")).is_ok());
        }
        assert!(refused(TradingSignal::parse(&signal("buy", ""))).starts_with("signal_type: expected BUY"));
        assert!(refused(TradingSignal::parse(&signal("BUY", r#","confidence":1.01"#))).starts_with("confidence: "));
        assert!(refused(TradingSignal::parse(&signal("BUY", r#","timestamp":"noon""#))).starts_with("timestamp: "));
    }

    #[test]
    fn a_trade_has_side_quantity_and_price() {
        assert!(Trade::parse(br#"{"symbol":"AAPL","side":"BUY","quantity":10,"price":150.25}"#).is_ok());
        assert!(refused(Trade::parse(br#"{"symbol":"A","side":"HOLD","quantity":1,"price":1}"#)).starts_with("side: "));
        assert!(refused(Trade::parse(br#"{"symbol":"A","side":"BUY","price":1}"#)).starts_with("quantity: "));
    }

    #[test]
    fn a_positions_symbol_is_its_key() {
        let portfolio = Portfolio::parse(br#"{"positions":{"AAPL":{"quantity":-10}},"total_pnl":12.5}"#).unwrap();
        assert_eq!(portfolio.positions["AAPL"].quantity, number("-10"));
        let other = br#"{"positions":{"AAPL":{"symbol":"MSFT","quantity":1}}}"#;
        assert!(refused(Portfolio::parse(other)).starts_with("positions: "));
        assert!(refused(Portfolio::parse(br#"{"total_pnl":1}"#)).contains("positions"));
        assert!(refused(Portfolio::parse(br#"{"positions":{"A":[null,1]}}"#)).contains("expected one JSON object"));
    }
}
