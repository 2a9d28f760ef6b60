//! Figures, times and texts as they stand in a terminal.

/// Bytes, such as `12.3 MB`.
pub fn bytes(count: f64) -> String {
    scaled(count, &["B", "kB", "MB", "GB", "TB"])
}

/// A count, such as `12.3k`.
pub fn count(count: f64) -> String {
    scaled(count, &["", "k", "M", "G", "T"]).replace(' ', "")
}

fn scaled(mut value: f64, units: &[&str]) -> String {
    let mut at = 0;
    while value >= 999.5 && at + 1 < units.len() {
        value /= 1000.0;
        at += 1;
    }
    let digits = usize::from(at > 0 && value < 99.95);
    format!("{value:.digits$} {}", units[at]).trim_end().to_owned()
}

/// A duration, such as `1h02m`.
pub fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, hours, minutes, seconds) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (1.., ..) => format!("{days}d{hours:02}h"),
        (0, 1.., _) => format!("{hours}h{minutes:02}m"),
        (0, 0, 1..) => format!("{minutes}m{seconds:02}s"),
        _ => format!("{seconds}s"),
    }
}

/// A text of somebody else's: nothing in it moves the cursor or turns the line around.
pub fn plain(text: &str) -> String {
    let is_bidi =
        |c: char| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if c.is_control() || is_bidi(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The first characters of a text, with `…` if there are more.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain((width > 0).then_some('…')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_at_most_three_digits_and_a_unit() {
        for (value, expected) in
            [(0.0, "0 B"), (999.0, "999 B"), (1000.0, "1.0 kB"), (51_234.0, "51.2 kB"), (999_600.0, "1.0 MB")]
        {
            assert_eq!(bytes(value), expected);
        }
        assert_eq!(
            (count(7.0), count(12_345.0), count(250_000.0)),
            ("7".to_owned(), "12.3k".to_owned(), "250k".to_owned())
        );
    }

    #[test]
    fn times_have_two_units_and_foreign_texts_move_nothing() {
        let told = [0, 59_999, 60_000, 3_720_000, 90_000_000].map(duration);
        assert_eq!(told, ["0s", "59s", "1m00s", "1h02m", "1d01h"]);
        assert_eq!(plain("a\u{1b}[2J\u{202e}b"), "a\u{fffd}[2J\u{fffd}b");
        assert_eq!(
            (cut("abcdef", 4), cut("abc", 3), cut("abc", 0)),
            ("abc…".to_owned(), "abc".to_owned(), String::new())
        );
    }
}
