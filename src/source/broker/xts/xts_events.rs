//! `json-full` events and the snapshots in subscription answers: JSON objects with long names.
//!
//! 1501 comes flat (right after subscribing) and nested under `Touchline`; both are read. A field
//! of an odd type is absent, its message is not lost. Numbers are read from their text, so prices are
//! exact. Source: `docs/protocols/xts.md`, "Full events"; `tests/fixtures/xts`.

use std::fmt;

use rust_decimal::Decimal;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::event_fields::{Code, Fields, Key};
use super::time;
use crate::source::broker::price;
use crate::source::broker::quote::{DEPTH, Extra, Level};

/// What an event or a snapshot says.
#[derive(Debug, Clone, PartialEq)]
pub enum XtsUpdate {
    /// New values of an instrument.
    Data(Key, Code, Box<Fields>),
    /// Something about an exchange's session, such as that it has closed. At most 200 characters.
    Market(String),
}

/// Why an event cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EventFault {
    /// The payload is not the JSON it should be.
    #[error("expected a JSON object: {0}")]
    NotJson(#[from] serde_json::Error),
    /// It names no instrument.
    #[error("expected ExchangeSegment and ExchangeInstrumentID, as numbers")]
    NoInstrument,
    /// A snapshot does not tell what it is.
    #[error("expected a MessageCode of 1501, 1502, 1505, 1507, 1510 or 1512")]
    UnknownCode,
    /// A partial event is not `t:<segment>_<instrument>,key:value,…`.
    #[error("expected t:<segment>_<instrument> first")]
    NotPartial,
}

type Raw<'a> = Option<&'a RawValue>;

/// One message. The touchline's fields stand at its top level or below `Touchline`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct QuoteMessage<'a> {
    #[serde(borrow, rename = "MessageCode")]
    code: Raw<'a>,
    #[serde(borrow)]
    exchange_segment: Raw<'a>,
    #[serde(borrow, rename = "ExchangeInstrumentID")]
    exchange_instrument_id: Raw<'a>,
    #[serde(borrow)]
    exchange_time_stamp: Raw<'a>,
    #[serde(borrow)]
    sequence_number: Raw<'a>,
    #[serde(borrow)]
    book_type: Raw<'a>,
    #[serde(borrow, rename = "XMarketType")]
    x_market_type: Raw<'a>,
    #[serde(borrow, rename = "XTSMarketType")]
    xts_market_type: Raw<'a>,
    #[serde(borrow)]
    touchline: Option<Box<QuoteMessage<'a>>>,
    bids: Option<Side<DEPTH>>,
    asks: Option<Side<DEPTH>>,
    bid_info: Option<Side<1>>,
    ask_info: Option<Side<1>>,
    #[serde(borrow)]
    last_traded_price: Raw<'a>,
    /// Misspelt on the wire.
    #[serde(borrow, rename = "LastTradedQunatity")]
    last_traded_qunatity: Raw<'a>,
    /// Newer SDKs spell it right.
    #[serde(borrow)]
    last_traded_quantity: Raw<'a>,
    #[serde(borrow)]
    total_buy_quantity: Raw<'a>,
    #[serde(borrow)]
    total_sell_quantity: Raw<'a>,
    #[serde(borrow)]
    total_traded_quantity: Raw<'a>,
    #[serde(borrow)]
    average_traded_price: Raw<'a>,
    #[serde(borrow)]
    last_traded_time: Raw<'a>,
    #[serde(borrow)]
    last_update_time: Raw<'a>,
    #[serde(borrow)]
    open: Raw<'a>,
    #[serde(borrow)]
    high: Raw<'a>,
    #[serde(borrow)]
    low: Raw<'a>,
    #[serde(borrow)]
    close: Raw<'a>,
    #[serde(borrow)]
    total_value_traded: Raw<'a>,
    #[serde(borrow)]
    buy_back_total_buy: Raw<'a>,
    #[serde(borrow)]
    buy_back_total_sell: Raw<'a>,
    #[serde(borrow)]
    bar_time: Raw<'a>,
    #[serde(borrow)]
    bar_volume: Raw<'a>,
    #[serde(borrow)]
    open_interest: Raw<'a>,
    #[serde(borrow)]
    underlying_total_open_interest: Raw<'a>,
    #[serde(borrow, rename = "message")]
    text: Raw<'a>,
}

