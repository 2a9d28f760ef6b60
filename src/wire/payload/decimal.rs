//! Exact scaling of a JSON number's text: `605.41` at ×100 is 60541, never 60540.
//!
//! The text is never turned into a float. Digits finer than the scale are cut toward zero, as the
//! vendor's `trunc2` does; for sources without finer digits that equals rounding.
//! Source: `docs/protocols/gexbot.md`, "Scaling".

/// Why a text cannot be scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecimalError {
    /// Not a number by JSON's grammar (RFC 8259 §6).
    NotANumber,
    /// The scaled value does not fit 64 bits.
    OutOfRange,
}

/// `text × 10^places`, cut toward zero.
///
/// `text` is a JSON number: optional minus, digits, optional fraction, optional exponent.
pub fn scale(text: &str, places: u32) -> Result<i64, DecimalError> {
    match plain(text.as_bytes(), places) {
        Some((value, length)) if length == text.len() => Ok(value),
        _ => exact(text, places),
    }
}

/// The number that a text begins with, in one pass, and its length; only for the usual case: no exponent, and few enough
/// digits for 64 bits. `None`, or a length at which more of a number follows: look closer.
pub(super) fn plain(text: &[u8], places: u32) -> Option<(i64, usize)> {
    /// Digits of the integer and those that are kept of the fraction, together less than 10^18.
    const DIGITS: usize = 18;
    let digit = |at: usize| text.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|&digit| digit < 10);
    let is_negative = text.first() == Some(&b'-');
    let first = usize::from(is_negative);
    let (mut value, mut at) = (0i64, first);
    while let Some(digit) = digit(at) {
        if at - first + places as usize >= DIGITS {
            return None;
        }
        value = value * 10 + i64::from(digit);
        at += 1;
    }
    if at == first || (at > first + 1 && text[first] == b'0') {
        return None;
    }
    let mut left = places;
    if text.get(at) == Some(&b'.') {
        digit(at + 1)?;
        at += 1;
        while let Some(digit) = digit(at) {
            if left > 0 {
                value = value * 10 + i64::from(digit);
                left -= 1;
            }
            at += 1;
        }
    }
    value *= 10i64.pow(left);
    Some((if is_negative { -value } else { value }, at))
}

fn exact(text: &str, places: u32) -> Result<i64, DecimalError> {
    let number = JsonNumber::split(text.as_bytes()).ok_or(DecimalError::NotANumber)?;
    let magnitude = number.magnitude(places).ok_or(DecimalError::OutOfRange)?;
    Ok(if number.negative { -magnitude } else { magnitude })
}

/// A JSON number's parts, still as text.
struct JsonNumber<'a> {
    negative: bool,
    integer: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

impl<'a> JsonNumber<'a> {
    fn split(text: &'a [u8]) -> Option<Self> {
        let (negative, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            _ => (false, text),
        };
        let (integer, rest) = digits(rest);
        // RFC 8259: no empty integer part, no leading zeros.
        if integer.is_empty() || (integer.len() > 1 && integer[0] == b'0') {
            return None;
        }
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => match digits(rest) {
                ([], _) => return None,
                split => split,
            },
            _ => (&[][..], rest),
        };
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', rest @ ..] => exponent(rest)?,
            _ => return None,
        };
        Some(Self { negative, integer, fraction, exponent })
    }

    /// The digits up to 10^-`places`, as an integer. `None` if it exceeds an `i64`.
    fn magnitude(&self, places: u32) -> Option<i64> {
        // How many digits of `integer ++ fraction` stand left of the cut.
        let kept = (self.integer.len() as i64).saturating_add(self.exponent).saturating_add(i64::from(places));
        let mut value = 0i64;
        let mut read = 0i64;
        for &digit in self.integer.iter().chain(self.fraction) {
            if read >= kept {
                return Some(value);
            }
            value = value.checked_mul(10)?.checked_add(i64::from(digit - b'0'))?;
            read += 1;
        }
        // The text ran out before the cut: zeros follow. Zero stays zero under any exponent.
        while value != 0 && read < kept {
            value = value.checked_mul(10)?;
            read += 1;
        }
        Some(value)
    }
}

fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// Saturates far beyond any range a value could have: only its sign and size class matter then.
fn exponent(text: &[u8]) -> Option<i64> {
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let (digits, rest) = digits(text);
    if digits.is_empty() || !rest.is_empty() {
        return None;
    }
    let value = digits
        .iter()
        .fold(0i64, |value, digit| value.saturating_mul(10).saturating_add(i64::from(digit - b'0')).min(1 << 40));
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scaling_is_exact_where_floats_are_not() {
        for (text, places, expected) in [
            ("605.41", 2, 60_541),
            ("4059.32", 2, 405_932),
            ("0.29", 2, 29),
            ("1.15", 2, 115),
            ("12.345", 2, 1_234),
            ("-12.345", 2, -1_234),
            ("-0.009", 2, 0),
            ("-0.0", 2, 0),
            ("0e999999999999", 2, 0),
            ("1e3", 2, 100_000),
            ("1E+3", 0, 1_000),
            ("12345e-2", 2, 12_345),
            ("12345e-4", 2, 123),
            ("5e-1", 0, 0),
            ("1e-400", 2, 0),
            ("12345.678901234567", 2, 1_234_567),
            ("0.30000000000000004", 2, 30),
            ("99999999999999999", 0, 99_999_999_999_999_999),
            ("9223372036854775807", 0, i64::MAX),
        ] {
            assert_eq!(scale(text, places), Ok(expected), "{text} at 10^{places}");
            assert_eq!(exact(text, places), Ok(expected), "{text} at 10^{places}, the long way");
        }
    }

    #[test]
    fn what_does_not_fit_64_bits_is_out_of_range() {
        for text in ["9223372036854775808", "9230000000000000000", "1e19", "-1e300", "92233720368547758.08e3"] {
            assert_eq!(scale(text, 2), Err(DecimalError::OutOfRange), "{text}");
        }
    }

    #[test]
    fn what_json_does_not_call_a_number_is_refused() {
        for text in ["", "-", "+1", ".5", "1.", "01", "1e", "1e+", "0x10", "NaN", "Infinity", "1 ", "1,5", "١"] {
            assert_eq!(scale(text, 2), Err(DecimalError::NotANumber), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_fixed_point_number_keeps_its_digits(units in -999_999_999i64..=999_999_999, cents in 0i64..100) {
            let text = format!("{units}.{cents:02}");
            let sign = if units < 0 { -1 } else { 1 };
            prop_assert_eq!(scale(&text, 2), Ok(units * 100 + sign * cents));
        }

        #[test]
        fn the_exponent_only_moves_the_point(digits in 1u32..=999_999_999, shift in 0i64..9) {
            let moved = format!("{digits}e-{shift}");
            prop_assert_eq!(scale(&moved, shift as u32), Ok(i64::from(digits)));
        }

        #[test]
        fn the_short_way_finds_what_the_long_one_finds(text in "-?[0-9]{0,19}\\.?[0-9]{0,19}[.e-]?[0-9]?", places in 0u32..6) {
            if let Some((value, length)) = plain(text.as_bytes(), places) {
                prop_assert_eq!(exact(&text[..length], places), Ok(value));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}", places in 0u32..6) {
            let _ = scale(&text, places);
        }
    }
}
