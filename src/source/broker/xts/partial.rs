//! `json-partial` events: text with short names that tells only what changed, and the store that
//! keeps the rest.
//!
//! ```text
//! t:1_2885,ltp:1234.65,ltq:14,bi:0|62|1234.15|3,lut:1420629371
//! ```
//!
//! The same key means different things in different codes. What leaves is the merged state; without
//! a seed, what is known. Source: `docs/protocols/xts.md`, "Partial events".

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde_json::value::RawValue;

use super::event_fields::{Code, Fields, Key};
use super::time;
use super::xts_events::EventFault;
use crate::source::broker::price;
use crate::source::broker::quote::{DEPTH, Level};

/// What is known of every instrument, by code. Bounded: it takes no more instruments than asked.
#[derive(Debug)]
pub struct Store {
    known: HashMap<(Code, Key), Known>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Known {
    fields: Fields,
    /// The bar these fields are of, for candles.
    bar: Option<u64>,
}

/// A partial event, split but not yet understood.
#[derive(Debug)]
pub struct PartialEvent<'a> {
    /// The instrument that it is about.
    pub key: Key,
    changes: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

/// Changes that one event may tell; there are 20 keys.
const CHANGES: usize = 64;

/// Splits the payload of a partial event: `key:value` pairs, or a JSON object with the same keys.
pub fn split(payload: &str) -> Result<PartialEvent<'_>, EventFault> {
    let changes: Vec<(Cow<str>, Cow<str>)> = if payload.trim_ascii_start().starts_with('{') {
        let object: BTreeMap<Cow<str>, &RawValue> = serde_json::from_str(payload)?;
        object.into_iter().map(|(name, value)| (name, bare(value.get()))).take(CHANGES).collect()
    } else {
        payload
            .split(',')
            .filter_map(|change| change.split_once(':'))
            .map(|(name, value)| (name.into(), value.into()))
            .take(CHANGES)
            .collect()
    };
    let target = changes.iter().find(|(name, _)| name == "t").ok_or(EventFault::NotPartial)?;
    let (segment, id) = target.1.split_once('_').ok_or(EventFault::NotPartial)?;
    let (Ok(segment), Ok(id)) = (segment.parse(), id.parse()) else { return Err(EventFault::NotPartial) };
    Ok(PartialEvent { key: Key { segment, id }, changes })
}

/// A JSON value without its quotes.
fn bare(json: &str) -> Cow<'_, str> {
    if !json.starts_with('"') {
        return json.into();
    }
    serde_json::from_str::<String>(json).map_or(Cow::Borrowed(""), Cow::Owned)
}

impl Store {
    /// A store for at most `limit` pairs of instrument and code.
    pub fn new(limit: usize) -> Self {
        Self { known: HashMap::new(), limit }
    }

    /// Forgets everything: after a reconnect it is out of date.
    pub fn clear(&mut self) {
        self.known.clear();
    }

    /// Forgets what is known of an instrument by one code, which makes room for another.
    pub fn forget(&mut self, code: Code, key: Key) {
        self.known.remove(&(code, key));
    }

    /// How many pairs of instrument and code are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// A snapshot: from here on the changes count.
    pub fn seed(&mut self, code: Code, key: Key, fields: &Fields) {
        if self.known.len() < self.limit || self.known.contains_key(&(code, key)) {
            self.known.insert((code, key), Known { fields: fields.clone(), bar: None });
        }
    }

    /// Merges the changes and gives the state with them.
    ///
    /// An update older than what is known is still told, but newer fields are not overwritten.
    pub fn merge(&mut self, code: Code, partial: &PartialEvent, now_ms: i64) -> Fields {
        let slot = (code, partial.key);
        if self.known.len() >= self.limit && !self.known.contains_key(&slot) {
            let mut unknown = Known::default();
            unknown.apply(code, partial, now_ms);
            return unknown.fields;
        }
        let known = self.known.entry(slot).or_default();
        let before = known.fields.exchange_time;
        let mut updated = Known { fields: known.fields.clone(), bar: known.bar };
        updated.apply(code, partial, now_ms);
        if updated.fields.exchange_time >= before {
            known.bar = updated.bar;
            known.fields.clone_from(&updated.fields);
        }
        updated.fields
    }
}

