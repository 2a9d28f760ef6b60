//! How `flowcast publish` ends: a summary, or an error.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::source::recorded::dataset::DatasetError;
use crate::source::recorded::file_kind::NotJsonLines;
use crate::source::recorded::line_stats::counted;

/// Why `flowcast publish` ends early. The operator must fix it.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// This binary has no Kafka.
    #[error("this flowcast was built without Kafka; build it with --features kafka")]
    NoKafka,
    /// Settings that contradict each other.
    #[error("{0}")]
    Settings(String),
    /// librdkafka refuses the settings.
    #[error("librdkafka refuses the Kafka settings: {0}")]
    Refused(String),
    /// No broker answers.
    #[error("{brokers}: expected a Kafka broker to answer within {seconds} s: {reason}")]
    NoBroker {
        /// `--brokers`.
        brokers: String,
        /// How long flowcast waited.
        seconds: u64,
        /// librdkafka's reason.
        reason: String,
    },
    /// The day's data is not there.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A file must be imported first.
    #[error(transparent)]
    Kind(#[from] NotJsonLines),
    /// A file cannot be read.
    #[error("{path}: expected a readable JSONL file: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// What `flowcast publish` has done, printed at its end.
#[derive(Debug, Clone, Default)]
pub struct PublishSummary {
    /// The topic written to.
    pub topic: String,
    /// Messages that Kafka confirmed.
    pub delivered: u64,
    /// Bytes of the payloads of those messages.
    pub bytes: u64,
    /// Messages that Kafka did not confirm.
    pub failed: u64,
    /// Lines left out because they are longer than a message may be.
    pub too_long: u64,
    /// Lines that were sent with the line before, because their time is far from the others.
    pub odd_times: u64,
    /// Why the first message failed.
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
        if self.odd_times > 0 {
            write!(
                f,
                "; {} with a time far from the others, sent with the one before",
                counted(self.odd_times, "line", "lines")
            )?;
        }
        match &self.first_error {
            Some(error) => write!(f, "; the first error: {error}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
