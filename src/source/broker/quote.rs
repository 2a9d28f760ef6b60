//! The normalized market-data record: what a broker feed reports, whichever broker it is.
//!
//! ```text
//! Kite packet ──▶ kite::packet ────────┐
//!                                      ├─▶ MarketData ─▶ in-process receivers, `price_updates`
//! XTS event ──▶ xts::{xts_events,partial} ─┘
//! ```
//!
//! Nothing of what the brokers send is lost, and what they did not send is absent, not 0.
//! Source: `docs/protocols/market-data.md`, "The record".

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use rust_decimal::Decimal;
use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};
use tokio::time::Instant;

use super::instrument::{Broker, Exchange, Instrument};
use super::price::{percent_of, shortest};
use crate::engine::system_clock;
use crate::wire::streams::exact;
use crate::wire::streams::shapes::Price;

/// Levels of depth a side has at most.
pub const DEPTH: usize = 5;

/// What a message carried, which may differ from what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum QuoteKind {
    /// The last price, and little more.
    Ltp,
    /// Last price, volumes, the day's range; XTS adds the best bid and ask.
    Quote,
    /// A quote with five levels of depth; from Kite also open interest and times.
    Full,
    /// An index: prices without volume and depth.
    Index,
    /// Five levels of depth without prices of trades.
    Depth,
    /// Open interest without a price.
    Oi,
    /// One bar of 60 s: open, high, low, last price and volume are the bar's, not the day's.
    Candle,
}

/// One level of depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Level {
    /// In rupees.
    #[serde(serialize_with = "as_number")]
    pub price: Decimal,
    /// Units offered or wanted at this price.
    pub quantity: u64,
    /// Number of orders that make up the quantity.
    pub orders: u32,
}

/// One side of the book, best level first. Lies in the record itself: a record is one allocation.
#[derive(Clone, Copy, Default)]
pub struct Levels {
    levels: [Level; DEPTH],
    length: u8,
}

impl Levels {
    /// Appends a level. Levels without quantity are padding and left out, as is what exceeds
    /// [`DEPTH`].
    pub fn push(&mut self, level: Level) {
        let at = usize::from(self.length);
        if level.quantity > 0 && at < DEPTH {
            self.levels[at] = level;
            self.length += 1;
        }
    }
}

impl std::ops::Deref for Levels {
    type Target = [Level];

    fn deref(&self) -> &[Level] {
        &self.levels[..usize::from(self.length)]
    }
}

impl Serialize for Levels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut levels = serializer.serialize_seq(Some(self.len()))?;
        self.iter().try_for_each(|level| levels.serialize_element(level))?;
        levels.end()
    }
}

impl PartialEq for Levels {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Levels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, formatter)
    }
}

/// When our socket gave us a record, taken before it was parsed. In JSON: the milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceivedAt {
    /// Milliseconds since 1970, UTC.
    pub unix_ms: i64,
    /// The same moment on the monotonic clock, to measure from.
    pub at: Instant,
}

impl ReceivedAt {
    /// The present moment, on both clocks.
    pub fn now() -> Self {
        Self { unix_ms: (system_clock::unix_ns() / 1_000_000) as i64, at: Instant::now() }
    }
}

impl Serialize for ReceivedAt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.unix_ms.serialize(serializer)
    }
}

/// Fields that only XTS has. They are kept, not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extra {
    /// `BookType`, as XTS numbers them.
    pub book_type: Option<u32>,
    /// `XMarketType`, or `XTSMarketType` where that is missing.
    pub market_type: Option<u32>,
    /// The value of today's trades, in rupees.
    pub total_value_traded: Option<Decimal>,
    /// `BuyBackTotalBuy`, as XTS counts it.
    pub buy_back_total_buy: Option<u64>,
    /// `BuyBackTotalSell`, as XTS counts it.
    pub buy_back_total_sell: Option<u64>,
}

