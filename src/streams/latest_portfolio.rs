//! The latest portfolio: sent when it changed, and to clients that join later.

use std::collections::BTreeMap;

use bytes::Bytes;
use rust_decimal::Decimal;
use serde_json::value::RawValue;

use super::StateNumber;
use super::encoded::frames;
use super::retained::RetainedMessages;
use crate::engine::frames::Frames;
use crate::wire::streams::messages::{self, Piece};
use crate::wire::streams::portfolio::Portfolio;
use crate::wire::streams::symbols_of_group;

/// The one portfolio that all clients share.
#[derive(Default)]
pub struct LatestPortfolio {
    /// What came last; it is sent at the next flush.
    next: Option<LatestPositions>,
    /// What was sent last.
    sent: Option<LatestPositions>,
    flushed_ms: i64,
    number: StateNumber,
    retained: RetainedMessages,
}

struct LatestPositions {
    pieces: BTreeMap<Box<str>, Box<RawValue>>,
    total_pnl: Option<Decimal>,
    position_count: u64,
}

impl LatestPortfolio {
    /// Replaces the portfolio; the new one is sent at the next flush.
    pub fn replace(&mut self, portfolio: &Portfolio<'_>) {
        let piece = |(name, position)| {
            let name: &str = name;
            (name.into(), messages::position_piece(name, position))
        };
        let positions = LatestPositions {
            pieces: portfolio.positions.iter().map(|(name, position)| piece((name, position))).collect(),
            total_pnl: portfolio.total_pnl,
            position_count: portfolio.position_count.unwrap_or(portfolio.positions.len() as u64),
        };
        self.next = Some(positions);
    }

    /// Makes what came since the last flush the current portfolio, and numbers it. False if nothing came, or it is
    /// the same as before.
    pub fn flush(&mut self, unix_ms: i64, number: impl FnOnce() -> StateNumber) -> bool {
        match self.next.take() {
            Some(next) if self.sent.as_ref().is_none_or(|sent| !sent.is_same(&next)) => {
                self.sent = Some(next);
                (self.flushed_ms, self.number) = (unix_ms, number());
                self.retained.forget();
                true
            }
            _ => false,
        }
    }

    /// The portfolio as `group` gets it: all positions, or those of its symbols.
    pub fn state_for(&self, group: &str) -> Option<Bytes> {
        let sent = self.sent.as_ref()?;
        let pieces: Vec<Piece<'_>> = match symbols_of_group(group) {
            None => sent.pieces.iter().map(|(name, piece)| (&**name, &**piece)).collect(),
            Some(names) => names
                .filter_map(|name| sent.pieces.get_key_value(name))
                .map(|(name, piece)| (&**name, &**piece))
                .collect(),
        };
        let draft = messages::portfolio_update(&pieces, sent.total_pnl, sent.position_count, self.flushed_ms);
        Some(self.number.finish(draft))
    }

    /// The same for a client that joins now.
    pub fn retained(&mut self, group: &str) -> Option<Frames> {
        if let Some(retained) = self.retained.get(group) {
            return Some(retained);
        }
        let retained = frames(self.state_for(group)?, self.flushed_ms);
        self.retained.keep(group, &retained);
        Some(retained)
    }
}

impl LatestPositions {
    fn is_same(&self, other: &Self) -> bool {
        let mut both = self.pieces.iter().zip(&other.pieces);
        (self.pieces.len(), self.total_pnl, self.position_count)
            == (other.pieces.len(), other.total_pnl, other.position_count)
            && both.all(|(one, other)| (one.0, one.1.get()) == (other.0, other.1.get()))
    }
}
