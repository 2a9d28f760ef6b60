//! The score: what follows the common clock on the JSON streams.
//!
//! ```text
//! positions of the tracks      ─▶ open, high, low, last ─▶ price_updates (see DayPrices)
//! time of the clock            ─▶ {date}/streams/{channel}.jsonl ─▶ signals, trades, portfolio (see Trading)
//! ```

use std::sync::Arc;

use super::day_prices::DayPrices;
use super::market::Market;
use super::stand::Stand;
use super::trading::Trading;
use crate::streams::Streams;

/// The recorded days on the JSON streams.
pub struct Score {
    streams: Arc<Streams>,
    prices: Arc<DayPrices>,
    /// By date of the market.
    days: Vec<Trading>,
    /// By date: the track that tells the time of a clock that counts slots.
    references: Vec<Option<usize>>,
}

impl Score {
    /// The trading records of each date of a market.
    pub fn new(streams: Arc<Streams>, prices: Arc<DayPrices>, days: Vec<Trading>, market: &Market) -> Self {
        let reference = |(day, trading): (usize, &Trading)| {
            let covered = |at: &usize| market.tracks[*at].span().map_or(0, |span| trading.count(span));
            // Of several the first.
            market.days[day].tracks.clone().rev().max_by_key(covered)
        };
        let references = days.iter().enumerate().map(reference).collect();
        Self { streams, prices, days, references }
    }

    /// The track of a date whose time covers most of the trading records: futures may begin hours before.
    pub fn reference(&self, day: usize) -> Option<usize> {
        self.references.get(day).copied().flatten()
    }

    /// The clock has gone on, from one time to another, Unix ms.
    pub fn follow(&mut self, stand: &Stand, from_ms: i64, to_ms: i64) {
        self.prices.follow(stand);
        if let Some(trading) = self.days.get(stand.day()) {
            let shift = stand.market().days[stand.day()].shift;
            trading.play(&self.streams, from_ms.div_euclid(1000) - shift, to_ms.div_euclid(1000) - shift);
        }
    }

    /// The clock stands elsewhere: what is kept for late joiners is what it was at that time, Unix ms.
    pub fn stand(&mut self, stand: &Stand, now_ms: i64) {
        self.prices.stand(stand);
        if let Some(trading) = self.days.get(stand.day()) {
            // What is due at this very time comes with the next tick.
            let before = (now_ms - 1).div_euclid(1000);
            trading.stand(&self.streams, before - stand.market().days[stand.day()].shift);
        }
    }
}
