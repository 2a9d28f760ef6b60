//! An orderflow record: from its JSONL line to its protobuf message.
//!
//! A line is parsed once, at the finest scale there is ([`Profile::V2026_04`], every field ×100).
//! The older profile is the same record with its state and orderflow fields divided by 100 toward
//! zero, which is exactly what cutting the source text at that scale gives. So a record is good or
//! bad in both profiles alike, and no second parse is ever needed.
//!
//! Keys, fields and factors: `docs/protocols/gexbot.md`, "Orderflow".

use serde::Deserialize;
use serde_json::value::RawValue;

use super::fields::{self, Noticed, Parsed, RecordError};
use super::profile::Profile;
pub use crate::wire::proto::orderflow::Orderflow;

/// Reads one JSONL line (without its line break).
pub fn parse(line: &[u8]) -> Result<Parsed<Orderflow>, RecordError> {
    fields::object::<OrderflowLine<'_>>(line)?.into_record()
}

/// Declares the JSONL line and its mapping onto the message, one row a number.
///
/// `price`: `uint32`, ×100 in both profiles. `flow`: `sint32`, ×100 in 2026-04 and unscaled before.
macro_rules! numbers {
    ($($key:ident => $field:ident: $kind:ident,)*) => {
        /// The numbers stay text until they are scaled; unknown keys are ignored.
        #[derive(Deserialize)]
        struct OrderflowLine<'a> {
            #[serde(borrow, default)]
            timestamp: Option<&'a RawValue>,
            #[serde(borrow, default)]
            ticker: Option<&'a RawValue>,
            $(
                #[serde(borrow, default)]
                $key: Option<&'a RawValue>,
            )*
        }

        impl OrderflowLine<'_> {
            fn into_record(self) -> Result<Parsed<Orderflow>, RecordError> {
                let mut noticed = Noticed::default();
                let record = Orderflow {
                    timestamp: fields::timestamp(self.timestamp)?,
                    ticker: fields::ticker(self.ticker)?,
                    $($field: $kind(stringify!($key), self.$key, &mut noticed)?,)*
                };
                Ok(Parsed { record, noticed })
            }
        }

        /// Turns a record at the finest scale into `profile`'s.
        pub fn rescale(record: &mut Orderflow, profile: Profile) {
            match profile {
                Profile::V2026_04 => {}
                Profile::V2025_11 => {
                    $(unscale::$kind(&mut record.$field);)*
                }
            }
        }

        /// The JSONL keys of the numbers, in the order of their protobuf fields from 3 on.
        pub const NUMBER_KEYS: &[&str] = &[$(stringify!($key),)*];

        /// A record's numbers at `profile`'s scale, in the order of [`NUMBER_KEYS`]: key, integer and the
        /// factor it was multiplied with.
        pub fn values(record: &Orderflow, profile: Profile) -> impl Iterator<Item = (&'static str, i64, u32)> {
            [$((stringify!($key), i64::from(record.$field), factor::$kind(profile)),)*].into_iter()
        }
    };
}

numbers! {
    spot => spot: price,
    z_mlgamma => zero_major_long_gamma: price,
    z_msgamma => zero_major_short_gamma: price,
    o_mlgamma => one_major_long_gamma: price,
    o_msgamma => one_major_short_gamma: price,
    zero_mcall => zero_major_call_gamma: price,
    zero_mput => zero_major_put_gamma: price,
    one_mcall => one_major_call_gamma: price,
    one_mput => one_major_put_gamma: price,
    zcvr => zero_convexity_ratio: flow,
    ocvr => one_convexity_ratio: flow,
    zgr => zero_gex_ratio: flow,
    ogr => one_gex_ratio: flow,
    zvanna => zero_net_vanna: flow,
    ovanna => one_net_vanna: flow,
    zcharm => zero_net_charm: flow,
    ocharm => one_net_charm: flow,
    agg_dex => zero_agg_total_dex: flow,
    one_agg_dex => one_agg_total_dex: flow,
    agg_call_dex => zero_agg_call_dex: flow,
    one_agg_call_dex => one_agg_call_dex: flow,
    agg_put_dex => zero_agg_put_dex: flow,
    one_agg_put_dex => one_agg_put_dex: flow,
    net_dex => zero_net_total_dex: flow,
    one_net_dex => one_net_total_dex: flow,
    net_call_dex => zero_net_call_dex: flow,
    one_net_call_dex => one_net_call_dex: flow,
    net_put_dex => zero_net_put_dex: flow,
    one_net_put_dex => one_net_put_dex: flow,
    dexoflow => dex_orderflow: flow,
    gexoflow => gex_orderflow: flow,
    cvroflow => convexity_orderflow: flow,
    one_dexoflow => one_dex_orderflow: flow,
    one_gexoflow => one_gex_orderflow: flow,
    one_cvroflow => one_convexity_orderflow: flow,
}

