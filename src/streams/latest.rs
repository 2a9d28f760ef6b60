//! The latest state of the conflated channels: what changed since the last message, and everything
//! for those who join late.
//!
//! Numbers become text at a flush, once per symbol that changed; messages for different sets of
//! symbols are put together from those fragments. What is retained for late joiners is put together
//! at most once per set and flush.

use std::collections::{BTreeMap, HashMap};

use crate::engine::frames::Frames;
use crate::streams::frames;
use crate::wire::streams::messages::{self, PriceState};
use crate::wire::streams::shapes::{Number, Portfolio, Price, change};
use crate::wire::streams::symbols_of_group;

/// A new symbol over the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected at most {limit} symbols (--max-symbols), got one more")]
pub struct TooManySymbols {
    /// The limit.
    pub limit: usize,
}

/// Every symbol's price.
pub struct LatestPrices {
    symbols: BTreeMap<Box<str>, LatestPrice>,
    limit: usize,
    flushed_ms: i64,
    retained: HashMap<Box<str>, Frames>,
}

struct LatestPrice {
    state: PriceState,
    /// The state as it was told last; empty before the first flush.
    fragment: Box<str>,
    /// Changed since the last flush.
    changed: bool,
    /// Changed with the last flush.
    told: bool,
}

impl LatestPrices {
    /// No prices yet.
    pub fn new(limit: usize) -> Self {
        Self { symbols: BTreeMap::new(), limit, flushed_ms: 0, retained: HashMap::new() }
    }

    /// Takes a price. What the record does not say stays as it was known.
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
        let symbol = LatestPrice { state: merged(None, price), fragment: "".into(), changed: true, told: false };
        self.symbols.insert(price.symbol.as_ref().into(), symbol);
        Ok(())
    }

    /// What changed since the last flush is told from now on. False: nothing did.
    pub fn flush(&mut self, unix_ms: i64) -> bool {
        let mut any = false;
        for (name, symbol) in &mut self.symbols {
            symbol.told = std::mem::take(&mut symbol.changed);
            if symbol.told {
                any = true;
                symbol.fragment = messages::price_fragment(name, &symbol.state);
            }
        }
        if any {
            self.flushed_ms = unix_ms;
            self.retained.clear();
        }
        any
    }

    /// The message of the last flush for `group`: its symbols that changed.
    pub fn update_for(&self, group: &str) -> Option<Vec<u8>> {
        self.message(group, |symbol| symbol.told)
    }

    /// Everything `group` carries, as of the last flush.
    pub fn retained(&mut self, group: &str) -> Option<Frames> {
        if let Some(retained) = self.retained.get(group) {
            return Some(retained.clone());
        }
        let message = self.message(group, |symbol| !symbol.fragment.is_empty())?;
        let retained = frames(message, self.flushed_ms);
        self.retained.insert(group.into(), retained.clone());
        Some(retained)
    }

    fn message(&self, group: &str, wanted: impl Fn(&LatestPrice) -> bool) -> Option<Vec<u8>> {
        let wanted = |symbol: &&LatestPrice| wanted(symbol);
        let fragments: Vec<&str> = match symbols_of_group(group) {
            None => self.symbols.values().filter(wanted).map(|symbol| &*symbol.fragment).collect(),
            Some(names) => {
                names.filter_map(|name| self.symbols.get(name)).filter(wanted).map(|symbol| &*symbol.fragment).collect()
            }
        };
        (!fragments.is_empty()).then(|| messages::price_update(fragments.into_iter(), self.flushed_ms))
    }
}

/// The state after `price`. A price beyond the known range of the day widens it.
fn merged(before: Option<&PriceState>, price: &Price<'_>) -> PriceState {
    let known = |new: Option<Number>, old: fn(&PriceState) -> Option<Number>| new.or_else(|| before.and_then(old));
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

/// The one portfolio.
#[derive(Default)]
pub struct LatestPortfolio {
    /// What came last and is told with the next flush.
    next: Option<LatestPositions>,
    told: Option<LatestPositions>,
    flushed_ms: i64,
    retained: HashMap<Box<str>, Frames>,
}

#[derive(PartialEq, Eq)]
struct LatestPositions {
    fragments: BTreeMap<Box<str>, Box<str>>,
    total_pnl: Option<Number>,
    position_count: u64,
}

impl LatestPortfolio {
    /// Takes a portfolio; it replaces the one before.
    pub fn replace(&mut self, portfolio: &Portfolio<'_>) {
        let fragment = |(name, position)| {
            let name: &str = name;
            (name.into(), messages::position_fragment(name, position))
        };
        let positions = LatestPositions {
            fragments: portfolio.positions.iter().map(|(name, position)| fragment((name, position))).collect(),
            total_pnl: portfolio.total_pnl,
            position_count: portfolio.position_count.unwrap_or(portfolio.positions.len() as u64),
        };
        self.next = Some(positions);
    }

    /// What came since the last flush is told from now on. False: nothing did, or it is the same.
    pub fn flush(&mut self, unix_ms: i64) -> bool {
        match self.next.take() {
            Some(next) if self.told.as_ref() != Some(&next) => {
                self.told = Some(next);
                self.flushed_ms = unix_ms;
                self.retained.clear();
                true
            }
            _ => false,
        }
    }

    /// The portfolio as `group` gets it: all positions, or those of its symbols.
    pub fn state_for(&self, group: &str) -> Option<Vec<u8>> {
        let told = self.told.as_ref()?;
        let fragments: Vec<&str> = match symbols_of_group(group) {
            None => told.fragments.values().map(AsRef::as_ref).collect(),
            Some(names) => names.filter_map(|name| told.fragments.get(name)).map(AsRef::as_ref).collect(),
        };
        let (total_pnl, position_count) = (told.total_pnl, told.position_count);
        Some(messages::portfolio_update(fragments.into_iter(), total_pnl, position_count, self.flushed_ms))
    }

    /// The same, for who joins now.
    pub fn retained(&mut self, group: &str) -> Option<Frames> {
        if let Some(retained) = self.retained.get(group) {
            return Some(retained.clone());
        }
        let retained = frames(self.state_for(group)?, self.flushed_ms);
        self.retained.insert(group.into(), retained.clone());
        Some(retained)
    }
}
