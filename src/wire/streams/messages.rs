//! What the server sends on the JSON streams, each message as a finished text frame.
//!
//! Missing values are left out, never null. A message about several symbols is put together from
//! pieces (`"AAPL"` and its `{…}`) that are written once, however many sets of symbols are in use.
//! The order of a structure's fields is their order on the wire.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use super::channels::{Channels, PORTFOLIO};
use super::exact;
use super::filters::Filter;
use super::portfolio::PortfolioPosition;
use super::request::RequestError;
use super::shapes::{Trade, TradingSignal};
use crate::wire::websocket::{self, Opcode};

/// A symbol, and its object in a message about several symbols.
pub type Piece<'a> = (&'a str, &'a RawValue);

/// UTC with milliseconds: RFC 3339, as every time here. It has the years 0 to 9999; a time outside, which a producer may
/// give a Kafka message, is set to the nearer end.
pub fn rfc3339(unix_ms: i64) -> String {
    const YEAR_0: i64 = -62_167_219_200_000;
    let time = Timestamp::from_millisecond(unix_ms.max(YEAR_0)).unwrap_or(Timestamp::MAX);
    format!("{time:.3}")
}

const SERIALIZES: &str = "strings, numbers and JSON always serialize";

fn append(message: &impl Serialize, out: &mut Vec<u8>) {
    websocket::append(Opcode::Text, &serde_json::to_vec(message).expect(SERIALIZES), out);
}

fn frame(message: &impl Serialize) -> Vec<u8> {
    let json = serde_json::to_vec(message).expect(SERIALIZES);
    let mut frame = Vec::with_capacity(websocket::MAX_HEADER + json.len());
    websocket::append(Opcode::Text, &json, &mut frame);
    frame
}

/// Pairs as an object, in their order.
fn as_map<K: Serialize, V: Serialize, S: Serializer>(pairs: &&[(K, V)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(key, value)| (key, value)))
}

/// Appends the answer to a ping.
pub fn append_pong(out: &mut Vec<u8>) {
    websocket::append(Opcode::Text, br#"{"type":"pong"}"#, out);
}

/// Appends what a client is subscribed to from now on; `subscriptions` are by channel number.
pub fn append_subscribed<'a>(
    channels: &Channels,
    subscriptions: impl Iterator<Item = (usize, &'a Filter)> + Clone,
    out: &mut Vec<u8>,
) {
    #[derive(Serialize)]
    #[serde(tag = "type", rename = "subscribed")]
    struct SubscribedMessage<'a> {
        channels: Vec<&'a str>,
        #[serde(serialize_with = "as_map", skip_serializing_if = "<[_]>::is_empty")]
        symbols: &'a [(&'a str, Vec<&'a str>)],
    }
    let name = |channel: usize| &*channels.all()[channel].name;
    let chosen = subscriptions.clone().filter_map(|(channel, filter)| match filter {
        Filter::All => None,
        Filter::Symbols(symbols) => Some((name(channel), symbols.iter().map(AsRef::as_ref).collect())),
    });
    let symbols: Vec<(&str, Vec<&str>)> = chosen.collect();
    append(
        &SubscribedMessage { channels: subscriptions.map(|(channel, _)| name(channel)).collect(), symbols: &symbols },
        out,
    );
}

/// Appends why a request was refused.
pub fn append_error(error: &RequestError, unix_ms: i64, out: &mut Vec<u8>) {
    #[derive(Serialize)]
    #[serde(tag = "type", rename = "error")]
    struct ErrorMessage<'a> {
        error: &'a str,
        code: &'static str,
        timestamp: String,
    }
    append(&ErrorMessage { error: &error.words, code: error.code.as_str(), timestamp: rfc3339(unix_ms) }, out);
}

