//! A GEX record: from its JSONL line to its protobuf message, for the classic and state_gex hubs.
//!
//! Both profiles scale it alike. Keys, fields and factors: `docs/protocols/gexbot.md`.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::fields::{self, Noticed, Parsed, RecordError};
use super::rows::rows;
pub use crate::wire::proto::gex_profile::{Gex, MaxPriors, MaxPriorsTuple, Priors, Strike};

/// The numbers stay text until they are scaled; unknown keys are ignored.
#[derive(Deserialize)]
struct GexLine<'a> {
    #[serde(borrow, default)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow, default)]
    ticker: Option<&'a RawValue>,
    #[serde(borrow, default)]
    min_dte: Option<&'a RawValue>,
    #[serde(borrow, default)]
    sec_min_dte: Option<&'a RawValue>,
    #[serde(borrow, default)]
    spot: Option<&'a RawValue>,
    #[serde(borrow, default)]
    zero_gamma: Option<&'a RawValue>,
    #[serde(borrow, default)]
    major_pos_vol: Option<&'a RawValue>,
    #[serde(borrow, default)]
    major_pos_oi: Option<&'a RawValue>,
    #[serde(borrow, default)]
    major_neg_vol: Option<&'a RawValue>,
    #[serde(borrow, default)]
    major_neg_oi: Option<&'a RawValue>,
    #[serde(borrow, default)]
    strikes: Option<&'a RawValue>,
    #[serde(borrow, default)]
    sum_gex_vol: Option<&'a RawValue>,
    #[serde(borrow, default)]
    sum_gex_oi: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta_risk_reversal: Option<&'a RawValue>,
    #[serde(borrow, default)]
    max_priors: Option<&'a RawValue>,
}

/// Reads one JSONL line (without its line break).
pub fn parse(line: &[u8]) -> Result<Parsed<Gex>, RecordError> {
    let line: GexLine<'_> = fields::object(line)?;
    let mut noticed = Noticed::default();
    let seen = &mut noticed;
    let record = Gex {
        timestamp: fields::timestamp(line.timestamp)?,
        ticker: fields::ticker(line.ticker)?,
        min_dte: Some(fields::number("min_dte", line.min_dte, &fields::DAYS, seen)?),
        sec_min_dte: Some(fields::number("sec_min_dte", line.sec_min_dte, &fields::DAYS, seen)?),
        spot: fields::number("spot", line.spot, &fields::PRICE, seen)?,
        zero_gamma: fields::number("zero_gamma", line.zero_gamma, &fields::PRICE, seen)?,
        major_pos_vol: fields::number("major_pos_vol", line.major_pos_vol, &fields::PRICE, seen)?,
        major_pos_oi: fields::number("major_pos_oi", line.major_pos_oi, &fields::PRICE, seen)?,
        major_neg_vol: fields::number("major_neg_vol", line.major_neg_vol, &fields::PRICE, seen)?,
        major_neg_oi: fields::number("major_neg_oi", line.major_neg_oi, &fields::PRICE, seen)?,
        strikes: strikes(line.strikes, seen)?,
        sum_gex_vol: fields::sum("sum_gex_vol", line.sum_gex_vol, &fields::SUM, seen)?,
        sum_gex_oi: fields::sum("sum_gex_oi", line.sum_gex_oi, &fields::SUM, seen)?,
        delta_risk_reversal: fields::number("delta_risk_reversal", line.delta_risk_reversal, &fields::SUM, seen)?,
        max_priors: max_priors(line.max_priors, seen)?,
    };
    Ok(Parsed { record, noticed })
}

/// What a strike's row takes at least in a real record: how many rows to make room for.
const ROW_BYTES: usize = 48;

/// Rows `[strike, value, value, [priors]]`.
fn strikes(value: Option<&RawValue>, noticed: &mut Noticed) -> Result<Vec<Strike>, RecordError> {
    let Some(text) = fields::list("strikes", value)? else { return Ok(Vec::new()) };
    Ok(rows(text, text.len() / ROW_BYTES, noticed, |row| {
        Some(Strike {
            strike_price: row.number(2)?,
            value_1: row.number(2)?,
            value_2: row.number(2)?,
            priors: Some(row.optional_list(2)?).filter(|values| !values.is_empty()).map(|values| Priors { values }),
        })
    }))
}

/// Rows `[strike, change]`; the field is absent if there is none.
fn max_priors(value: Option<&RawValue>, noticed: &mut Noticed) -> Result<Option<MaxPriors>, RecordError> {
    let Some(text) = fields::list("max_priors", value)? else { return Ok(None) };
    let tuples = rows(text, 6, noticed, |row| {
        Some(MaxPriorsTuple { first_value: row.number(2)?, second_value: row.number(3)? })
    });
    Ok((!tuples.is_empty()).then_some(MaxPriors { tuples }))
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    const LINE: &[u8] = include_bytes!("../../../tests/fixtures/gexbot/gex_full.jsonl");
    const GOLDEN: &[u8] = include_bytes!("../../../tests/fixtures/gexbot/gex_full.payload.bin");

    #[test]
    fn a_record_gives_the_bytes_of_a_foreign_encoder() {
        let parsed = parse(LINE.trim_ascii_end()).unwrap();
        assert_eq!(parsed.record.encode_to_vec(), GOLDEN);
        assert_eq!(parsed.noticed, Noticed::default());
    }

    fn gex(fields: &str) -> Result<Parsed<Gex>, RecordError> {
        parse(format!(r#"{{"timestamp":1,"ticker":"SPX",{fields}}}"#).as_bytes())
    }

    #[test]
    fn a_sum_beyond_its_field_is_held_at_the_end_of_the_range_and_counted() {
        for (text, held) in [("2147483.648", i32::MAX), ("-9e99", i32::MIN), ("2147483.647", i32::MAX)] {
            let parsed = gex(&format!(r#""sum_gex_vol":{text}"#)).unwrap();
            assert_eq!(parsed.record.sum_gex_vol, held);
            assert_eq!(parsed.noticed.saturated, u32::from(text != "2147483.647"), "{text}");
        }
        assert_eq!(gex(r#""sum_gex_oi":"1""#).unwrap_err().to_string(), r#"sum_gex_oi: expected a number, got "1""#);
    }

    #[test]
    fn odd_rows_are_skipped_and_counted() {
        let parsed = gex(r#""strikes":[[1,2],[3,4,5],[6,7,8,[]],[9,1,2,[3]],"x"],"max_priors":[[1],[2,3]]"#).unwrap();
        let strikes: Vec<_> =
            parsed.record.strikes.iter().map(|row| (row.strike_price, row.priors.is_some())).collect();
        assert_eq!(strikes, [(300, false), (600, false), (900, true)]);
        assert_eq!(parsed.record.max_priors.unwrap().tuples.len(), 1);
        assert_eq!(parsed.noticed.skipped_rows, 3);
    }

    #[test]
    fn days_that_are_missing_are_written_as_zero_and_no_rows_as_nothing() {
        let record = gex(r#""max_priors":[],"strikes":null"#).unwrap().record;
        assert_eq!((record.min_dte, record.sec_min_dte, record.max_priors), (Some(0), Some(0), None));
    }

    #[test]
    fn a_list_must_be_one() {
        let error = gex(r#""strikes":{"1":2}"#).unwrap_err().to_string();
        assert_eq!(error, r#"strikes: expected a list, got {"1":2}"#);
    }
}
