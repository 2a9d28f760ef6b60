//! Settings of the replay clock.

use std::time::Duration;

/// Settings of the replay clock.
#[derive(Debug, Clone, clap::Args)]
pub struct ReplayOptions {
    /// Time between two ticks: a number with a unit, such as 1s, 500ms or 1m30s
    #[arg(long, env = "WS_STREAM_INTERVAL", default_value = "1s", value_name = "DURATION", value_parser = interval)]
    pub interval: Duration,
    /// What happens after a ticker's last record
    #[arg(long, env = "CACHE_MODE", value_enum, default_value_t = CacheMode::Rotation, value_name = "MODE")]
    pub cache_mode: CacheMode,
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
