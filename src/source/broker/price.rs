//! Exact decimals: an integer and how many of its digits stand behind the point.
//!
//! ```text
//! 157315 paise  ─┐                         ┌─▶ "1573.15" in JSON, digit by digit
//! "1573.15" text ┴─▶ Decimal { 157315, 2 } ┴─▶ f64, only where somebody asks for one
//! ```
//!
//! Source: `docs/protocols/market-data.md`, "Rules".

use std::cmp::Ordering;
use std::fmt;

use crate::wire::payload::decimal::scale;

/// Places a [`Decimal`] has at most: 10^18 is the largest power of ten in an `i64`.
pub const MAX_PLACES: u8 = 18;

/// Places of a computed percentage, rounded half away from zero.
const PERCENT_PLACES: u8 = 6;

/// `units × 10^-places`. Equal when the values are, whatever their places.
#[derive(Clone, Copy, Default)]
pub struct Decimal {
    units: i64,
    places: u8,
}

impl Decimal {
    /// `units × 10^-places`; places over [`MAX_PLACES`] count as that.
    pub const fn new(units: i64, places: u8) -> Self {
        Self { units, places: if places > MAX_PLACES { MAX_PLACES } else { places } }
    }

    /// A JSON number's text, every digit kept. Digits that exceed 64 bits or [`MAX_PLACES`] are cut
    /// toward zero; `None` if it is no number, or its integer part alone exceeds 64 bits.
    pub fn parse(text: &str) -> Option<Self> {
        Self::short(text).or_else(|| Self::any(text))
    }

    /// What nearly every price looks like: at most 18 digits, a point between them, no exponent.
    fn short(text: &str) -> Option<Self> {
        let (negative, digits) = match text.as_bytes() {
            [b'-', digits @ ..] => (true, digits),
            digits => (false, digits),
        };
        if digits.len() > usize::from(MAX_PLACES)
            || matches!(digits, [] | [b'.', ..] | [b'0', b'0'..=b'9', ..] | [.., b'.'])
        {
            return None;
        }
        let (mut units, mut point) = (0, None);
        for (at, &byte) in digits.iter().enumerate() {
            match byte {
                b'0'..=b'9' => units = units * 10 + i64::from(byte - b'0'),
                b'.' if point.is_none() => point = Some(at),
                _ => return None,
            }
        }
        let places = point.map_or(0, |at| digits.len() - 1 - at) as u8;
        Some(Self { units: if negative { -units } else { units }, places })
    }

    fn any(text: &str) -> Option<Self> {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let fraction = mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.len());
        let exponent: i64 = exponent.parse().unwrap_or(0);
        let wanted = i64::try_from(fraction).ok()?.saturating_sub(exponent).clamp(0, i64::from(MAX_PLACES));
        (0..=wanted as u8).rev().find_map(|places| {
            let units = scale(text, u32::from(places)).ok()?;
            Some(Self { units, places })
        })
    }

    /// The integer.
    pub const fn units(self) -> i64 {
        self.units
    }

    /// How many of its digits stand behind the point, 0 to [`MAX_PLACES`].
    pub const fn places(self) -> u8 {
        self.places
    }

    /// Whether it is 0.
    pub const fn is_zero(self) -> bool {
        self.units == 0
    }

    /// The nearest float, for who must have one.
    pub fn to_f64(self) -> f64 {
        // Parsing the digits rounds once; dividing by a power of ten would round twice.
        self.to_string().parse().unwrap_or(0.0)
    }

    /// `self - other`, exact. `None` if it exceeds 64 bits.
    pub fn minus(self, other: Self) -> Option<Self> {
        let places = self.places.max(other.places);
        let units = self.at(places) - other.at(places);
        Some(Self { units: i64::try_from(units).ok()?, places })
    }

    /// `self / base` in percent, to 6 places. `None` when `base` is 0 or the result exceeds 64 bits.
    pub fn percent_of(self, base: Self) -> Option<Self> {
        if base.is_zero() {
            return None;
        }
        // One common scale cancels out of the quotient.
        let places = self.places.max(base.places);
        let numerator = self.at(places).checked_mul(100 * 10i128.pow(u32::from(PERCENT_PLACES)))?;
        let denominator = base.at(places);
        let half = denominator.abs() / 2;
        let away = if (numerator < 0) == (denominator < 0) { half } else { -half };
        let rounded = numerator.checked_add(if denominator < 0 { -away } else { away })? / denominator;
        Some(Self { units: i64::try_from(rounded).ok()?, places: PERCENT_PLACES })
    }

    /// The units at `places`, which are not fewer than its own: at most 2^63 × 10^18 < 2^127.
    fn at(self, places: u8) -> i128 {
        i128::from(self.units) * 10i128.pow(u32::from(places - self.places))
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Decimal {}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let places = self.places.max(other.places);
        self.at(places).cmp(&other.at(places))
    }
}

