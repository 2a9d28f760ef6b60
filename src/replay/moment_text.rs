//! A point of the recorded time and its like as text: on the command line, in a query, in JSON.

use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Time;
use jiff::{SignedDuration, Timestamp};

use super::change::Speed;
use super::moment::Moment;

/// Characters of a text that an error repeats.
const SHOWN: usize = 64;

/// The latest time that can be asked for: the end of the year 9999, Unix seconds. The earliest is as far before 1970.
const FURTHEST_SECONDS: f64 = 253_402_300_799.0;

/// Why a text is no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {}, got {got}", MOMENTS)]
pub struct MomentError {
    /// What came, cut to a length that fits an error.
    pub got: String,
}

/// The texts that a moment can be.
pub const MOMENTS: &str = "a time such as 2025-11-28T14:30:00Z, Unix seconds, 14:30 or 14:30:05 (exchange time), +30s, -5m, 50% or record:100";

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, MomentError> {
        let text = text.trim();
        // The longest that means something is a time with nanoseconds and an offset.
        let moment = if text.len() <= SHOWN { parse(text) } else { None };
        moment.ok_or_else(|| MomentError { got: format!("{:?}", cut(text)) })
    }
}

impl Moment {
    /// The moment of so many Unix seconds. `None` beyond the year 9999.
    pub fn unix_seconds(seconds: f64) -> Option<Self> {
        let is_time = (-FURTHEST_SECONDS..=FURTHEST_SECONDS).contains(&seconds);
        is_time.then(|| Self::At((seconds * 1000.0).round() as i64))
    }
}

fn parse(text: &str) -> Option<Moment> {
    if let Some(record) = text.strip_prefix("record:") {
        return digits(record).and_then(|record| record.parse().ok()).map(Moment::Record);
    }
    if let Some(share) = text.strip_suffix('%') {
        let share: f64 = decimal(share)?.parse().ok()?;
        return (0.0..=100.0).contains(&share).then_some(Moment::Share(share / 100.0));
    }
    if let Some(ahead) = text.strip_prefix('+') {
        return offset(ahead).map(Moment::Offset);
    }
    if let Some(back) = text.strip_prefix('-') {
        return offset(back).map(|back| Moment::Offset(-back));
    }
    if let Some(seconds) = decimal(text) {
        return Moment::unix_seconds(seconds.parse().ok()?);
    }
    if let Some(time) = time_of_day(text) {
        return Some(Moment::TimeOfDay(time));
    }
    let time: Timestamp = text.parse().ok()?;
    Some(Moment::At(time.as_millisecond()))
}

fn offset(text: &str) -> Option<SignedDuration> {
    SignedDuration::try_from(humantime::parse_duration(text).ok()?).ok()
}

/// `14:30` or `14:30:05`.
fn time_of_day(text: &str) -> Option<Time> {
    let mut parts = text.split(':').map(|part| digits(part).filter(|part| part.len() <= 2)?.parse::<i8>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next().unwrap_or(Some(0))?);
    if parts.next().is_some() {
        return None;
    }
    Time::new(hour, minute, second, 0).ok()
}

fn digits(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
}

/// Digits with at most one point among them: no sign, no exponent, no `inf`.
fn decimal(text: &str) -> Option<&str> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    (digits(whole).is_some() && digits(fraction).is_some()).then_some(text)
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "max" {
            return Ok(Self::Max);
        }
        let times = if text.len() <= SHOWN { text.parse().ok().and_then(Self::times) } else { None };
        times.ok_or_else(|| Self::expected(text.parse().unwrap_or(f64::NAN), &format!("{:?}", cut(text))))
    }
}

impl Speed {
    /// So many times as fast as recorded; `None` outside of [`Speed::LEAST`] to [`Speed::MOST`].
    pub fn times(times: f64) -> Option<Self> {
        (Self::LEAST..=Self::MOST).contains(&times).then_some(Self::Times(times))
    }

    /// What was expected in place of `got`, which is the number `times` or none.
    pub(super) fn expected(times: f64, got: &str) -> String {
        if times > 0.0 {
            return format!("expected a speed from {} to {} or \"max\", got {got}", Self::LEAST, Self::MOST);
        }
        format!("expected a speed above 0 or \"max\", got {got}")
    }
}

/// A duration with a unit, from `least` to `most`.
pub fn duration(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let range = format!("from {} to {}", humantime::format_duration(least), humantime::format_duration(most));
    match humantime::parse_duration(text.trim()) {
        Ok(duration) if (least..=most).contains(&duration) => Ok(duration),
        _ => Err(format!("expected a duration with a unit, such as 500ms or 1m30s, {range}, got {:?}", cut(text))),
    }
}

