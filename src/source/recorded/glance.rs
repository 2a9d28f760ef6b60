//! What the clock needs of a line before anybody parses it: its time, and the spot price.
//!
//! A clock on recorded time must know when each record is due, also of files that nobody listens to, and where in each
//! file a moment lies. Parsing whole lines for that would cost as much as building their frames.

use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::wire::payload::decimal::scale;

static TIMESTAMP: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"timestamp\""));
static SPOT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"spot\""));

/// Two numbers of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Glance {
    /// The record's time, Unix seconds; `None` if none is found or it cannot be one.
    pub time: Option<u32>,
    /// Its spot price in hundredths; 0 if none is found.
    pub spot: u32,
}

/// Finds a line's time, and its spot price if that is wanted. For a record, these are the numbers that it has when it
/// is parsed; of anything else, what looks like them.
pub fn glance(line: &[u8], wants_spot: bool) -> Glance {
    let time = number(line, &TIMESTAMP, 0).and_then(|time| u32::try_from(time).ok());
    let spot = if wants_spot { number(line, &SPOT, 2).and_then(|spot| u32::try_from(spot).ok()) } else { None };
    Glance { time, spot: spot.unwrap_or(0) }
}

/// A record's line with a time that is `seconds` later; nothing else of it changes.
pub fn shifted(line: &[u8], seconds: i64) -> Option<Vec<u8>> {
    let span = digits(line, &TIMESTAMP)?;
    let time = scale(std::str::from_utf8(&line[span.clone()]).ok()?, 0).ok()?.saturating_add(seconds);
    Some([&line[..span.start], time.to_string().as_bytes(), &line[span.end..]].concat())
}

/// The number behind a key, × 10^`places`.
fn number(line: &[u8], key: &Finder<'_>, places: u32) -> Option<i64> {
    scale(std::str::from_utf8(&line[digits(line, key)?]).ok()?, places).ok()
}