/// One market-data record. Prices in rupees; what the broker did not send is `None`, and no key in JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MarketData {
    /// Whose feed it came through.
    #[serde(serialize_with = "as_text")]
    pub broker: Broker,
    /// The `id` of its `[[feeds]]` block.
    #[serde(serialize_with = "as_text")]
    pub feed: Arc<str>,
    /// Where the instrument is traded.
    #[serde(serialize_with = "as_text")]
    pub exchange: Exchange,
    /// Kite's instrument token; XTS's exchangeInstrumentID, unique only within an exchange.
    pub instrument_id: u64,
    /// What clients subscribe by.
    #[serde(serialize_with = "as_text")]
    pub symbol: Arc<str>,
    /// What the message carried.
    pub kind: QuoteKind,
    /// `false` for indices; `None` where the broker does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tradable: Option<bool>,
    /// The last trade's price, or an index's value.
    #[serde(serialize_with = "as_number_if_known", skip_serializing_if = "Option::is_none")]
    pub last_price: Option<Decimal>,
    /// The last trade's quantity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_quantity: Option<u64>,
    /// The day's volume-weighted average.
    #[serde(serialize_with = "as_number_if_known", skip_serializing_if = "Option::is_none")]
    pub average_price: Option<Decimal>,
    /// Units traded today; of a candle, in its bar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<u64>,
    /// Units wanted by all buy orders, beyond the levels too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_buy_quantity: Option<u64>,
    /// Units offered by all sell orders, beyond the levels too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_sell_quantity: Option<u64>,
    /// Today's first price; of a candle, its bar's.
    #[serde(serialize_with = "as_number_if_known", skip_serializing_if = "Option::is_none")]
    pub open: Option<Decimal>,
    /// Today's highest price; of a candle, its bar's.
    #[serde(serialize_with = "as_number_if_known", skip_serializing_if = "Option::is_none")]
    pub high: Option<Decimal>,
    /// Today's lowest price; of a candle, its bar's.
    #[serde(serialize_with = "as_number_if_known", skip_serializing_if = "Option::is_none")]
    pub low: Option<Decimal>,
    /// The previous day's close, which both brokers call close.
    #[serde(serialize_with = "as_number_if_known", skip_serializing_if = "Option::is_none")]
    pub prev_close: Option<Decimal>,
    /// Open interest, contracts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oi: Option<u64>,
    /// Its highest value today.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oi_day_high: Option<u64>,
    /// Its lowest value today.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oi_day_low: Option<u64>,
    /// Open interest of the underlying.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub underlying_oi: Option<u64>,
    /// Best first. Empty: not carried, or an empty book; [`Self::kind`] tells.
    #[serde(skip_serializing_if = "no_levels")]
    pub bids: Levels,
    /// Best first, empty as [`Self::bids`].
    #[serde(skip_serializing_if = "no_levels")]
    pub asks: Levels,
    /// When the last trade was, UTC milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_trade_time: Option<i64>,
    /// The exchange's stamp of this update, UTC milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange_time: Option<i64>,
    /// When our socket received it.
    pub received: ReceivedAt,
    /// XTS's SequenceNumber; Kite has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// Fields that only XTS has.
    #[serde(skip)]
    pub extra: Extra,
}

impl MarketData {
    /// A record of which nothing is known yet but what it is about.
    pub fn new(
        broker: Broker,
        feed: &Arc<str>,
        instrument: &Instrument,
        kind: QuoteKind,
        received: ReceivedAt,
    ) -> Self {
        Self {
            broker,
            feed: Arc::clone(feed),
            exchange: instrument.exchange,
            instrument_id: instrument.id,
            symbol: Arc::clone(&instrument.symbol),
            kind,
            tradable: None,
            last_price: None,
            last_quantity: None,
            average_price: None,
            volume: None,
            total_buy_quantity: None,
            total_sell_quantity: None,
            open: None,
            high: None,
            low: None,
            prev_close: None,
            oi: None,
            oi_day_high: None,
            oi_day_low: None,
            underlying_oi: None,
            bids: Levels::default(),
            asks: Levels::default(),
            last_trade_time: None,
            exchange_time: None,
            received,
            sequence: None,
            extra: Extra::default(),
        }
    }

