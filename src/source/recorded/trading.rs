//! The recorded day on the JSON streams: its signals, trades and portfolios.
//!
//! ```text
//! replay's tick    ─▶ spot of every ticker ─▶ open, high, low, last ─▶ price_updates (see DayPrices)
//! replay's ordinal ─▶ {date}/streams/{channel}.jsonl, by their times ─▶ signals, trades, portfolio
//! ```
//!
//! One tick of the clock is one second of the recorded session, whatever its interval is. Nothing here runs as
//! part of a tick: it reads the clock's position.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::mapping::open_regular;
use super::player_options::CacheMode;
use super::track::Track;
use crate::health::status::SourceHealth;
use crate::streams::Streams;
use crate::wire::streams::portfolio::Portfolio;
use crate::wire::streams::shapes::{StreamRecord, Trade, TradingSignal};
use crate::wire::streams::{PORTFOLIO, SIGNALS, TRADES, object};

/// Folder of a day's trading streams.
pub const STREAMS_FOLDER: &str = "streams";

/// The longest line that is read, in bytes.
const MAX_LINE: u64 = 1 << 20;

/// Bad lines that are logged per file.
const TOLD: usize = 5;

/// How often the clock's position is read: a record goes out at most this late.
const LOOK: Duration = Duration::from_millis(20);

/// Settings of the recorded day's trading streams.
#[derive(Debug, Clone, clap::Args)]
pub struct TradingOptions {
    /// Replay the recorded day on the trading streams of /ws: prices from its spots, and the records of its
    /// folder streams/ [default: true, unless Kafka or a broker feed is configured]
    #[arg(long, env = "FLOWCAST_REPLAY_TRADING", value_parser = clap::value_parser!(bool), value_name = "BOOL")]
    pub replay_trading: Option<bool>,
}

/// A record of the folder `streams/`, due when the clock stands at its second.
#[derive(Debug, PartialEq, Eq)]
struct TradingRecord {
    /// When it is due in the session, Unix seconds.
    at: i64,
    /// Without its time: a replayed record is stamped when it is sent.
    record: StreamRecord<'static>,
}

/// The records of a day's folder `streams/`, ready to be played.
pub struct Trading {
    /// Sorted by time.
    events: Vec<TradingRecord>,
    /// The session's first second, Unix time.
    begins: i64,
    /// The second after the last event.
    ends: u64,
    /// The session is as long as the longest of them.
    tracks: Vec<Arc<Track>>,
    mode: CacheMode,
}

/// What one file of the folder `streams/` held.
#[derive(Debug)]
pub struct TradingReport {
    /// Its path, for log lines.
    pub path: PathBuf,
    /// Records that will be played.
    pub records: u64,
    /// The earliest and the latest time of a record, Unix seconds.
    pub span: Option<(i64, i64)>,
    /// Lines that are no record of the channel and are skipped.
    pub bad: u64,
    /// The first of them: line number, from 1, and reason.
    pub first_bad: Vec<(u64, String)>,
}

impl Trading {
    /// Reads the files that are there; a missing one is no error. `tracks` tell when the session begins and how
    /// long it is.
    pub fn load(day: &Path, tracks: &[Arc<Track>], mode: CacheMode) -> io::Result<(Self, Vec<TradingReport>)> {
        let (mut events, mut reports) = (Vec::new(), Vec::new());
        for channel in [SIGNALS, TRADES, PORTFOLIO] {
            let path = day.join(STREAMS_FOLDER).join(format!("{channel}.jsonl"));
            match open_regular(&path) {
                Ok((file, _)) => reports.push(read(&path, file, channel, &mut events)?),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
            }
        }
        // Stable: records of one second keep the order of their file.
        events.sort_by_key(|event| event.at);
        let begins = tracks.iter().map(|track| track.begins()).chain(events.first().map(|event| event.at)).min();
        let begins = begins.unwrap_or(0);
        let ends = events.last().map_or(0, |event| event.at.saturating_sub(begins).max(0) as u64 + 1);
        Ok((Self { events, begins, ends, tracks: tracks.to_vec(), mode }, reports))
    }

    /// Seconds until the session begins again; without end while the longest file is not indexed yet.
    fn lap(&self) -> u64 {
        let longest = self
            .tracks
            .iter()
            .map(|track| track.slots())
            .fold((1, true), |(longest, all), (slots, is_all)| (longest.max(slots), all && is_all));
        if longest.1 { longest.0.max(self.ends) } else { u64::MAX }
    }

    /// Plays what is due as the clock goes on, until `stop` is set. Blocks: call it on a thread of its own.
    pub fn run(&self, streams: &Streams, clock: &SourceHealth, stop: &AtomicBool) {
        if self.events.is_empty() {
            return;
        }
        let mut next = 0;
        while !stop.load(Ordering::Relaxed) {
            let now = clock.position();
            // Far behind: what was missed is skipped, not sent in one burst.
            next = next.max(now.saturating_sub(self.lap()));
            while next <= now {
                self.due(next).for_each(|event| {
                    // Cannot be refused: only prices have a limit, and those come from the spots.
                    let _ = streams.publish_record(&event.record);
                });
                next += 1;
            }
            thread::sleep(LOOK);
        }
    }