/// Where the number behind a key stands.
fn digits(line: &[u8], key: &Finder<'_>) -> Option<Range<usize>> {
    let rest = line[key.find(line)? + key.needle().len()..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let length = rest.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E'))?;
    let begin = line.len() - rest.len();
    Some(begin..begin + length)
}

/// Makes a file's times rise: a record is due when the one before it was, if its own time is odd. Odd are times outside
/// of `plausible`, and of the others as few as must be left out so that the rest rises. `before` is the last time of
/// the lines before; it counts unless most of these lie before it.
pub fn rising(times: &[Option<u32>], plausible: (u32, u32), before: Option<u32>) -> Box<[u32]> {
    let is_plausible = |time: &u32| (plausible.0..=plausible.1).contains(time);
    let known: Vec<(usize, u32)> =
        times.iter().enumerate().filter_map(|(at, time)| Some((at, time.filter(is_plausible)?))).collect();
    let after = |floor: u32| known.iter().copied().filter(move |(_, time)| *time >= floor);
    let mut kept = longest_rising(after(before.unwrap_or(0)));
    let mut floor = before;
    if kept.len() * 2 < known.len() {
        (kept, floor) = (longest_rising(after(0)), None);
    }
    let mut now = floor.or_else(|| kept.first().map(|(_, time)| *time)).or(before).unwrap_or(plausible.0);
    let mut kept = kept.into_iter().peekable();
    let due = |at| {
        if let Some((_, time)) = kept.next_if(|(kept, _)| *kept == at) {
            now = time;
        }
        now
    };
    (0..times.len()).map(due).collect()
}

/// A longest sequence that does not fall, by patience sorting.
fn longest_rising(times: impl Iterator<Item = (usize, u32)>) -> Vec<(usize, u32)> {
    let times: Vec<(usize, u32)> = times.collect();
    // The last entry of the best sequence of each length, and what comes before each entry in its best one.
    let (mut best, mut before): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::with_capacity(times.len()));
    for (at, &(_, time)) in times.iter().enumerate() {
        let length = best.partition_point(|&last| times[last].1 <= time);
        before.push(if length == 0 { usize::MAX } else { best[length - 1] });
        if length == best.len() {
            best.push(at);
        } else {
            best[length] = at;
        }
    }
    let mut kept = Vec::with_capacity(best.len());
    let mut at = best.last().copied();
    while let Some(here) = at {
        kept.push(times[here]);
        at = Some(before[here]).filter(|&before| before != usize::MAX);
    }
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: (u32, u32) = (100, 10_000);

    fn made(times: &[u32]) -> Vec<u32> {
        let times: Vec<Option<u32>> = times.iter().map(|&time| Some(time)).collect();
        rising(&times, ALL, None).into_vec()
    }

    #[test]
    fn a_records_numbers_are_found_wherever_they_stand() {
        let found = |line: &str| glance(line.as_bytes(), true);
        assert_eq!(
            found(r#"{"timestamp":1764340202,"ticker":"SPX","spot":6822.95,"zcvr":-12.59}"#),
            Glance { time: Some(1_764_340_202), spot: 682_295 }
        );
        let late = format!(r#"{{"strikes":[{}1], "spot" : 5 ,"timestamp": 7 }}"#, "1,".repeat(5000));
        assert_eq!(found(&late), Glance { time: Some(7), spot: 500 });
    }

    #[test]
    fn what_is_cut_or_no_number_is_not_guessed() {
        for line in
            ["{\"timestamp\":17643", "{\"timestamp\":\"5\"}", "{\"timestamp\":-5}", "{\"timestamp\":9e99}", "", "{"]
        {
            assert_eq!(glance(line.as_bytes(), true), Glance::default(), "{line}");
        }
    }

    #[test]
    fn a_line_is_moved_in_time_and_nothing_else_of_it_changes() {
        let moved =
            |line: &str, seconds| shifted(line.as_bytes(), seconds).map(|line| String::from_utf8(line).unwrap());
        let line = r#"{"spot": 6822.950, "timestamp" : 1764340202 ,"ticker":"SPX"}"#;
        assert_eq!(moved(line, 86_400).unwrap(), line.replace("1764340202", "1764426602"));
        assert_eq!(moved(line, -1_764_340_203).unwrap(), line.replace("1764340202", "-1"));
        assert_eq!(moved(r#"{"timestamp":"soon"}"#, 1), None);
    }

    #[test]
    fn an_odd_time_is_due_with_the_record_before_it() {
        assert_eq!(made(&[200, 201, 9000, 202, 203]), [200, 201, 201, 202, 203]);
        assert_eq!(made(&[200, 201, 150, 202, 203]), [200, 201, 201, 202, 203]);
        assert_eq!(made(&[1, 200, 201, 4_000_000_000]), [200, 200, 201, 201]);
        assert_eq!(made(&[200, 200, 200]), [200, 200, 200]);
        assert_eq!(made(&[0, 0]), [100, 100], "no time at all");
        assert_eq!(rising(&[None, Some(300)], ALL, Some(250))[..], [250, 300]);
    }

    #[test]
    fn a_file_that_really_goes_back_is_followed() {
        let times: Vec<Option<u32>> = (200..220).map(Some).collect();
        assert_eq!(rising(&times, ALL, Some(9000))[0], 200);
        assert_eq!(rising(&times, ALL, Some(205))[0], 205, "a few only: they are odd");
    }

    proptest! {
        #[test]
        fn times_rise_whatever_they_were(times in prop::collection::vec(prop::option::of(0u32..20_000), 0..100), before in prop::option::of(100u32..10_000)) {
            let made = rising(&times, ALL, before);
            prop_assert_eq!(made.len(), times.len());
            prop_assert!(made.is_sorted() && made.iter().all(|time| (ALL.0..=ALL.1).contains(time)));
        }

        #[test]
        fn nothing_that_looks_like_a_line_panics(line in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..200) {
            let mut text = line;
            let at = at.min(text.len());
            text.splice(at..at, b"\"timestamp\": ".iter().copied());
            glance(&text, true);
        }
    }
}