    /// Forgets prices of 0. Before an instrument's first trade brokers send 0 for what does not exist yet; passed on, it
    /// would be a day's low of 0 and a change of −100 %. While the day's low is below 0, as that of a spread may be, 0
    /// is a price like any other; a previous close of 0 is none even then, for no change can be computed against it.
    /// Source: `docs/protocols/market-data.md`, "Rules".
    pub fn forget_zero_prices(&mut self) {
        let goes_below_zero = self.low.is_some_and(|low| low < Decimal::ZERO);
        let day = [&mut self.last_price, &mut self.average_price, &mut self.open, &mut self.high, &mut self.low];
        for price in day.into_iter().filter(|_| !goes_below_zero).chain([&mut self.prev_close]) {
            *price = price.filter(|price| !price.is_zero());
        }
    }

    /// Last price − previous close, rupees, exact.
    pub fn change(&self) -> Option<Decimal> {
        self.last_price?.checked_sub(self.prev_close?)
    }

    /// The change in percent of the previous close, to 6 places; `None` when that is 0.
    pub fn change_pct(&self) -> Option<Decimal> {
        percent_of(self.change()?, self.prev_close?)
    }

    /// Whether it says what an instrument is worth: open interest alone and bars do not.
    pub fn is_price(&self) -> bool {
        self.last_price.is_some() && self.kind != QuoteKind::Candle
    }

    /// The record as a price for the channel `price_updates`; `None` unless [`Self::is_price`].
    pub fn price_update(&self) -> Option<Price<'_>> {
        // Clients see the digits: `1575`, not `1575.00`.
        Some(Price {
            symbol: Cow::Borrowed(&self.symbol),
            price: self.last_price.filter(|_| self.is_price()).map(shortest)?,
            volume: self.volume.map(Decimal::from),
            high: self.high.map(shortest),
            low: self.low.map(shortest),
            open: self.open.map(shortest),
            prev_close: self.prev_close.map(shortest),
            reference: None,
        })
    }

    /// The record as one JSON object with exact numbers, and the change that was computed here.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct WithChange<'a> {
            #[serde(flatten)]
            record: &'a MarketData,
            #[serde(serialize_with = "as_number_if_known", skip_serializing_if = "Option::is_none")]
            change: Option<Decimal>,
            #[serde(serialize_with = "as_number_if_known", skip_serializing_if = "Option::is_none")]
            change_pct: Option<Decimal>,
        }
        let record = WithChange { record: self, change: self.change(), change_pct: self.change_pct() };
        serde_json::to_string(&record).expect("a record has text keys, and decimals are JSON numbers")
    }
}

/// With the digits it has: as a float it might become another number.
fn as_number<S: Serializer>(price: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
    exact::serialize(&shortest(*price), serializer)
}

#[expect(clippy::ref_option, reason = "serde's signature")]
fn as_number_if_known<S: Serializer>(price: &Option<Decimal>, serializer: S) -> Result<S::Ok, S::Error> {
    exact::option::serialize(&price.map(shortest), serializer)
}

fn no_levels(levels: &Levels) -> bool {
    levels.is_empty()
}

