//! The price model: one ticker's numbers, second by second.
//!
//! Raw `ChaCha8` words become numbers here, and the model knows only + − × ÷: IEEE 754 fixes their last
//! bit, while libms differ in `exp` and `sin`. Tickers share one market, so SPX, `ES_SPX` and SPY move
//! together.

use std::array::from_fn;

use jiff::civil::Date;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Seconds, and so records, from 9:30:00 up to 16:00:00.
pub const SESSION: u32 = 23_400;

/// What follows `timestamp` and `ticker` in a record, in file order; [`PricePath::step`] fills it.
#[rustfmt::skip]
pub const KEYS: [&str; 35] = [
    "spot", "z_mlgamma", "z_msgamma", "o_mlgamma", "o_msgamma", "zero_mcall", "zero_mput", "one_mcall", "one_mput",
    "zcvr", "ocvr", "zgr", "ogr", "zvanna", "ovanna", "zcharm", "ocharm", "agg_dex", "one_agg_dex",
    "agg_call_dex", "one_agg_call_dex", "agg_put_dex", "one_agg_put_dex", "net_dex", "one_net_dex",
    "net_call_dex", "one_net_call_dex", "net_put_dex", "one_net_put_dex",
    "dexoflow", "gexoflow", "cvroflow", "one_dexoflow", "one_gexoflow", "one_cvroflow",
];

/// Where the eight gamma levels lie, in strikes from spot, in the order of [`KEYS`].
const LEVELS: [(i64, i64); 8] = [(1, 6), (-6, -1), (2, 20), (-20, -2), (1, 5), (-5, -1), (4, 16), (-16, -4)];

/// One ticker's day, a second at a time.
pub struct PricePath {
    draws: ChaCha8Rng,
    market: MarketMood,
    model: PriceModel,
    /// The gamma levels, counted in strikes.
    levels: [i64; 8],
    /// Where the price is beside the market's, in `PriceModel::stray`; see [`wander`].
    own: f64,
    /// Today's options (keys with `z`, `zero` or nothing) and the next expiry's (`o`, `one`).
    expiries: [[f64; 8]; 2],
}

impl PricePath {
    /// The day of one ticker, before its first second.
    pub fn new(seed: u64, date: Date, ticker: &str) -> Self {
        let mut draws = draws(seed, date, ticker);
        let (market, model) = (MarketMood::new(seed, date), PriceModel::of(ticker));
        let (own, expiries) = (bell(&mut draws), from_fn(|_| from_fn(|_| bell(&mut draws))));
        // No level yet: the first step finds all of them astray and places them.
        Self { draws, market, model, levels: [0; 8], own, expiries }
    }

    /// The prices that its options are made for.
    pub fn grid(&self) -> Grid {
        let PriceModel { level, strike, size, .. } = self.model;
        Grid { level, strike, size }
    }

    /// The numbers of the next second, in cents, in the order of [`KEYS`].
    pub fn step(&mut self, second: u32) -> [i64; 35] {
        self.market.step(second);
        let (draws, market) = (&mut self.draws, &self.market);
        let PriceModel { level, strike, tick, beta, stray, size } = self.model;
        let own = stray * wander(&mut self.own, market.activity, draws);
        let spot = ((100.0 * level * (1.0 + beta * market.change + own) / tick).round() * tick) as i64;
        let mut cents = [spot; 35];
        let near = (spot + strike / 2) / strike;
        for (place, (low, high)) in LEVELS.into_iter().enumerate() {
            let level = &mut self.levels[place];
            let in_reach = (near + low - 3..=near + high + 3).contains(level);
            if !in_reach || uniform(draws) < 1.0 / 900.0 {
                *level = near + low + (uniform(draws) * (high - low + 1) as f64) as i64;
            }
            cents[1 + place] = *level * strike;
        }
        // The next expiry trades less than half of what today's does.
        for (place, share) in [1.0, 0.45].into_iter().enumerate() {
            let (pairs, flows) = expiry(&mut self.expiries[place], share * size, market, draws);
            for (pair, value) in pairs.into_iter().enumerate() {
                cents[9 + 2 * pair + place] = value;
            }
            cents[29 + 3 * place..][..3].copy_from_slice(&flows);
        }
        cents
    }
}

/// One expiry's numbers in cents: those whose keys alternate between the expiries, then the flows.
fn expiry(state: &mut [f64; 8], size: f64, market: &MarketMood, draws: &mut ChaCha8Rng) -> ([i64; 10], [i64; 3]) {
    let [convexity, gex, vanna, charm, call, put, net_call, net_put] =
        state.each_mut().map(|value| wander(value, 1.0, draws));
    let cents = |value: f64| (100.0 * value).round() as i64;
    let sized = |value: f64| cents(size * value);
    let vanna = 60.0 + 110.0 * vanna;
    let charm = 12.0 * charm - 0.2 * vanna;
    // A rising market lifts the delta of calls and takes that of puts towards zero.
    let call = 700.0 + 60.0 * call + 15_000.0 * market.change;
    let put = -240.0 + 30.0 * put + 6000.0 * market.change;
    let [convexity, gex] = [4.0 + 9.0 * convexity, 0.2 + 0.25 * gex].map(cents);
    let [vanna, charm, call, put] = [vanna, charm, call, put].map(sized);
    let [net_call, net_put] = [35.0 * net_call, 30.0 * net_put].map(sized);
    // The square leaves most seconds quiet and makes a few very loud.
    let surge = bell(draws);
    let force = market.activity * surge * surge;
    // Flow goes with the market more often than against it.
    let dex_flow = force * (1.5 * market.push + 2.0 * bell(draws));
    let gex_flow = force * bell(draws) - 0.1 * dex_flow;
    let flows = [dex_flow, gex_flow, 0.3 * force * bell(draws)].map(sized);
    ([convexity, gex, vanna, charm, call + put, call, put, net_call + net_put, net_call, net_put], flows)
}

