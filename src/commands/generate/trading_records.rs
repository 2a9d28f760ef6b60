//! Signals, trades and portfolios of a synthetic day: `{date}/streams/*.jsonl`.
//!
//! They follow the day's own prices: a signal or trade is at its ticker's spot of that second, and the
//! portfolio is what the trades made of it. Whole cents throughout, so the bytes are the same on every
//! platform.

use std::io::{self, Write};

use jiff::Timestamp;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

/// Seconds from one portfolio to the next, no longer than the interval of its updates.
const PORTFOLIO_STEP: usize = 5;

/// Seconds between two records of a kind, at least and at most: whoever connects sees each within 10 s.
const PAUSE: (u64, u64) = (2, 6);

/// The trading streams of a day as JSON lines.
#[derive(Default)]
pub(super) struct TradingDay {
    pub(super) signals: Vec<u8>,
    pub(super) trades: Vec<u8>,
    pub(super) portfolio: Vec<u8>,
    /// Lines in all three.
    pub(super) records: u64,
}

/// What is held of one ticker.
#[derive(Clone, Copy, Default)]
struct Holding {
    quantity: i64,
    /// Paid for it, cents.
    cost: i64,
}

/// Makes the day of `tickers`, whose `spots` are cents, one a second from `opening` on.
pub(super) fn trading_day(
    tickers: &[String],
    spots: &[Vec<i64>],
    opening: i64,
    draws: &mut ChaCha8Rng,
) -> io::Result<TradingDay> {
    let mut day = TradingDay::default();
    let seconds = spots.first().map_or(0, Vec::len);
    let mut held = vec![Holding::default(); tickers.len()];
    let (mut next_signal, mut next_trade) = (1, 2);
    for second in 0..seconds {
        let at = Timestamp::from_second(opening + second as i64).map_err(io::Error::other)?;
        if second == next_signal {
            next_signal += pause(draws);
            signal(&mut day.signals, at, tickers, spots, second, draws)?;
            day.records += 1;
        }
        if second == next_trade {
            next_trade += pause(draws);
            trade(&mut day.trades, at, tickers, spots, second, &mut held, draws)?;
            day.records += 1;
        }
        if second % PORTFOLIO_STEP == 3 {
            portfolio(&mut day.portfolio, at, tickers, spots, second, &held)?;
            day.records += 1;
        }
    }
    Ok(day)
}

/// From 0 up to, not including, `end`.
fn below(draws: &mut ChaCha8Rng, end: u64) -> u64 {
    draws.next_u64() % end
}

fn pause(draws: &mut ChaCha8Rng) -> usize {
    (PAUSE.0 + below(draws, PAUSE.1 - PAUSE.0 + 1)) as usize
}

/// Cents as a number with as many decimals as it needs.
struct Cents(i64);

impl std::fmt::Display for Cents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, part) = (self.0.unsigned_abs() / 100, self.0.unsigned_abs() % 100);
        match part {
            0 => write!(f, "{sign}{whole}"),
            part if part % 10 == 0 => write!(f, "{sign}{whole}.{}", part / 10),
            part => write!(f, "{sign}{whole}.{part:02}"),
        }
    }
}

fn signal(
    to: &mut Vec<u8>,
    at: Timestamp,
    tickers: &[String],
    spots: &[Vec<i64>],
    second: usize,
    draws: &mut ChaCha8Rng,
) -> io::Result<()> {
    let ticker = below(draws, tickers.len() as u64) as usize;
    let kind = ["BUY", "BUY", "SELL", "SELL", "HOLD"][below(draws, 5) as usize];
    let (price, quantity) = (Cents(spots[ticker][second]), 1 + below(draws, 20));
    let confidence = Cents(50 + below(draws, 50) as i64);
    let symbol = &tickers[ticker];
    writeln!(
        to,
        r#"{{"timestamp":"{at}","signal_type":"{kind}","symbol":"{symbol}","price":{price},"quantity":{quantity},"confidence":{confidence}}}"#
    )
}