fn as_text<S: Serializer>(name: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(symbol: &str, kind: QuoteKind) -> MarketData {
        let instrument = Instrument { symbol: symbol.into(), exchange: Exchange::Nse, id: 408_065 };
        MarketData::new(Broker::Zerodha, &"kite".into(), &instrument, kind, ReceivedAt::now())
    }

    #[test]
    fn price_updates_have_exact_numbers_and_leave_out_what_is_absent() {
        let mut infy = record("INFY", QuoteKind::Quote);
        assert_eq!(infy.price_update(), None, "nothing without a price");
        infy.last_price = Some(Decimal::new(157_315, 2));
        let texts = |record: &MarketData| {
            let update = record.price_update().unwrap();
            let all = [Some(update.price), update.volume, update.high, update.low, update.open, update.prev_close];
            all.map(|number| number.map(|number| number.to_string()).unwrap_or_default())
        };
        assert_eq!(texts(&infy), ["1573.15", "", "", "", "", ""]);
        infy.volume = Some(1_175_986);
        infy.high = Some(Decimal::new(157_500, 2));
        infy.low = Some(Decimal::new(834_525_000, 7));
        infy.open = Some(Decimal::new(0, 2));
        infy.prev_close = Some(Decimal::new(156_780, 2));
        assert_eq!(texts(&infy), ["1573.15", "1175986", "1575", "83.4525", "0", "1567.8"]);
        assert_eq!(infy.change(), Some(Decimal::new(535, 2)));
        assert_eq!(infy.change_pct(), Some(Decimal::new(341_243, 6)));
    }

    #[test]
    fn zeros_are_no_prices_unless_the_day_went_below_zero() {
        let prices = |record: &MarketData| {
            [record.last_price, record.average_price, record.open, record.high, record.low, record.prev_close]
                .map(|price| price.map(|price| price.to_string()))
        };
        let mut record = record("INFY", QuoteKind::Quote);
        let (zero, close) = (Some(Decimal::new(0, 2)), Some(Decimal::new(156_780, 2)));
        (record.last_price, record.average_price, record.prev_close) = (close, zero, close);
        (record.open, record.high, record.low) = (zero, zero, zero);
        record.forget_zero_prices();
        assert_eq!(prices(&record), [Some("1567.80".into()), None, None, None, None, Some("1567.80".into())]);
        (record.last_price, record.open, record.high) = (zero, zero, zero);
        record.forget_zero_prices();
        assert_eq!(record.price_update(), None, "an instrument that has not traded has no price");
        (record.last_price, record.open, record.high, record.low) = (zero, zero, zero, Some(Decimal::new(-5, 2)));
        record.prev_close = zero;
        record.forget_zero_prices();
        let zero = Some("0.00".to_owned());
        assert_eq!(prices(&record), [zero.clone(), None, zero.clone(), zero, Some("-0.05".into()), None]);
    }

    #[test]
    fn json_has_exact_numbers_and_leaves_out_what_is_absent() {
        let mut infy = record("IN\"FY", QuoteKind::Full);
        infy.received.unix_ms = 1;
        infy.last_price = Some(Decimal::new(157_500, 2));
        infy.prev_close = Some(Decimal::new(150_000, 2));
        infy.volume = Some(7);
        infy.bids.push(Level { price: Decimal::new(157_455, 2), quantity: 3, orders: 1 });
        assert_eq!(
            infy.to_json(),
            r#"{"broker":"zerodha","feed":"kite","exchange":"NSE","instrument_id":408065,"symbol":"IN\"FY","kind":"full","last_price":1575,"volume":7,"prev_close":1500,"bids":[{"price":1574.55,"quantity":3,"orders":1}],"received":1,"change":75,"change_pct":5}"#
        );
    }

    #[test]
    fn a_bar_is_not_published_as_the_days_prices() {
        let mut bar = record("INFY", QuoteKind::Candle);
        bar.last_price = Some(Decimal::new(1, 0));
        assert_eq!(bar.price_update(), None);
    }

    #[test]
    fn padding_and_a_sixth_level_are_left_out() {
        let mut levels = Levels::default();
        levels.push(Level::default());
        for quantity in 1..=6 {
            levels.push(Level { quantity, ..Level::default() });
        }
        assert_eq!(levels.iter().map(|level| level.quantity).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    }
}
