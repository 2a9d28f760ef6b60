//! The GEX and greek records of a ticker, second by second.

use std::array::from_fn;

use jiff::civil::{Date, Weekday};

use super::category_choice::Category;
use super::json_line::JsonLine;
use super::option_chain::{Greek, Ladder, OptionChain};
use super::past_records::History;
use super::price_series::{Grid, draws};
use crate::wire::gexbot::Package;

/// Today's expiry, the next one, and all later ones together: name, how far they spread, their part in the trading.
const EXPIRIES: [(&str, f64, f64); 3] = [("zero", 1.0, 1.0), ("one", 1.7, 0.45), ("later", 4.0, 0.8)];

/// The place of a price's number within a second's, see [`KEYS`](super::price_series::KEYS), by expiry: the levels of
/// calls, puts, long and short gamma.
const MAJORS: [[usize; 4]; 2] = [[5, 6, 1, 2], [7, 8, 3, 4]];

/// One second of a ticker.
pub struct MarketMoment<'a> {
    /// Unix seconds; the same in all files of a ticker.
    pub timestamp: i64,
    /// The name in the records, such as `ES_SPX`.
    pub ticker: &'a str,
    /// Its numbers, spot first, see [`KEYS`](super::price_series::KEYS).
    pub cents: &'a [i64; 35],
}

/// What the GEX records of a category are made of.
struct GexSeries {
    by_volume: History,
    by_interest: Vec<i64>,
}

/// The options of one ticker.
pub struct OptionBook {
    ladder: Ladder,
    chains: [OptionChain; 3],
    /// Classic full, zero, one; state full, zero, one.
    gex: [GexSeries; 6],
    /// The four greeks of zero, then of one.
    greeks: [History; 8],
    /// Puts traded, of zero and of one.
    puts: [History; 2],
    /// Days to the next expiry after today's.
    next_days: i64,
}

impl OptionBook {
    /// The book before the day's first second; a record shows this many strikes.
    pub fn new(seed: u64, date: Date, ticker: &str, grid: &Grid, shown: usize) -> Self {
        let ladder = Ladder::new(grid, shown);
        let chains = EXPIRIES.map(|(name, spread, share)| {
            OptionChain::new(draws(seed, date, &format!("{ticker}/{name}")), grid, &ladder, spread, share)
        });
        let history = || History::new(ladder.count);
        let gex = from_fn(|_| GexSeries { by_volume: history(), by_interest: vec![0; ladder.count] });
        let next_days = match date.weekday() {
            Weekday::Friday => 3,
            Weekday::Saturday => 2,
            _ => 1,
        };
        Self { ladder, chains, gex, greeks: from_fn(|_| history()), puts: from_fn(|_| history()), next_days }
    }

    /// The next second, at this price in cents.
    pub fn step(&mut self, spot: i64) {
        let position = self.ladder.position(spot);
        let values = self.chains.each_mut().map(|chain| {
            chain.step(position);
            chain.gex(position)
        });
        for (at, series) in self.gex.iter_mut().enumerate() {
            // Full is the sum of all expiries; zero and one are one each.
            let (package, expiries) = match at % 3 {
                0 => (at / 3, &values[..]),
                scope => (at / 3, &values[scope - 1..scope]),
            };
            let sum = |value: usize, place: usize| {
                expiries.iter().map(|values| values.packages[package][value][place]).sum::<i64>()
            };
            series.by_volume.advance().iter_mut().enumerate().for_each(|(place, value)| *value = sum(0, place));
            series.by_interest.iter_mut().enumerate().for_each(|(place, value)| *value = sum(1, place));
        }
        for (chain, (greeks, puts)) in self.chains.iter().zip(self.greeks.chunks_mut(4).zip(&mut self.puts)) {
            for (greek, history) in Greek::ALL.into_iter().zip(greeks) {
                chain.greek(greek, position, history.advance());
            }
            chain.puts(puts.advance());
        }
    }

