//! What a line of JSON says about itself: when it is from, and what it is about.
#![cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "only Kafka's messages and recordings are looked at"))]

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::wire::streams::rfc3339::UtcTime;

/// The fields of a line that give its time and its key.
#[derive(Debug, Default, Deserialize)]
pub struct LineHints<'a> {
    #[serde(borrow, default)]
    timestamp: Option<&'a RawValue>,
    /// GexBot's name of a security.
    #[serde(borrow, default)]
    pub ticker: Option<Cow<'a, str>>,
    /// The name of a security on `/ws`.
    #[serde(borrow, default)]
    pub symbol: Option<Cow<'a, str>>,
}

impl<'a> LineHints<'a> {
    /// `None` if the line is not an object, or these fields are of another type.
    pub fn read(line: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// The timestamp as it stands in the line.
    pub fn timestamp(&self) -> Option<&'a str> {
        self.timestamp.map(RawValue::get)
    }

    /// The timestamp as Unix µs: a number of seconds, or RFC 3339 in quotes.
    pub fn unix_us(&self) -> Option<i64> {
        let json = self.timestamp()?;
        if let Ok(seconds) = json.parse::<f64>() {
            return Some((seconds * 1e6) as i64);
        }
        UtcTime::parse(json.trim_matches('"'))?.timestamp().map(jiff::Timestamp::as_microsecond)
    }
}
