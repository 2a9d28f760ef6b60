//! JSON numbers as exact decimals: what came as `150.10` leaves as `150.10`.
//!
//! For `#[serde(with = "exact")]`, and `exact::option` where the number may be missing. serde's own
//! numbers are binary floats, so the number's text is taken and given as it stands.

use std::fmt::{self, Write};

use rust_decimal::Decimal;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// Reads a JSON number of at most 28 digits, at most 28 of them behind the point. Zeros at the end of the fraction
/// beyond that are dropped.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
    parse(<&RawValue>::deserialize(deserializer)?.get()).map_err(D::Error::custom)
}

/// Writes the decimal as a JSON number with the digits it has.
pub fn serialize<S: Serializer>(number: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
    let mut digits = Digits::default();
    write!(digits, "{number}").map_err(S::Error::custom)?;
    serde_json::from_str::<&RawValue>(digits.as_str()).map_err(S::Error::custom)?.serialize(serializer)
}

/// A decimal's text, on the stack: at most 29 digits, sign, point and a leading zero. With a `String` a
/// price took a quarter longer to write.
#[derive(Default)]
struct Digits {
    bytes: [u8; 32],
    len: usize,
}

impl Digits {
    fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl Write for Digits {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let end = self.len + part.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(part.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// The same for a number that may be missing or null.
pub mod option {
    use super::{Decimal, Deserialize, Deserializer, RawValue, Serializer, parse};
    use serde::de::Error as _;

    /// Reads a JSON number; null is none.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Decimal>, D::Error> {
        let raw = Option::<&RawValue>::deserialize(deserializer)?;
        raw.map(|raw| parse(raw.get())).transpose().map_err(D::Error::custom)
    }

    /// Writes the number, or null; leave missing ones out with `skip_serializing_if`.
    pub fn serialize<S: Serializer>(number: &Option<Decimal>, serializer: S) -> Result<S::Ok, S::Error> {
        match number {
            Some(number) => super::serialize(number, serializer),
            None => serializer.serialize_none(),
        }
    }
}

fn parse(text: &str) -> Result<Decimal, &'static str> {
    if !text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return Err("expected a number");
    }
    let exact = if text.contains(['e', 'E']) {
        Decimal::from_scientific(text)
    } else {
        let shorter = || text.contains('.').then(|| text.trim_end_matches('0').trim_end_matches('.'));
        Decimal::from_str_exact(text).or_else(|error| shorter().map_or(Err(error), Decimal::from_str_exact))
    };
    exact.map_err(|_| "expected a number of at most 28 digits, at most 28 of them behind the point")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Numbers {
        #[serde(with = "super")]
        a: Decimal,
        #[serde(default, with = "super::option", skip_serializing_if = "Option::is_none")]
        b: Option<Decimal>,
    }

    #[test]
    fn numbers_keep_their_digits() {
        for text in ["150.10", "0", "-0.05", "123456789012345678.123456789"] {
            let json = format!(r#"{{"a":{text},"b":{text}}}"#);
            assert_eq!(serde_json::to_string(&serde_json::from_str::<Numbers>(&json).unwrap()).unwrap(), json);
        }
        assert_eq!(parse("1.5e3").unwrap().to_string(), "1500");
        assert_eq!(parse("1e-28").unwrap().to_string(), "0.0000000000000000000000000001");
        assert_eq!(parse("0.50000000000000000000000000000").unwrap().to_string(), "0.5");
        assert_eq!(parse("7.000000000000000000000000000000").unwrap().to_string(), "7");
        assert_eq!(
            parse("3.2e-34"),
            Err("expected a number of at most 28 digits, at most 28 of them behind the point")
        );
        for text in ["\"1\"", "true", "null", "[1]", "1e400", "12345678901234567890123456789012345"] {
            assert!(serde_json::from_str::<Numbers>(&format!(r#"{{"a":{text}}}"#)).is_err(), "{text}");
        }
    }

    #[test]
    fn the_longest_decimals_are_written() {
        for number in [Decimal::MIN, Decimal::MAX, Decimal::from_i128_with_scale(-(1 << 95), 28)] {
            let json = serde_json::to_string(&Numbers { a: number, b: None }).unwrap();
            assert_eq!(json, format!(r#"{{"a":{number}}}"#));
        }
    }

    #[test]
    fn a_missing_number_and_null_are_none() {
        let expected = Numbers { a: Decimal::ONE, b: None };
        for json in [r#"{"a":1}"#, r#"{"a":1,"b":null}"#] {
            assert_eq!(serde_json::from_str::<Numbers>(json).unwrap(), expected);
        }
        assert_eq!(serde_json::to_string(&expected).unwrap(), r#"{"a":1}"#);
    }
}
