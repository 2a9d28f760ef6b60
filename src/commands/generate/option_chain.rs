//! The options of a ticker, by strike: what is held and traded, and what follows from it for the records.
//!
//! As in [`price_series`](super::price_series), only + − × ÷ and the square root are used: IEEE 754 fixes their last
//! bit.

use std::array::from_fn;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use super::price_series::{Grid, bell, uniform, wander};

/// The strikes of one ticker that a day may need, from the lowest on, and which of them a record shows.
#[derive(Debug, Clone, Copy)]
pub struct Ladder {
    /// Cents between two strikes.
    pub spacing: i64,
    /// The lowest strike, counted in spacings from zero.
    pub lowest: i64,
    /// How many there are.
    pub count: usize,
    /// How many a record shows.
    pub shown: usize,
}

impl Ladder {
    /// Strikes for a day that stays within some 8 % of the last close.
    pub fn new(grid: &Grid, shown: usize) -> Self {
        let close = (grid.level * 100.0) as i64 / grid.strike;
        let reach = shown as i64 / 2 + close * 8 / 100 + 2;
        let lowest = (close - reach).max(1);
        let count = (close + reach + 1 - lowest).max(shown as i64) as usize;
        Self { spacing: grid.strike, lowest, count, shown }
    }

    /// A strike's price in cents.
    pub fn price(&self, place: usize) -> i64 {
        (self.lowest + place as i64) * self.spacing
    }

    /// Where `cents` lies, in strikes from the lowest.
    pub fn position(&self, cents: i64) -> f64 {
        cents as f64 / self.spacing as f64 - self.lowest as f64
    }

    /// The strikes that a record shows at this price: around it, as far as there are any.
    pub fn around(&self, spot: i64) -> std::ops::Range<usize> {
        let nearest = (spot + self.spacing / 2) / self.spacing - self.lowest;
        let first = (nearest - self.shown as i64 / 2).clamp(0, (self.count - self.shown) as i64) as usize;
        first..first + self.shown
    }
}

/// A strike's call and put.
struct Pair {
    /// Contracts held overnight: calls, puts.
    held: [f64; 2],
    /// Contracts traded today.
    traded: [f64; 2],
    /// How much of the trading at this strike is in calls, in puts.
    taste: [f64; 2],
    /// How far the holders of this strike lean to the long side, −1 to 1.
    lean: f64,
}

/// One expiry's options.
pub struct OptionChain {
    draws: ChaCha8Rng,
    pairs: Vec<Pair>,
    /// How many strikes away gamma is still large.
    width: f64,
    /// Its part in the ticker's trading.
    size: f64,
    /// Values that drift at random: the leaning of all strikes, the four greeks' size, the volatility, the risk
    /// reversal.
    moods: [f64; 7],
}

/// The values by strike of GEX records, in hundredths.
pub struct GexValues {
    /// Of classic and of state: each by volume and by open interest.
    pub packages: [[Vec<i64>; 2]; 2],
}

/// Which greek a record is of, in the order of the categories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greek {
    /// The value by the price of the underlying.
    Delta,
    /// Delta by price.
    Gamma,
    /// Delta by volatility.
    Vanna,
    /// Delta by time.
    Charm,
}

impl Greek {
    /// The four, in the order of the categories.
    pub const ALL: [Self; 4] = [Self::Delta, Self::Gamma, Self::Vanna, Self::Charm];

    /// Of an option `u` widths above the price; between −1 and 1. Gamma is delta's slope, and vanna gamma's.
    fn of(self, u: f64) -> f64 {
        let square = 1.0 + u * u;
        let root = square.sqrt();
        match self {
            Self::Delta => 0.5 - 0.5 * u / root,
            Self::Gamma => 1.0 / (square * root),
            Self::Vanna => 3.0 * u / (square * square * root),
            Self::Charm => -u / (square * square),
        }
    }
}

impl OptionChain {
    /// The chain before the day's first second. `spread` widens it: later expiries reach further.
    pub fn new(mut draws: ChaCha8Rng, grid: &Grid, ladder: &Ladder, spread: f64, share: f64) -> Self {
        let size = 0.2 + share * grid.size;
        let width = (0.004 * spread * grid.level * 100.0 / grid.strike as f64).max(1.5);
        let close = ladder.position((grid.level * 100.0) as i64);
        let pair = |place: usize, draws: &mut ChaCha8Rng| {
            let u = (place as f64 - close) / (2.5 * width);
            // Calls are held above the price, puts below, both most at round strikes.
            let moneyness = u / (1.0 + u * u).sqrt();
            let round = if (ladder.lowest + place as i64) % 5 == 0 { 2.5 } else { 1.0 };
            let much = size * round * 2500.0 / ((1.0 + u * u) * (1.0 + u * u));
            let held =
                [1.0 + 0.4 * moneyness, 1.0 - 0.4 * moneyness].map(|part| much * part * (0.4 + 1.2 * uniform(draws)));
            let skew = 0.5 * moneyness + 0.25 * (uniform(draws) - 0.5);
            Pair {
                traded: held.map(|held| 0.02 * held),
                held,
                taste: [1.0 + skew, 1.0 - skew],
                lean: 1.2 * uniform(draws) - 0.6,
            }
        };
        let pairs = (0..ladder.count).map(|place| pair(place, &mut draws)).collect();
        let moods = from_fn(|_| bell(&mut draws));
        Self { draws, pairs, width, size, moods }
    }

