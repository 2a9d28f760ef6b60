//! What all records have in common: the object a line is, its fields, and what is wrong with them.
//!
//! Numbers stay text until [`decimal::scale`] multiplies them exactly: no float is involved.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::decimal::{self, DecimalError};

/// A record, and what was noticed on the way.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed<T> {
    /// The message at the finest scale there is.
    pub record: T,
    /// What did not stand in the line as it should.
    pub noticed: Noticed,
}

impl<T> Parsed<T> {
    /// The same with another form of the record.
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Parsed<U> {
        Parsed { record: change(self.record), noticed: self.noticed }
    }
}

/// What a good record may lack: counted, never refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Noticed {
    /// Numbers that were missing or null and became zero.
    pub missing: u32,
    /// Rows of a list (strikes, contracts, priors) that were skipped because they are too short or hold something
    /// else than numbers in range.
    pub skipped_rows: u32,
    /// Sums that do not fit their field and were set to the end of its range.
    pub saturated: u32,
}

/// Why a line is not a record. The operator must fix the data; the line is skipped.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The line is not UTF-8.
    #[error("expected UTF-8, got byte 0x{byte:02x} at column {column}")]
    NotUtf8 {
        /// The first invalid byte.
        byte: u8,
        /// Its 1-based position in the line.
        column: usize,
    },
    /// The line is not one JSON object of this shape.
    #[error("expected one JSON object, got: {0}")]
    NotAnObject(String),
    /// A required field is missing.
    #[error("{key}: expected {expected}, got nothing")]
    Missing {
        /// The JSONL key.
        key: &'static str,
        /// What a valid record has there.
        expected: &'static str,
    },
    /// A field has another JSON type.
    #[error("{key}: expected {expected}, got {}", shortened(.actual))]
    WrongType {
        /// The JSONL key.
        key: &'static str,
        /// The type in a valid record.
        expected: &'static str,
        /// The JSON text that came.
        actual: String,
    },
    /// A number that its field cannot hold.
    #[error("{key}: expected {expected}, got {}", shortened(.actual))]
    OutOfRange {
        /// The JSONL key.
        key: &'static str,
        /// The range, in the source's units.
        expected: &'static str,
        /// The JSON text that came.
        actual: String,
    },
    /// No line can be a record of this kind: it is made from records of other kinds.
    #[error("expected a kind that has records of its own, got spot")]
    NotRecorded,
}

/// The numbers of one kind: their factor as a power of ten, and the range for people to read.
pub(super) struct Scale {
    /// The factor is 10 to this power.
    pub(super) places: u32,
    /// The range of values, in the source's units.
    pub(super) range: &'static str,
}

/// A price: `uint32`, ×100.
pub(super) const PRICE: Scale = Scale { places: 2, range: "a number from 0 to 42949672.95" };
/// A signed value: `sint32`, ×100.
pub(super) const VALUE: Scale = Scale { places: 2, range: "a number from -21474836.48 to 21474836.47" };
/// A sum: `sint32`, ×1000.
pub(super) const SUM: Scale = Scale { places: 3, range: "a number from -2147483.648 to 2147483.647" };
/// Days to an expiry: `sint32`, ×1.
pub(super) const DAYS: Scale = Scale { places: 0, range: "a number of days" };

const NUMBER: &str = "a number";
const TIMESTAMP: Scale = Scale { places: 0, range: "a number of Unix seconds" };
const TICKER: &str = "a non-empty string";
const LIST: &str = "a list";

/// Reads a line as one JSON object.
pub(super) fn object<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, RecordError> {
    let text = std::str::from_utf8(line)
        .map_err(|error| RecordError::NotUtf8 { byte: line[error.valid_up_to()], column: error.valid_up_to() + 1 })?;
    // serde would also read the fields from an array.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(RecordError::NotAnObject(shortened(text)));
    }
    serde_json::from_str(text).map_err(|error| RecordError::NotAnObject(shortened(&without_line(&error))))
}

