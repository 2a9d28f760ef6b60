//! The dates that somebody wants on the clock's axis: `A..B`, `A,B`, or the body of a load.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use serde::Deserialize;

use super::moment_text::{cut, cut_reason};

/// The largest number of dates in one load.
pub const MAX_DATES: usize = 366;

/// Dates as they were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WantedDates {
    /// Every date with data from the first to the last of these, both included.
    Range {
        /// The first.
        from: Date,
        /// The last.
        to: Date,
    },
    /// These, in order and each once; at least one.
    List(Vec<Date>),
}

/// Why dates are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum DatesError {
    /// Not a day's folder. The text is that of `docs/protocols/gexbot.md`, "The fakers".
    #[error("invalid date format: {date} (expected YYYY-MM-DD)")]
    BadDate { date: String },
    /// The range is backwards.
    #[error("expected a range from an earlier date to a later one, got {from}..{to}")]
    Backwards { from: Date, to: Date },
    /// None, or too many.
    #[error("expected 1 to {MAX_DATES} dates, got {count}")]
    Count { count: usize },
    /// Not JSON, or none of the three shapes.
    #[error("expected {{\"date\":…}}, {{\"from\":…,\"to\":…}} or {{\"dates\":[…]}}: {reason}")]
    BadShape { reason: String },
    /// A range in which no date has data.
    #[error("no date from {from} to {to} has data; available dates: {available}")]
    Empty { from: Date, to: Date, available: String },
}

impl FromStr for WantedDates {
    type Err = DatesError;

    fn from_str(text: &str) -> Result<Self, DatesError> {
        match text.split_once("..") {
            Some((from, to)) => range(from.trim(), to.trim()),
            None => list(text.split(',').map(str::trim).filter(|date| !date.is_empty())),
        }
    }
}

impl fmt::Display for WantedDates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { from, to } => write!(f, "{from}..{to}"),
            Self::List(dates) => f.write_str(&comma(dates)),
        }
    }
}

impl WantedDates {
    /// The body of `POST /replay/load`.
    pub fn of_json(body: &[u8]) -> Result<Self, DatesError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct DatesBody {
            date: Option<String>,
            from: Option<String>,
            to: Option<String>,
            dates: Option<Vec<String>>,
        }
        let bad = |reason: &str| DatesError::BadShape { reason: cut_reason(reason) };
        // An array would be taken for the keys in their order.
        if body.trim_ascii_start().first() == Some(&b'[') {
            return Err(bad("got an array"));
        }
        let body: DatesBody = serde_json::from_slice(body).map_err(|error| bad(&error.to_string()))?;
        match body {
            DatesBody { date: Some(date), from: None, to: None, dates: None } => list([date.as_str()].into_iter()),
            DatesBody { date: None, from: Some(from), to: Some(to), dates: None } => range(&from, &to),
            DatesBody { date: None, from: None, to: None, dates: Some(dates) } => {
                list(dates.iter().map(String::as_str))
            }
            DatesBody { date: None, from: None, to: None, dates: None } => Err(bad("got none of them")),
            DatesBody { date: None, dates: None, .. } => Err(bad("got from or to without the other")),
            _ => Err(bad("got more than one of them")),
        }
    }

    /// The dates that are meant, when `available` have data. Dates of a list are not looked up: whoever loads them
    /// refuses those without data.
    pub fn among(&self, available: &[Date]) -> Result<Vec<Date>, DatesError> {
        let (from, to) = match self {
            Self::List(dates) => return Ok(dates.clone()),
            Self::Range { from, to } => (*from, *to),
        };
        let within: Vec<Date> = available.iter().copied().filter(|date| (from..=to).contains(date)).collect();
        match within.len() {
            0 => Err(DatesError::Empty { from, to, available: shown(available) }),
            count if count > MAX_DATES => Err(DatesError::Count { count }),
            _ => Ok(within),
        }
    }
}

/// Dates for an error: all if they are few, otherwise the first, the last and how many.
pub fn shown(dates: &[Date]) -> String {
    const FEW: usize = 10;
    match dates {
        [] => "none".to_owned(),
        [first, .., last] if dates.len() > FEW => format!("{first} to {last} ({} of them)", dates.len()),
        dates => comma(dates),
    }
}

