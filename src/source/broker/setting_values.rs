//! What stands behind the keys of `[[feeds]]`: values with bounds, and the error that names a key whose
//! value is refused.

use std::fmt::{self, Display};
use std::time::Duration;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error, Unexpected, Visitor};

/// Why a `[[feeds]]` block is refused. The operator's to fix; nothing was opened yet.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: expected {expected}{}", .actual.as_ref().map(|actual| format!(", got {actual}")).unwrap_or_default())]
pub struct SettingsError {
    /// Where, such as `feeds[0].broker`.
    pub key: String,
    /// What is accepted, with a hint where a name was mistyped.
    pub expected: String,
    /// What stood there; `None`: nothing, or something that must not be printed.
    pub actual: Option<String>,
}

impl SettingsError {
    /// Something else was expected at `key`.
    pub fn new(key: impl Into<String>, expected: impl Into<String>, actual: impl Display) -> Self {
        Self { key: key.into(), expected: expected.into(), actual: Some(actual.to_string()) }
    }

    /// Something was expected at `key`.
    pub fn missing(key: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { key: key.into(), expected: expected.into(), actual: None }
    }

    /// serde's message about the value at `key`, in our form.
    fn of_message(key: String, message: &str) -> Self {
        let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
        if let (true, [name, known @ ..]) = (message.starts_with("unknown field"), &names[..]) {
            let key = if key.ends_with(&format!(".{name}")) { key } else { format!("{key}.{name}") };
            let similar = known.iter().min_by_key(|known| strsim::levenshtein(known, name));
            let similar = similar.filter(|known| strsim::levenshtein(known, name) <= 3);
            let hint = similar.map(|known| format!("; did you mean {known}?")).unwrap_or_default();
            return Self::missing(key, format!("the name of a setting{hint}"));
        }
        if let (true, [name, known @ .., last]) = (message.starts_with("unknown variant"), &names[..]) {
            return Self::new(key, format!("{} or {last}", known.join(", ")), format_args!("{name:?}"));
        }
        if let (true, [name]) = (message.starts_with("missing field"), &names[..]) {
            return Self::missing(format!("{key}.{name}"), "a value, there is none");
        }
        let invalid = ["invalid type: ", "invalid value: "].iter().find_map(|start| message.strip_prefix(start));
        match invalid.and_then(|invalid| invalid.rsplit_once(", expected ")) {
            Some((actual, expected)) => Self::new(key, expected.replace("a map", "a table"), shown(actual)),
            None => Self::missing(key, message.strip_prefix("expected ").unwrap_or(message)),
        }
    }
}

/// A value as serde describes it, without its type where the value tells: at most 60 characters.
fn shown(described: &str) -> String {
    let value = match described.split_once(' ') {
        Some(("integer" | "boolean", value)) => value.trim_matches('`'),
        Some(("floating", value)) => value.trim_start_matches("point ").trim_matches('`'),
        Some(("string", value)) => value,
        _ if described == "map" => "a table",
        _ if described == "sequence" => "a list",
        _ => described,
    };
    value.chars().take(60).collect()
}

/// Reads the value that stands at `path`; an error names the key below it.
pub fn read<T: DeserializeOwned>(path: &str, value: toml::Value) -> Result<T, SettingsError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let below = error.path().to_string();
        let key = if below == "." { path.to_owned() } else { format!("{path}.{below}") };
        SettingsError::of_message(key, error.inner().message())
    })
}

/// A whole number from `FROM` to `TO`, both included.
#[derive(Debug, Clone, Copy)]
pub struct Whole<const FROM: u64, const TO: u64>(pub u64);

impl<'de, const FROM: u64, const TO: u64> Deserialize<'de> for Whole<FROM, TO> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number<const FROM: u64, const TO: u64>;

        impl<const FROM: u64, const TO: u64> Visitor<'_> for Number<FROM, TO> {
            type Value = Whole<FROM, TO>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "a whole number from {FROM} to {TO}")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                let read = u64::try_from(number).ok().filter(|read| (FROM..=TO).contains(read));
                read.map(Whole).ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
            }
        }
        deserializer.deserialize_u64(Number)
    }
}

/// A duration such as `500ms`, from `FROM_MS` to `TO_MS`, both included.
#[derive(Debug, Clone, Copy)]
pub struct Span<const FROM_MS: u64, const TO_MS: u64>(pub Duration);

impl<'de, const FROM_MS: u64, const TO_MS: u64> Deserialize<'de> for Span<FROM_MS, TO_MS> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text<const FROM_MS: u64, const TO_MS: u64>;

        impl<const FROM_MS: u64, const TO_MS: u64> Visitor<'_> for Text<FROM_MS, TO_MS> {
            type Value = Span<FROM_MS, TO_MS>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                let [from, to] = [FROM_MS, TO_MS].map(|ms| humantime::format_duration(Duration::from_millis(ms)));
                write!(formatter, "a duration such as 500ms, from {from} to {to}")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                let range = Duration::from_millis(FROM_MS)..=Duration::from_millis(TO_MS);
                let duration = humantime::parse_duration(text).ok().filter(|duration| range.contains(duration));
                duration.map(Span).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// How often a second: above 0, at most 1000.
#[derive(Debug, Clone, Copy)]
pub struct PerSecond(pub f64);

impl<'de> Deserialize<'de> for PerSecond {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Rate;

        impl Visitor<'_> for Rate {
            type Value = PerSecond;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a number above 0, at most 1000")
            }

            fn visit_f64<E: Error>(self, rate: f64) -> Result<Self::Value, E> {
                if rate > 0.0 && rate <= 1000.0 {
                    return Ok(PerSecond(rate));
                }
                Err(E::invalid_value(Unexpected::Float(rate), &self))
            }

            fn visit_i64<E: Error>(self, rate: i64) -> Result<Self::Value, E> {
                self.visit_f64(rate as f64)
            }
        }
        deserializer.deserialize_f64(Rate)
    }
}