/// What a ticker's options are made for: the last close in dollars, cents between strikes, volume (SPX's is 1).
#[derive(Debug, Clone, Copy)]
pub struct Grid {
    pub level: f64,
    pub strike: i64,
    pub size: f64,
}

/// Moves a value that strays from zero by about 1 and is back after some ten minutes.
pub fn wander(value: &mut f64, activity: f64, draws: &mut ChaCha8Rng) -> f64 {
    // √(2/600): the kicks against which a pull of 1/600 holds the variance at 1.
    *value += 0.057_735 * activity * bell(draws) - *value / 600.0;
    *value
}

/// What moves every ticker of a day: a bounded walk, loud at the open, the close and in bursts. `activity` is how loud
/// this second is (about 1 over the day), `push` where it goes, `change` how far all of it has gone, as a fraction.
struct MarketMood {
    draws: ChaCha8Rng,
    burst: f64,
    activity: f64,
    push: f64,
    change: f64,
}

impl MarketMood {
    fn new(seed: u64, date: Date) -> Self {
        let mut draws = draws(seed, date, "");
        let change = 0.003 * bell(&mut draws);
        Self { draws, burst: 0.0, activity: 0.0, push: 0.0, change }
    }

    fn step(&mut self, second: u32) {
        let from_middle = 2.0 * f64::from(second.min(SESSION)) / f64::from(SESSION) - 1.0;
        let hour = 0.5 + 1.7 * from_middle * from_middle * from_middle * from_middle;
        let bursts = uniform(&mut self.draws) < hour / 400.0;
        self.burst = 0.985 * self.burst + if bursts { 2.0 } else { 0.0 };
        self.activity = hour + self.burst;
        self.push = bell(&mut self.draws);
        self.change = (self.change + 0.000_035 * self.activity * self.push).clamp(-0.03, 0.03);
    }
}

/// What a ticker is: `level` is the last close in dollars, `strike` and `tick` are the cents between strikes and between
/// prices, `beta` is how far it goes with the market and `stray` how far without, `size` its volume (SPX is 1).
struct PriceModel {
    level: f64,
    strike: i64,
    tick: f64,
    beta: f64,
    stray: f64,
    size: f64,
}

impl PriceModel {
    fn of(ticker: &str) -> Self {
        let (level, strike, tick, beta, stray, size) = match ticker {
            "SPX" => (6800.0, 500, 1.0, 1.0, 0.000_03, 1.0),
            "ES_SPX" => (6815.0, 500, 25.0, 1.0, 0.000_06, 0.9),
            "SPY" => (679.0, 100, 1.0, 1.0, 0.000_03, 0.6),
            "NDX" => (25_000.0, 2500, 1.0, 1.3, 0.000_4, 0.25),
            "NQ_NDX" => (25_080.0, 2500, 25.0, 1.3, 0.000_4, 0.22),
            "QQQ" => (610.0, 100, 1.0, 1.3, 0.000_4, 0.4),
            // A stock of 20 to 419 dollars, the same one on every date and for every seed.
            name => {
                let hash = xxh3_64(name.as_bytes());
                let dollars = 20 + hash % 400;
                let strike = if dollars < 100 { 50 } else { 250 };
                (dollars as f64, strike, 1.0, 1.2, 0.002_5, 0.05 + (hash >> 60) as f64 / 100.0)
            }
        };
        Self { level, strike, tick, beta, stray, size }
    }
}

/// The source of one stream's numbers; `name` is a ticker, or empty for the market that all tickers share.
pub fn draws(seed: u64, date: Date, name: &str) -> ChaCha8Rng {
    let mut key = [0; 32];
    let hash = xxh3_128(format!("{seed}/{date}/{name}").as_bytes());
    key[..16].copy_from_slice(&hash.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// From 0 up to 1, in steps of 2⁻⁵³.
pub fn uniform(draws: &mut ChaCha8Rng) -> f64 {
    (draws.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Four 16-bit lanes added up: a bell of mean 0 and variance 1 that ends at ±3.46.
pub fn bell(draws: &mut ChaCha8Rng) -> f64 {
    let word = draws.next_u64();
    let sum = (word & 0xffff) + (word >> 16 & 0xffff) + (word >> 32 & 0xffff) + (word >> 48);
    (sum as f64 - 131_070.0) / 37_837.2
}
