//! A point of the recorded time, as somebody may write it, and where it lies.

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// The time zone of the exchange, in which days and times of day are meant.
pub const EXCHANGE_ZONE: &str = "America/New_York";

/// A point of the recorded time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Moment {
    /// This time, Unix ms.
    At(i64),
    /// This time of the current date, where the exchange is.
    TimeOfDay(Time),
    /// So far from where the clock stands.
    Offset(SignedDuration),
    /// This share of the way from the first record to the last, from 0 to 1.
    Share(f64),
    /// The record with this number, from 0, in every file of the current date.
    Record(u64),
}

/// The recorded time from the first record to the last, Unix ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Time of the first record.
    pub first: i64,
    /// Time of the last record.
    pub last: i64,
}

/// What became of a moment that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved {
    /// What was asked for, Unix ms.
    pub asked: i64,
    /// Time of the first record at or after it, Unix ms: where the clock stands now.
    pub data_time: i64,
    /// Whether it was outside of the recorded time.
    pub clamped: Clamped,
    /// Whether nothing was recorded within a second of it: a halt, or a night.
    pub in_gap: bool,
}

/// Whether a moment was moved into the recorded time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clamped {
    /// It lies within.
    None,
    /// It was before the first record.
    Start,
    /// It was after the last.
    End,
}

impl Clamped {
    /// As `resolved.clamped` says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Start => "start",
            Self::End => "end",
        }
    }
}

fn exchange_zone() -> TimeZone {
    TimeZone::get(EXCHANGE_ZONE).unwrap_or(TimeZone::UTC)
}

/// The trading day at a time, Unix ms: the date where the exchange is.
pub fn date_at(unix_ms: i64) -> Date {
    Timestamp::from_millisecond(unix_ms).unwrap_or_default().to_zoned(exchange_zone()).date()
}

impl Moment {
    /// The time that is meant, Unix ms, if the clock stands at `now` (Unix ms). `None` for a record number, which is
    /// no time.
    pub fn at(self, now: i64, span: Span) -> Option<i64> {
        match self {
            Self::At(at) => Some(at),
            Self::TimeOfDay(time) => {
                let zoned = date_at(now).to_datetime(time).to_zoned(exchange_zone()).ok()?;
                Some(zoned.timestamp().as_millisecond())
            }
            Self::Offset(offset) => Some(now.saturating_add(i64::try_from(offset.as_millis()).unwrap_or(i64::MAX))),
            Self::Share(share) => {
                let length = (span.last - span.first) as f64;
                Some(span.first + (length * share.clamp(0.0, 1.0)).round() as i64)
            }
            Self::Record(_) => None,
        }
    }
}

impl Span {
    /// The same moment, moved into the span.
    pub fn clamp(self, at: i64) -> (i64, Clamped) {
        match at {
            at if at < self.first => (self.first, Clamped::Start),
            at if at > self.last => (self.last, Clamped::End),
            at => (at, Clamped::None),
        }
    }

    /// How far through the span a time is, from 0 to 1.
    pub fn progress(self, at: i64) -> f64 {
        let length = (self.last - self.first).max(1) as f64;
        ((at - self.first) as f64 / length).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Span = Span { first: 1_764_340_200_000, last: 1_764_363_600_000 };

    #[test]
    fn a_time_of_day_is_meant_where_the_exchange_is() {
        let half_past_nine = Moment::TimeOfDay(Time::constant(9, 30, 0, 0));
        assert_eq!(half_past_nine.at(SPAN.last, SPAN), Some(SPAN.first), "14:30 UTC in winter");
    }

    #[test]
    fn a_share_is_of_the_recorded_time_and_an_offset_of_the_clock() {
        assert_eq!(Moment::Share(0.5).at(0, SPAN), Some(1_764_351_900_000));
        assert_eq!(Moment::Share(f64::NAN).at(0, SPAN), Some(SPAN.first));
        assert_eq!(Moment::Offset(SignedDuration::from_secs(-5)).at(10_000, SPAN), Some(5_000));
        assert_eq!(Moment::Offset(SignedDuration::MAX).at(10_000, SPAN), Some(i64::MAX));
        assert_eq!(Moment::Record(7).at(0, SPAN), None);
    }

    #[test]
    fn what_lies_outside_is_moved_inside_and_told() {
        assert_eq!(SPAN.clamp(0), (SPAN.first, Clamped::Start));
        assert_eq!(SPAN.clamp(i64::MAX), (SPAN.last, Clamped::End));
        assert_eq!(SPAN.clamp(SPAN.first + 1), (SPAN.first + 1, Clamped::None));
        assert!(SPAN.progress(SPAN.first).abs() < 1e-9 && SPAN.progress(i64::MAX) > 0.999);
    }
}