/// The time of the record, Unix seconds.
pub(super) fn timestamp(value: Option<&RawValue>) -> Result<i64, RecordError> {
    let value = value.ok_or(RecordError::Missing { key: "timestamp", expected: TIMESTAMP.range })?;
    scaled("timestamp", value, &TIMESTAMP)
}

/// What the record is of.
pub(super) fn ticker(value: Option<&RawValue>) -> Result<String, RecordError> {
    let value = value.ok_or(RecordError::Missing { key: "ticker", expected: TICKER })?;
    match serde_json::from_str::<String>(value.get()) {
        Ok(ticker) if !ticker.is_empty() => Ok(ticker),
        _ => Err(RecordError::WrongType { key: "ticker", expected: TICKER, actual: value.get().to_owned() }),
    }
}

/// A number of a kind; zero, and counted, if it is missing or null.
pub(super) fn number<T: TryFrom<i64> + Default>(
    key: &'static str,
    value: Option<&RawValue>,
    scale: &Scale,
    noticed: &mut Noticed,
) -> Result<T, RecordError> {
    let Some(value) = value else {
        noticed.missing += 1;
        return Ok(T::default());
    };
    T::try_from(scaled(key, value, scale)?).map_err(|_| out_of_range(key, scale, value))
}

/// A sum: what does not fit is set to the end of the range, and counted. The vendor's sums are known to be that
/// large, and a record is worth more than its sum.
pub(super) fn sum(
    key: &'static str,
    value: Option<&RawValue>,
    scale: &Scale,
    noticed: &mut Noticed,
) -> Result<i32, RecordError> {
    let Some(value) = value else {
        noticed.missing += 1;
        return Ok(0);
    };
    let scaled = match decimal::scale(value.get(), scale.places) {
        Ok(scaled) => scaled,
        Err(DecimalError::OutOfRange) if value.get().starts_with('-') => i64::MIN,
        Err(DecimalError::OutOfRange) => i64::MAX,
        Err(DecimalError::NotANumber) => return Err(not_a_number(key, value)),
    };
    let held = scaled.clamp(i32::MIN.into(), i32::MAX.into());
    noticed.saturated += u32::from(held != scaled);
    Ok(held as i32)
}

/// The text of a list; nothing if it is missing or null.
pub(super) fn list<'a>(key: &'static str, value: Option<&'a RawValue>) -> Result<Option<&'a str>, RecordError> {
    match value.map(RawValue::get) {
        None => Ok(None),
        Some(text) if text.starts_with('[') => Ok(Some(text)),
        Some(text) => Err(RecordError::WrongType { key, expected: LIST, actual: text.to_owned() }),
    }
}

fn scaled(key: &'static str, value: &RawValue, scale: &Scale) -> Result<i64, RecordError> {
    decimal::scale(value.get(), scale.places).map_err(|error| match error {
        DecimalError::NotANumber => not_a_number(key, value),
        DecimalError::OutOfRange => out_of_range(key, scale, value),
    })
}

fn not_a_number(key: &'static str, value: &RawValue) -> RecordError {
    RecordError::WrongType { key, expected: NUMBER, actual: value.get().to_owned() }
}

fn out_of_range(key: &'static str, scale: &Scale, value: &RawValue) -> RecordError {
    RecordError::OutOfRange { key, expected: scale.range, actual: value.get().to_owned() }
}

/// serde's message contains "at line 1", which would contradict the line number of the file in the log.
fn without_line(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}

/// Enough of a value to recognise it: one bad line must not fill the log.
fn shortened(text: &str) -> String {
    const LIMIT: usize = 100;
    let plain = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let mut shortened: String = text.chars().take(LIMIT).map(plain).collect();
    if text.chars().nth(LIMIT).is_some() {
        shortened.push('…');
    }
    shortened
}