    fn due(&self, ordinal: u64) -> impl Iterator<Item = &TradingRecord> {
        let second = match self.mode {
            CacheMode::Rotation => ordinal % self.lap(),
            CacheMode::Exhaust => ordinal,
        };
        let at = self.begins.saturating_add_unsigned(second);
        let first = self.events.partition_point(|event| event.at < at);
        self.events[first..].iter().take_while(move |event| event.at == at)
    }
}

/// Reads one file; bad lines are noted.
fn read(path: &Path, file: File, channel: &'static str, events: &mut Vec<TradingRecord>) -> io::Result<TradingReport> {
    let mut report = TradingReport { path: path.to_owned(), records: 0, span: None, bad: 0, first_bad: Vec::new() };
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).map_err(failed)? == 0 {
            break;
        }
        if line.len() as u64 == MAX_LINE && line.last() != Some(&b'\n') {
            reader.skip_until(b'\n').map_err(failed)?;
            line.clear();
            line.push(b'!');
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        match event(channel, line.trim_ascii()) {
            Ok(event) => {
                let (first, last) = report.span.unwrap_or((event.at, event.at));
                report.span = Some((first.min(event.at), last.max(event.at)));
                events.push(event);
                report.records += 1;
            }
            Err(reason) => {
                report.bad += 1;
                if report.first_bad.len() < TOLD {
                    report.first_bad.push((number, reason));
                }
            }
        }
    }
    Ok(report)
}

fn event(channel: &'static str, line: &[u8]) -> Result<TradingRecord, String> {
    #[derive(Deserialize)]
    struct Timed<'a> {
        #[serde(borrow, default)]
        timestamp: Option<&'a RawValue>,
    }
    let timed: Timed<'_> = std::str::from_utf8(line)
        .map_err(|error| error.to_string())
        .and_then(object)
        .map_err(|reason| format!("expected one JSON object of at most 1 MiB: {reason}"))?;
    let timestamp = timed.timestamp.and_then(|text| serde_json::from_str::<Cow<'_, str>>(text.get()).ok());
    let timestamp: jiff::Timestamp = timestamp
        .and_then(|text| text.parse().ok())
        .ok_or("timestamp: expected RFC 3339, such as 2024-12-19T12:00:00Z; it says when the record is due")?;
    let record = match channel {
        SIGNALS => TradingSignal::parse(line)
            .map(|signal| StreamRecord::Signal(TradingSignal { timestamp: None, ..signal.into_owned() })),
        TRADES => Trade::parse(line).map(|trade| StreamRecord::Trade(Trade { timestamp: None, ..trade.into_owned() })),
        _ => Portfolio::parse(line).map(|portfolio| StreamRecord::Portfolio(portfolio.into_owned())),
    };
    Ok(TradingRecord { at: timestamp.as_second(), record: record.map_err(|error| error.to_string())? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(lines: &str) -> (Trading, Vec<TradingReport>) {
        let day = tempfile::tempdir().unwrap();
        std::fs::create_dir(day.path().join(STREAMS_FOLDER)).unwrap();
        std::fs::write(day.path().join(STREAMS_FOLDER).join("trades.jsonl"), lines).unwrap();
        Trading::load(day.path(), &[], CacheMode::Rotation).unwrap()
    }

    fn trade(second: u32, quantity: u32) -> String {
        let at = format!("2025-11-28T14:30:{second:02}Z");
        format!(r#"{{"timestamp":"{at}","symbol":"A","side":"BUY","quantity":{quantity},"price":1.50}}"#)
    }

    fn trade_of(event: &TradingRecord) -> &Trade<'static> {
        let StreamRecord::Trade(trade) = &event.record else { panic!("expected a trade, got {event:?}") };
        trade
    }

    #[test]
    fn records_are_due_at_their_second_and_again_after_a_lap() {
        let (trading, reports) = load(&[trade(5, 2), trade(3, 1), trade(5, 3)].join("\n"));
        assert_eq!((reports.len(), reports[0].records, reports[0].bad), (1, 3, 0));
        let due = |ordinal| trading.due(ordinal).map(|event| trade_of(event).quantity.unwrap().to_string());
        let due: Vec<Vec<String>> = (0..6).map(|ordinal| due(ordinal).collect()).collect();
        assert_eq!(due, [vec!["1"], vec![], vec!["2", "3"], vec!["1"], vec![], vec!["2", "3"]]);
    }

    #[test]
    fn a_replayed_record_has_no_time_of_its_own_and_keeps_its_digits() {
        let (trading, _) = load(&trade(0, 1));
        let trade = trade_of(&trading.events[0]);
        assert_eq!((trade.timestamp.as_deref(), trade.price.unwrap().to_string()), (None, "1.50".to_owned()));
    }

    #[test]
    fn bad_lines_are_told_and_cost_nothing_else() {
        let long = format!("{{\"timestamp\":\"{}\"}}", "x".repeat(1 << 21));
        let lines =
            ["nonsense", "", &trade(1, 1), "{\"symbol\":\"A\"}", &long, &trade(2, 1), "{\"timestamp\":7}"].join("\n");
        let (trading, reports) = load(&lines);
        assert_eq!((trading.events.len(), reports[0].records, reports[0].bad), (2, 2, 4));
        let told: Vec<u64> = reports[0].first_bad.iter().map(|(line, _)| *line).collect();
        assert_eq!(told, [1, 4, 5, 7]);
        assert!(reports[0].first_bad[1].1.starts_with("timestamp: expected RFC 3339"));
    }
}