impl fmt::Debug for Decimal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// The shortest exact text, a JSON number: `1573.15`, `-0.5`, `1575`.
impl fmt::Display for Decimal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut units, mut places) = (self.units, self.places);
        while places > 0 && units % 10 == 0 {
            (units, places) = (units / 10, places - 1);
        }
        let one = 10u64.pow(u32::from(places));
        let (integer, fraction) = (units.unsigned_abs() / one, units.unsigned_abs() % one);
        let sign = if units < 0 { "-" } else { "" };
        match places {
            0 => write!(formatter, "{sign}{integer}"),
            places => write!(formatter, "{sign}{integer}.{fraction:0width$}", width = usize::from(places)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_keeps_every_digit() {
        for (text, expected) in [
            ("1234.65", "1234.65"),
            ("23739", "23739"),
            ("1575.00", "1575"),
            ("-1.330775686368546", "-1.330775686368546"),
            ("1e3", "1000"),
            ("12345e-2", "123.45"),
            ("0", "0"),
            ("-0.05", "-0.05"),
            ("0.1000000000000000055511151231257827", "0.100000000000000005"),
            ("123456789012.1234567890123", "123456789012.1234567"),
        ] {
            assert_eq!(Decimal::parse(text).map(|value| value.to_string()).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "null", "1.", "abc", "9223372036854775808", "1e40"] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }

    #[test]
    fn percentages_round_half_away_from_zero() {
        let percent = |part: &str, base: &str| {
            Decimal::parse(part)?.percent_of(Decimal::parse(base)?).map(|value| value.to_string())
        };
        assert_eq!(percent("5.35", "1567.8").as_deref(), Some("0.341243"));
        assert_eq!(percent("-5.35", "1567.8").as_deref(), Some("-0.341243"));
        assert_eq!(percent("1", "-8").as_deref(), Some("-12.5"));
        assert_eq!(percent("0.000000005", "1").as_deref(), Some("0.000001"));
        assert_eq!(percent("-0.000000005", "1").as_deref(), Some("-0.000001"));
        assert_eq!(percent("1", "0"), None);
    }

    proptest! {
        #[test]
        fn text_is_read_back_as_the_same_value(units in any::<i64>().prop_filter("has a twin", |&units| units > i64::MIN), places in 0u8..=18) {
            let value = Decimal::new(units, places);
            prop_assert_eq!(Decimal::parse(&value.to_string()), Some(value));
        }

        #[test]
        fn the_short_way_reads_what_the_long_one_reads(text in "-?[0-9.]{0,20}|-?(0|[1-9][0-9]{0,14})(\\.[0-9]{1,6})?") {
            if let Some(value) = Decimal::short(&text) {
                let same = Decimal::any(&text).map(|value| (value.units, value.places));
                prop_assert_eq!(Some((value.units, value.places)), same);
            }
        }

        #[test]
        fn differences_are_exact(one in -1_000_000_000i64..1_000_000_000, other in -1_000_000_000i64..1_000_000_000, places in 0u8..8) {
            let (one, other) = (Decimal::new(one, places), Decimal::new(other, 2));
            let difference = one.minus(other).unwrap();
            prop_assert_eq!(difference.at(18), one.at(18) - other.at(18));
        }

        #[test]
        fn no_values_make_it_panic(one in any::<(i64, u8)>(), other in any::<(i64, u8)>(), text in ".{0,40}") {
            let (one, other) = (Decimal::new(one.0, one.1), Decimal::new(other.0, other.1));
            let _ = (one.minus(other), one.percent_of(other), one == other, one.to_f64(), Decimal::parse(&text));
        }
    }
}
