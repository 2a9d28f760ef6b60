//! What the server sends on the JSON streams, each message as a finished text frame.
//!
//! Missing values are left out, never null. A message about several symbols is put together from
//! pieces (`"AAPL"` and its `{…}`) that are written once, however many sets of symbols are in use.
//! The order of a structure's fields is their order on the wire.

use std::borrow::Cow;
use std::io::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use super::channels::{Channels, PORTFOLIO};
use super::exact;
use super::filters::Filter;
use super::portfolio::PortfolioPosition;
use super::position::Seqs;
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

/// Where a message stands in its channel.
#[derive(Debug, Clone, Copy)]
pub struct Stamp<'a> {
    /// The epoch that the number belongs to; hexadecimal or base64, so it is a JSON string as it stands.
    pub epoch: &'a str,
    /// The partition that the number counts in; 0 is not written.
    pub partition: u32,
    /// Its number, from 1.
    pub seq: u64,
}

/// A channel's message before its turn has come: everything but its number. What is numbered under a lock is
/// serialized before it.
pub struct Draft {
    /// Room for a frame's header, then a JSON object without its closing brace.
    bytes: Vec<u8>,
}

impl Draft {
    fn new(message: &impl Serialize, payload_bytes: usize) -> Self {
        const USUAL: usize = 240;
        let mut bytes = Vec::with_capacity(websocket::MAX_HEADER + payload_bytes + USUAL);
        bytes.resize(websocket::MAX_HEADER, 0);
        serde_json::to_writer(&mut bytes, message).expect(SERIALIZES);
        bytes.pop();
        Self { bytes }
    }

    /// The finished frame. A message without a stamp is not in its channel's log.
    pub fn finish(self, stamp: Option<Stamp<'_>>) -> Bytes {
        let mut bytes = self.bytes;
        if let Some(Stamp { epoch, partition, seq }) = stamp {
            // Writing to a vector cannot fail.
            let _ = write!(bytes, r#","seq":{seq},"epoch":"{epoch}""#);
            if partition > 0 {
                let _ = write!(bytes, r#","partition":{partition}"#);
            }
        }
        bytes.push(b'}');
        let mut header = Vec::with_capacity(websocket::MAX_HEADER);
        websocket::append_header(Opcode::Text, bytes.len() - websocket::MAX_HEADER, &mut header);
        let start = websocket::MAX_HEADER - header.len();
        bytes[start..websocket::MAX_HEADER].copy_from_slice(&header);
        // A history keeps it: what is not used of the buffer would not be counted.
        bytes.shrink_to_fit();
        Bytes::from(bytes).slice(start..)
    }
}

fn as_text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// Pairs as an object, in their order.
fn as_map<K: Serialize, V: Serialize, S: Serializer>(pairs: &&[(K, V)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(key, value)| (key, value)))
}

/// Appends the answer to a ping.
pub fn append_pong(out: &mut Vec<u8>) {
    websocket::append(Opcode::Text, br#"{"type":"pong"}"#, out);
}

/// What `subscribed` tells of one channel.
#[derive(Debug, Serialize)]
pub struct ChannelState {
    /// The epoch that the channel's messages carry now.
    #[serde(serialize_with = "as_text")]
    pub epoch: Arc<str>,
    /// The numbers of its newest messages.
    pub seq: Seqs,
    /// Whether everything that was missed follows; only of a channel with `since`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovered: Option<bool>,
    /// Why it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// What becomes of the subscription if the client is slow, unless the connection is closed then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<&'static str>,
    /// The limit of that policy, messages of one symbol a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rate: Option<f64>,
}

/// Appends what a client is subscribed to from now on; `subscriptions` are by channel number, and `states` are
/// theirs, in the same order.
pub fn append_subscribed<'a>(
    channels: &Channels,
    subscriptions: impl Iterator<Item = (usize, &'a Filter)> + Clone,
    states: &[ChannelState],
    out: &mut Vec<u8>,
) {
    #[derive(Serialize)]
    #[serde(tag = "type", rename = "subscribed")]
    struct SubscribedMessage<'a> {
        channels: &'a [&'a str],
        #[serde(serialize_with = "as_map", skip_serializing_if = "<[_]>::is_empty")]
        symbols: &'a [(&'a str, Vec<&'a str>)],
        #[serde(serialize_with = "as_map", skip_serializing_if = "<[_]>::is_empty")]
        positions: &'a [(&'a str, &'a ChannelState)],
    }
    let name = |channel: usize| &*channels.all()[channel].name;
    let chosen = subscriptions.clone().filter_map(|(channel, filter)| match filter {
        Filter::All => None,
        Filter::Symbols(symbols) => Some((name(channel), symbols.iter().map(AsRef::as_ref).collect())),
    });
    let symbols: Vec<(&str, Vec<&str>)> = chosen.collect();
    let names: Vec<&str> = subscriptions.map(|(channel, _)| name(channel)).collect();
    let positions: Vec<(&str, &ChannelState)> = names.iter().copied().zip(states).collect();
    append(&SubscribedMessage { channels: &names, symbols: &symbols, positions: &positions }, out);
}

