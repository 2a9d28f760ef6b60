//! What XTS says about one instrument, whichever way it said it.
//!
//! ```text
//! json-full event, snapshot ─▶ events ──┐
//!                                       ├─▶ Fields ─▶ MarketData
//! json-partial event ─▶ partial (merged) ┘
//! ```
//!
//! Source: `docs/protocols/market-data.md`, "Mapping".

use std::sync::Arc;

use rust_decimal::Decimal;

use crate::source::broker::instrument::{Broker, Exchange, Instrument};
use crate::source::broker::quote::{DEPTH, Extra, Level, Levels, MarketData, QuoteKind, ReceivedAt};

/// The message codes that carry market data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// 1501: last trade, the day's prices, best bid and ask.
    Touchline,
    /// 1502: the touchline and five levels of depth.
    Depth,
    /// 1505: bars of 60 s.
    Candle,
    /// 1507: an exchange's session begins or ends.
    MarketStatus,
    /// 1510: open interest, of the instrument and of what underlies it.
    OpenInterest,
    /// 1512: the last price.
    Ltp,
}

impl Code {
    /// Every code, by its number.
    pub const ALL: [Self; 6] =
        [Self::Touchline, Self::Depth, Self::Candle, Self::MarketStatus, Self::OpenInterest, Self::Ltp];

    /// As the wire writes it.
    pub const fn number(self) -> u16 {
        match self {
            Self::Touchline => 1501,
            Self::Depth => 1502,
            Self::Candle => 1505,
            Self::MarketStatus => 1507,
            Self::OpenInterest => 1510,
            Self::Ltp => 1512,
        }
    }

    /// The code of a number.
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|code| u64::from(code.number()) == number)
    }
}

/// An instrument as XTS names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// `exchangeSegment`, such as 1 for NSE; see [`exchange`].
    pub segment: u16,
    /// `exchangeInstrumentID`, unique only within its segment.
    pub id: u64,
}

/// The exchange of a segment. Indices are traded nowhere but have their exchange's segment; the
/// configuration tells them.
pub fn exchange(segment: u16) -> Exchange {
    SEGMENTS.into_iter().find(|(number, _)| *number == segment).map_or(Exchange::Unknown(segment), |(_, name)| name)
}

/// The segment of an exchange, for symbols such as `NSE:2885`.
pub fn segment(exchange: Exchange) -> Option<u16> {
    SEGMENTS.into_iter().find(|(_, name)| *name == exchange).map(|(number, _)| number)
}

const SEGMENTS: [(u16, Exchange); 15] = [
    (1, Exchange::Nse),
    (2, Exchange::Nfo),
    (3, Exchange::Cds),
    (4, Exchange::Nco),
    (5, Exchange::Slbm),
    (7, Exchange::Nifsc),
    (11, Exchange::Bse),
    (12, Exchange::Bfo),
    (13, Exchange::Bcd),
    (14, Exchange::Bco),
    (21, Exchange::Ncdex),
    (41, Exchange::Mse),
    (42, Exchange::Msefo),
    (43, Exchange::Msecd),
    (51, Exchange::Mcx),
];

/// What is known of one instrument by one code. Names and units as in
/// [`MarketData`].
#[derive(Debug, Clone, PartialEq, Default)]
#[expect(missing_docs, reason = "as in `MarketData`")]
pub struct Fields {
    pub last_price: Option<Decimal>,
    pub last_quantity: Option<u64>,
    pub average_price: Option<Decimal>,
    pub volume: Option<u64>,
    pub total_buy_quantity: Option<u64>,
    pub total_sell_quantity: Option<u64>,
    pub open: Option<Decimal>,
    pub high: Option<Decimal>,
    pub low: Option<Decimal>,
    pub prev_close: Option<Decimal>,
    pub oi: Option<u64>,
    pub underlying_oi: Option<u64>,
    /// By their index; levels without quantity are padding.
    pub bids: [Level; DEPTH],
    /// By their index; levels without quantity are padding.
    pub asks: [Level; DEPTH],
    pub last_trade_time: Option<i64>,
    pub exchange_time: Option<i64>,
    pub sequence: Option<u64>,
    pub extra: Extra,
}

impl Fields {
    /// The record of these fields.
    pub fn market_data(
        &self,
        code: Code,
        broker: Broker,
        feed: &Arc<str>,
        instrument: &Instrument,
        received: ReceivedAt,
    ) -> MarketData {
        let is_index = instrument.exchange.is_index();
        let mut record = MarketData::new(broker, feed, instrument, self.kind(code, is_index), received);
        record.tradable = Some(!is_index);
        record.last_price = self.last_price;
        record.last_quantity = self.last_quantity;
        record.average_price = self.average_price;
        record.volume = self.volume;
        record.total_buy_quantity = self.total_buy_quantity;
        record.total_sell_quantity = self.total_sell_quantity;
        (record.open, record.high, record.low) = (self.open, self.high, self.low);
        record.prev_close = self.prev_close;
        (record.oi, record.underlying_oi) = (self.oi, self.underlying_oi);
        (record.bids, record.asks) = (levels(&self.bids, is_index), levels(&self.asks, is_index));
        record.last_trade_time = self.last_trade_time;
        record.exchange_time = self.exchange_time;
        record.sequence = self.sequence;
        record.extra = self.extra;
        record.forget_zero_prices();
        record
    }

    fn kind(&self, code: Code, is_index: bool) -> QuoteKind {
        match code {
            Code::Touchline | Code::Depth if is_index => QuoteKind::Index,
            Code::Touchline => QuoteKind::Quote,
            Code::Depth if self.last_price.is_some() => QuoteKind::Full,
            Code::Depth => QuoteKind::Depth,
            Code::Candle => QuoteKind::Candle,
            Code::OpenInterest => QuoteKind::Oi,
            Code::Ltp | Code::MarketStatus => QuoteKind::Ltp,
        }
    }
}

fn levels(raw: &[Level; DEPTH], is_index: bool) -> Levels {
    let mut levels = Levels::default();
    // A price of 0 in an index's book says that there is no book.
    raw.iter().filter(|level| !(is_index && level.price.is_zero())).for_each(|level| levels.push(*level));
    levels
}
