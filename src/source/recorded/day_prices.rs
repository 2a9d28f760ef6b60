//! The prices of the replayed tickers at the clock's position, for the JSON streams.

use std::slice;
use std::sync::{Mutex, PoisonError};

use rust_decimal::Decimal;

use super::index::Index;
use super::stand::Stand;
use crate::streams::Streams;
use crate::wire::streams::shapes::Price;

/// Each ticker's day so far. The clock writes it, a price update reads it.
#[derive(Default)]
pub struct DayPrices {
    tickers: Mutex<Vec<TickerPrices>>,
}

/// One ticker's day so far, in hundredths; 0 while no record had a price.
struct TickerPrices {
    ticker: String,
    /// The track that has its prices.
    track: usize,
    /// Slots of it that are counted.
    counted: u64,
    open: u32,
    high: u32,
    low: u32,
    last: u32,
}

impl DayPrices {
    /// The clock has gone elsewhere: every ticker's day is what it was up to there.
    pub fn stand(&self, stand: &Stand) {
        let market = stand.market();
        let anew = stand.tickers(stand.day()).map(|tracks| {
            let (ticker, track) = (market.tracks[tracks.start].ticker().to_owned(), tracks.start);
            TickerPrices { ticker, track, counted: 0, open: 0, high: 0, low: 0, last: 0 }
        });
        *self.tickers.lock().unwrap_or_else(PoisonError::into_inner) = anew.collect();
        self.follow(stand);
    }

    /// The clock has gone on.
    pub fn follow(&self, stand: &Stand) {
        let mut tickers = self.tickers.lock().unwrap_or_else(PoisonError::into_inner);
        for ticker in tickers.iter_mut() {
            let (index, next) = (stand.market().tracks[ticker.track].index(), stand.places()[ticker.track].next());
            match next {
                // The file begins anew with the next tick; until then the day is the one that was.
                0 if ticker.counted > 0 => ticker.counted = u64::MAX,
                _ => ticker.count(index, next),
            }
        }
    }

    /// Offers the price of every ticker as it stands now.
    pub fn offer(&self, streams: &Streams) {
        let mut any = false;
        for ticker in
            self.tickers.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|ticker| ticker.last > 0)
        {
            let cents = |cents: u32| Decimal::new(i64::from(cents), 2);
            any |= streams
                .offer_price(&Price {
                    symbol: ticker.ticker.as_str().into(),
                    price: cents(ticker.last),
                    volume: None,
                    high: Some(cents(ticker.high)),
                    low: Some(cents(ticker.low)),
                    open: Some(cents(ticker.open)),
                    prev_close: None,
                    reference: Some(cents(ticker.open)),
                })
                .is_ok();
        }
        if any {
            streams.prices_moved();
        }
    }
}

impl TickerPrices {
    /// Counts the slots before `next`.
    fn count(&mut self, index: &Index, next: u64) {
        if next < self.counted {
            (self.counted, self.open, self.high, self.low, self.last) = (0, 0, 0, 0, 0);
        }
        while self.counted < next
            && let Some(block) = index.find(self.counted)
        {
            let slots = index.slots_of(block);
            let upto = next.min(slots.end);
            let prices = index.spots_of(block);
            let range = (self.counted - slots.start) as usize..(upto - slots.start) as usize;
            // One alone stands for all of them.
            let prices = if let [same] = prices { slice::from_ref(same) } else { prices.get(range).unwrap_or(&[]) };
            // 0 stands for a number that was missing.
            for &spot in prices.iter().filter(|&&spot| spot > 0) {
                let is_first = self.open == 0;
                self.open = if is_first { spot } else { self.open };
                self.low = if is_first { spot } else { self.low.min(spot) };
                (self.high, self.last) = (self.high.max(spot), spot);
            }
            self.counted = upto;
        }
    }
}
