//! Times as RFC 3339 §5.6 has them, and nothing else. What is sent is in UTC.
//!
//! jiff reads more (ISO 8601's basic form, times without seconds, an offset without its colon, RFC 9557's
//! `[Europe/Paris]`), which readers of RFC 3339 refuse, and less: fractions of more than nine digits, and the last day of
//! the year 9999.

use std::fmt;
use std::ops::Range;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// A moment, as text in UTC: `2024-12-19T12:00:00.5Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UtcTime<'a> {
    /// In the years 0 to 9999.
    second: DateTime,
    /// Empty, or a point and the digits that were given.
    fraction: &'a str,
}

impl fmt::Display for UtcTime<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}Z", self.second, self.fraction)
    }
}

impl<'a> UtcTime<'a> {
    /// Reads a `date-time` of RFC 3339. A leap second counts as the second before it, as in Unix time.
    pub fn parse(text: &'a str) -> Option<Self> {
        const LENGTH: usize = "2024-12-19T12:00:00".len();
        let (second, rest) = text.split_at_checked(LENGTH)?;
        let marks = second.as_bytes();
        if [marks[4], marks[7], marks[10].to_ascii_uppercase(), marks[13], marks[16]] != *b"--T::" {
            return None;
        }
        let digits = rest.strip_prefix('.').map(|rest| rest.bytes().take_while(u8::is_ascii_digit).count());
        let (fraction, offset) = match digits {
            Some(0) => return None,
            Some(digits) => rest.split_at(1 + digits),
            None => ("", rest),
        };
        let [year, month, day, hour, minute, seconds] =
            [0..4, 5..7, 8..10, 11..13, 14..16, 17..19].map(|range| number(second, range));
        let [month, day, hour, minute] = [month?, day?, hour?, minute?].map(|number| number as i8);
        let seconds = seconds?;
        let local = DateTime::new(year?, month, day, hour, minute, seconds.min(59) as i8, 0);
        let local = local.ok().filter(|_| seconds <= 60)?;
        let utc = local.checked_sub(SignedDuration::from_mins(offset_minutes(offset)?)).ok()?;
        // Leap seconds are the last ones of a month, in UTC.
        let may_leap = (utc.hour(), utc.minute(), utc.day()) == (23, 59, utc.date().days_in_month());
        let is_valid = (0..=9999).contains(&utc.year()) && (seconds < 60 || may_leap);
        is_valid.then_some(Self { second: utc, fraction })
    }

    /// The same moment, to the nanosecond; `None` at the end of the year 9999, which jiff does not reach.
    pub fn timestamp(&self) -> Option<Timestamp> {
        let digits = self.fraction.get(1..).unwrap_or_default();
        let nanoseconds = format!("{digits:0<9.9}").parse().ok()?;
        let second = TimeZone::UTC.to_timestamp(self.second).ok()?;
        second.checked_add(SignedDuration::from_nanos(nanoseconds)).ok()
    }
}

/// The number that these bytes of `text` are, if all of them are digits.
fn number(text: &str, range: Range<usize>) -> Option<i16> {
    let digits = text.get(range)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// `Z`, or `+05:30`: minutes ahead of UTC.
fn offset_minutes(text: &str) -> Option<i64> {
    if text.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = match text.as_bytes() {
        [b'+', _, _, b':', _, _] => 1,
        [b'-', _, _, b':', _, _] => -1,
        _ => return None,
    };
    let (hours, minutes) = (number(text, 1..3)?, number(text, 4..6)?);
    (hours <= 23 && minutes <= 59).then(|| sign * i64::from(hours * 60 + minutes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn utc(text: &str) -> Option<String> {
        UtcTime::parse(text).map(|time| time.to_string())
    }

    #[test]
    fn rfc_3339_is_read_whole_and_written_in_utc() {
        for (text, expected) in [
            ("2024-12-19T12:00:00Z", "2024-12-19T12:00:00Z"),
            ("2024-12-19t12:00:00z", "2024-12-19T12:00:00Z"),
            ("2024-12-19T17:30:00+05:30", "2024-12-19T12:00:00Z"),
            ("2024-12-31T23:30:00.250-01:00", "2025-01-01T00:30:00.250Z"),
            ("2024-12-19T12:00:00-00:00", "2024-12-19T12:00:00Z"),
            ("2024-12-19T12:00:00.1234567890Z", "2024-12-19T12:00:00.1234567890Z"),
            ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
            ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z"),
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
            ("1990-12-31T15:59:60-08:00", "1990-12-31T23:59:59Z"),
        ] {
            assert_eq!(utc(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_rfc_3339_does_not_have_is_refused() {
        for text in [
            "20241219T120000Z",
            "2024-12-19T12Z",
            "2024-12-19T12:00Z",
            "2024-12-19T17:30:00+0530",
            "2024-12-19T17:30:00+05",
            "2024-12-19 12:00:00Z",
            "2024-12-19T12:00:00Z[UTC]",
            "+002024-12-19T12:00:00Z",
            "2024-12-19T12:00:00,5Z",
            "2024-12-19T12:00:00.Z",
            "2024-12-19T12:00:60Z",
            "2024-12-19T12:00:61Z",
            "2024-12-19T24:00:00Z",
            "2023-02-29T12:00:00Z",
            "2024-12-19T12:00:00+24:00",
            "2024-12-19T12:00:00",
            " 2024-12-19T12:00:00Z",
            "2024-12-19T12:00:00Z ",
            "9999-12-31T23:59:59-01:00",
            "0000-01-01T00:00:00+01:00",
            "2024-12-1\u{e9}T12:00:00Z",
            "noon",
            "",
        ] {
            assert_eq!(utc(text), None, "{text}");
        }
    }

    #[test]
    fn the_moment_has_the_fraction_that_was_given() {
        let unix = |text| UtcTime::parse(text).unwrap().timestamp().map(Timestamp::as_nanosecond);
        assert_eq!(unix("1970-01-01T00:00:01Z"), Some(1_000_000_000));
        assert_eq!(unix("1970-01-01T00:00:01.5Z"), Some(1_500_000_000));
        assert_eq!(unix("1970-01-01T00:00:00.0000000019Z"), Some(1));
        assert_eq!(unix("1969-12-31T23:59:59.5Z"), Some(-500_000_000));
        assert_eq!(unix("9999-12-31T23:59:59Z"), None);
    }

    proptest! {
        #[test]
        fn a_written_time_is_read_as_itself(text in "[0-9]{4}-(0[1-9]|1[0-2])-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,12})?(Z|[+-][0-2][0-9]:[0-5][0-9])") {
            if let Some(time) = UtcTime::parse(&text) {
                let written = time.to_string();
                prop_assert_eq!(UtcTime::parse(&written).unwrap().to_string(), written);
                let ours = time.timestamp().map(Timestamp::as_second);
                let jiff = text.parse::<Timestamp>().ok().map(Timestamp::as_second);
                prop_assert!(ours.is_none() || jiff.is_none() || (ours.unwrap() - jiff.unwrap()).abs() <= 1);
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}") {
            let _ = UtcTime::parse(&text).map(|time| time.timestamp());
        }
    }
}
