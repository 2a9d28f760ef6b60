//! What becomes of a subscription whose client reads too slowly: `drop`, `skip`, `latest`.

use std::fmt;
use std::str::FromStr;

/// The largest `max_rate`, messages of one symbol per second.
const MAX_RATE: f64 = 1000.0;

/// The smallest one: a message an hour.
const MIN_RATE: f64 = 1.0 / 3600.0;

/// What becomes of a subscription whose client reads too slowly. Each lets less through than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SlowPolicy {
    /// The connection is closed.
    Drop,
    /// The oldest messages that wait are left out, and the client is told which.
    Skip,
    /// Of the messages that wait, only the newest of each symbol is sent.
    Latest {
        /// Shortest time between two sends, ms; 0: as fast as the client reads.
        interval_ms: u32,
    },
}

impl SlowPolicy {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Skip => "skip",
            Self::Latest { .. } => "latest",
        }
    }

    /// The largest number of messages of one symbol in a second; `None`: no limit.
    pub fn max_rate(self) -> Option<f64> {
        match self {
            Self::Latest { interval_ms: interval_ms @ 1.. } => Some(1000.0 / f64::from(interval_ms)),
            _ => None,
        }
    }

    /// Shortest time between two sends of one symbol, ms; 0: no limit.
    pub const fn interval_ms(self) -> u64 {
        if let Self::Latest { interval_ms } = self { interval_ms as u64 } else { 0 }
    }

    fn latest_at(rate: f64) -> Result<Self, String> {
        if (MIN_RATE..=MAX_RATE).contains(&rate) {
            return Ok(Self::Latest { interval_ms: (1000.0 / rate).ceil() as u32 });
        }
        Err(format!("expected a max_rate of {MIN_RATE:.5} to {MAX_RATE} messages a second, got {rate}"))
    }

    /// What a request asks for; `None` if it says nothing. `max_rate` alone means `latest`.
    pub(super) fn asked(policy: Option<&str>, max_rate: Option<f64>) -> Result<Option<Self>, String> {
        match (policy, max_rate) {
            (None, None) => Ok(None),
            (None | Some("latest"), Some(rate)) => Self::latest_at(rate).map(Some),
            (Some(policy), None) => policy.parse().map(Some),
            (Some(policy), Some(_)) => Err(format!("expected max_rate with the policy latest, got {policy:?}")),
        }
    }

    /// The policy of a subscription that asks for `self` on a channel with the setting `channel`: it may let less
    /// through than the channel does, not more.
    pub fn narrowing(self, channel: Self) -> Result<Self, String> {
        if self >= channel {
            return Ok(self);
        }
        Err(format!("expected the channel's policy, {channel}, or one that lets less through, got {self}"))
    }
}

impl fmt::Display for SlowPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        self.max_rate().map_or(Ok(()), |rate| write!(f, "@{rate}"))
    }
}

impl FromStr for SlowPolicy {
    type Err = String;

    /// As in settings: `drop`, `skip`, `latest`, or `latest@2` for two messages of a symbol a second.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('@') {
            None => match text {
                "drop" => Ok(Self::Drop),
                "skip" => Ok(Self::Skip),
                "latest" => Ok(Self::Latest { interval_ms: 0 }),
                _ => Err(format!(
                    "expected the policy drop, skip or latest, got {:?}",
                    text.chars().take(60).collect::<String>()
                )),
            },
            Some(("latest", rate)) => {
                let rate = rate.parse().map_err(|_| format!("expected a number after latest@, got {rate:?}"))?;
                Self::latest_at(rate)
            }
            Some((policy, _)) => Err(format!("expected a rate with the policy latest, got {policy:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATEST: SlowPolicy = SlowPolicy::Latest { interval_ms: 0 };

    #[test]
    fn a_rate_means_the_latest_and_an_unknown_policy_is_refused() {
        let asked = SlowPolicy::asked;
        assert_eq!(asked(None, None), Ok(None));
        assert_eq!(asked(Some("latest"), None), Ok(Some(LATEST)));
        assert_eq!(asked(None, Some(2.0)), Ok(Some(SlowPolicy::Latest { interval_ms: 500 })));
        for (policy, rate) in
            [(Some("lossy"), None), (Some("skip"), Some(1.0)), (None, Some(0.0)), (None, Some(-1.0)), (None, Some(1e9))]
        {
            assert!(asked(policy, rate).unwrap_err().starts_with("expected"), "{policy:?} {rate:?}");
        }
    }

    #[test]
    fn a_subscription_may_let_less_through_than_its_channel() {
        assert_eq!(SlowPolicy::Skip.narrowing(SlowPolicy::Drop), Ok(SlowPolicy::Skip));
        assert!(SlowPolicy::Drop.narrowing(LATEST).is_err());
        assert!(LATEST.narrowing("latest@2".parse().unwrap()).is_err(), "not faster than the channel");
    }

    #[test]
    fn a_setting_reads_as_it_is_shown() {
        for text in ["drop", "skip", "latest", "latest@2"] {
            assert_eq!(text.parse::<SlowPolicy>().unwrap().to_string(), text);
        }
        for text in ["", "skip@2", "latest@", "latest@0", "latest@NaN", "Drop"] {
            assert!(text.parse::<SlowPolicy>().is_err(), "{text}");
        }
    }
}
