//! Kite's binary messages: a count, then packets told apart by their length alone.
//!
//! ```text
//! u16 count │ u16 length │ packet │ u16 length │ packet │ …      all big-endian
//! ```
//!
//! What lies wholly inside the frame is delivered; at the first packet that does not, decoding
//! stops with one [`Fault`] and the connection lives on. A packet of unknown length is skipped.
//! Source: `docs/protocols/kite.md`, "Binary messages", "Packets", "Price unit", "Sign".

use std::sync::Arc;

use crate::source::broker::instrument::{Broker, Exchange, Instrument};
use crate::source::broker::price::decimal;
use crate::source::broker::quote::{DEPTH, Level, MarketData, QuoteKind, ReceivedAt};

/// One packet. Prices are integers, in units of its segment; times are seconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// The instrument; its low byte is the segment.
    pub token: u32,
    /// Digits of its prices behind the point.
    pub places: u32,
    /// The last price, or an index's value.
    pub last_price: i32,
    /// The fields besides the last price.
    pub body: Body,
}

/// What a packet carries besides the last price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// 8 bytes: the last price only.
    Ltp,
    /// 28 or 32 bytes: an index. The longer one has a time.
    Index {
        /// Today's open, high and low, and the previous day's close.
        day: DayPrices,
        /// The exchange's stamp; 0 if it has none.
        exchange_time: u32,
    },
    /// 44 bytes: what mode `quote` brings.
    Quote(Quote),
    /// 184 bytes: what mode `full` brings.
    Full(Quote, Full),
}

/// Today's prices; `close` is the previous day's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of the exchange")]
pub struct DayPrices {
    pub open: i32,
    pub high: i32,
    pub low: i32,
    pub close: i32,
}

/// What mode `quote` brings besides the last price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote {
    /// Quantity of the last trade.
    pub last_quantity: u32,
    /// The day's average price.
    pub average_price: i32,
    /// Units traded today.
    pub volume: u32,
    /// Units wanted by all buy orders.
    pub total_buy_quantity: u32,
    /// Units offered by all sell orders.
    pub total_sell_quantity: u32,
    /// Today's open, high and low, and the previous day's close.
    pub day: DayPrices,
}

/// What mode `full` brings besides a quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// Of the last trade; 0 if there was none.
    pub last_trade_time: u32,
    /// Open interest, contracts.
    pub oi: u32,
    /// Its highest value today.
    pub oi_day_high: u32,
    /// Its lowest value today.
    pub oi_day_low: u32,
    /// The exchange's stamp of this packet; 0 if there is none.
    pub exchange_time: u32,
    /// Best first, padding included.
    pub bids: [RawLevel; DEPTH],
    /// Best first, padding included.
    pub asks: [RawLevel; DEPTH],
}

/// One level of depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "as in `Level`")]
pub struct RawLevel {
    pub quantity: u32,
    pub price: i32,
    pub orders: u16,
}

/// What is wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The packet is skipped, the rest is read. Lengths may grow some day.
    #[error("expected a packet of 8, 28, 32, 44 or 184 bytes, got {0}")]
    UnknownLength(usize),
    /// The packet is skipped, the rest is read: its prices could be wrong by a factor of 100 or more.
    #[error("expected an instrument of a segment with a documented price unit ({segments}), got segment {0}", segments = SEGMENTS)]
    UnknownSegment(u8),
    /// The rest of the frame is not read.
    #[error("expected {missing} more packets, but the frame ends {short} bytes too early")]
    Truncated {
        /// Packets announced and not there.
        missing: u16,
        /// Bytes that lack for the next one.
        short: usize,
    },
    /// All packets were there.
    #[error("expected the frame's end, got {0} more bytes")]
    TrailingBytes(usize),
}

/// The packets of one frame, in its order, and what is wrong with it.
#[derive(Debug, Clone)]
pub struct Packets<'a> {
    rest: &'a [u8],
    left: u16,
    /// Faults that end the frame are told once.
    ended: bool,
}