    /// One second of trading at this price.
    pub fn step(&mut self, position: f64) {
        for mood in &mut self.moods {
            wander(mood, 1.0, &mut self.draws);
        }
        // A word has a byte for the call and one for the put of four strikes.
        for (word, pairs) in self.pairs.chunks_mut(4).enumerate() {
            let bits = self.draws.next_u64();
            for (at, pair) in pairs.iter_mut().enumerate() {
                let u = ((word * 4 + at) as f64 - position) / (1.5 * self.width);
                let busy = self.size / ((1.0 + u * u) * (1.0 + u * u));
                for side in 0..2 {
                    let luck = ((bits >> (16 * at + 8 * side)) & 0xff) as f64 / 255.0;
                    pair.traded[side] += 3.0 * busy * pair.taste[side] * luck * luck;
                }
            }
        }
    }

    /// The values of its GEX records.
    pub fn gex(&self, position: f64) -> GexValues {
        let count = self.pairs.len();
        let mut packages = from_fn(|_| from_fn(|_| vec![0; count]));
        for (place, pair) in self.pairs.iter().enumerate() {
            let u = (place as f64 - position) / self.width;
            let gamma = 1.0 / ((1.0 + u * u) * (1.0 + u * u));
            let lean = pair.lean + 0.1 * self.moods[0];
            let ([calls, puts], [held_calls, held_puts]) = (pair.traded, pair.held);
            let [classic, state]: &mut [[Vec<i64>; 2]; 2] = &mut packages;
            classic[0][place] = (gamma * (calls - puts)) as i64;
            classic[1][place] = (gamma * (held_calls - held_puts)) as i64;
            state[0][place] = (gamma * lean * (calls + puts)) as i64;
            state[1][place] = (gamma * lean * (held_calls + held_puts)) as i64;
        }
        GexValues { packages }
    }

    /// A greek by strike, in hundredths.
    pub fn greek(&self, greek: Greek, position: f64, out: &mut [i64]) {
        let mood = self.moods[1 + greek as usize];
        let much = 100.0 * (40.0 + 300.0 * self.size) * (1.0 + 0.1 * mood);
        for (place, value) in out.iter_mut().enumerate() {
            *value = (much * greek.of((place as f64 - position) / self.width)) as i64;
        }
    }

    /// Puts traded today, by strike.
    pub fn puts(&self, out: &mut [i64]) {
        for (pair, value) in self.pairs.iter().zip(out) {
            *value = pair.traded[1] as i64;
        }
    }

    /// Implied volatility of a strike's call and put, in thousandths: a smile, higher below the price.
    pub fn volatility(&self, strike: i64, spot: i64) -> [i64; 2] {
        let percent = 100.0 * (strike - spot) as f64 / spot as f64;
        let far = if percent < 0.0 { -percent } else { percent };
        let percent = percent / (1.0 + far / 20.0);
        let base = 130.0 + 120.0 / (1.0 + 5.0 * self.size) + 4.0 * self.moods[5];
        let call = base * (1.0 - 0.03 * percent + 0.01 * percent * percent);
        [call, call * 1.03 + 1.0].map(|volatility| volatility as i64)
    }

    /// How much dearer calls are than puts, in thousandths.
    pub fn risk_reversal(&self) -> i64 {
        (20.0 * self.moods[6]) as i64 - 30
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::generate::price_series::draws;

    fn chain(level: f64, strike: i64, shown: usize) -> (Ladder, OptionChain) {
        let grid = Grid { level, strike, size: 1.0 };
        let ladder = Ladder::new(&grid, shown);
        let draws = draws(1, jiff::civil::date(2025, 11, 28), "SPX/zero");
        (ladder, OptionChain::new(draws, &grid, &ladder, 1.0, 1.0))
    }

    #[test]
    fn strikes_lie_around_the_price_and_above_zero() {
        for (level, strike, shown) in [(6800.0, 500, 90), (20.0, 50, 90), (20.0, 50, 500), (25_000.0, 2500, 1)] {
            let (ladder, _) = chain(level, strike, shown);
            for percent in [1, 80, 95, 100, 105, 130] {
                let spot = level as i64 * percent;
                let places = ladder.around(spot);
                assert!(places.len() == shown && places.end <= ladder.count && ladder.price(places.start) > 0);
                let holds = ladder.price(places.start) <= spot && ladder.price(places.end - 1) >= spot - strike;
                assert!(holds || !(95..=105).contains(&percent), "{level} {percent}");
            }
        }
    }

    #[test]
    fn delta_falls_with_the_strike_and_gamma_is_largest_at_the_money() {
        let (ladder, chain) = chain(6800.0, 500, 90);
        let position = ladder.position(680_200);
        let mut values = vec![0; ladder.count];
        chain.greek(Greek::Delta, position, &mut values);
        assert!(values.is_sorted_by(|low, high| low >= high));
        chain.greek(Greek::Gamma, position, &mut values);
        let largest = (0..ladder.count).max_by_key(|&place| values[place]).unwrap();
        assert_eq!(ladder.price(largest), 680_000);
        chain.greek(Greek::Vanna, position, &mut values);
        assert!(values[largest - 10] < 0 && values[largest + 10] > 0);
    }

    #[test]
    fn volumes_only_grow_and_volatility_smiles() {
        let (ladder, mut chain) = chain(6800.0, 500, 90);
        let (mut before, mut after) = (vec![0; ladder.count], vec![0; ladder.count]);
        chain.puts(&mut before);
        (0..100).for_each(|_| chain.step(ladder.position(680_000)));
        chain.puts(&mut after);
        assert!(before.iter().zip(&after).all(|(before, after)| before <= after) && before != after);
        let [below, at, above] = [620_000, 680_000, 760_000].map(|strike| chain.volatility(strike, 680_000)[0]);
        assert!(at < above && above < below && at > 50, "{below} {at} {above}");
    }
}
