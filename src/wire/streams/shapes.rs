//! What may be published to the trading streams: one shape per channel, the same for Kafka, HTTP,
//! files and sources in this process.
//!
//! Numbers are decimals from end to end: what came as `150.10` leaves as `150.10`, and a computed
//! change has no digits that binary fractions invent.

use std::borrow::Cow;

use rust_decimal::{Decimal, RoundingStrategy};
use serde::Deserialize;

use super::channels::{PORTFOLIO, PRICE_UPDATES, SIGNALS, TRADES};
use super::checks::{self, ShapeError};
use super::exact;
use super::portfolio::Portfolio;

/// A record of a trading stream, parsed and checked, whoever publishes it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the record it names")]
pub enum StreamRecord<'a> {
    Price(Price<'a>),
    Signal(TradingSignal<'a>),
    Trade(Trade<'a>),
    Portfolio(Portfolio<'a>),
}

impl StreamRecord<'_> {
    /// The channel that carries such records.
    pub const fn channel(&self) -> &'static str {
        match self {
            Self::Price(_) => PRICE_UPDATES,
            Self::Signal(_) => SIGNALS,
            Self::Trade(_) => TRADES,
            Self::Portfolio(_) => PORTFOLIO,
        }
    }
}

/// One symbol's price. Only symbol and price are required.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Price<'a> {
    /// 1 to 64 bytes without commas and control characters.
    #[serde(borrow)]
    pub symbol: Cow<'a, str>,
    /// The last price; a spread's may be negative.
    #[serde(with = "exact")]
    pub price: Decimal,
    /// Units traded today, at least 0.
    #[serde(default, with = "exact::option")]
    pub volume: Option<Decimal>,
    /// The highest price since the open, as the source says; not compared with `price`.
    #[serde(default, with = "exact::option")]
    pub high: Option<Decimal>,
    /// The lowest price since the open, likewise.
    #[serde(default, with = "exact::option")]
    pub low: Option<Decimal>,
    /// The first price of the day.
    #[serde(default, with = "exact::option")]
    pub open: Option<Decimal>,
    /// The previous day's last price; change and percentage are computed against it.
    #[serde(default, with = "exact::option")]
    pub prev_close: Option<Decimal>,
    /// What the change is against while no previous close is known: a replay's first record of the
    /// day. Not part of a record.
    #[serde(skip)]
    pub reference: Option<Decimal>,
}

impl<'a> Price<'a> {
    /// Parses and checks a record.
    pub fn parse(payload: &'a [u8]) -> Result<Self, ShapeError> {
        let price: Self = checks::record(payload)?;
        checks::symbol(&price.symbol)?;
        checks::not_negative("volume", price.volume)?;
        Ok(price)
    }
}

/// `price − reference`, and that in percent of the reference with two decimals: none against 0.
pub fn change(price: Decimal, reference: Decimal) -> Option<(Decimal, Option<Decimal>)> {
    let change = price.checked_sub(reference)?;
    let percent = change.checked_mul(Decimal::ONE_HUNDRED).and_then(|hundredfold| hundredfold.checked_div(reference));
    let rounded = |percent: Decimal| percent.round_dp_with_strategy(2, RoundingStrategy::MidpointAwayFromZero);
    Some((change, percent.map(|percent| rounded(percent).normalize())))
}

/// A trading signal, as it is published.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TradingSignal<'a> {
    /// `BUY`, `SELL` or `HOLD`.
    #[serde(borrow)]
    pub signal_type: Cow<'a, str>,
    /// 1 to 64 bytes without commas and control characters.
    #[serde(borrow)]
    pub symbol: Cow<'a, str>,
    /// Price per unit, of any sign.
    #[serde(default, with = "exact::option")]
    pub price: Option<Decimal>,
    /// Number of units, at least 0.
    #[serde(default, with = "exact::option")]
    pub quantity: Option<Decimal>,
    /// How sure the signal is, from 0 to 1.
    #[serde(default, with = "exact::option")]
    pub confidence: Option<Decimal>,
    /// RFC 3339, turned into UTC; the time of sending if it is missing.
    #[serde(borrow, default)]
    pub timestamp: Option<Cow<'a, str>>,
}

impl<'a> TradingSignal<'a> {
    /// Parses and checks a record.
    pub fn parse(payload: &'a [u8]) -> Result<Self, ShapeError> {
        let mut signal: Self = checks::record(payload)?;
        if !["BUY", "SELL", "HOLD"].contains(&&*signal.signal_type) {
            return Err(ShapeError::new("signal_type", "expected BUY, SELL or HOLD"));
        }
        checks::symbol(&signal.symbol)?;
        checks::not_negative("quantity", signal.quantity)?;
        if signal.confidence.is_some_and(|value| !(Decimal::ZERO..=Decimal::ONE).contains(&value)) {
            return Err(ShapeError::new("confidence", "expected a number from 0 to 1"));
        }
        signal.timestamp = checks::utc(signal.timestamp)?;
        Ok(signal)
    }

    /// The same record without borrowing from the text it was parsed from.
    pub fn into_owned(self) -> TradingSignal<'static> {
        let Self { signal_type, symbol, price, quantity, confidence, timestamp } = self;
        let [signal_type, symbol] = [signal_type, symbol].map(|text| Cow::Owned(text.into_owned()));
        let timestamp = timestamp.map(|text| Cow::Owned(text.into_owned()));
        TradingSignal { signal_type, symbol, price, quantity, confidence, timestamp }
    }
}

/// An executed trade, as it is published.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Trade<'a> {
    /// 1 to 64 bytes without commas and control characters.
    #[serde(borrow)]
    pub symbol: Cow<'a, str>,
    /// `BUY` or `SELL`, in upper case alone.
    #[serde(borrow)]
    pub side: Cow<'a, str>,
    /// Number of units, at least 0.
    #[serde(default, with = "exact::option")]
    pub quantity: Option<Decimal>,
    /// Price per unit, of any sign.
    #[serde(default, with = "exact::option")]
    pub price: Option<Decimal>,
    /// RFC 3339, turned into UTC; the time of sending if it is missing.
    #[serde(borrow, default)]
    pub timestamp: Option<Cow<'a, str>>,
}

impl<'a> Trade<'a> {
    /// Parses and checks a record.
    pub fn parse(payload: &'a [u8]) -> Result<Self, ShapeError> {
        let mut trade: Self = checks::record(payload)?;
        checks::symbol(&trade.symbol)?;
        if !["BUY", "SELL"].contains(&&*trade.side) {
            return Err(ShapeError::new("side", "expected BUY or SELL"));
        }
        checks::required("quantity", trade.quantity)?;
        checks::required("price", trade.price)?;
        checks::not_negative("quantity", trade.quantity)?;
        trade.timestamp = checks::utc(trade.timestamp)?;
        Ok(trade)
    }

    /// The same record without borrowing from the text it was parsed from.
    pub fn into_owned(self) -> Trade<'static> {
        let Self { symbol, side, quantity, price, timestamp } = self;
        let [symbol, side] = [symbol, side].map(|text| Cow::Owned(text.into_owned()));
        let timestamp = timestamp.map(|text| Cow::Owned(text.into_owned()));
        Trade { symbol, side, quantity, price, timestamp }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn refused<T: std::fmt::Debug>(result: Result<T, ShapeError>) -> String {
        result.unwrap_err().to_string()
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
}
