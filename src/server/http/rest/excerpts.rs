//! What a data route answers of a record: all of it, its majors, or its maxchange.
//!
//! Numbers keep their text: nothing here becomes a float. What a record lacks counts as 0, as in the payloads
//! (`docs/protocols/gexbot.md`, "Tolerance").

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What is answered of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Excerpt {
    /// The recorded line, byte for byte.
    Record,
    /// The largest levels and the sums of a GEX record.
    Majors,
    /// The `max_priors` of a GEX record: the largest changes within 0, 1, 5, 10, 15 and 30 minutes.
    MaxChange,
}

impl Excerpt {
    /// The last part of the path; empty for the record itself.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Record => "",
            Self::Majors => "majors",
            Self::MaxChange => "maxchange",
        }
    }

    /// This part of a recorded line, as JSON; `None` if the line is no such record.
    pub fn of(self, line: Vec<u8>) -> Option<Vec<u8>> {
        match self {
            Self::Record => Some(line),
            Self::Majors => serde_json::to_vec(&serde_json::from_slice::<Majors<'_>>(&line).ok()?).ok(),
            Self::MaxChange => serde_json::to_vec(&MaxChange::of(&serde_json::from_slice(&line).ok()?)).ok(),
        }
    }
}

/// The keys are the answer's, the aliases the record's.
#[derive(Deserialize, Serialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Majors<'a> {
    #[serde(borrow)]
    timestamp: &'a RawValue,
    #[serde(borrow)]
    ticker: &'a RawValue,
    #[serde(borrow, default = "zero")]
    spot: &'a RawValue,
    #[serde(borrow, default = "zero", rename(deserialize = "major_pos_vol"))]
    mpos_vol: &'a RawValue,
    #[serde(borrow, default = "zero", rename(deserialize = "major_pos_oi"))]
    mpos_oi: &'a RawValue,
    #[serde(borrow, default = "zero", rename(deserialize = "major_neg_vol"))]
    mneg_vol: &'a RawValue,
    #[serde(borrow, default = "zero", rename(deserialize = "major_neg_oi"))]
    mneg_oi: &'a RawValue,
    #[serde(borrow, default = "zero")]
    zero_gamma: &'a RawValue,
    #[serde(borrow, default = "zero", rename(deserialize = "sum_gex_vol"))]
    net_gex_vol: &'a RawValue,
    #[serde(borrow, default = "zero", rename(deserialize = "sum_gex_oi"))]
    net_gex_oi: &'a RawValue,
}

#[derive(Deserialize)]
struct WithMaxPriors<'a> {
    #[serde(borrow)]
    timestamp: &'a RawValue,
    #[serde(borrow)]
    ticker: &'a RawValue,
    #[serde(borrow, default)]
    max_priors: Vec<&'a RawValue>,
}

#[derive(Serialize)]
struct MaxChange<'a> {
    timestamp: &'a RawValue,
    ticker: &'a RawValue,
    current: &'a RawValue,
    one: &'a RawValue,
    five: &'a RawValue,
    ten: &'a RawValue,
    fifteen: &'a RawValue,
    thirty: &'a RawValue,
}

impl<'a> MaxChange<'a> {
    fn of(record: &WithMaxPriors<'a>) -> Self {
        let row = |at: usize| record.max_priors.get(at).copied().unwrap_or_else(no_change);
        let WithMaxPriors { timestamp, ticker, .. } = record;
        let [current, one, five, ten, fifteen, thirty] = [0, 1, 2, 3, 4, 5].map(row);
        Self { timestamp, ticker, current, one, five, ten, fifteen, thirty }
    }
}

fn zero<'a>() -> &'a RawValue {
    serde_json::from_str("0").expect("a number is JSON")
}

fn no_change<'a>() -> &'a RawValue {
    serde_json::from_str("[0,0]").expect("an array is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GEX: &str = include_str!("../../../../tests/fixtures/gexbot/gex_full.jsonl");

    fn of(excerpt: Excerpt, line: &str) -> Option<String> {
        excerpt.of(line.as_bytes().to_vec()).map(|json| String::from_utf8(json).unwrap())
    }

    #[test]
    fn majors_have_the_short_names_and_the_numbers_as_they_were_written() {
        let expected = r#"{"timestamp":1764340202,"ticker":"SPX","spot":6822.95,"mpos_vol":6830,"mpos_oi":6850,"mneg_vol":6800,"mneg_oi":6750,"zero_gamma":6801.4,"net_gex_vol":1522.117,"net_gex_oi":43565.23}"#;
        assert_eq!(of(Excerpt::Majors, GEX).unwrap(), expected);
        let odd = r#"{"sum_gex_vol": 1.50e3 ,"ticker":"S\u0050X","timestamp":1,"spot":0.10000000000000000001}"#;
        let expected = r#"{"timestamp":1,"ticker":"S\u0050X","spot":0.10000000000000000001,"mpos_vol":0,"mpos_oi":0,"mneg_vol":0,"mneg_oi":0,"zero_gamma":0,"net_gex_vol":1.50e3,"net_gex_oi":0}"#;
        assert_eq!(of(Excerpt::Majors, odd).unwrap(), expected);
    }

    #[test]
    fn maxchange_names_the_six_max_priors_in_order() {
        let expected = r#"{"timestamp":1764340202,"ticker":"SPX","current":[6830,10.125],"one":[6830,12.4],"five":[6825,-8.55],"ten":[6800,-20.19],"fifteen":[6850,31.7],"thirty":[6850,44.02]}"#;
        assert_eq!(of(Excerpt::MaxChange, GEX).unwrap(), expected);
        let short = of(Excerpt::MaxChange, r#"{"timestamp":1,"ticker":"A","max_priors":[[1,2.0]]}"#).unwrap();
        assert!(short.contains(r#""current":[1,2.0],"one":[0,0]"#), "{short}");
    }

    #[test]
    fn the_record_is_the_line_and_what_is_no_record_has_no_excerpts() {
        assert_eq!(of(Excerpt::Record, " {\"a\": 1}").unwrap(), " {\"a\": 1}");
        for line in ["", "[]", "{}", "nope", r#"{"timestamp":1}"#, r#"{"timestamp":1,"ticker":"A","max_priors":3}"#] {
            assert_eq!(of(Excerpt::MaxChange, line), None, "{line}");
        }
        assert_eq!(of(Excerpt::Majors, r#"{"timestamp":1}"#), None);
    }
}
