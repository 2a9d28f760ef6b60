//! Rules that requests and records share: one JSON object, valid symbols, fields in their range.

use std::borrow::Cow;

use rust_decimal::Decimal;

use super::rfc3339::UtcTime;

/// Bytes of the longest symbol.
pub const MAX_SYMBOL: usize = 64;

/// Why a record does not have its channel's shape. The publisher must fix it; the record is skipped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct ShapeError {
    /// The field at fault; `record` if the record as a whole is.
    pub field: Cow<'static, str>,
    /// What was expected of it.
    pub reason: Cow<'static, str>,
}

impl ShapeError {
    pub(super) fn new(field: impl Into<Cow<'static, str>>, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

/// Parses one JSON object. serde would also read a structure's fields from an array.
pub fn object<'a, T: serde::Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    if text.starts_with('\u{feff}') {
        return Err("expected one JSON object, got a byte order mark before it".to_owned());
    }
    if !text.trim_start().starts_with('{') {
        return Err("expected one JSON object".to_owned());
    }
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// Whether `symbol` can be one: 1 to [`MAX_SYMBOL`] bytes of text, no comma and no control character.
pub fn is_symbol(symbol: &str) -> bool {
    (1..=MAX_SYMBOL).contains(&symbol.len()) && !symbol.contains(',') && !symbol.contains(char::is_control)
}

/// Parses a record. serde's message names the field of most errors itself.
pub(super) fn record<'a, T: serde::Deserialize<'a>>(payload: &'a [u8]) -> Result<T, ShapeError> {
    let text = std::str::from_utf8(payload).map_err(|_| ShapeError::new("record", "expected UTF-8"))?;
    object(text).map_err(|reason| ShapeError::new("record", reason))
}

pub(super) fn symbol(symbol: &str) -> Result<(), ShapeError> {
    if is_symbol(symbol) {
        return Ok(());
    }
    Err(ShapeError::new("symbol", "expected 1 to 64 bytes without commas and control characters"))
}

pub(super) fn required(field: &'static str, number: Option<Decimal>) -> Result<Decimal, ShapeError> {
    number.ok_or_else(|| ShapeError::new(field, "expected a number, it is missing"))
}

pub(super) fn not_negative(field: &'static str, number: Option<Decimal>) -> Result<(), ShapeError> {
    match number {
        // `-0` counts as zero.
        Some(value) if value < Decimal::ZERO => Err(ShapeError::new(field, "expected a number of at least 0")),
        _ => Ok(()),
    }
}

/// What a `timestamp` must be.
pub const TIMESTAMP: &str =
    "expected RFC 3339 with seconds and a zone, such as 2024-12-19T12:00:00Z or 2024-12-19T17:30:00+05:30";

/// The same time in UTC.
pub(super) fn utc(text: Option<Cow<'_, str>>) -> Result<Option<Cow<'_, str>>, ShapeError> {
    let Some(text) = text else { return Ok(None) };
    let utc = UtcTime::parse(&text).ok_or_else(|| ShapeError::new("timestamp", TIMESTAMP))?.to_string();
    Ok(Some(if utc == text { text } else { Cow::Owned(utc) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_has_no_comma_and_no_control_character() {
        assert!(is_symbol("NSE:2885") && is_symbol("NIFTY 50") && is_symbol(&"é".repeat(32)));
        for bad in ["", "A,B", "A\n", &"A".repeat(65)] {
            assert!(!is_symbol(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_named() {
        let error = object::<serde_json::Value>("\u{feff}{}").unwrap_err();
        assert!(error.contains("a byte order mark before it"), "{error}");
    }

    #[test]
    fn minus_zero_is_not_negative() {
        assert_eq!(not_negative("volume", Some("-0.0".parse().unwrap())), Ok(()));
        assert!(not_negative("volume", Some("-0.1".parse().unwrap())).is_err());
    }
}