/// A message of a passthrough channel: a payload in JSON passes as it is, any other as base64.
pub fn message(channel: &str, payload: &[u8], key: Option<&[u8]>, unix_ms: i64) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Payload<'a> {
        Json(&'a RawValue),
        Base64(String),
    }
    #[derive(Serialize)]
    #[serde(tag = "type", rename = "message")]
    struct PassthroughMessage<'a> {
        channel: &'a str,
        payload: Payload<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        encoding: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<Cow<'a, str>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        key_encoding: Option<&'static str>,
        timestamp: String,
    }
    const BASE64: Option<&str> = Some("base64");
    let json = std::str::from_utf8(payload).ok().and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
    let (payload, encoding) = match json {
        Some(json) => (Payload::Json(json), None),
        None => (Payload::Base64(STANDARD.encode(payload)), BASE64),
    };
    let (key, key_encoding) = match key.map(|key| (key, std::str::from_utf8(key))) {
        Some((_, Ok(key))) => (Some(Cow::Borrowed(key)), None),
        Some((key, Err(_))) => (Some(Cow::Owned(STANDARD.encode(key))), BASE64),
        None => (None, None),
    };
    let timestamp = rfc3339(unix_ms);
    frame(&PassthroughMessage { channel, payload, encoding, key, key_encoding, timestamp })
}

/// A signal, stamped `unix_ms` unless it has a time of its own.
pub fn signal(signal: &TradingSignal<'_>, unix_ms: i64) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(tag = "type", rename = "signal")]
    struct SignalMessage<'a> {
        signal_type: &'a str,
        symbol: &'a str,
        #[serde(with = "exact::option", skip_serializing_if = "Option::is_none")]
        price: Option<Decimal>,
        #[serde(with = "exact::option", skip_serializing_if = "Option::is_none")]
        quantity: Option<Decimal>,
        #[serde(with = "exact::option", skip_serializing_if = "Option::is_none")]
        confidence: Option<Decimal>,
        timestamp: Cow<'a, str>,
    }
    frame(&SignalMessage {
        signal_type: &signal.signal_type,
        symbol: &signal.symbol,
        price: signal.price,
        quantity: signal.quantity,
        confidence: signal.confidence,
        timestamp: stamp(signal.timestamp.as_deref(), unix_ms),
    })
}

/// An executed trade, stamped likewise.
pub fn trade(trade: &Trade<'_>, unix_ms: i64) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(tag = "type", rename = "trade_executed")]
    struct TradeMessage<'a> {
        symbol: &'a str,
        side: &'a str,
        #[serde(with = "exact::option", skip_serializing_if = "Option::is_none")]
        quantity: Option<Decimal>,
        #[serde(with = "exact::option", skip_serializing_if = "Option::is_none")]
        price: Option<Decimal>,
        timestamp: Cow<'a, str>,
    }
    frame(&TradeMessage {
        symbol: &trade.symbol,
        side: &trade.side,
        quantity: trade.quantity,
        price: trade.price,
        timestamp: stamp(trade.timestamp.as_deref(), unix_ms),
    })
}

fn stamp(own: Option<&str>, unix_ms: i64) -> Cow<'_, str> {
    own.map_or_else(|| Cow::Owned(rfc3339(unix_ms)), Cow::Borrowed)
}

/// One symbol's state, as a price update tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceState {
    /// The last price; sent as `close`, too.
    pub price: Decimal,
    /// `price` less the previous close, or less a replay's first price of the day.
    pub change: Option<Decimal>,
    /// The same in percent, two decimals.
    pub change_pct: Option<Decimal>,
    /// Units traded today.
    pub volume: Option<Decimal>,
    /// Today's highest price.
    pub high: Option<Decimal>,
    /// Today's lowest price.
    pub low: Option<Decimal>,
    /// Today's first price.
    pub open: Option<Decimal>,
    /// The previous day's last price.
    pub prev_close: Option<Decimal>,
}

/// A symbol's piece of a price update. `close` is the running close, that is the price.
pub fn price_piece(state: &PriceState) -> Box<RawValue> {
    #[derive(Serialize)]
    struct PriceJson {
        #[serde(with = "exact")]
        price: Decimal,
        #[serde(with = "exact::option", skip_serializing_if = "Option::is_none")]
        change: Option<Decimal>,
        #[serde(with = "exact::option", skip_serializing_if = "Option::is_none")]
        change_pct: Option<Decimal>,
        #[serde(with = "exact::option", skip_serializing_if = "Option::is_none")]
        volume: Option<Decimal>,
        #[serde(with = "exact::option", skip_serializing_if = "Option::is_none")]
        high: Option<Decimal>,
        #[serde(with = "exact::option", skip_serializing_if = "Option::is_none")]
        low: Option<Decimal>,
        #[serde(with = "exact::option", skip_serializing_if = "Option::is_none")]
        open: Option<Decimal>,
        #[serde(with = "exact")]
        close: Decimal,
        #[serde(with = "exact::option", skip_serializing_if = "Option::is_none")]
        prev_close: Option<Decimal>,
    }
    let &PriceState { price, change, change_pct, volume, high, low, open, prev_close } = state;
    to_raw_value(&PriceJson { price, change, change_pct, volume, high, low, open, close: price, prev_close })
        .expect(SERIALIZES)
}