/// Reads the payload of a `<code>-json-full` event: an object, or an array of them. Of an array, what
/// can be read is told; the last fault is the answer.
pub fn full(code: Code, json: &str, now_ms: i64, mut each: impl FnMut(XtsUpdate)) -> Result<(), EventFault> {
    let mut one = |json: &str| {
        let message: QuoteMessage = serde_json::from_str(json)?;
        each(message.said(code, now_ms)?);
        Ok(())
    };
    if !json.trim_ascii_start().starts_with('[') {
        return one(json);
    }
    let messages: Vec<&RawValue> = serde_json::from_str(json)?;
    messages.into_iter().map(|message| one(message.get())).fold(Ok(()), Result::and)
}

/// Reads one snapshot of a subscription's answer, which tells its code itself.
pub fn snapshot(json: &str, now_ms: i64) -> Result<XtsUpdate, EventFault> {
    let message: QuoteMessage = serde_json::from_str(json)?;
    let code = message.code.and_then(integer).and_then(Code::from_number).ok_or(EventFault::UnknownCode)?;
    message.said(code, now_ms)
}

impl QuoteMessage<'_> {
    fn said(&self, code: Code, now_ms: i64) -> Result<XtsUpdate, EventFault> {
        if code == Code::MarketStatus {
            let text = self.text.map_or("", RawValue::get).trim_matches('"');
            return Ok(XtsUpdate::Market(text.chars().filter(|character| !character.is_control()).take(200).collect()));
        }
        let segment = self.exchange_segment.and_then(integer).and_then(|segment| u16::try_from(segment).ok());
        let id = self.exchange_instrument_id.and_then(integer);
        let (Some(segment), Some(id)) = (segment, id) else { return Err(EventFault::NoInstrument) };
        let fields = match code {
            Code::Candle => self.bar(),
            _ => self.quote(segment, now_ms),
        };
        Ok(XtsUpdate::Data(Key { segment, id }, code, Box::new(fields)))
    }

    fn bar(&self) -> Fields {
        Fields {
            open: self.open.and_then(price),
            high: self.high.and_then(price),
            low: self.low.and_then(price),
            last_price: self.close.and_then(price),
            volume: self.bar_volume.and_then(integer),
            oi: self.open_interest.and_then(integer),
            exchange_time: self.bar_time.and_then(integer).and_then(time::bar),
            ..Fields::default()
        }
    }

    fn quote(&self, segment: u16, now_ms: i64) -> Fields {
        let line = self.touchline.as_deref().unwrap_or(self);
        let time = |raw: Raw| raw.and_then(integer).and_then(|seconds| time::touchline(segment, seconds, now_ms));
        // Depth where it is carried, else the touchline's best level.
        let side = |levels: Option<Side<DEPTH>>, best: Option<Side<1>>| match (levels, best) {
            (Some(Side(levels)), _) => levels,
            (None, Some(Side([best]))) => {
                let mut levels = [Level::default(); DEPTH];
                levels[0] = best;
                levels
            }
            (None, None) => [Level::default(); DEPTH],
        };
        Fields {
            last_price: line.last_traded_price.and_then(price),
            last_quantity: line.last_traded_qunatity.or(line.last_traded_quantity).and_then(integer),
            average_price: line.average_traded_price.and_then(price),
            volume: line.total_traded_quantity.and_then(integer),
            total_buy_quantity: line.total_buy_quantity.and_then(integer),
            total_sell_quantity: line.total_sell_quantity.and_then(integer),
            open: line.open.and_then(price),
            high: line.high.and_then(price),
            low: line.low.and_then(price),
            prev_close: line.close.and_then(price),
            oi: self.open_interest.and_then(integer),
            underlying_oi: self.underlying_total_open_interest.and_then(integer),
            bids: side(self.bids, line.bid_info),
            asks: side(self.asks, line.ask_info),
            last_trade_time: time(line.last_traded_time),
            exchange_time: time(line.last_update_time).or_else(|| time(self.exchange_time_stamp)),
            sequence: self.sequence_number.and_then(integer),
            extra: Extra {
                book_type: small(self.book_type.or(line.book_type)),
                market_type: small(self.x_market_type.or(line.x_market_type).or(self.xts_market_type)),
                total_value_traded: line.total_value_traded.and_then(price),
                buy_back_total_buy: line.buy_back_total_buy.and_then(integer),
                buy_back_total_sell: line.buy_back_total_sell.and_then(integer),
            },
        }
    }
}

