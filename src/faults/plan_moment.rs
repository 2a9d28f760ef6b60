//! Moments of a plan, and lengths of time in it: in milliseconds, or in ticks of the clock.

use std::time::Duration;

use serde_json::Value;

/// The longest time in a plan.
const MOST: Duration = Duration::from_hours(366 * 24);

/// The largest number of ticks in a plan.
const MOST_TICKS: u64 = 1 << 40;

/// A moment of a plan, counted from its beginning, or a length of time in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanMoment {
    /// So many milliseconds.
    Ms(u64),
    /// So many ticks.
    Ticks(u64),
}

impl PlanMoment {
    /// What a moment is, for errors.
    pub const EXPECTED: &str = "a duration with a unit such as \"10s\", or a number of ticks";

    /// Reads `"10s"` or a number of ticks. `Err`: what was expected.
    pub fn of_json(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => duration_ms(text).map(Self::Ms),
            value => value.as_u64().filter(|ticks| *ticks <= MOST_TICKS).map(Self::Ticks),
        }
    }

    /// Whether it is no time at all.
    pub fn is_zero(self) -> bool {
        matches!(self, Self::Ms(0) | Self::Ticks(0))
    }

    /// Whether it is longer than another one; `None`: they have different units.
    pub fn exceeds(self, other: Self) -> Option<bool> {
        match (self, other) {
            (Self::Ms(this), Self::Ms(other)) | (Self::Ticks(this), Self::Ticks(other)) => Some(this > other),
            _ => None,
        }
    }
}

/// A duration with a unit, in whole milliseconds, rounded up.
pub fn duration_ms(text: &str) -> Option<u64> {
    let duration = humantime::parse_duration(text.trim()).ok().filter(|duration| *duration <= MOST)?;
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_moment_is_a_duration_with_a_unit_or_a_number_of_ticks() {
        let of = |value| PlanMoment::of_json(&value);
        assert_eq!(of(json!("10s")), Some(PlanMoment::Ms(10_000)));
        assert_eq!(of(json!("1m 30s")), Some(PlanMoment::Ms(90_000)));
        assert_eq!(of(json!("1us")), Some(PlanMoment::Ms(1)), "rounded up");
        assert_eq!(of(json!(3)), Some(PlanMoment::Ticks(3)));
        for wrong in [
            json!("10"),
            json!("ten"),
            json!(""),
            json!(-1),
            json!(1.5),
            json!(null),
            json!("2000y"),
            json!(1u64 << 41),
        ] {
            assert_eq!(of(wrong.clone()), None, "{wrong}");
        }
    }
}