fn trade(
    to: &mut Vec<u8>,
    at: Timestamp,
    tickers: &[String],
    spots: &[Vec<i64>],
    second: usize,
    held: &mut [Holding],
    draws: &mut ChaCha8Rng,
) -> io::Result<()> {
    let ticker = below(draws, tickers.len() as u64) as usize;
    let holding = &mut held[ticker];
    let price = spots[ticker][second];
    let wanted = 1 + below(draws, 20) as i64;
    // Nothing is sold that is not held, and a large holding is rather made smaller.
    let sells = holding.quantity > 0 && (holding.quantity > 60 || below(draws, 2) == 0);
    let quantity = if sells { wanted.min(holding.quantity) } else { wanted };
    if sells {
        holding.cost -= holding.cost * quantity / holding.quantity;
        holding.quantity -= quantity;
    } else {
        holding.cost += price * quantity;
        holding.quantity += quantity;
    }
    let (side, price, symbol) = (if sells { "SELL" } else { "BUY" }, Cents(price), &tickers[ticker]);
    writeln!(to, r#"{{"timestamp":"{at}","symbol":"{symbol}","side":"{side}","quantity":{quantity},"price":{price}}}"#)
}

fn portfolio(
    to: &mut Vec<u8>,
    at: Timestamp,
    tickers: &[String],
    spots: &[Vec<i64>],
    second: usize,
    held: &[Holding],
) -> io::Result<()> {
    write!(to, r#"{{"timestamp":"{at}","positions":{{"#)?;
    let (mut count, mut total) = (0, 0);
    for (ticker, holding) in held.iter().enumerate().filter(|(_, holding)| holding.quantity > 0) {
        let (symbol, price) = (&tickers[ticker], spots[ticker][second]);
        let pnl = price * holding.quantity - holding.cost;
        let comma = if count > 0 { "," } else { "" };
        write!(
            to,
            r#"{comma}"{symbol}":{{"symbol":"{symbol}","quantity":{},"average_price":{},"market_price":{},"unrealized_pnl":{},"unrealized_pnl_pct":{}}}"#,
            holding.quantity,
            Cents(holding.cost / holding.quantity),
            Cents(price),
            Cents(pnl),
            Cents(pnl * 10_000 / holding.cost.max(1)),
        )?;
        count += 1;
        total += pnl;
    }
    writeln!(to, r#"}},"total_pnl":{},"position_count":{count}}}"#, Cents(total))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::streams::portfolio::Portfolio;
    use crate::wire::streams::shapes::{Trade, TradingSignal};
    use rand_chacha::rand_core::SeedableRng;

    fn day(seed: u8) -> TradingDay {
        let tickers = ["A", "B", "C"].map(str::to_owned);
        let spots: Vec<Vec<i64>> =
            (0..3).map(|at| (0..600).map(|second| 10_000 * (at + 1) + second).collect()).collect();
        trading_day(&tickers, &spots, 1_764_340_200, &mut ChaCha8Rng::from_seed([seed; 32])).unwrap()
    }

    fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
        bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty())
    }

    fn seconds(bytes: &[u8]) -> Vec<i64> {
        let at = |line: &[u8]| serde_json::from_slice::<serde_json::Value>(line).unwrap()["timestamp"].clone();
        lines(bytes).map(|line| at(line).as_str().unwrap().parse::<Timestamp>().unwrap().as_second()).collect()
    }

    #[test]
    fn every_record_has_its_channels_shape() {
        let day = day(1);
        assert!(lines(&day.signals).all(|line| TradingSignal::parse(line).is_ok()));
        assert!(lines(&day.trades).all(|line| Trade::parse(line).is_ok()));
        for line in lines(&day.portfolio) {
            let portfolio = Portfolio::parse(line).unwrap();
            assert_eq!(portfolio.position_count, Some(portfolio.positions.len() as u64));
        }
        let all = [&day.signals, &day.trades, &day.portfolio].map(|bytes| lines(bytes).count() as u64);
        assert_eq!(all.iter().sum::<u64>(), day.records);
    }

    #[test]
    fn each_kind_comes_at_least_every_ten_seconds() {
        let day = day(2);
        for bytes in [&day.signals, &day.trades, &day.portfolio] {
            let mut seconds = seconds(bytes);
            seconds.insert(0, 1_764_340_200);
            assert!(seconds.windows(2).all(|pair| (1..=7).contains(&(pair[1] - pair[0]))));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_day() {
        assert_eq!(day(3).trades, day(3).trades);
        assert_ne!(day(3).trades, day(4).trades);
    }
}
