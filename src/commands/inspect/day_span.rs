//! Which times belong to a recorded day, and how they are shown.

use std::ops::Range;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

/// A trading day in New York. Futures open on the evening before, and records may come late, so the days beside it
/// belong to it.
pub struct DaySpan {
    date: Date,
    zone: TimeZone,
    /// Unix seconds.
    times: Range<i64>,
}

impl DaySpan {
    /// The span of a day.
    pub fn new(date: Date) -> Self {
        let zone = TimeZone::get("America/New_York").unwrap_or(TimeZone::UTC);
        let midnight = |date: Date| date.to_zoned(zone.clone()).map(|midnight| midnight.timestamp().as_second());
        let begins = midnight(date.saturating_sub(1.days())).unwrap_or(i64::MIN);
        let ends = midnight(date.saturating_add(2.days())).unwrap_or(i64::MAX);
        Self { date, zone, times: begins..ends }
    }

    /// Whether a record of this time can be one of the day.
    pub fn may_have(&self, unix_seconds: i64) -> bool {
        self.times.contains(&unix_seconds)
    }

    /// The time of day in New York, after its date if that is another.
    pub fn shown(&self, unix_seconds: i64) -> String {
        let Ok(time) = Timestamp::from_second(unix_seconds) else { return format!("@{unix_seconds}") };
        let time = time.to_zoned(self.zone.clone());
        time.strftime(if time.date() == self.date { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" }).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn a_time_of_another_day_is_shown_with_its_date() {
        let day = DaySpan::new(date(2025, 11, 28));
        for (unix, shown, may_have) in [
            (1_764_340_202, "09:30:02", true),
            (1_764_286_202, "2025-11-27 18:30:02", true),
            (0, "1969-12-31 19:00:00", false),
            (4_070_908_800, "2098-12-31 19:00:00", false),
            (i64::MAX, "@9223372036854775807", false),
        ] {
            assert_eq!((day.shown(unix).as_str(), day.may_have(unix)), (shown, may_have));
        }
    }
}