    /// Writes the second's record of a category, which is not orderflow's.
    pub fn write<'l>(&self, (package, name): Category, moment: &MarketMoment<'_>, line: &'l mut JsonLine) -> &'l [u8] {
        line.begin(moment.timestamp, moment.ticker);
        let (what, expiry) = name.split_once('_').unwrap_or((name, ""));
        let greek = ["delta", "gamma", "vanna", "charm"].iter().position(|&greek| greek == what);
        match greek {
            Some(greek) => self.greek_record(usize::from(expiry == "one"), greek, moment, line),
            None => {
                let scope = ["full", "zero", "one"].iter().position(|&scope| scope == expiry).unwrap_or(0);
                let package = usize::from(package == Package::State);
                self.gex_record(3 * package + scope, scope.saturating_sub(1), moment, line);
            }
        }
        line.end()
    }

    fn gex_record(&self, series: usize, expiry: usize, moment: &MarketMoment<'_>, line: &mut JsonLine) {
        let spot = moment.cents[0];
        let shown = self.ladder.around(spot);
        let GexSeries { by_volume, by_interest } = &self.gex[series];
        let (values, interest, priors) = (by_volume.newest(), &by_interest[..], by_volume.priors());
        let price_of = |place: Option<usize>| place.map_or(0, |place| self.ladder.price(place));
        let highest = |row: &[i64]| price_of(shown.clone().max_by_key(|&place| row[place]));
        let lowest = |row: &[i64]| price_of(shown.clone().min_by_key(|&place| row[place]));
        let sum = |row: &[i64]| row[shown.clone()].iter().sum::<i64>();

        line.key("min_dte").integer(0).key("sec_min_dte").integer(self.next_days);
        line.key("spot").hundredths(spot);
        line.key("zero_gamma").hundredths(self.zero_gamma(values, spot));
        line.key("major_pos_vol").hundredths(highest(values)).key("major_pos_oi").hundredths(highest(interest));
        line.key("major_neg_vol").hundredths(lowest(values)).key("major_neg_oi").hundredths(lowest(interest));
        line.key("strikes").list(shown.clone(), |line, place| {
            line.text("[").hundredths(self.ladder.price(place)).text(",").hundredths(values[place]);
            line.text(",").hundredths(interest[place]).text(",");
            line.list(priors, |line, row| {
                line.hundredths(row[place]);
            });
            line.text("]");
        });
        line.key("sum_gex_vol").hundredths(sum(values)).key("sum_gex_oi").hundredths(sum(interest));
        line.key("delta_risk_reversal").thousandths(self.chains[expiry].risk_reversal());
        // The change of now is counted from the record before.
        let [last, ..] = priors;
        line.key("max_priors").list([last].into_iter().chain(priors), |line, row| {
            let change = |place: usize| values[place] - row[place];
            let place = shown.clone().max_by_key(|&place| change(place).abs()).unwrap_or(0);
            line.text("[").hundredths(self.ladder.price(place)).text(",").hundredths(change(place)).text("]");
        });
    }

    /// The price nearest to `spot` at which the values from the lowest strike on add up to zero; 0 if there is none.
    fn zero_gamma(&self, values: &[i64], spot: i64) -> i64 {
        let (mut sum, mut nearest) = (0, None);
        for place in self.ladder.around(spot) {
            let next = sum + values[place];
            if (sum < 0 && next >= 0) || (sum > 0 && next <= 0) {
                let part = self.ladder.spacing * sum.abs() / (next - sum).abs();
                let price = self.ladder.price(place) - self.ladder.spacing + part;
                nearest = nearest.into_iter().chain([price]).min_by_key(|price: &i64| (price - spot).abs());
            }
            sum = next;
        }
        nearest.unwrap_or(0)
    }