/// Tells which messages of a channel are left out for a client that reads too slowly: `count` of those that it
/// would have got, all of them with numbers from `from` to `to`.
pub fn skipped(channel: &str, epoch: &str, count: u64, (from, to): (&Seqs, &Seqs)) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(tag = "type", rename = "skipped")]
    struct SkippedMessage<'a> {
        channel: &'a str,
        epoch: &'a str,
        count: u64,
        from: &'a Seqs,
        to: &'a Seqs,
    }
    let mut out = Vec::new();
    append(&SkippedMessage { channel, epoch, count, from, to }, &mut out);
    out
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
pub fn message(channel: &str, payload: &[u8], key: Option<&[u8]>, unix_ms: i64) -> Draft {
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
    let length = payload.len();
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
    Draft::new(&PassthroughMessage { channel, payload, encoding, key, key_encoding, timestamp }, length)
}

/// A signal, stamped `unix_ms` unless it has a time of its own.
pub fn signal(signal: &TradingSignal<'_>, unix_ms: i64) -> Draft {
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
    let message = SignalMessage {
        signal_type: &signal.signal_type,
        symbol: &signal.symbol,
        price: signal.price,
        quantity: signal.quantity,
        confidence: signal.confidence,
        timestamp: time_of(signal.timestamp.as_deref(), unix_ms),
    };
    Draft::new(&message, 0)
}

/// An executed trade, stamped likewise.
pub fn trade(trade: &Trade<'_>, unix_ms: i64) -> Draft {
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
    let message = TradeMessage {
        symbol: &trade.symbol,
        side: &trade.side,
        quantity: trade.quantity,
        price: trade.price,
        timestamp: time_of(trade.timestamp.as_deref(), unix_ms),
    };
    Draft::new(&message, 0)
}

fn time_of(own: Option<&str>, unix_ms: i64) -> Cow<'_, str> {
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
    /// Units traded since the open, at least 0.
    pub volume: Option<Decimal>,
    /// The highest price since the open.
    pub high: Option<Decimal>,
    /// The lowest price since the open.
    pub low: Option<Decimal>,
    /// The first price of the day; in a replay that of the recorded day.
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
pub fn price_update(pieces: &[Piece<'_>], unix_ms: i64) -> Draft {
    #[derive(Serialize)]
    #[serde(tag = "type", rename = "price_update")]
    struct PriceUpdate<'a> {
        #[serde(serialize_with = "as_map")]
        symbols: &'a [Piece<'a>],
        timestamp: String,
    }
    let length = pieces.iter().map(|(name, piece)| name.len() + piece.get().len() + 4).sum();
    Draft::new(&PriceUpdate { symbols: pieces, timestamp: rfc3339(unix_ms) }, length)
}

