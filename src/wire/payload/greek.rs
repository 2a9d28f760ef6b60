//! A greek record: from its JSONL line to its protobuf message, for the state_greeks hubs.
//!
//! Both profiles scale it alike. Keys, fields and factors: `docs/protocols/gexbot.md`.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::fields::{self, Noticed, Parsed, RecordError};
use super::rows::rows;
pub use crate::wire::proto::option_profile::{MiniContract, MiniContractPriors, OptionProfile};

/// The numbers stay text until they are scaled; unknown keys are ignored.
#[derive(Deserialize)]
struct GreekLine<'a> {
    #[serde(borrow, default)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow, default)]
    ticker: Option<&'a RawValue>,
    #[serde(borrow, default)]
    spot: Option<&'a RawValue>,
    #[serde(borrow, default)]
    min_dte: Option<&'a RawValue>,
    #[serde(borrow, default)]
    sec_min_dte: Option<&'a RawValue>,
    #[serde(borrow, default)]
    major_positive: Option<&'a RawValue>,
    #[serde(borrow, default)]
    major_negative: Option<&'a RawValue>,
    #[serde(borrow, default)]
    major_long_gamma: Option<&'a RawValue>,
    #[serde(borrow, default)]
    major_short_gamma: Option<&'a RawValue>,
    #[serde(borrow, default)]
    mini_contracts: Option<&'a RawValue>,
}

/// Reads one JSONL line (without its line break).
pub fn parse(line: &[u8]) -> Result<Parsed<OptionProfile>, RecordError> {
    let line: GreekLine<'_> = fields::object(line)?;
    let mut noticed = Noticed::default();
    let seen = &mut noticed;
    let record = OptionProfile {
        timestamp: fields::timestamp(line.timestamp)?,
        ticker: fields::ticker(line.ticker)?,
        spot: fields::number("spot", line.spot, &fields::PRICE, seen)?,
        min_dte: Some(fields::number("min_dte", line.min_dte, &fields::DAYS, seen)?),
        sec_min_dte: Some(fields::number("sec_min_dte", line.sec_min_dte, &fields::DAYS, seen)?),
        major_call_gamma: fields::number("major_positive", line.major_positive, &fields::PRICE, seen)?,
        major_put_gamma: fields::number("major_negative", line.major_negative, &fields::PRICE, seen)?,
        major_long_gamma: fields::number("major_long_gamma", line.major_long_gamma, &fields::PRICE, seen)?,
        major_short_gamma: fields::number("major_short_gamma", line.major_short_gamma, &fields::PRICE, seen)?,
        mini_contracts: contracts(line.mini_contracts, seen)?,
    };
    Ok(Parsed { record, noticed })
}

/// What a contract's row takes at least in a real record: how many rows to make room for.
const ROW_BYTES: usize = 64;

/// Rows `[strike, call_iv, put_iv, call_value, [call priors], put_volume | null, [put priors] | null]`.
fn contracts(value: Option<&RawValue>, noticed: &mut Noticed) -> Result<Vec<MiniContract>, RecordError> {
    let Some(text) = fields::list("mini_contracts", value)? else { return Ok(Vec::new()) };
    Ok(rows(text, text.len() / ROW_BYTES, noticed, |row| {
        Some(MiniContract {
            strike: row.number(2)?,
            call_ivol: row.number(3)?,
            put_ivol: row.number(3)?,
            call_cvolume: row.number(2)?,
            call_cvolume_priors: row.list(2)?,
            put_cvolume: row.optional_number(0)?,
            put_cvolume_priors: Some(row.optional_list(0)?)
                .filter(|values| !values.is_empty())
                .map(|values| MiniContractPriors { values }),
        })
    }))
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    const LINE: &[u8] = include_bytes!("../../../tests/fixtures/gexbot/gamma_zero.jsonl");
    const GOLDEN: &[u8] = include_bytes!("../../../tests/fixtures/gexbot/gamma_zero.payload.bin");

    #[test]
    fn a_record_gives_the_bytes_of_a_foreign_encoder() {
        let parsed = parse(LINE.trim_ascii_end()).unwrap();
        assert_eq!(parsed.record.encode_to_vec(), GOLDEN);
        assert_eq!(parsed.noticed, Noticed::default());
    }

    #[test]
    fn odd_contracts_are_skipped_and_counted() {
        let line = br#"{"timestamp":1,"ticker":"SPX","mini_contracts":[
            [1,2,3,4],[1,2,3,null,[5]],[-1,2,3,4,[5]],[2,0.1,0.2,-3,null],[3,0.1,0.2,-3,[],null,[]],[4,1,1,1,[1],"x",[2]]]}"#;
        let line: Vec<u8> = line.iter().copied().filter(|byte| *byte != b'\n').collect();
        let parsed = parse(&line).unwrap();
        let kept: Vec<_> = parsed.record.mini_contracts.iter().map(|row| row.strike).collect();
        assert_eq!((kept, parsed.noticed.skipped_rows), (vec![200, 300, 400], 3));
        let third = &parsed.record.mini_contracts[1];
        assert_eq!((third.put_cvolume, &third.put_cvolume_priors), (None, &None));
    }
}
