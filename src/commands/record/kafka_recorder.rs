//! Records Kafka topics: each into its file of the folder `streams/`, and `orderflow` into those of its tickers.
//!
//! Offsets are committed when the messages before them are on the disk. So a recording that is started again goes on
//! where it ended; after a crash, messages of the last second may come twice.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::BorrowedMessage;
use serde::de::IgnoredAny;

use super::heard::{Heard, ToFiles, stream_file};
use super::recorded_files::RecordedRecord;
use super::stream_lines::one_line;
use crate::commands::line_hints::LineHints;
use crate::source::kafka::kafka_options::{ORDERFLOW_TOPIC, SecurityOptions};
use crate::source::kafka::librdkafka;
use crate::wire::gexbot::{Package, is_ticker};

/// How long one poll waits, and so how soon the end of the recording is noticed.
const POLL: Duration = Duration::from_millis(100);

/// How often offsets are committed.
const COMMIT: Duration = Duration::from_secs(1);

/// How long a broker may take to answer for the first time.
const GREETING: Duration = Duration::from_secs(10);

/// Which topics, and where.
#[derive(Debug, Clone)]
pub struct TopicRequest {
    pub brokers: Vec<String>,
    pub topics: Vec<String>,
    /// The consumer group that keeps the offsets.
    pub group: String,
    pub security: SecurityOptions,
}

/// Records until the receiver of `files` is closed, and waits for `finished` then. Blocks. An error only if no broker
/// answers at the start.
pub fn record(request: &TopicRequest, files: ToFiles, finished: &mpsc::Receiver<()>) -> anyhow::Result<()> {
    let config = librdkafka::recorder(&request.brokers, &request.security, &request.group);
    let consumer: BaseConsumer = config.create().context("librdkafka refuses the settings")?;
    let brokers = request.brokers.join(",");
    consumer
        .fetch_metadata(None, GREETING)
        .with_context(|| format!("{brokers}: expected a Kafka broker to answer within {} s", GREETING.as_secs()))?;
    let topics: Vec<&str> = request.topics.iter().map(String::as_str).collect();
    consumer.subscribe(&topics).context("cannot subscribe")?;
    eprintln!("recording {}", topics.join(", "));
    let (mut uncommitted, mut committed, mut lost) = (false, Instant::now(), None);
    while !files.is_closed() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                if let Some(since) = lost.take() {
                    let away = Instant::now().duration_since(since);
                    let _ = files.blocking_send(Heard::Back { what: brokers.clone(), away });
                }
                if files.blocking_send(heard(&message)).is_err() {
                    break;
                }
                let _ = consumer.store_offset_from_message(&message);
                uncommitted = true;
            }
            Some(Err(error)) if lost.is_none() => {
                lost = Some(Instant::now());
                let _ = files.blocking_send(Heard::Lost { what: brokers.clone(), reason: error.to_string() });
            }
            None | Some(Err(_)) => {}
        }
        if uncommitted && committed.elapsed() >= COMMIT {
            (uncommitted, committed) = (false, Instant::now());
            commit(&consumer, &files);
        }
    }
    drop(files);
    // Nothing is told if not everything is on the disk.
    if finished.recv().is_ok() {
        let _ = consumer.commit_consumer_state(CommitMode::Sync);
    }
    Ok(())
}

/// Commits what is on the disk by then.
fn commit(consumer: &BaseConsumer, files: &ToFiles) {
    let (written, on_disk) = mpsc::channel();
    if files.blocking_send(Heard::Sync(written)).is_ok() && on_disk.recv().is_ok() {
        // The next one includes these offsets.
        let _ = consumer.commit_consumer_state(CommitMode::Async);
    }
}

/// A message as a line.
fn heard(message: &BorrowedMessage<'_>) -> Heard {
    let (topic, key) = (message.topic(), message.key().and_then(|key| std::str::from_utf8(key).ok()));
    line(topic, key, message.payload(), message.timestamp().to_millis()).unwrap_or_else(|reason| {
        let (partition, offset) = (message.partition(), message.offset());
        Heard::LeftOut(format!("{topic} partition {partition} offset {offset}: {reason}"))
    })
}

fn line(topic: &str, key: Option<&str>, payload: Option<&[u8]>, unix_ms: Option<i64>) -> Result<Heard, String> {
    let payload = payload.ok_or("it has no payload")?;
    let text = std::str::from_utf8(payload).map_err(|_| "its payload is not UTF-8")?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| format!("its payload is not JSON: {error}"))?;
    let hints = LineHints::read(payload).unwrap_or_default();
    let series = if topic == ORDERFLOW_TOPIC {
        let ticker = key.or(hints.ticker.as_deref()).filter(|ticker| is_ticker(ticker));
        let ticker = ticker.ok_or("expected a ticker as its key, or in its record")?;
        let package = Package::Orderflow.name();
        [ticker, package, &format!("{ORDERFLOW_TOPIC}.jsonl")].iter().collect()
    } else {
        stream_file(topic)
    };
    let at_us = hints.unix_us().or(unix_ms.map(|ms| ms.saturating_mul(1000)));
    let at = at_us.ok_or("it has no time")?.div_euclid(1_000_000);
    Ok(Heard::Record(RecordedRecord { series, at, line: one_line(text) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_message_has_the_file_of_its_topic_or_ticker() {
        let told = |topic, key, payload: &str, ms| match line(topic, key, Some(payload.as_bytes()), ms) {
            Ok(Heard::Record(record)) => (record.series, record.at, String::from_utf8(record.line).unwrap()),
            other => panic!("{other:?}"),
        };
        let (series, at, text) = told("lines", None, "{\n\"n\": 1.50}", Some(1_734_609_600_999));
        assert_eq!(
            (series.as_path(), at, text.as_str()),
            (Path::new("streams/lines.jsonl"), 1_734_609_600, "{ \"n\": 1.50}")
        );
        let (series, at, _) = told("trades", None, r#"{"timestamp":"2024-12-19T12:00:01Z"}"#, Some(5));
        assert_eq!((series.as_path(), at), (Path::new("streams/trades.jsonl"), 1_734_609_601));
        for (key, payload) in [(Some("SPX"), r#"{"timestamp":7}"#), (None, r#"{"timestamp":7,"ticker":"SPX"}"#)] {
            let (series, at, _) = told("orderflow", key, payload, None);
            assert_eq!((series.as_path(), at), (Path::new("SPX/orderflow/orderflow.jsonl"), 7));
        }
    }

    #[test]
    fn what_cannot_be_a_line_is_told() {
        for (topic, key, payload, ms, words) in [
            ("lines", None, None, Some(1), "no payload"),
            ("lines", None, Some(&b"\xff"[..]), Some(1), "not UTF-8"),
            ("lines", None, Some(b"{"), Some(1), "not JSON"),
            ("lines", None, Some(b"{}"), None, "no time"),
            ("orderflow", Some("../x"), Some(b"{}"), Some(1), "expected a ticker"),
            ("orderflow", None, Some(b"{}"), Some(1), "expected a ticker"),
        ] {
            let reason = line(topic, key, payload, ms).unwrap_err();
            assert!(reason.contains(words), "{reason}");
        }
    }
}
