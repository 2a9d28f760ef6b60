//! Settings of the replay clock.

use std::time::Duration;

use crate::replay::change::{Pace, Speed};
use crate::replay::moment::Moment;
use crate::replay::moment_text::duration;
use crate::replay::wanted_dates::WantedDates;

/// Settings of the replay clock.
#[derive(Debug, Clone, clap::Args)]
pub struct ReplayOptions {
    /// Time between two ticks: a number with a unit, such as 1s, 500ms or 1m30s
    #[arg(long, env = "WS_STREAM_INTERVAL", default_value = "1s", value_name = "DURATION", value_parser = interval)]
    pub interval: Duration,
    /// What happens after a ticker's last record
    #[arg(long, env = "CACHE_MODE", value_enum, default_value_t = CacheMode::Rotation, value_name = "MODE")]
    pub cache_mode: CacheMode,
    /// Play each record at its own time, so many times as fast as it was recorded, in place of --interval: a number
    /// from 0.01 to 100000, or `max`: as fast as the slowest shard can send
    #[arg(long, env = "FLOWCAST_SPEED", value_name = "FACTOR")]
    pub speed: Option<Speed>,
    /// Shorten longer gaps between records to this, with --speed; nights between dates are 2s unless this is shorter
    #[arg(long, env = "FLOWCAST_MAX_GAP", value_name = "DURATION", value_parser = gap)]
    pub max_gap: Option<Duration>,
    /// Dates to play one after the other, in place of --data-date: A..B, or a list A,B
    #[arg(long, env = "FLOWCAST_DATES", value_name = "DATES")]
    pub dates: Option<WantedDates>,
    /// Where to start: a time such as 2025-11-28T14:30:00Z, 14:30 (exchange time of the first date), +30m or 50%
    #[arg(long, env = "FLOWCAST_START_AT", value_name = "MOMENT")]
    pub start_at: Option<Moment>,
    /// Pause there by itself, written as in --start-at
    #[arg(long, env = "FLOWCAST_UNTIL", value_name = "MOMENT")]
    pub until: Option<Moment>,
    /// Start paused; `flowcast replay play` goes on
    #[arg(long, env = "FLOWCAST_START_PAUSED", default_value_t = false, value_parser = clap::value_parser!(bool))]
    #[arg(action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub start_paused: bool,
    /// Start when so many clients have joined a group
    #[arg(long, env = "FLOWCAST_WAIT_FOR", default_value_t = 0, value_name = "CLIENTS")]
    pub wait_for: usize,
    /// Let the position follow the time of day (`wall`), so that several nodes, and restarts, play the same record at
    /// the same moment
    #[arg(long, env = "FLOWCAST_ANCHOR", value_enum, default_value_t = AnchorMode::Start, value_name = "ANCHOR")]
    pub anchor: AnchorMode,
    /// Move the records' own times by whole days: a number of days, or `today`: the last date becomes today
    #[arg(long, env = "FLOWCAST_SHIFT_DAYS", default_value = "0", value_name = "DAYS", allow_hyphen_values = true)]
    pub shift_days: ShiftDays,
    /// Give the clock's thread real-time priority where the kernel allows it (CAP_SYS_NICE, or a limit RLIMIT_RTPRIO), so
    /// that ticks begin in time beside busy shards
    #[arg(long, env = "FLOWCAST_CLOCK_REAL_TIME", default_value_t = true, value_parser = clap::value_parser!(bool))]
    #[arg(action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub clock_real_time: bool,
    /// Sessions with a clock of their own that may exist at a time
    #[arg(long, env = "FLOWCAST_MAX_SESSIONS", default_value_t = 64, value_name = "SESSIONS")]
    #[arg(value_parser = clap::value_parser!(u16).range(0..=4096))]
    pub max_sessions: u16,
    /// How long a session without connections is kept
    #[arg(long, env = "FLOWCAST_SESSION_IDLE", default_value = "10m", value_name = "DURATION", value_parser = gap)]
    pub session_idle: Duration,
}

impl ReplayOptions {
    /// How the clock goes at the start.
    pub fn pace(&self) -> Pace {
        self.speed.map_or(Pace::Interval(self.interval), Pace::Recorded)
    }

    /// Whether the first record follows the last at the start.
    pub fn is_loop(&self) -> bool {
        self.cache_mode == CacheMode::Rotation
    }

    /// Settings that exclude each other. `Err` names them.
    pub fn check(&self) -> Result<(), String> {
        if self.anchor == AnchorMode::Wall {
            let excluded = [
                ("--start-at", self.start_at.is_some()),
                ("--until", self.until.is_some()),
                ("--start-paused", self.start_paused),
                ("--wait-for", self.wait_for > 0),
                ("--max-gap", self.max_gap.is_some()),
                ("--speed max", self.speed == Some(Speed::Max)),
                ("--cache-mode exhaust", !self.is_loop()),
            ];
            if let Some((name, _)) = excluded.iter().find(|(_, is_set)| *is_set) {
                return Err(format!(
                    "--anchor wall: the position follows the time of day, so {name} has no meaning; leave one of them out"
                ));
            }
        }
        Ok(())
    }
}

/// What the position of the clock is a function of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum AnchorMode {
    /// When it was started, and what was asked of it.
    Start,
    /// The time of day alone.
    Wall,
}

/// By how many days the records' times are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShiftDays {
    /// So many; negative ones are earlier.
    By(i64),
    /// As many as there are from the last date to today.
    Today,
}

impl std::str::FromStr for ShiftDays {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const MOST: i64 = 20_000;
        match text.trim() {
            "today" => Ok(Self::Today),
            text => match text.parse() {
                Ok(days) if (-MOST..=MOST).contains(&days) => Ok(Self::By(days)),
                _ => Err(format!("expected a whole number of days from -{MOST} to {MOST}, or today; got {text:?}")),
            },
        }
    }
}

/// What follows the last record. Name and values are those of `docs/protocols/gexbot.md`, "The fakers".
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum CacheMode {
    /// Start again with the first record.
    Rotation,
    /// Send nothing more.
    Exhaust,
}

fn interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(interval) if (Duration::from_micros(10)..=Duration::from_hours(24)).contains(&interval) => Ok(interval),
        Ok(_) => Err("expected a duration from 10us to 24h".to_owned()),
        Err(error) => Err(format!("expected a duration with a unit, such as 1s, 500ms or 1m30s: {error}")),
    }
}

fn gap(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_millis(1), Duration::from_hours(24))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_a_duration_with_a_unit() {
        assert_eq!(interval("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(interval("1m30s"), Ok(Duration::from_secs(90)));
        for text in ["1", "", "fast", "0s", "1us", "25h", "-1s"] {
            assert!(interval(text).unwrap_err().starts_with("expected a duration"), "{text}");
        }
    }
}