fn comma(dates: &[Date]) -> String {
    dates.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Only the full form.
fn date(text: &str) -> Result<Date, DatesError> {
    let date = text.parse::<Date>().ok().filter(|date| date.to_string() == text);
    date.ok_or_else(|| DatesError::BadDate { date: cut(text) })
}

fn range(from: &str, to: &str) -> Result<WantedDates, DatesError> {
    let (from, to) = (date(from)?, date(to)?);
    if from > to { Err(DatesError::Backwards { from, to }) } else { Ok(WantedDates::Range { from, to }) }
}

fn list<'a>(texts: impl Iterator<Item = &'a str>) -> Result<WantedDates, DatesError> {
    let mut dates = texts.map(date).collect::<Result<Vec<_>, _>>()?;
    dates.sort_unstable();
    dates.dedup();
    let count = dates.len();
    if (1..=MAX_DATES).contains(&count) { Ok(WantedDates::List(dates)) } else { Err(DatesError::Count { count }) }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date as day;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_and_a_list_are_read_from_text_and_json_alike() {
        let range = WantedDates::Range { from: day(2025, 11, 24), to: day(2025, 11, 28) };
        let list = WantedDates::List(vec![day(2025, 11, 24), day(2025, 11, 28)]);
        let one = WantedDates::List(vec![day(2025, 11, 28)]);
        for (text, json, expected) in [
            ("2025-11-24..2025-11-28", r#"{"from":"2025-11-24","to":"2025-11-28"}"#, &range),
            ("2025-11-28,2025-11-24,2025-11-28", r#"{"dates":["2025-11-28","2025-11-24"]}"#, &list),
            ("2025-11-28", r#"{"date":"2025-11-28"}"#, &one),
        ] {
            assert_eq!(text.parse().as_ref(), Ok(expected));
            assert_eq!(WantedDates::of_json(json.as_bytes()).as_ref(), Ok(expected));
            assert_eq!(expected.to_string().parse().as_ref(), Ok(expected));
        }
    }

    #[test]
    fn a_range_means_its_dates_with_data() {
        let available = [day(2025, 11, 24), day(2025, 11, 26), day(2025, 12, 1)];
        let range: WantedDates = "2025-11-24..2025-11-30".parse().unwrap();
        assert_eq!(range.among(&available), Ok(available[..2].to_vec()));
        let empty: WantedDates = "2025-11-27..2025-11-28".parse().unwrap();
        let error = empty.among(&available).unwrap_err().to_string();
        let words = "no date from 2025-11-27 to 2025-11-28 has data; available dates: 2025-11-24,2025-11-26,2025-12-01";
        assert_eq!(error, words);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, expected) in [
            ("", "expected 1 to 366 dates, got 0"),
            ("20251128", "invalid date format: 20251128 (expected YYYY-MM-DD)"),
            ("2025-02-30", "invalid date format: 2025-02-30 (expected YYYY-MM-DD)"),
            (
                "2025-11-28..2025-11-24",
                "expected a range from an earlier date to a later one, got 2025-11-28..2025-11-24",
            ),
            ("..", "invalid date format:  (expected YYYY-MM-DD)"),
        ] {
            assert_eq!(text.parse::<WantedDates>().unwrap_err().to_string(), expected);
        }
        for body in [
            "",
            "{}",
            "[]",
            r#"["2025-11-28"]"#,
            r#"{"date":1}"#,
            r#"{"date":"2025-11-28","to":"2025-11-28"}"#,
            r#"{"from":"2025-11-28"}"#,
            r#"{"dates":"2025-11-28"}"#,
            r#"{"day":"2025-11-28"}"#,
        ] {
            let error = WantedDates::of_json(body.as_bytes()).unwrap_err();
            assert!(matches!(error, DatesError::BadShape { .. }), "{body}: {error}");
        }
        assert_eq!(WantedDates::of_json(br#"{"dates":[]}"#), Err(DatesError::Count { count: 0 }));
    }

    proptest! {
        #[test]
        fn no_text_is_more_dates_than_may_be(text in "[-0-9,. ]{0,60}|.{0,80}") {
            match text.parse::<WantedDates>() {
                Ok(WantedDates::List(dates)) => {
                    prop_assert!((1..=MAX_DATES).contains(&dates.len()) && dates.is_sorted());
                }
                Ok(WantedDates::Range { from, to }) => prop_assert!(from <= to),
                Err(error) => prop_assert!(error.to_string().chars().count() < 300),
            }
        }
    }
}