/// Whether a binary frame is a heartbeat, which counts as life only. The client libraries skip
/// frames of different sizes; no message is shorter than its count.
pub fn is_heartbeat(frame: &[u8]) -> bool {
    frame.len() < 2
}

/// The packets of a binary frame that is no heartbeat.
pub fn packets(frame: &[u8]) -> Packets<'_> {
    match frame.split_first_chunk() {
        Some((count, rest)) => Packets { rest, left: u16::from_be_bytes(*count), ended: false },
        None => Packets { rest: &[], left: 0, ended: true },
    }
}

impl Iterator for Packets<'_> {
    type Item = Result<Packet, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        if self.left == 0 {
            self.ended = true;
            let trailing = self.rest.len();
            return (trailing > 0).then_some(Err(Fault::TrailingBytes(trailing)));
        }
        let Some((length, rest)) = self.rest.split_first_chunk() else {
            return Some(Err(self.truncated(2 - self.rest.len())));
        };
        let length = usize::from(u16::from_be_bytes(*length));
        let Some((packet, rest)) = rest.split_at_checked(length) else {
            return Some(Err(self.truncated(length - rest.len())));
        };
        (self.rest, self.left) = (rest, self.left - 1);
        Some(Packet::read(packet))
    }
}

impl Packets<'_> {
    fn truncated(&mut self, short: usize) -> Fault {
        self.ended = true;
        Fault::Truncated { missing: self.left, short }
    }
}

impl Packet {
    fn read(packet: &[u8]) -> Result<Self, Fault> {
        Self::body(packet).map_or(Err(Fault::UnknownLength(packet.len())), |body| {
            let token = u(packet, 0);
            let places = places(token).ok_or(Fault::UnknownSegment(token as u8))?;
            Ok(Self { token, places, last_price: i(packet, 4), body })
        })
    }

    /// `None` for a length that nobody documents.
    fn body(packet: &[u8]) -> Option<Body> {
        Some(match packet.len() {
            8 => Body::Ltp,
            // Index packets carry high, low, open, close; the others open, high, low, close.
            // Offset 24 holds a change that no official client trusts: ours is computed.
            28 | 32 => Body::Index {
                day: DayPrices { high: i(packet, 8), low: i(packet, 12), open: i(packet, 16), close: i(packet, 20) },
                exchange_time: if packet.len() == 32 { u(packet, 28) } else { 0 },
            },
            44 => Body::Quote(Quote::read(packet.first_chunk()?)),
            184 => Body::Full(Quote::read(packet.first_chunk()?), Full::read(packet.first_chunk()?)),
            _ => return None,
        })
    }
}

impl Quote {
    fn read(packet: &[u8; 44]) -> Self {
        Self {
            last_quantity: u(packet, 8),
            average_price: i(packet, 12),
            volume: u(packet, 16),
            total_buy_quantity: u(packet, 20),
            total_sell_quantity: u(packet, 24),
            day: DayPrices { open: i(packet, 28), high: i(packet, 32), low: i(packet, 36), close: i(packet, 40) },
        }
    }
}

impl Full {
    fn read(packet: &[u8; 184]) -> Self {
        Self {
            last_trade_time: u(packet, 44),
            oi: u(packet, 48),
            oi_day_high: u(packet, 52),
            oi_day_low: u(packet, 56),
            exchange_time: u(packet, 60),
            bids: std::array::from_fn(|at| RawLevel::read(packet, 64 + 12 * at)),
            asks: std::array::from_fn(|at| RawLevel::read(packet, 124 + 12 * at)),
        }
    }
}

impl RawLevel {
    fn read(packet: &[u8; 184], at: usize) -> Self {
        // The last two bytes are padding, which older documents read into the orders.
        let orders = u16::from_be_bytes([packet[at + 8], packet[at + 9]]);
        Self { quantity: u(packet, at), price: i(packet, at + 4), orders }
    }
}

/// Prices are signed: spreads and some commodities go below zero.
fn i(packet: &[u8], at: usize) -> i32 {
    u(packet, at).cast_signed()
}

