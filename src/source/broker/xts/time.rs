//! XTS times: three bases, none of them told.
//!
//! NSE counts seconds from 1980-01-01 00:00 IST. Bars count from 1970 on the wall clock of India.
//! For the other exchanges no capture confirms a base, so the one that lands within a day of now is
//! taken, or none. Source: `docs/protocols/xts.md`, "Time".

/// 1980-01-01 00:00 IST, in seconds since 1970 UTC.
const NSE_EPOCH: i64 = 315_532_800 - 19_800;

/// How far IST is ahead of UTC, seconds.
const IST: i64 = 19_800;

const DAY_MS: i64 = 86_400_000;

/// A touchline's time as UTC milliseconds; 0 means that there is none.
pub fn touchline(segment: u16, seconds: u64, now_ms: i64) -> Option<i64> {
    let seconds = i64::try_from(seconds).ok().filter(|seconds| (1..1 << 40).contains(seconds))?;
    let since = |epoch: i64| (seconds + epoch) * 1000;
    match segment {
        1..=3 => Some(since(NSE_EPOCH)),
        _ => [since(NSE_EPOCH), since(0)].into_iter().find(|time| (time - now_ms).abs() <= DAY_MS),
    }
}

/// A bar's time, its last second, as UTC milliseconds.
pub fn bar(seconds: u64) -> Option<i64> {
    let seconds = i64::try_from(seconds).ok().filter(|seconds| (IST + 1..1 << 40).contains(seconds))?;
    Some((seconds - IST) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capture_and_its_log_agree() {
        // 2025-01-06 05:46:08 UTC, 11:16:08 IST.
        assert_eq!(touchline(1, 1_420_629_368, 0), Some(1_736_142_368_000));
        // The bar of the same morning ends at 12:02:59 IST.
        assert_eq!(bar(1_736_164_979), Some(1_736_145_179_000));
    }

    #[test]
    fn other_exchanges_get_the_base_that_lands_near_now() {
        let now = 1_736_142_368_000;
        assert_eq!(touchline(51, 1_420_629_368, now), Some(now));
        assert_eq!(touchline(51, 1_736_142_368, now), Some(now));
        assert_eq!(touchline(51, 1_000, now), None);
    }

    #[test]
    fn absent_and_absurd_times_are_none() {
        for seconds in [0, u64::MAX, 1 << 40] {
            assert_eq!(touchline(1, seconds, 0), None);
            assert_eq!(bar(seconds), None);
        }
    }
}