fn small(raw: Raw) -> Option<u32> {
    raw.and_then(integer).and_then(|number| u32::try_from(number).ok())
}

fn unquoted(raw: &RawValue) -> &str {
    let text = raw.get();
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

/// A whole number that is not negative, also as `1.0` or `"1"`.
fn integer(raw: &RawValue) -> Option<u64> {
    let text = unquoted(raw);
    text.parse().ok().or_else(|| {
        let value = price::parse(text)?;
        if value.is_integer() { u64::try_from(value).ok() } else { None }
    })
}

/// A number, or a string that holds one.
fn price(raw: &RawValue) -> Option<Decimal> {
    price::parse(unquoted(raw))
}

/// The best levels of one side of the book, as a list or as one level alone; what is neither has none.
/// They are most of an event, so they are read where they stand and not, as the other fields are, from
/// their text.
#[derive(Clone, Copy)]
struct Side<const LEVELS: usize>([Level; LEVELS]);

impl<const LEVELS: usize> Side<LEVELS> {
    const NONE: Self = Self([Level { price: Decimal::ZERO, quantity: 0, orders: 0 }; LEVELS]);
}

impl<'de, const LEVELS: usize> Deserialize<'de> for Side<LEVELS> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SideVisitor)
    }
}

/// A field of a level.
#[derive(Deserialize)]
#[serde(field_identifier)]
enum LevelField {
    Size,
    Price,
    TotalOrders,
    #[serde(other)]
    Other,
}

struct SideVisitor<const LEVELS: usize>;

impl<'de, const LEVELS: usize> Visitor<'de> for SideVisitor<LEVELS> {
    type Value = Side<LEVELS>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of levels, or one")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut side = Side::NONE;
        for level in &mut side.0 {
            let Some(Side([read])) = items.next_element()? else { return Ok(side) };
            *level = read;
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(side)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut side = Side::NONE;
        let level = &mut side.0[0];
        while let Some(name) = fields.next_key()? {
            match name {
                LevelField::Size => level.quantity = fields.next_value::<Raw>()?.and_then(integer).unwrap_or_default(),
                LevelField::Price => level.price = fields.next_value::<Raw>()?.and_then(price).unwrap_or_default(),
                LevelField::TotalOrders => level.orders = small(fields.next_value()?).unwrap_or_default(),
                LevelField::Other => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        Ok(side)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Side::NONE)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Side::NONE)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Side::NONE)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Side::NONE)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Side::NONE)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Side::NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(sides: &str) -> Fields {
        let json = format!(r#"{{"ExchangeSegment":1,"ExchangeInstrumentID":2885,{sides}}}"#);
        let mut read = None;
        full(Code::Depth, &json, 0, |said| read = Some(said)).unwrap();
        let Some(XtsUpdate::Data(_, _, fields)) = read else { panic!("{json}") };
        *fields
    }

    #[test]
    fn levels_of_an_odd_shape_are_absent_and_the_rest_is_read() {
        let level = Level { price: Decimal::new(12_345, 2), quantity: 7, orders: 2 };
        let good = r#"{"Size":7,"Price":123.45,"TotalOrders":2,"More":[{}]}"#;
        for odd in ["1", "-1", "1.5", "true", "\"x\"", "null", "[]"] {
            let read = depth(&format!(r#""Bids":[{odd},{good},{good},{good},{good},{good},{odd}],"Asks":{odd}"#));
            assert_eq!(read.bids, [Level::default(), level, level, level, level], "{odd}");
            assert_eq!(read.asks, [Level::default(); DEPTH], "{odd}");
            let read =
                depth(&format!(r#""Bids":[{{"Size":{odd},"Price":"123.45"}}],"Sequence":{odd},"AskInfo":{good}"#));
            assert_eq!(read.bids[0].price, level.price, "{odd}");
            assert_eq!(read.asks[0], level, "{odd}");
        }
    }
}