/// The caller has checked the length.
fn u(packet: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
}

/// The segment of a token, as an exchange. Kite does not tell whose index it is; the configuration
/// may.
pub fn exchange(token: u32) -> Exchange {
    match token & 0xff {
        1 => Exchange::Nse,
        2 => Exchange::Nfo,
        3 => Exchange::Cds,
        4 => Exchange::Bse,
        5 => Exchange::Bfo,
        6 => Exchange::Bcd,
        7 => Exchange::Mcx,
        8 => Exchange::Mcxsx,
        9 => Exchange::NseIndex,
        12 => Exchange::Nco,
        other => Exchange::Unknown(other as u16),
    }
}

/// The segments whose price unit is documented, as error messages name them.
pub const SEGMENTS: &str = "1 to 9 or 12, the low byte of the instrument token";

/// How many digits of an instrument's prices stand behind the point; `None` for a segment whose price unit nobody
/// documents.
pub const fn places(token: u32) -> Option<u32> {
    match token & 0xff {
        3 => Some(7),
        6 | 12 => Some(4),
        1..=9 => Some(2),
        _ => None,
    }
}

impl Packet {
    /// The record of this packet. `instrument` is that of its token.
    pub fn market_data(&self, feed: &Arc<str>, instrument: &Instrument, received: ReceivedAt) -> MarketData {
        let places = self.places;
        let kind = match self.body {
            Body::Ltp => QuoteKind::Ltp,
            Body::Index { .. } => QuoteKind::Index,
            Body::Quote(_) => QuoteKind::Quote,
            Body::Full(..) => QuoteKind::Full,
        };
        let mut record = MarketData::new(Broker::Zerodha, feed, instrument, kind, received);
        record.tradable = Some(self.token & 0xff != 9);
        record.last_price = Some(decimal(self.last_price.into(), places));
        match &self.body {
            Body::Ltp => {}
            Body::Index { day, exchange_time } => {
                day.fill(&mut record, places);
                record.exchange_time = milliseconds(*exchange_time);
            }
            Body::Quote(quote) => quote.fill(&mut record, places),
            Body::Full(quote, full) => {
                quote.fill(&mut record, places);
                full.fill(&mut record, places);
            }
        }
        record.forget_zero_prices();
        record
    }
}

impl DayPrices {
    fn fill(&self, record: &mut MarketData, places: u32) {
        let price = |price: i32| Some(decimal(price.into(), places));
        (record.open, record.high, record.low) = (price(self.open), price(self.high), price(self.low));
        record.prev_close = price(self.close);
    }
}

impl Quote {
    fn fill(&self, record: &mut MarketData, places: u32) {
        record.last_quantity = Some(self.last_quantity.into());
        record.average_price = Some(decimal(self.average_price.into(), places));
        record.volume = Some(self.volume.into());
        record.total_buy_quantity = Some(self.total_buy_quantity.into());
        record.total_sell_quantity = Some(self.total_sell_quantity.into());
        self.day.fill(record, places);
    }
}

impl Full {
    fn fill(&self, record: &mut MarketData, places: u32) {
        record.last_trade_time = milliseconds(self.last_trade_time);
        record.exchange_time = milliseconds(self.exchange_time);
        record.oi = Some(self.oi.into());
        record.oi_day_high = Some(self.oi_day_high.into());
        record.oi_day_low = Some(self.oi_day_low.into());
        self.bids.iter().for_each(|level| record.bids.push(level.priced(places)));
        self.asks.iter().for_each(|level| record.asks.push(level.priced(places)));
    }
}

impl RawLevel {
    fn priced(self, places: u32) -> Level {
        let price = decimal(self.price.into(), places);
        Level { price, quantity: self.quantity.into(), orders: self.orders.into() }
    }
}

/// 0 means that there is no time.
fn milliseconds(seconds: u32) -> Option<i64> {
    (seconds > 0).then_some(i64::from(seconds) * 1000)
}
