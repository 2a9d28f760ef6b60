//! Does scaling ever differ from big-integer arithmetic?
//!
//! The first byte chooses the scale, the rest is the number's text. The grammar is judged by
//! serde_json, the value computed with num-bigint; both know nothing of `decimal`.
#![no_main]

use flowcast::wire::payload::decimal::{DecimalError, scale};
use libfuzzer_sys::fuzz_target;
use num_bigint::BigInt;
use serde_json::value::RawValue;

fuzz_target!(|input: &[u8]| {
    let Some((&places, text)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let places = u32::from(places % 8);
    assert_eq!(scale(text, places), expected(text, places), "{text:?} at 10^{places}");
});

fn expected(text: &str, places: u32) -> Result<i64, DecimalError> {
    let begins = text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    // serde_json skips white space around a value; a number's text has none.
    let whole = serde_json::from_str::<&RawValue>(text).is_ok_and(|value| value.get().len() == text.len());
    if !begins || !whole {
        return Err(DecimalError::NotANumber);
    }
    let lower = text.to_ascii_lowercase();
    let (mantissa, exponent) = lower.split_once('e').unwrap_or((&lower, "0"));
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: BigInt = format!("{integer}{fraction}").parse().expect("JSON's digits");
    if digits == BigInt::ZERO {
        return Ok(0);
    }
    let exponent: BigInt = exponent.parse().expect("JSON's exponent");
    let shift = exponent + BigInt::from(places) - BigInt::from(fraction.len());
    let value = match i32::try_from(&shift) {
        // Digits that are not zero, moved 20 places up, are over 10^19.
        Ok(20..) => return Err(DecimalError::OutOfRange),
        Ok(up @ 0..) => digits * BigInt::from(10).pow(up.unsigned_abs()),
        Ok(down) if down.unsigned_abs() as usize > mantissa.len() => BigInt::ZERO,
        // Division of BigInts cuts toward zero.
        Ok(down) => digits / BigInt::from(10).pow(down.unsigned_abs()),
        Err(_) if shift < BigInt::ZERO => BigInt::ZERO,
        Err(_) => return Err(DecimalError::OutOfRange),
    };
    // -2^63 has no positive twin and is refused: no field of a record can hold it.
    let value = i64::try_from(value).map_err(|_| DecimalError::OutOfRange)?;
    if value == i64::MIN { Err(DecimalError::OutOfRange) } else { Ok(value) }
}