fn price(key: &'static str, value: Option<&RawValue>, noticed: &mut Noticed) -> Result<u32, RecordError> {
    fields::number(key, value, &fields::PRICE, noticed)
}

fn flow(key: &'static str, value: Option<&RawValue>, noticed: &mut Noticed) -> Result<i32, RecordError> {
    fields::number(key, value, &fields::VALUE, noticed)
}

/// What [`Profile::V2025_11`] does to a field of each kind.
mod unscale {
    pub(super) fn price(_: &mut u32) {}

    pub(super) fn flow(value: &mut i32) {
        *value /= 100;
    }
}

/// Integer ÷ value, per kind of field.
mod factor {
    use crate::wire::payload::profile::Profile;

    pub(super) fn price(_: Profile) -> u32 {
        100
    }

    pub(super) fn flow(profile: Profile) -> u32 {
        match profile {
            Profile::V2025_11 => 1,
            Profile::V2026_04 => 100,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(fields: &str) -> Result<Parsed<Orderflow>, RecordError> {
        parse(format!(r#"{{"timestamp":1764340202,"ticker":"SPX",{fields}}}"#).as_bytes())
    }

    fn reason(fields: &str) -> String {
        record(fields).expect_err(fields).to_string()
    }

    #[test]
    fn a_price_keeps_its_cents_in_both_profiles_and_a_flow_only_in_the_newer() {
        let mut record = record(r#""spot":605.41,"zcvr":-12.59,"agg_dex":512.8"#).unwrap().record;
        assert_eq!((record.spot, record.zero_convexity_ratio, record.zero_agg_total_dex), (60_541, -1_259, 51_280));
        rescale(&mut record, Profile::V2025_11);
        assert_eq!((record.spot, record.zero_convexity_ratio, record.zero_agg_total_dex), (60_541, -12, 512));
    }

    #[test]
    fn missing_and_null_numbers_are_zero_and_counted() {
        let parsed = record(r#""spot":1,"zcvr":null"#).unwrap();
        assert_eq!(parsed.record.zero_convexity_ratio, 0);
        assert_eq!(parsed.noticed.missing as usize, NUMBER_KEYS.len() - 1);
    }

    #[test]
    fn unknown_fields_are_ignored() {
        assert_eq!(record(r#""spot":1,"new":{"a":[1,2]}"#).unwrap().record.spot, 100);
    }

    #[test]
    fn a_bad_value_says_what_was_expected_and_what_came() {
        assert_eq!(reason(r#""spot":-0.01"#), "spot: expected a number from 0 to 42949672.95, got -0.01");
        assert_eq!(
            reason(r#""zgr":21474836.48"#),
            "zgr: expected a number from -21474836.48 to 21474836.47, got 21474836.48"
        );
        assert_eq!(reason(r#""spot":"5""#), "spot: expected a number, got \"5\"");
        assert_eq!(reason(r#""spot":1e30"#), "spot: expected a number from 0 to 42949672.95, got 1e30");
        assert!(reason(r#""spot":NaN"#).starts_with("expected one JSON object, got: expected value at column"));
    }

    #[test]
    fn a_record_needs_a_timestamp_and_a_ticker() {
        for (line, expected) in [
            (r#"{"ticker":"SPX"}"#, "timestamp: expected a number of Unix seconds, got nothing"),
            (r#"{"timestamp":null,"ticker":"SPX"}"#, "timestamp: expected a number of Unix seconds, got nothing"),
            (r#"{"timestamp":1}"#, "ticker: expected a non-empty string, got nothing"),
            (r#"{"timestamp":1,"ticker":""}"#, "ticker: expected a non-empty string, got \"\""),
            (r#"{"timestamp":1,"ticker":7}"#, "ticker: expected a non-empty string, got 7"),
        ] {
            assert_eq!(parse(line.as_bytes()).expect_err(line).to_string(), expected);
        }
    }

    #[test]
    fn an_array_is_no_record() {
        let error = parse(br#"[1764340202,"SPX",6822.95]"#).unwrap_err().to_string();
        assert_eq!(error, r#"expected one JSON object, got: [1764340202,"SPX",6822.95]"#);
    }

    #[test]
    fn a_line_that_is_not_text_names_the_byte() {
        let error = parse(b"{\"ticker\":\"\xff\"}").unwrap_err();
        assert_eq!(error.to_string(), "expected UTF-8, got byte 0xff at column 12");
    }

    #[test]
    fn the_table_covers_every_field_of_the_message() {
        assert_eq!(NUMBER_KEYS.len() + 2, 37);
    }
}