/// A portfolio, or some positions of it; the totals are those of all positions.
pub fn portfolio_update(pieces: &[Piece<'_>], total_pnl: Option<Decimal>, position_count: u64, unix_ms: i64) -> Draft {
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
    let length = pieces.iter().map(|(name, piece)| name.len() + piece.get().len() + 4).sum();
    Draft::new(&PortfolioUpdate { channel: PORTFOLIO, timestamp: rfc3339(unix_ms), data }, length)
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
        let frame = message("lines", br#"{"any": "json", "n": 1.50}"#, Some(b"k1"), NOW).finish(None);
        let expected = concat!(
            r#"{"type":"message","channel":"lines","payload":{"any": "json", "n": 1.50},"key":"k1","#,
            r#""timestamp":"2024-12-19T12:00:00.123Z"}"#
        );
        assert_eq!(text(&frame), expected);
    }

    #[test]
    fn a_number_follows_at_the_end_and_is_all_that_is_added() {
        for payload in ["1", &format!("\"{}\"", "x".repeat(60_000)), &format!("\"{}\"", "x".repeat(70_000))] {
            let plain = message("lines", payload.as_bytes(), None, NOW).finish(None);
            let stamp = Stamp { epoch: "e1", partition: 0, seq: 7 };
            let stamped = message("lines", payload.as_bytes(), None, NOW).finish(Some(stamp));
            let stem = text(&plain).strip_suffix('}').unwrap();
            assert_eq!(text(&stamped), format!(r#"{stem},"seq":7,"epoch":"e1"}}"#));
            let other = message("lines", payload.as_bytes(), None, NOW).finish(Some(Stamp { partition: 3, ..stamp }));
            assert_eq!(text(&other), format!(r#"{stem},"seq":7,"epoch":"e1","partition":3}}"#));
        }
    }

    #[test]
    fn bytes_that_are_no_json_are_base64() {
        for payload in [&b"\xff\x00"[..], b"{", b"", b"1 2", b"\"\xff\""] {
            let frame = parsed(&message("lines", payload, None, NOW).finish(None));
            assert_eq!(frame["encoding"], "base64");
            assert_eq!(STANDARD.decode(frame["payload"].as_str().unwrap()).unwrap(), payload);
            assert_eq!(frame.get("key"), None, "absent, not null");
        }
        assert_eq!(parsed(&message("lines", b"null", Some(b"\xff"), NOW).finish(None))["key_encoding"], "base64");
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
        let update = price_update(&[("AAPL", &*piece), ("A\"B", &*piece)], NOW).finish(None);
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
        assert_eq!(text(&signal(&own.unwrap(), NOW).finish(None)), expected);
        let none = Trade::parse(br#"{"side":"SELL","symbol":"AAPL","price":1,"quantity":10}"#);
        let expected = r#"{"type":"trade_executed","symbol":"AAPL","side":"SELL","quantity":10,"price":1,"timestamp":"2024-12-19T12:00:00.123Z"}"#;
        assert_eq!(text(&trade(&none.unwrap(), NOW).finish(None)), expected);
    }

    #[test]
    fn a_portfolio_names_its_channel() {
        let portfolio =
            Portfolio::parse(br#"{"positions":{"AAPL":{"quantity":10,"average_price":150.25}},"total_pnl":12.5}"#);
        let portfolio = portfolio.unwrap();
        let piece = position_piece("AAPL", &portfolio.positions["AAPL"]);
        let update = parsed(&portfolio_update(&[("AAPL", &*piece)], portfolio.total_pnl, 1, NOW).finish(None));
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
        let some = Filter::of(["AAPL"]);
        let mut out = Vec::new();
        append_subscribed(&channels, [(0, &some), (4, &Filter::All)].into_iter(), &[], &mut out);
        let expected = json!({"type": "subscribed", "channels": ["price_updates", "lines"], "symbols": {"price_updates": ["AAPL"]}});
        assert_eq!(parsed(&out), expected);
        out.clear();
        append_subscribed(&channels, [].into_iter(), &[], &mut out);
        assert_eq!(text(&out), r#"{"type":"subscribed","channels":[]}"#);
        out.clear();
        append_error(&RequestError::new(ErrorCode::TooLarge, "too \"large\""), NOW, &mut out);
        let timestamp = "2024-12-19T12:00:00.123Z";
        let expected = json!({"type": "error", "error": "too \"large\"", "code": "too_large", "timestamp": timestamp});
        assert_eq!(parsed(&out), expected);
    }
}
