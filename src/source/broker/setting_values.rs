//! What stands behind the keys of `[[feeds]]`: values with bounds, and the error that names a key whose
//! value is refused.

use std::fmt::Display;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Why a `[[feeds]]` block is refused. The operator must fix it; nothing was opened yet.
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

/// `value` is not what was expected: at most 60 characters of it, and of a table or list only that it is one.
fn refused(expected: impl Display, value: &toml::Value) -> String {
    let shown: String = match value {
        toml::Value::Table(_) => "a table".to_owned(),
        toml::Value::Array(_) => "a list".to_owned(),
        value => value.to_string().chars().take(60).collect(),
    };
    format!("expected {expected}, got {shown}")
}

/// A whole number from `FROM` to `TO`, both included.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "toml::Value")]
pub struct Whole<const FROM: u64, const TO: u64>(pub u64);

impl<const FROM: u64, const TO: u64> TryFrom<toml::Value> for Whole<FROM, TO> {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
        let number = number.filter(|number| (FROM..=TO).contains(number));
        number.map(Self).ok_or_else(|| refused(format_args!("a whole number from {FROM} to {TO}"), &value))
    }
}

/// A duration such as `500ms`, from `FROM_MS` to `TO_MS`, both included.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "toml::Value")]
pub struct SettingSpan<const FROM_MS: u64, const TO_MS: u64>(pub Duration);

impl<const FROM_MS: u64, const TO_MS: u64> TryFrom<toml::Value> for SettingSpan<FROM_MS, TO_MS> {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        let [from, to] = [FROM_MS, TO_MS].map(Duration::from_millis);
        let duration = value.as_str().and_then(|text| humantime::parse_duration(text).ok());
        let shown = humantime::format_duration;
        duration.filter(|duration| (from..=to).contains(duration)).map(Self).ok_or_else(|| {
            refused(format_args!("a duration such as 500ms, from {} to {}", shown(from), shown(to)), &value)
        })
    }
}

/// How often a second: above 0, at most 1000.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "toml::Value")]
pub struct PerSecond(pub f64);

impl TryFrom<toml::Value> for PerSecond {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        let rate = value.as_float().or_else(|| value.as_integer().map(|number| number as f64));
        let rate = rate.filter(|&rate| rate > 0.0 && rate <= 1000.0);
        rate.map(Self).ok_or_else(|| refused("a number above 0, at most 1000", &value))
    }
}
