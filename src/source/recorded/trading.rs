//! The records of a day's folder `streams/`: signals, trades and portfolios, by their times.
//!
//! The clock plays them as it passes their times, whatever its pace is.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::index::BYTE_ORDER_MARK;
use super::mapping::open_regular;
use crate::streams::Streams;
use crate::wire::streams::checks::TIMESTAMP;
use crate::wire::streams::portfolio::Portfolio;
use crate::wire::streams::rfc3339::UtcTime;
use crate::wire::streams::shapes::{StreamRecord, Trade, TradingSignal};
use crate::wire::streams::{PORTFOLIO, SIGNALS, TRADES, object};

/// Folder of a day's trading streams.
pub const STREAMS_FOLDER: &str = "streams";

/// The longest line that is read, in bytes.
const MAX_LINE: u64 = 1 << 20;

/// Bad lines that are logged per file.
const TOLD: usize = 5;

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
#[derive(Default)]
pub struct Trading {
    /// Sorted by time.
    events: Vec<TradingRecord>,
}

/// How long before the first record of any ticker, and after the last, a time is taken for one of the session: it is
/// played with that record. Seconds.
const AROUND: i64 = 3600;

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
    /// Reads the files that are there; a missing one is no error. `session`: from the first record of any ticker to
    /// the last, Unix seconds. A record that is not from an hour around it would never be due, and is bad.
    pub fn load(day: &Path, session: (u32, u32)) -> io::Result<(Self, Vec<TradingReport>)> {
        let (mut events, mut reports) = (Vec::new(), Vec::new());
        for channel in [SIGNALS, TRADES, PORTFOLIO] {
            let path = day.join(STREAMS_FOLDER).join(format!("{channel}.jsonl"));
            match open_regular(&path) {
                Ok((file, _)) => reports.push(read(&path, file, channel, session, &mut events)?),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
            }
        }
        // Stable: records of one second keep the order of their file.
        events.sort_by_key(|event| event.at);
        Ok((Self { events }, reports))
    }

    /// Publishes what is due after `from` until `to`, both Unix seconds.
    pub fn play(&self, streams: &Streams, from: i64, to: i64) {
        for event in self.due(from, to) {
            // Cannot be refused: only prices have a limit, and those come from the spots.
            let _ = streams.publish_record(&event.record);
        }
    }

    /// Publishes the portfolio as it was at `at`, Unix seconds; an empty one if there was none yet.
    pub fn stand(&self, streams: &Streams, at: i64) {
        let portfolios = |events: &'_ [TradingRecord]| {
            events.iter().rposition(|event| matches!(event.record, StreamRecord::Portfolio(_)))
        };
        let before = &self.events[..self.events.partition_point(|event| event.at <= at)];
        match portfolios(before) {
            Some(last) => {
                let _ = streams.publish_record(&before[last].record);
            }
            None if portfolios(&self.events).is_some() => {
                let _ = streams.publish_record(&StreamRecord::Portfolio(Portfolio::default()));
            }
            None => {}
        }
    }

    /// How many records are due in a span of time, Unix seconds.
    pub fn count(&self, (first, last): (u32, u32)) -> usize {
        self.due(i64::from(first) - 1, i64::from(last)).len()
    }

    fn due(&self, from: i64, to: i64) -> &[TradingRecord] {
        let first = self.events.partition_point(|event| event.at <= from);
        let last = self.events.partition_point(|event| event.at <= to);
        self.events.get(first..last).unwrap_or(&[])
    }
}

/// Reads one file; bad lines are noted.
fn read(
    path: &Path,
    file: File,
    channel: &'static str,
    session: (u32, u32),
    events: &mut Vec<TradingRecord>,
) -> io::Result<TradingReport> {
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
        let text = if number == 1 { line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&line) } else { &line };
        let text = text.trim_ascii();
        if text.is_empty() {
            continue;
        }
        match event(channel, text, session) {
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

fn event(channel: &'static str, line: &[u8], session: (u32, u32)) -> Result<TradingRecord, String> {
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
    let timestamp = timestamp
        .and_then(|text| UtcTime::parse(&text)?.timestamp())
        .ok_or_else(|| format!("timestamp: {TIMESTAMP}; it says when the record is due"))?;
    let record = match channel {
        SIGNALS => TradingSignal::parse(line)
            .map(|signal| StreamRecord::Signal(TradingSignal { timestamp: None, ..signal.into_owned() })),
        TRADES => Trade::parse(line).map(|trade| StreamRecord::Trade(Trade { timestamp: None, ..trade.into_owned() })),
        _ => Portfolio::parse(line).map(|portfolio| StreamRecord::Portfolio(portfolio.into_owned())),
    };
    let record = record.map_err(|error| error.to_string())?;
    let (first, last) = (i64::from(session.0), i64::from(session.1));
    let at = timestamp.as_second();
    if !(first - AROUND..=last + AROUND).contains(&at) {
        let shown = |at| jiff::Timestamp::from_second(at).map_or_else(|_| at.to_string(), |at| at.to_string());
        let (first, last) = (shown(first), shown(last));
        return Err(format!("timestamp: expected a time of the session, {first} to {last}, got {timestamp}"));
    }
    Ok(TradingRecord { at: at.clamp(first, last), record })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 14:30:00 to 14:31:00.
    const SESSION: (u32, u32) = (1_764_340_200, 1_764_340_260);

    fn load(lines: &str) -> (Trading, Vec<TradingReport>) {
        let day = tempfile::tempdir().unwrap();
        std::fs::create_dir(day.path().join(STREAMS_FOLDER)).unwrap();
        std::fs::write(day.path().join(STREAMS_FOLDER).join("trades.jsonl"), lines).unwrap();
        Trading::load(day.path(), SESSION).unwrap()
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
    fn records_are_due_when_the_clock_passes_their_times() {
        let (trading, reports) = load(&[trade(5, 2), trade(3, 1), trade(5, 3)].join("\n"));
        assert_eq!((reports.len(), reports[0].records, reports[0].bad), (1, 3, 0));
        let first = i64::from(SESSION.0);
        let due = |from: i64, to: i64| {
            let due = trading.due(first + from, first + to).iter();
            due.map(|event| trade_of(event).quantity.unwrap().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            [due(-1, 2), due(2, 3), due(3, 5), due(-1, 60), due(9, 3)],
            [
                vec![],
                vec!["1".to_owned()],
                vec!["2".to_owned(), "3".to_owned()],
                vec!["1".to_owned(), "2".to_owned(), "3".to_owned()],
                vec![]
            ]
        );
    }

    #[test]
    fn a_time_around_the_session_is_played_with_its_ends_and_any_other_is_bad() {
        let at = |time: &str| format!(r#"{{"timestamp":"{time}","symbol":"A","side":"BUY","quantity":1,"price":1}}"#);
        let times = [
            "2025-11-28T13:45:00Z",
            "2025-11-28T15:30:00Z",
            "0001-01-01T00:00:00Z",
            "2025-11-27T14:30:00Z",
            "2099-01-01T00:00:00Z",
        ];
        let (trading, reports) = load(&times.map(at).join("\n"));
        assert_eq!(
            trading.events.iter().map(|event| event.at).collect::<Vec<_>>(),
            [SESSION.0, SESSION.1].map(i64::from)
        );
        assert_eq!((reports[0].bad, trading.count(SESSION)), (3, 2));
        assert_eq!(
            reports[0].first_bad[0].1,
            "timestamp: expected a time of the session, 2025-11-28T14:30:00Z to 2025-11-28T14:31:00Z, got 0001-01-01T00:00:00Z"
        );
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