impl Known {
    fn apply(&mut self, code: Code, partial: &PartialEvent, now_ms: i64) {
        if code == Code::Candle {
            let bar = partial.changes.iter().find(|(name, _)| name == "bt").and_then(|(_, value)| value.parse().ok());
            // Another bar shares nothing with this one.
            if bar.is_some() && bar != self.bar {
                *self = Self { fields: Fields::default(), bar };
            }
        }
        for (name, value) in &partial.changes {
            self.change(code, name, value, partial.key.segment, now_ms);
        }
    }

    /// A value that cannot be read changes nothing.
    fn change(&mut self, code: Code, name: &str, value: &str, segment: u16, now_ms: i64) {
        let fields = &mut self.fields;
        let integer = || value.parse::<u64>().ok();
        let time = || integer().and_then(|seconds| time::touchline(segment, seconds, now_ms));
        match (code, name) {
            (Code::OpenInterest, "o") => set(&mut fields.oi, integer()),
            (Code::Candle, "bt") => set(&mut fields.exchange_time, integer().and_then(time::bar)),
            (Code::Candle, "c") | (_, "ltp") => set(&mut fields.last_price, price::parse(value)),
            (_, "ltq") => set(&mut fields.last_quantity, integer()),
            (_, "ap") => set(&mut fields.average_price, price::parse(value)),
            (Code::Candle, "bv") | (_, "v") => set(&mut fields.volume, integer()),
            (_, "tb") => set(&mut fields.total_buy_quantity, integer()),
            (_, "ts") => set(&mut fields.total_sell_quantity, integer()),
            (_, "o") => set(&mut fields.open, price::parse(value)),
            (_, "h") => set(&mut fields.high, price::parse(value)),
            (_, "l") => set(&mut fields.low, price::parse(value)),
            (_, "c") => set(&mut fields.prev_close, price::parse(value)),
            (_, "ltt") => set(&mut fields.last_trade_time, time()),
            (_, "lut") => set(&mut fields.exchange_time, time()),
            (_, "vp") => set(&mut fields.extra.total_value_traded, price::parse(value)),
            (_, "bt") => set(&mut fields.extra.book_type, value.parse().ok()),
            (_, "mt") => set(&mut fields.extra.market_type, value.parse().ok()),
            (_, "bi") => levels(&mut fields.bids, value),
            (_, "ai") => levels(&mut fields.asks, value),
            // `pc` is computed here; `t` was read; the rest is not documented.
            _ => {}
        }
    }
}

fn set<T>(field: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *field = value;
    }
}

