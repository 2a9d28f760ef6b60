//! Settings of `flowcast publish`.

use std::path::PathBuf;
use std::time::Duration;

use crate::source::kafka::kafka_options::{self, SecurityOptions};
use crate::source::recorded::dataset::DataDate;

/// Settings of `flowcast publish`.
#[derive(Debug, Clone, clap::Args)]
pub struct PublishOptions {
    /// Kafka brokers, host:port, comma-separated
    #[arg(long, env = "WS_KAFKA_BROKERS", value_delimiter = ',', required = true, value_name = "BROKERS")]
    #[arg(value_parser = kafka_options::broker)]
    pub brokers: Vec<String>,
    /// Topic to write to. orderflow gets the day's records of all tickers, key = ticker; any other topic
    /// the day's streams/TOPIC.jsonl, key = the record's symbol if it has one
    #[arg(long, value_name = "TOPIC", value_parser = kafka_options::topic)]
    pub topic: String,
    /// Folder of the recorded data
    #[arg(long, env = "DATA_DIR", default_value = "./data", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The day to replay: YYYY-MM-DD, or `latest`
    #[arg(long, visible_alias = "data-date", env = "DATA_DATE", default_value = "latest", value_name = "DATE")]
    pub date: DataDate,
    /// A JSONL file to replay instead; key = each line's ticker or symbol, if it has one
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// How many times as fast as recorded, or `max`: as fast as Kafka takes the messages
    #[arg(long, default_value = "1", value_name = "FACTOR")]
    pub speed: PublishSpeed,
    /// Time between two records of a file, in place of their timestamps
    #[arg(long, value_name = "DURATION", value_parser = interval)]
    pub interval: Option<Duration>,
    /// A longer pause between two records is cut to this, in the recording's time
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = gap)]
    pub max_gap: Duration,
    /// How long one message may take to be delivered before it counts as failed
    #[arg(long, default_value = "1m", value_name = "DURATION", value_parser = kafka_options::pause)]
    pub message_timeout: Duration,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub security: SecurityOptions,
}

/// How fast a recording is published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PublishSpeed {
    /// As fast as Kafka takes the messages.
    Max,
    /// This many times as fast as recorded, 0.001 to 1,000,000.
    Times(f64),
}

impl std::str::FromStr for PublishSpeed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse::<f64>()) {
            ("max", _) => Ok(Self::Max),
            (_, Ok(times)) if (0.001..=1_000_000.0).contains(&times) => Ok(Self::Times(times)),
            _ => Err("expected `max` or a number from 0.001 to 1000000, such as 10".to_owned()),
        }
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(interval) if interval <= Duration::from_hours(24) => Ok(interval),
        _ => Err("expected a duration with a unit up to 24h, such as 1s or 20ms".to_owned()),
    }
}

fn gap(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(gap) if gap <= Duration::from_hours(24 * 7) => Ok(gap),
        _ => Err("expected a duration with a unit up to 7days, such as 1h or 30s".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_a_factor_or_max() {
        assert_eq!("max".parse(), Ok(PublishSpeed::Max));
        assert_eq!("2.5".parse(), Ok(PublishSpeed::Times(2.5)));
        for text in ["0", "-1", "fast", "inf", "NaN", ""] {
            assert!(text.parse::<PublishSpeed>().is_err(), "{text}");
        }
    }
}
