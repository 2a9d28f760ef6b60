//! What the server says on the JSON streams, each as a finished text frame.
//!
//! Absent values are left out, never null. Messages of several symbols are put together from
//! fragments (`"AAPL":{…}`), so that a symbol's numbers are written once however many sets of
//! symbols are in use.

use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::value::RawValue;

use super::request::RequestError;
use super::shapes::{Number, PortfolioPosition, Trade, TradingSignal};
use super::{Channels, Filter};
use crate::wire::websocket::{self, Opcode};

/// UTC with milliseconds: RFC 3339, as every time here.
pub fn rfc3339(unix_ms: i64) -> String {
    Timestamp::from_millisecond(unix_ms).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}

/// A JSON object while it is written. Writing to a string cannot fail.
struct Object(String);

impl Object {
    fn of(kind: &str) -> Self {
        Self(format!(r#"{{"type":"{kind}""#))
    }

    fn nested() -> Self {
        Self("{".to_owned())
    }

    fn name(&mut self, name: &str) {
        if !self.0.ends_with('{') {
            self.0.push(',');
        }
        let _ = write!(self.0, "\"{name}\":");
    }

    /// JSON, as it is.
    fn raw(mut self, name: &str, json: &str) -> Self {
        self.name(name);
        self.0.push_str(json);
        self
    }

    fn text(mut self, name: &str, text: &str) -> Self {
        self.name(name);
        push_text(text, &mut self.0);
        self
    }

    fn number(mut self, name: &str, number: Option<Number>) -> Self {
        if let Some(number) = number {
            self.name(name);
            let _ = write!(self.0, "{number}");
        }
        self
    }

    fn count(mut self, name: &str, count: u64) -> Self {
        self.name(name);
        let _ = write!(self.0, "{count}");
        self
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

fn push_text(text: &str, out: &mut String) {
    // A `str` always serializes.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

fn frame(json: &str) -> Vec<u8> {
    let mut frame = Vec::with_capacity(websocket::MAX_HEADER + json.len());
    websocket::append(Opcode::Text, json.as_bytes(), &mut frame);
    frame
}

/// The answer to a ping.
pub fn append_pong(out: &mut Vec<u8>) {
    websocket::append(Opcode::Text, br#"{"type":"pong"}"#, out);
}

/// What a client is subscribed to from now on; by channel number.
pub fn append_subscribed<'a>(
    channels: &Channels,
    subscriptions: impl Iterator<Item = (usize, &'a Filter)> + Clone,
    out: &mut Vec<u8>,
) {
    let mut names = Vec::new();
    let mut symbols = serde_json::Map::new();
    for (channel, filter) in subscriptions {
        let name = &channels.all()[channel].name;
        names.push(&**name);
        if let Filter::Symbols(of) = filter {
            symbols.insert(name.to_string(), of.iter().map(ToString::to_string).collect());
        }
    }
    let mut answer = serde_json::json!({ "type": "subscribed", "channels": names });
    if !symbols.is_empty() {
        answer["symbols"] = symbols.into();
    }
    websocket::append(Opcode::Text, answer.to_string().as_bytes(), out);
}

/// Why a request was refused.
pub fn append_error(error: &RequestError, unix_ms: i64, out: &mut Vec<u8>) {
    let json = Object::of("error")
        .text("error", &error.words)
        .text("code", error.code.as_str())
        .text("timestamp", &rfc3339(unix_ms));
    websocket::append(Opcode::Text, json.end().as_bytes(), out);
}

/// A topic's message: JSON passes through as it is, anything else as base64.
pub fn message(channel: &str, payload: &[u8], key: Option<&[u8]>, unix_ms: i64) -> Vec<u8> {
    let json = Object::of("message").text("channel", channel);
    let mut json = match std::str::from_utf8(payload).ok().and_then(|text| serde_json::from_str::<&RawValue>(text).ok())
    {
        Some(payload) => json.raw("payload", payload.get()),
        None => json.text("payload", &STANDARD.encode(payload)).text("encoding", "base64"),
    };
    json = match key.map(|key| (key, std::str::from_utf8(key))) {
        Some((_, Ok(key))) => json.text("key", key),
        Some((key, Err(_))) => json.text("key", &STANDARD.encode(key)).text("key_encoding", "base64"),
        None => json,
    };
    frame(&json.text("timestamp", &rfc3339(unix_ms)).end())
}

/// A signal, stamped `unix_ms` unless it has a time of its own.
pub fn signal(signal: &TradingSignal<'_>, unix_ms: i64) -> Vec<u8> {
    let json = Object::of("signal")
        .text("signal_type", &signal.signal_type)
        .text("symbol", &signal.symbol)
        .number("price", signal.price)
        .number("quantity", signal.quantity)
        .number("confidence", signal.confidence);
    frame(&stamped(json, signal.timestamp.as_deref(), unix_ms))
}

/// An executed trade, likewise.
pub fn trade(trade: &Trade<'_>, unix_ms: i64) -> Vec<u8> {
    let json = Object::of("trade_executed")
        .text("symbol", &trade.symbol)
        .text("side", &trade.side)
        .number("quantity", trade.quantity)
        .number("price", trade.price);
    frame(&stamped(json, trade.timestamp.as_deref(), unix_ms))
}

fn stamped(json: Object, own: Option<&str>, unix_ms: i64) -> String {
    match own {
        Some(own) => json.text("timestamp", own).end(),
        None => json.text("timestamp", &rfc3339(unix_ms)).end(),
    }
}

/// One symbol's state, as a price update tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceState {
    /// The last price.
    pub price: Number,
    /// Against the previous close, or a replay's first record of the day.
    pub change: Option<Number>,
    /// That in percent.
    pub change_pct: Option<Number>,
    /// Traded today.
    pub volume: Option<Number>,
    /// Today's highest.
    pub high: Option<Number>,
    /// Today's lowest.
    pub low: Option<Number>,
    /// Today's first.
    pub open: Option<Number>,
    /// The previous day's last.
    pub prev_close: Option<Number>,
}

/// `"AAPL":{…}` of a price update. `close` is the running close, that is the price.
pub fn price_fragment(symbol: &str, state: &PriceState) -> Box<str> {
    let json = Object::nested()
        .number("price", Some(state.price))
        .number("change", state.change)
        .number("change_pct", state.change_pct)
        .number("volume", state.volume)
        .number("high", state.high)
        .number("low", state.low)
        .number("open", state.open)
        .number("close", Some(state.price))
        .number("prev_close", state.prev_close);
    keyed(symbol, &json.end())
}

/// `"AAPL":{…}` of a portfolio.
pub fn position_fragment(symbol: &str, position: &PortfolioPosition) -> Box<str> {
    let json = Object::nested()
        .text("symbol", symbol)
        .number("quantity", Some(position.quantity))
        .number("average_price", position.average_price)
        .number("market_price", position.market_price)
        .number("unrealized_pnl", position.unrealized_pnl)
        .number("unrealized_pnl_pct", position.unrealized_pnl_pct);
    keyed(symbol, &json.end())
}

fn keyed(symbol: &str, json: &str) -> Box<str> {
    let mut fragment = String::with_capacity(symbol.len() + 3 + json.len());
    push_text(symbol, &mut fragment);
    fragment.push(':');
    fragment.push_str(json);
    fragment.into()
}

/// Fragments as one object.
fn join<'a>(fragments: impl Iterator<Item = &'a str>) -> String {
    let mut json = String::from("{");
    for fragment in fragments {
        if json.len() > 1 {
            json.push(',');
        }
        json.push_str(fragment);
    }
    json.push('}');
    json
}

/// A price update of some symbols.
pub fn price_update<'a>(fragments: impl Iterator<Item = &'a str>, unix_ms: i64) -> Vec<u8> {
    let json = Object::of("price_update").raw("symbols", &join(fragments)).text("timestamp", &rfc3339(unix_ms));
    frame(&json.end())
}

/// A portfolio, or some positions of it; the totals are those of all positions.
pub fn portfolio_update<'a>(
    fragments: impl Iterator<Item = &'a str>,
    total_pnl: Option<Number>,
    position_count: u64,
    unix_ms: i64,
) -> Vec<u8> {
    let data = Object::nested()
        .raw("positions", &join(fragments))
        .number("total_pnl", total_pnl)
        .count("position_count", position_count);
    let json = Object::of("portfolio_update")
        .text("channel", crate::wire::streams::PORTFOLIO)
        .text("timestamp", &rfc3339(unix_ms))
        .raw("data", &data.end());
    frame(&json.end())
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Symbols(symbols) => write!(f, "{} symbols", symbols.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::streams::request::ErrorCode;
    use crate::wire::streams::shapes::{Portfolio, Price, change};
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
    fn a_topics_json_passes_through_to_the_byte() {
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
        let fragments = [price_fragment("AAPL", &state), price_fragment("A\"B", &state)];
        let update = price_update(fragments.iter().map(AsRef::as_ref), NOW);
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
        let fragment = position_fragment("AAPL", &portfolio.positions["AAPL"]);
        let update = parsed(&portfolio_update([&*fragment].into_iter(), portfolio.total_pnl, 1, NOW));
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
