//! `flowcast publish`: replays a dataset into a Kafka topic.
//!
//! ```text
//! {date}/{ticker}/orderflow/…  ─┐ by time
//! {date}/streams/{topic}.jsonl ─┼────────▶ pace × speed ─▶ producer ─▶ topic, key = ticker or symbol
//! --file                       ─┘
//! ```

#[cfg(feature = "kafka")]
mod producer;
mod recording;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::source::kafka::kafka_options::SecurityOptions;
use crate::source::recorded::dataset::{DataDate, DatasetError};

/// What to publish, and where.
#[derive(Debug, Clone, clap::Args)]
pub struct PublishOptions {
    /// Kafka brokers, host:port, comma-separated
    #[arg(long, env = "WS_KAFKA_BROKERS", value_delimiter = ',', required = true, value_name = "BROKERS")]
    #[arg(value_parser = crate::source::kafka::kafka_options::broker)]
    pub brokers: Vec<String>,
    /// Topic to write to. For orderflow the records of all tickers are taken, key = ticker; for any other
    /// topic the day's streams/TOPIC.jsonl, key = the record's symbol if it has one
    #[arg(long, value_name = "TOPIC", value_parser = crate::source::kafka::kafka_options::topic)]
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
    /// How many times as fast as it was recorded, or `max`: as fast as Kafka takes it
    #[arg(long, default_value = "1", value_name = "FACTOR")]
    pub speed: Speed,
    /// Time between two records of a file, whatever their timestamps say
    #[arg(long, value_name = "DURATION", value_parser = interval)]
    pub interval: Option<Duration>,
    /// How long one message may take to be delivered before it counts as failed
    #[arg(long, default_value = "1m", value_name = "DURATION", value_parser = crate::source::kafka::kafka_options::pause)]
    pub message_timeout: Duration,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub security: SecurityOptions,
}

/// How fast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// As fast as Kafka takes it.
    Max,
    /// So many times as fast as it was recorded.
    Times(f64),
}

impl std::str::FromStr for Speed {
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

/// Why nothing more is published. The operator's to fix.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Built without Kafka.
    #[error("this flowcast was built without Kafka; build it with --features kafka")]
    NoKafka,
    /// Settings that contradict each other.
    #[error("{0}")]
    Settings(String),
    /// librdkafka refuses the settings.
    #[error("the Kafka settings are refused: {0}")]
    Refused(String),
    /// No broker answers.
    #[error("{brokers}: expected a Kafka broker to answer within {seconds} s: {reason}")]
    NoBroker {
        /// Whom we asked.
        brokers: String,
        /// How long.
        seconds: u64,
        /// What librdkafka said.
        reason: String,
    },
    /// There is no such day.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A file cannot be read.
    #[error("{path}: expected a readable JSONL file: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What was done.
#[derive(Debug, Clone, Default)]
pub struct PublishSummary {
    /// The topic.
    pub topic: String,
    /// Messages that Kafka confirmed.
    pub delivered: u64,
    /// Their payloads' bytes.
    pub bytes: u64,
    /// Messages that Kafka did not confirm.
    pub failed: u64,
    /// Lines left out: longer than a message may be.
    pub too_long: u64,
    /// Why the first of them failed.
    pub first_error: Option<String>,
    /// Whether a signal ended it before the end of the data.
    pub interrupted: bool,
    /// How long it took.
    pub took: Duration,
}

impl PublishSummary {
    /// Whether Kafka has every message that was sent.
    pub fn is_complete(&self) -> bool {
        self.failed == 0
    }
}

impl fmt::Display for PublishSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, delivered, bytes, failed, .. } = self;
        let seconds = self.took.as_secs_f64();
        write!(f, "{topic}: {delivered} messages delivered, {bytes} bytes, {failed} failed, in {seconds:.1} s")?;
        if self.interrupted {
            write!(f, "; interrupted")?;
        }
        if self.too_long > 0 {
            write!(f, "; {} lines left out, too long", self.too_long)?;
        }
        match &self.first_error {
            Some(error) => write!(f, "; the first error: {error}"),
            None => Ok(()),
        }
    }
}

/// Publishes until the end of the data, or until `stop` is raised. Blocks.
#[cfg(feature = "kafka")]
pub fn publish(options: &PublishOptions, stop: &AtomicBool) -> Result<PublishSummary, PublishError> {
    options.security.check().map_err(PublishError::Settings)?;
    crate::commands::publish::producer::publish(options, stop)
}

/// Refuses: built without Kafka.
#[cfg(not(feature = "kafka"))]
pub fn publish(_: &PublishOptions, _: &AtomicBool) -> Result<PublishSummary, PublishError> {
    Err(PublishError::NoKafka)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_a_factor_or_max() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("2.5".parse(), Ok(Speed::Times(2.5)));
        for text in ["0", "-1", "fast", "inf", "NaN", ""] {
            assert!(text.parse::<Speed>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_summary_says_what_failed() {
        let mut summary =
            PublishSummary { topic: "lines".to_owned(), delivered: 3, bytes: 42, ..PublishSummary::default() };
        assert_eq!(summary.to_string(), "lines: 3 messages delivered, 42 bytes, 0 failed, in 0.0 s");
        assert!(summary.is_complete());
        summary.failed = 1;
        summary.interrupted = true;
        summary.first_error = Some("unknown topic".to_owned());
        assert!(summary.to_string().ends_with("1 failed, in 0.0 s; interrupted; the first error: unknown topic"));
        assert!(!summary.is_complete());
    }
}