/// As much of a value as fits an error.
pub(super) fn cut(text: &str) -> String {
    cut_to(SHOWN, text)
}

/// As much of a reason as fits an error: it may quote what came.
pub(super) fn cut_reason(text: &str) -> String {
    cut_to(4 * SHOWN, text)
}

fn cut_to(characters: usize, text: &str) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_text_that_means_a_moment() {
        let time = |hour, minute, second| Moment::TimeOfDay(Time::constant(hour, minute, second, 0));
        for (text, expected) in [
            ("2025-11-28T14:30:00Z", Moment::At(1_764_340_200_000)),
            ("2025-11-28T09:30:00.5-05:00", Moment::At(1_764_340_200_500)),
            ("1764340200", Moment::At(1_764_340_200_000)),
            ("1764340200.25", Moment::At(1_764_340_200_250)),
            ("14:30", time(14, 30, 0)),
            ("9:30:05", time(9, 30, 5)),
            ("+30s", Moment::Offset(SignedDuration::from_secs(30))),
            ("-5m", Moment::Offset(SignedDuration::from_secs(-300))),
            ("50%", Moment::Share(0.5)),
            ("12.5%", Moment::Share(0.125)),
            (" record:100 ", Moment::Record(100)),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_text_that_means_none_is_named_with_what_can_be() {
        for text in [
            "",
            "fast",
            "NaN",
            "inf",
            "1e308",
            "24:00",
            "14:60",
            "14:30:00:00",
            "1:2:3:4",
            "101%",
            "-1%",
            "NaN%",
            "+",
            "-",
            "+5",
            "+-5s",
            "record:",
            "record:-1",
            "record:99999999999999999999999",
            "2025-11-28",
            "2025-11-28T14:30:00",
            ":",
            "14:",
            "99999999999999999",
            "+99999999999999999999y",
        ] {
            let error = text.parse::<Moment>().unwrap_err().to_string();
            assert!(
                error.starts_with("expected a time such as") && error.ends_with(&format!("got {text:?}")),
                "{error}"
            );
        }
        let long = "9".repeat(1000).parse::<Moment>().unwrap_err().to_string();
        assert!(long.len() < 300, "{long}");
    }

    #[test]
    fn a_speed_is_max_or_a_number_in_its_range() {
        assert_eq!(
            ("max".parse(), "2.5".parse(), "1e2".parse()),
            (Ok(Speed::Max), Ok(Speed::Times(2.5)), Ok(Speed::Times(100.0)))
        );
        let error = |text: &str| text.parse::<Speed>().unwrap_err();
        for text in ["0", "-1", "NaN", "fast", "", "-inf"] {
            assert_eq!(error(text), format!("expected a speed above 0 or \"max\", got {text:?}"));
        }
        for text in ["0.001", "100001", "1e308", "inf"] {
            assert_eq!(error(text), format!("expected a speed from 0.01 to 100000 or \"max\", got {text:?}"));
        }
    }

    #[test]
    fn a_duration_has_a_unit_and_a_range() {
        let of = |text| duration(text, Duration::from_millis(1), Duration::from_hours(24));
        assert_eq!(of("1m 30s"), Ok(Duration::from_secs(90)));
        for text in ["", "1", "0s", "25h", "-1s", "fast", "1e308s", "99999999999999999999y"] {
            let error = of(text).unwrap_err();
            assert!(
                error.starts_with("expected a duration with a unit") && error.contains("from 1ms to 1day"),
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_a_moment_in_range_or_a_short_error(text in "[-+0-9:.%TZrecod smh]{0,24}|.{0,80}") {
            match text.parse::<Moment>() {
                Ok(Moment::Share(share)) => prop_assert!((0.0..=1.0).contains(&share)),
                Ok(_) => {}
                Err(error) => prop_assert!(error.to_string().chars().count() < 700),
            }
            if let Ok(Speed::Times(times)) = text.parse::<Speed>() {
                prop_assert!((Speed::LEAST..=Speed::MOST).contains(&times));
            }
        }

        #[test]
        fn a_time_of_day_and_unix_seconds_are_read_back(hour in 0i8..24, minute in 0i8..60, second in 0i8..60, ms in 0i64..4_000_000_000_000) {
            let time = Moment::TimeOfDay(Time::new(hour, minute, second, 0).unwrap());
            prop_assert_eq!(format!("{hour:02}:{minute:02}:{second:02}").parse(), Ok(time));
            let seconds = format!("{}.{:03}", ms / 1000, ms % 1000);
            prop_assert_eq!(seconds.parse(), Ok(Moment::At(ms)));
            let rfc3339 = Timestamp::from_millisecond(ms).unwrap().to_string();
            prop_assert_eq!(rfc3339.parse(), Ok(Moment::At(ms)));
        }
    }
}