/// A symbol's piece of a portfolio.
pub fn position_piece(symbol: &str, position: &PortfolioPosition) -> Box<RawValue> {
    #[derive(Serialize)]
    struct PositionJson<'a> {
        symbol: &'a str,
        #[serde(with = "exact")]
        quantity: Decimal,
        #[serde(with = "exact::option", skip_serializing_if = "Option::is_none")]
        average_price: Option<Decimal>,
        #[serde(with = "exact::option", skip_serializing_if = "Option::is_none")]
        market_price: Option<Decimal>,
        #[serde(with = "exact::option", skip_serializing_if = "Option::is_none")]
        unrealized_pnl: Option<Decimal>,
        #[serde(with = "exact::option", skip_serializing_if = "Option::is_none")]
        unrealized_pnl_pct: Option<Decimal>,
    }
    let &PortfolioPosition { quantity, average_price, market_price, unrealized_pnl, unrealized_pnl_pct, .. } = position;
    let json = PositionJson { symbol, quantity, average_price, market_price, unrealized_pnl, unrealized_pnl_pct };
    to_raw_value(&json).expect(SERIALIZES)
}

/// A price update of some symbols.
pub fn price_update(pieces: &[Piece<'_>], unix_ms: i64) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(tag = "type", rename = "price_update")]
    struct PriceUpdate<'a> {
        #[serde(serialize_with = "as_map")]
        symbols: &'a [Piece<'a>],
        timestamp: String,
    }
    frame(&PriceUpdate { symbols: pieces, timestamp: rfc3339(unix_ms) })
}

