//! Reading a TOML table key by key, so that every refusal names its key and what was expected.

use std::fmt::{self, Display};
use std::time::Duration;

/// Why a `[[feeds]]` block is refused. The operator's to fix; nothing was opened yet.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: expected {expected}{}", got(.actual.as_deref()))]
pub struct SettingsError {
    /// Where, such as `feeds[0].broker`.
    pub key: String,
    /// What is accepted.
    pub expected: String,
    /// What stood there, if something did.
    pub actual: Option<String>,
}

fn got(actual: Option<&str>) -> String {
    actual.map(|actual| format!(", got {actual}")).unwrap_or_default()
}

impl SettingsError {
    /// Something else was expected there.
    pub fn new(key: impl Into<String>, expected: impl Into<String>, actual: impl Display) -> Self {
        Self { key: key.into(), expected: expected.into(), actual: Some(actual.to_string()) }
    }
}

/// A table that is being read: every key once, and none left at the end.
pub struct Table {
    path: String,
    left: toml::Table,
    /// The keys that were asked for, for hints.
    known: Vec<String>,
}

impl Table {
    /// The table at `path`.
    pub fn new(path: String, table: toml::Table) -> Self {
        Self { path, left: table, known: Vec::new() }
    }

    /// Where a key of this table is.
    pub fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    /// The value of a key, whatever it is.
    pub fn take(&mut self, key: &str) -> Option<toml::Value> {
        self.known.push(key.to_owned());
        self.left.remove(key)
    }

    /// A string.
    pub fn text(&mut self, key: &str) -> Result<Option<String>, SettingsError> {
        match self.take(key) {
            None => Ok(None),
            Some(toml::Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(SettingsError::new(self.at(key), "a string", Shown(&other))),
        }
    }

    /// A string that must be there.
    pub fn required(&mut self, key: &str, expected: &str) -> Result<String, SettingsError> {
        self.text(key)?.ok_or_else(|| self.missing(key, expected))
    }

    /// One of some names, as what it stands for.
    pub fn choice<T: Copy>(&mut self, key: &str, names: &[(&str, T)]) -> Result<Option<T>, SettingsError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let found = names.iter().find(|(name, _)| *name == text);
        let expected = || {
            let names: Vec<_> = names.iter().map(|(name, _)| *name).collect();
            let (last, others) = names.split_last().expect("a choice has names");
            format!("{} or {last}", others.join(", "))
        };
        found.map(|(_, value)| Some(*value)).ok_or_else(|| self.wrong(key, &expected(), &text))
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, key: &str) -> Result<Option<bool>, SettingsError> {
        match self.take(key) {
            None => Ok(None),
            Some(toml::Value::Boolean(value)) => Ok(Some(value)),
            Some(other) => Err(SettingsError::new(self.at(key), "true or false", Shown(&other))),
        }
    }

    /// A whole number in a range, its ends included.
    pub fn number(&mut self, key: &str, range: (u64, u64)) -> Result<Option<u64>, SettingsError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
        let number = number.filter(|number| (range.0..=range.1).contains(number));
        let expected = format!("a whole number from {} to {}", range.0, range.1);
        number.map(Some).ok_or_else(|| SettingsError::new(self.at(key), expected, Shown(&value)))
    }

    /// A list of whole numbers, not empty.
    pub fn numbers(&mut self, key: &str) -> Result<Option<Vec<u64>>, SettingsError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        let numbers: Option<Vec<u64>> =
            items.iter().map(|item| item.as_integer().and_then(|number| u64::try_from(number).ok())).collect();
        let numbers = numbers.filter(|numbers| !numbers.is_empty());
        numbers.map(Some).ok_or_else(|| SettingsError::new(self.at(key), "a list of whole numbers", Shown(&value)))
    }

    /// How often a second: above 0, at most 1000.
    pub fn rate(&mut self, key: &str) -> Result<Option<f64>, SettingsError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let rate = value.as_float().or_else(|| value.as_integer().map(|number| number as f64));
        let rate = rate.filter(|&rate| rate > 0.0 && rate <= 1000.0);
        let expected = "a number above 0, at most 1000";
        rate.map(Some).ok_or_else(|| SettingsError::new(self.at(key), expected, Shown(&value)))
    }

    /// A duration as a string, its bounds included.
    pub fn duration(&mut self, key: &str, range: (Duration, Duration)) -> Result<Option<Duration>, SettingsError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let duration = value.as_str().and_then(|text| humantime::parse_duration(text).ok());
        let duration = duration.filter(|duration| (range.0..=range.1).contains(duration));
        let shown = humantime::format_duration;
        let expected = format!("a duration such as 500ms, from {} to {}", shown(range.0), shown(range.1));
        duration.map(Some).ok_or_else(|| SettingsError::new(self.at(key), expected, Shown(&value)))
    }

    /// Something else was expected.
    pub fn wrong(&self, key: &str, expected: &str, actual: &str) -> SettingsError {
        SettingsError::new(self.at(key), expected, format_args!("{actual:?}"))
    }

    /// Something was expected.
    pub fn missing(&self, key: &str, expected: &str) -> SettingsError {
        SettingsError { key: self.at(key), expected: expected.to_owned(), actual: None }
    }

    /// Whatever is left has no meaning.
    pub fn finish(self) -> Result<(), SettingsError> {
        let Some(key) = self.left.keys().next() else { return Ok(()) };
        let similar = self.known.iter().map(|known| (distance(known, key), known)).min();
        let hint = match similar {
            Some((0..=3, known)) => format!("; did you mean {known}?"),
            _ => String::new(),
        };
        let expected = format!("the name of a setting{hint}");
        Err(SettingsError { key: self.at(key), expected, actual: None })
    }
}

/// A value in an error: short, and tables by their type only.
struct Shown<'a>(&'a toml::Value);

impl Display for Shown<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            toml::Value::String(text) => write!(formatter, "{:?}", text.chars().take(60).collect::<String>()),
            toml::Value::Integer(number) => write!(formatter, "\"{number}\""),
            toml::Value::Float(number) => write!(formatter, "\"{number}\""),
            toml::Value::Boolean(value) => write!(formatter, "\"{value}\""),
            other => write!(formatter, "a {}", other.type_str()),
        }
    }
}

/// Letters to change, add or remove (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, &there) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != there);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}
