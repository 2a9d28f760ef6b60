//! The prices of the replayed tickers at the clock's position, for the JSON streams.

use std::sync::{Mutex, PoisonError};

use rust_decimal::Decimal;

use crate::streams::Streams;
use crate::wire::streams::shapes::Price;

/// Each ticker's day so far. The clock writes it, a price update reads it.
pub struct DayPrices {
    tickers: Mutex<Vec<TickerPrices>>,
}

/// One ticker's day so far, in hundredths; 0 while no record had a price.
struct TickerPrices {
    ticker: String,
    open: u32,
    high: u32,
    low: u32,
    last: u32,
}

impl DayPrices {
    /// No price yet.
    pub fn new<'a>(tickers: impl Iterator<Item = &'a str>) -> Self {
        let prices = |ticker: &str| TickerPrices { ticker: ticker.to_owned(), open: 0, high: 0, low: 0, last: 0 };
        Self { tickers: Mutex::new(tickers.map(prices).collect()) }
    }

    /// Adds the prices of one tick: each ticker by its place, with whether its day begins anew.
    pub fn tick(&self, prices: impl Iterator<Item = (usize, u32, bool)>) {
        let mut tickers = self.tickers.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, spot, begins) in prices {
            let ticker = &mut tickers[place];
            if begins {
                (ticker.open, ticker.high, ticker.low, ticker.last) = (0, 0, 0, 0);
            }
            // 0 stands for a number that was missing.
            if spot > 0 {
                let is_first = ticker.open == 0;
                ticker.open = if is_first { spot } else { ticker.open };
                ticker.low = if is_first { spot } else { ticker.low.min(spot) };
                (ticker.high, ticker.last) = (ticker.high.max(spot), spot);
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