/// A portfolio, or some positions of it; the totals are those of all positions.
pub fn portfolio_update(
    pieces: &[Piece<'_>],
    total_pnl: Option<Decimal>,
    position_count: u64,
    unix_ms: i64,
) -> Vec<u8> {
    #[derive(Serialize)]
    struct PortfolioData<'a> {
        #[serde(serialize_with = "as_map")]
        positions: &'a [Piece<'a>],
        #[serde(with = "exact::option", skip_serializing_if = "Option::is_none")]
        total_pnl: Option<Decimal>,
        position_count: u64,
    }
    #[derive(Serialize)]
    #[serde(tag = "type", rename = "portfolio_update")]
    struct PortfolioUpdate<'a> {
        channel: &'static str,
        timestamp: String,
        data: PortfolioData<'a>,
    }
    let data = PortfolioData { positions: pieces, total_pnl, position_count };
    frame(&PortfolioUpdate { channel: PORTFOLIO, timestamp: rfc3339(unix_ms), data })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::streams::portfolio::Portfolio;
    use crate::wire::streams::request::ErrorCode;
    use crate::wire::streams::shapes::{Price, change};
    use serde_json::{Value, json};

    /// 2024-12-19T12:00:00.123Z
    const NOW: i64 = 1_734_609_600_123;

    fn text(frame: &[u8]) -> &str {
        std::str::from_utf8(websocket::payload(frame)).unwrap()
    }

    fn parsed(frame: &[u8]) -> Value {
        serde_json::from_str(text(frame)).unwrap()
    }

    #[test]
    fn json_passes_through_to_the_byte() {
        let frame = message("lines", br#"{"any": "json", "n": 1.50}"#, Some(b"k1"), NOW);
        let expected = concat!(
            r#"{"type":"message","channel":"lines","payload":{"any": "json", "n": 1.50},"key":"k1","#,
            r#""timestamp":"2024-12-19T12:00:00.123Z"}"#
        );
        assert_eq!(text(&frame), expected);
    }

    #[test]
    fn bytes_that_are_no_json_are_base64() {
        for payload in [&b"\xff\x00"[..], b"{", b"", b"1 2", b"\"\xff\""] {
            let frame = parsed(&message("lines", payload, None, NOW));
            assert_eq!(frame["encoding"], "base64");
            assert_eq!(STANDARD.decode(frame["payload"].as_str().unwrap()).unwrap(), payload);
            assert_eq!(frame.get("key"), None, "absent, not null");
        }
        assert_eq!(parsed(&message("lines", b"null", Some(b"\xff"), NOW))["key_encoding"], "base64");
    }

    #[test]
    fn a_price_update_is_the_documents() {
        let price =
            Price::parse(br#"{"symbol":"AAPL","price":150.25,"volume":1000000,"open":150.0,"prev_close":149.75}"#);
        let price = price.unwrap();
        let (change, change_pct) = change(price.price, price.prev_close.unwrap()).unwrap();
        let state = PriceState {
            price: price.price,
            change: Some(change),
            change_pct,
            volume: price.volume,
            high: None,
            low: None,
            open: price.open,
            prev_close: None,
        };
        let piece = price_piece(&state);
        let update = price_update(&[("AAPL", &*piece), ("A\"B", &*piece)], NOW);
        let one = r#"{"price":150.25,"change":0.50,"change_pct":0.33,"volume":1000000,"open":150.0,"close":150.25}"#;
        let expected = format!(
            r#"{{"type":"price_update","symbols":{{"AAPL":{one},"A\"B":{one}}},"timestamp":"2024-12-19T12:00:00.123Z"}}"#
        );
        assert_eq!(text(&update), expected);
    }

    #[test]
    fn signals_and_trades_keep_a_time_of_their_own() {
        let own = TradingSignal::parse(
            br#"{"signal_type":"BUY","symbol":"AAPL","price":150.25,"timestamp":"2024-01-01T00:00:00Z"}"#,
        );
        let expected = r#"{"type":"signal","signal_type":"BUY","symbol":"AAPL","price":150.25,"timestamp":"2024-01-01T00:00:00Z"}"#;
        assert_eq!(text(&signal(&own.unwrap(), NOW)), expected);
        let none = Trade::parse(br#"{"side":"SELL","symbol":"AAPL","price":1,"quantity":10}"#);
        let expected = r#"{"type":"trade_executed","symbol":"AAPL","side":"SELL","quantity":10,"price":1,"timestamp":"2024-12-19T12:00:00.123Z"}"#;
        assert_eq!(text(&trade(&none.unwrap(), NOW)), expected);
    }

    #[test]
    fn a_portfolio_names_its_channel() {
        let portfolio =
            Portfolio::parse(br#"{"positions":{"AAPL":{"quantity":10,"average_price":150.25}},"total_pnl":12.5}"#);
        let portfolio = portfolio.unwrap();
        let piece = position_piece("AAPL", &portfolio.positions["AAPL"]);
        let update = parsed(&portfolio_update(&[("AAPL", &*piece)], portfolio.total_pnl, 1, NOW));
        let position = json!({"symbol": "AAPL", "quantity": 10, "average_price": 150.25});
        let data = json!({"positions": {"AAPL": position}, "total_pnl": 12.5, "position_count": 1});
        let timestamp = "2024-12-19T12:00:00.123Z";
        let expected =
            json!({"type": "portfolio_update", "channel": "portfolio", "timestamp": timestamp, "data": data});
        assert_eq!(update, expected);
    }

    #[test]
    fn the_answer_to_a_request_tells_channels_and_symbols() {
        let channels = Channels::new(["lines"]);
        let some = Filter::Symbols(["AAPL".into()].into());
        let mut out = Vec::new();
        append_subscribed(&channels, [(0, &some), (4, &Filter::All)].into_iter(), &mut out);
        let expected = json!({"type": "subscribed", "channels": ["price_updates", "lines"], "symbols": {"price_updates": ["AAPL"]}});
        assert_eq!(parsed(&out), expected);
        out.clear();
        append_subscribed(&channels, [].into_iter(), &mut out);
        assert_eq!(text(&out), r#"{"type":"subscribed","channels":[]}"#);
        out.clear();
        append_error(&RequestError::new(ErrorCode::TooLarge, "too \"large\""), NOW, &mut out);
        let timestamp = "2024-12-19T12:00:00.123Z";
        let expected = json!({"type": "error", "error": "too \"large\"", "code": "too_large", "timestamp": timestamp});
        assert_eq!(parsed(&out), expected);
    }
}