    fn greek_record(&self, expiry: usize, greek: usize, moment: &MarketMoment<'_>, line: &mut JsonLine) {
        let spot = moment.cents[0];
        let majors = MAJORS[expiry].map(|place| moment.cents[place]);
        line.key("spot").hundredths(spot);
        line.key("min_dte").integer(0).key("sec_min_dte").integer(self.next_days);
        let keys = ["major_positive", "major_negative", "major_long_gamma", "major_short_gamma"];
        for (key, major) in keys.into_iter().zip(majors) {
            line.key(key).hundredths(major);
        }
        let (history, puts) = (&self.greeks[4 * expiry + greek], &self.puts[expiry]);
        let (values, priors) = (history.newest(), history.priors());
        let (traded, traded_before) = (puts.newest(), puts.priors());
        line.key("mini_contracts").list(self.ladder.around(spot), |line, place| {
            let strike = self.ladder.price(place);
            let [call, put] = self.chains[expiry].volatility(strike, spot);
            line.text("[").hundredths(strike).text(",").thousandths(call).text(",").thousandths(put);
            line.text(",").hundredths(values[place]).text(",");
            line.list(priors, |line, row| {
                line.hundredths(row[place]);
            });
            match traded[place] {
                0 => line.text(",null,null"),
                puts => line.text(",").integer(puts).text(",").list(traded_before, |line, row| {
                    line.integer(row[place]);
                }),
            };
            line.text("]");
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::generate::category_choice::{CategoryChoice, chosen};
    use crate::commands::generate::past_records::LAGS;
    use crate::commands::generate::price_series::PricePath;
    use crate::wire::gexbot::Series;
    use crate::wire::payload::{Noticed, Record};

    const DATE: Date = Date::constant(2025, 11, 28);

    /// Calls `each` with every record of the first seconds.
    fn records(ticker: &str, seconds: u32, mut each: impl FnMut(Category, &[u8], Record)) {
        let mut prices = PricePath::new(1, DATE, ticker);
        let mut book = OptionBook::new(1, DATE, ticker, &prices.grid(), 40);
        let mut line = JsonLine::default();
        let categories = chosen(&["classic", "state"].map(|text| text.parse::<CategoryChoice>().unwrap()));
        for second in 0..seconds {
            let cents = prices.step(second);
            book.step(cents[0]);
            let moment = MarketMoment { timestamp: i64::from(second), ticker, cents: &cents };
            for &category in &categories {
                let text = book.write(category, &moment, &mut line).trim_ascii_end();
                let kind = Series::records(category.0, category.1).unwrap().kind();
                let parsed = Record::parse(kind, text).unwrap();
                assert_eq!(parsed.noticed, Noticed::default(), "{category:?}: {}", String::from_utf8_lossy(text));
                each(category, text, parsed.record);
            }
        }
    }

    #[test]
    fn every_record_is_accepted_and_nothing_in_it_is_odd() {
        let mut count = 0;
        for ticker in ["SPX", "NQ_NDX", "ABC"] {
            records(ticker, 40, |_, _, record| {
                count += 1;
                assert_eq!(record.ticker(), ticker);
            });
        }
        assert_eq!(count, 3 * 40 * 14);
    }

    #[test]
    fn sums_majors_and_zero_gamma_are_those_of_the_strikes() {
        records("SPX", 40, |category, text, record| {
            let Record::Gex(record) = record else { return };
            let value_of = |price| record.strikes.iter().find(|strike| strike.strike_price == price).unwrap();
            let by_volume = || record.strikes.iter().map(|strike| strike.value_1);
            assert_eq!(record.sum_gex_vol, 10 * by_volume().sum::<i32>());
            assert_eq!(record.sum_gex_oi, 10 * record.strikes.iter().map(|strike| strike.value_2).sum::<i32>());
            assert_eq!(value_of(record.major_pos_vol).value_1, by_volume().max().unwrap());
            assert_eq!(value_of(record.major_neg_vol).value_1, by_volume().min().unwrap());
            let span = record.strikes[0].strike_price - 500..=record.strikes[39].strike_price;
            assert!(record.zero_gamma == 0 || span.contains(&record.zero_gamma), "{category:?}");
            assert!(span.contains(&record.spot), "{}", String::from_utf8_lossy(text));
        });
    }

    #[test]
    fn priors_are_the_values_of_records_before() {
        let mut seen = Vec::new();
        records("SPX", 45, |category, _, record| {
            if let (Record::Gex(record), (Package::Classic, "gex_full")) = (record, category) {
                seen.push(record);
            }
        });
        let last = seen.last().unwrap();
        for (place, lag) in LAGS.into_iter().enumerate() {
            let before = &seen[seen.len() - 1 - lag];
            for strike in &last.strikes {
                let then = before.strikes.iter().find(|other| other.strike_price == strike.strike_price);
                let prior = strike.priors.as_ref().unwrap().values[place];
                assert!(then.is_none_or(|then| then.value_1 == prior), "{lag} records before");
            }
        }
        assert_eq!(last.max_priors.as_ref().unwrap().tuples.len(), 6);
        let moves =
            |strike: &crate::wire::payload::gex::Strike| strike.priors.as_ref().unwrap().values[4] != strike.value_1;
        assert!(last.strikes.iter().any(moves));
    }
}
