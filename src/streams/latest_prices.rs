//! The latest price of every symbol: what changed since the last price update, and everything for
//! clients that join later.
//!
//! Numbers become text at a flush, once per symbol that changed; messages for different sets of
//! symbols are put together from those pieces. What is retained for late joiners is put together
//! once per set and flush.

use std::collections::BTreeMap;

use bytes::Bytes;
use rust_decimal::Decimal;
use serde_json::value::RawValue;

use super::StateNumber;
use super::encoded::frames;
use super::retained::RetainedMessages;
use crate::engine::frames::Frames;
use crate::wire::streams::messages::{self, Piece, PriceState};
use crate::wire::streams::shapes::{Price, change};
use crate::wire::streams::symbols_of_group;

/// A price of a new symbol, when the server already keeps as many symbols as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected at most {limit} symbols (--max-symbols), got one more")]
pub struct TooManySymbols {
    /// How many symbols may have a price at once: `--max-symbols`.
    pub limit: usize,
}

/// The latest price of every symbol.
pub struct LatestPrices {
    symbols: BTreeMap<Box<str>, LatestPrice>,
    limit: usize,
    flushed_ms: i64,
    number: StateNumber,
    retained: RetainedMessages,
}

struct LatestPrice {
    state: PriceState,
    /// The state as of the last flush; `None` before the first.
    piece: Option<Box<RawValue>>,
    /// Whether the price changed since the last flush.
    changed: bool,
    /// Whether the last flush brought a change.
    flushed: bool,
}

impl LatestPrices {
    /// No prices yet, and never more than `limit` of them.
    pub fn new(limit: usize) -> Self {
        Self {
            symbols: BTreeMap::new(),
            limit,
            flushed_ms: 0,
            number: StateNumber::default(),
            retained: RetainedMessages::default(),
        }
    }

    /// Updates a symbol's price. Fields that the record lacks keep their values.
    pub fn update(&mut self, price: &Price<'_>) -> Result<(), TooManySymbols> {
        if let Some(symbol) = self.symbols.get_mut(&*price.symbol) {
            let state = merged(Some(&symbol.state), price);
            symbol.changed |= state != symbol.state;
            symbol.state = state;
            return Ok(());
        }
        if self.symbols.len() >= self.limit {
            return Err(TooManySymbols { limit: self.limit });
        }
        let symbol = LatestPrice { state: merged(None, price), piece: None, changed: true, flushed: false };
        self.symbols.insert(price.symbol.as_ref().into(), symbol);
        Ok(())
    }

    /// Makes what changed since the last flush the current state, and numbers it. False if nothing did.
    pub fn flush(&mut self, unix_ms: i64, number: impl FnOnce() -> StateNumber) -> bool {
        let mut any = false;
        for symbol in self.symbols.values_mut() {
            symbol.flushed = std::mem::take(&mut symbol.changed);
            if symbol.flushed {
                any = true;
                symbol.piece = Some(messages::price_piece(&symbol.state));
            }
        }
        if any {
            (self.flushed_ms, self.number) = (unix_ms, number());
            self.retained.forget();
        }
        any
    }

    /// The message of the last flush for `group`: its symbols that changed.
    pub fn update_for(&self, group: &str) -> Option<Bytes> {
        self.message(group, |symbol| symbol.flushed)
    }

    /// Everything `group` carries, as of the last flush.
    pub fn retained(&mut self, group: &str) -> Option<Frames> {
        if let Some(retained) = self.retained.get(group) {
            return Some(retained);
        }
        let message = self.message(group, |_| true)?;
        let retained = frames(message, self.flushed_ms);
        self.retained.keep(group, &retained);
        Some(retained)
    }

    /// The message for `group` of those of its symbols that are `wanted` and have been flushed.
    fn message(&self, group: &str, wanted: impl Fn(&LatestPrice) -> bool) -> Option<Bytes> {
        let pieces: Vec<Piece<'_>> = match symbols_of_group(group) {
            None => self.symbols.iter().filter_map(|(name, symbol)| symbol.piece(name, &wanted)).collect(),
            Some(names) => names
                .filter_map(|name| self.symbols.get_key_value(name))
                .filter_map(|(name, symbol)| symbol.piece(name, &wanted))
                .collect(),
        };
        (!pieces.is_empty()).then(|| self.number.finish(messages::price_update(&pieces, self.flushed_ms)))
    }
}

impl LatestPrice {
    fn piece<'a>(&'a self, name: &'a str, wanted: impl Fn(&Self) -> bool) -> Option<Piece<'a>> {
        self.piece.as_deref().filter(|_| wanted(self)).map(|piece| (name, piece))
    }
}

/// The state after `price`. A price beyond the known range of the day widens it.
fn merged(before: Option<&PriceState>, price: &Price<'_>) -> PriceState {
    let known = |new: Option<Decimal>, old: fn(&PriceState) -> Option<Decimal>| new.or_else(|| before.and_then(old));
    let prev_close = known(price.prev_close, |before| before.prev_close);
    let change = prev_close.or(price.reference).and_then(|reference| change(price.price, reference));
    PriceState {
        price: price.price,
        change: change.map(|(change, _)| change),
        change_pct: change.and_then(|(_, percent)| percent),
        volume: known(price.volume, |before| before.volume),
        high: known(price.high, |before| before.high).map(|high| high.max(price.price)),
        low: known(price.low, |before| before.low).map(|low| low.min(price.price)),
        open: known(price.open, |before| before.open),
        prev_close,
    }
}