/// Groups of `index|size|price|orders`; an empty field did not change.
fn levels(levels: &mut [Level; DEPTH], value: &str) {
    let mut parts = value.split('|');
    while let (Some(index), Some(size), Some(price), Some(orders)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    {
        let Some(level) = index.parse().ok().and_then(|index: usize| levels.get_mut(index)) else { continue };
        if let Ok(quantity) = size.parse() {
            level.quantity = quantity;
        }
        if let Some(price) = price::parse(price) {
            level.price = price;
        }
        if let Ok(orders) = orders.parse() {
            level.orders = orders;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rust_decimal::Decimal;

    const NOW: i64 = 1_736_142_368_000;

    fn merged(store: &mut Store, code: Code, payload: &str) -> Fields {
        store.merge(code, &split(payload).unwrap(), NOW)
    }

    #[test]
    fn changes_are_merged_over_the_seed() {
        let mut store = Store::new(10);
        let mut seed = Fields { open: price::parse("1253.95"), volume: Some(6), ..Fields::default() };
        seed.bids[3] = Level { price: Decimal::new(1234, 0), quantity: 300, orders: 2 };
        store.seed(Code::Depth, Key { segment: 1, id: 2885 }, &seed);
        let fields = merged(&mut store, Code::Depth, "t:1_2885,ltp:1234.65,bi:0|75|1234.2|4|3|386||8,lut:1420629372");
        assert_eq!((fields.open, fields.volume), (price::parse("1253.95"), Some(6)), "kept");
        assert_eq!(fields.last_price, price::parse("1234.65"));
        assert_eq!(fields.bids[0], Level { price: Decimal::new(12342, 1), quantity: 75, orders: 4 });
        assert_eq!(fields.bids[3], Level { price: Decimal::new(1234, 0), quantity: 386, orders: 8 }, "price unchanged");
        assert_eq!(fields.exchange_time, Some(1_736_142_372_000));
    }

    #[test]
    fn an_older_update_is_told_but_not_merged_over_newer_fields() {
        let mut store = Store::new(10);
        merged(&mut store, Code::Ltp, "t:1_1,ltp:10,lut:1420629372");
        let late = merged(&mut store, Code::Ltp, "t:1_1,ltp:9,lut:1420629371");
        assert_eq!(late.last_price, price::parse("9"));
        assert_eq!(merged(&mut store, Code::Ltp, "t:1_1,ltq:1").last_price, price::parse("10"));
    }

    #[test]
    fn the_same_key_means_what_its_code_says() {
        let mut store = Store::new(10);
        assert_eq!(merged(&mut store, Code::OpenInterest, "t:1_46082,o:7").oi, Some(7));
        assert_eq!(merged(&mut store, Code::Touchline, "t:1_46082,o:7").open, price::parse("7"));
        let bar = merged(&mut store, Code::Candle, "t:1_1,o:1,h:4,l:0.5,c:2,bt:1736162219,bv:18");
        assert_eq!((bar.last_price, bar.prev_close, bar.volume), (price::parse("2"), None, Some(18)));
        let next = merged(&mut store, Code::Candle, "t:1_1,c:3,bt:1736162279");
        assert_eq!((next.last_price, next.high), (price::parse("3"), None), "another bar");
    }

    #[test]
    fn objects_with_the_same_keys_are_read_too() {
        let mut store = Store::new(10);
        let fields = merged(&mut store, Code::Touchline, r#"{"ltp":1234.65,"t":"1_2885","v":12,"bi":"0|1|2|3"}"#);
        assert_eq!((fields.last_price, fields.volume), (price::parse("1234.65"), Some(12)));
        assert_eq!(fields.bids[0].quantity, 1);
    }

    #[test]
    fn a_full_store_keeps_nothing_new_but_tells_it() {
        let mut store = Store::new(1);
        merged(&mut store, Code::Ltp, "t:1_1,ltp:10");
        assert_eq!(merged(&mut store, Code::Ltp, "t:1_2,ltp:11").last_price, price::parse("11"));
        store.seed(Code::Ltp, Key { segment: 1, id: 3 }, &Fields::default());
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn what_names_no_instrument_is_refused() {
        for payload in ["", "ltp:1", "t:1", "t:1_x", "t:NIFTY_1", "{", "{}", r#"{"t":5}"#] {
            assert!(split(payload).is_err(), "{payload}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(t:1_2,)?([a-z]{1,3}:[0-9|.,:{}\"e-]{0,20},){0,5}", code in 0usize..6) {
            if let Ok(partial) = split(&text) {
                Store::new(4).merge(Code::ALL[code], &partial, NOW);
            }
        }

        #[test]
        fn the_last_value_of_a_field_wins(prices in prop::collection::vec(0i64..1_000_000, 1..20)) {
            let mut store = Store::new(1);
            for price in &prices {
                let text = format!("t:1_2885,ltp:{}", Decimal::new(*price, 2));
                prop_assert_eq!(merged(&mut store, Code::Ltp, &text).last_price, Some(Decimal::new(*price, 2)));
            }
        }
    }
}
