//! The sources: the files of the recorded days, and what each stream says of itself.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::live_snapshot::{FileRow, FileTable, TopicRow};
use crate::health::status::{Figure, SourceSnapshot, SourceState, Status};
use crate::server::http::app::App;
use crate::wire::streams::messages;

/// How long the table of the files is good for: it changes while they are indexed, and asks each of them.
const FILES_AGE: Duration = Duration::from_secs(5);

/// The table of the files, made anew from time to time.
#[derive(Default)]
pub struct KeptFiles {
    table: FileTable,
    made: Option<Instant>,
}

impl KeptFiles {
    /// The table, at most some seconds old.
    pub fn table(&mut self, app: &App, limit: usize) -> &FileTable {
        if self.made.is_none_or(|made| made.elapsed() >= FILES_AGE) {
            self.table = files(app, limit);
            self.made = Some(Instant::now());
        }
        &self.table
    }
}

fn files(app: &App, limit: usize) -> FileTable {
    let Some(day) = app.rest.day() else { return FileTable::default() };
    let day = day.day;
    let mut table = FileTable { total: day.series().len(), ..FileTable::default() };
    let mut rows = Vec::with_capacity(table.total);
    for (at, series) in day.series().iter().enumerate() {
        let (facts, (records, complete)) = (day.facts(at), day.slots(at));
        table.records += records;
        table.bad += facts.bad;
        let file = series.path.file_name().unwrap_or_default().to_string_lossy();
        // Where the data folder is does not matter to readers.
        let path = format!("{}/{}/{}/{file}", day.date(), series.ticker, series.package.name());
        let bad_lines = facts.first_bad.iter().map(|(line, reason)| format!("{path}:{line}: {reason}")).collect();
        let row = FileRow { path, records, complete, first: facts.first, last: facts.last, bad: facts.bad, bad_lines };
        rows.push((series.name(), row));
    }
    if rows.len() > limit {
        // Those with bad lines, then those that are not indexed yet; stable, so otherwise as the day has them.
        rows.sort_by_key(|(_, row)| (row.bad == 0, row.complete));
        rows.truncate(limit);
    }
    table.rows = rows.into_iter().collect();
    table
}

/// The topics of Kafka, and how many messages each had had.
#[derive(Default)]
pub struct Topics(BTreeMap<String, u64>);

impl Topics {
    /// The topics now; with rates if so many seconds have gone by since the last call.
    pub fn table(&mut self, status: &Status, seconds: Option<f64>) -> BTreeMap<String, TopicRow> {
        let mut topics: BTreeMap<String, TopicRow> = BTreeMap::new();
        for figure in status.figures() {
            let Some((_, topic)) = figure.labels.iter().find(|(label, _)| *label == "topic") else { continue };
            let row = topics.entry(topic.to_string()).or_default();
            let value = figure.value.load(Ordering::Relaxed);
            match figure.name {
                "kafka_messages" => row.messages = value,
                "kafka_lag" => row.lag = value,
                // By reason.
                "kafka_messages_skipped" => row.refused += value,
                _ => {}
            }
        }
        if let Some(seconds) = seconds {
            for (topic, row) in &mut topics {
                let before = self.0.get(topic).copied().unwrap_or(row.messages);
                let rate = row.messages.saturating_sub(before) as f64 / seconds;
                row.messages_per_s = Some((rate * 10.0).round() / 10.0);
            }
        }
        self.0 = topics.iter().map(|(topic, row)| (topic.clone(), row.messages)).collect();
        topics
    }
}

/// What each source says of itself, by name.
pub fn stream_health(status: &Status) -> Map<String, Value> {
    let figures = status.figures();
    status.snapshot().iter().map(|source| (source.name.clone(), health(source, &figures))).collect()
}

/// The five figures that every source has, then the figures it registered itself. The source `feed:kite` has
/// the figures with the label `feed="kite"`, under their names without `feed_`.
fn health(source: &SourceSnapshot, figures: &[Figure]) -> Value {
    let mut told = json!({
        "last_update": source.last_update_unix_ns.map(rfc3339),
        "error_count": source.errors,
        "recovery_attempts": source.recoveries,
        "is_healthy": source.is_healthy,
        "started_at": rfc3339(source.started_unix_ns),
    });
    if let Some(SourceState { state, reason }) = &source.state {
        told["state"] = (*state).into();
        told["reason"] = reason.as_str().into();
    }
    if let Some((kind, id)) = source.name.split_once(':') {
        let its_own = figures.iter().filter(|figure| figure.labels.iter().any(|(name, of)| *name == kind && of == id));
        for figure in its_own {
            let name = figure.name.strip_prefix(kind).map_or(figure.name, |name| name.trim_start_matches('_'));
            told[name] = figure.value.load(Ordering::Relaxed).into();
        }
    }
    told
}

/// UTC with milliseconds.
fn rfc3339(unix_ns: u64) -> String {
    messages::rfc3339(i64::try_from(unix_ns / 1_000_000).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_has_its_rate_its_lag_and_all_that_was_refused() {
        let status = Status::default();
        let label = || ("topic", "lines".into());
        let messages = status.count("kafka_messages", "", vec![label()]);
        let lag = status.gauge("kafka_lag", "", vec![label()]);
        for (reason, count) in [("too large", 2), ("no JSON", 3)] {
            let refused = status.count("kafka_messages_skipped", "", vec![label(), ("reason", reason.into())]);
            refused.store(count, Ordering::Relaxed);
        }
        messages.store(100, Ordering::Relaxed);
        lag.store(7, Ordering::Relaxed);
        let mut topics = Topics::default();
        let first = &topics.table(&status, None)["lines"];
        assert_eq!((first.messages, first.lag, first.refused, first.messages_per_s), (100, 7, 5, None));
        messages.store(150, Ordering::Relaxed);
        assert_eq!(topics.table(&status, Some(2.0))["lines"].messages_per_s, Some(25.0));
    }

    #[test]
    fn times_are_rfc_3339_in_utc_with_milliseconds() {
        assert_eq!(rfc3339(1_764_340_202_007_999_999), "2025-11-28T14:30:02.007Z");
    }
}
