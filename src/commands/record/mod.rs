//! `flowcast record`: what a hub, a `/ws`, broker feeds or Kafka topics send, in the files that `serve` and `publish`
//! replay.
//!
//! ```text
//! hubs ────┐
//! /ws ─────┤
//! feeds ───┼─▶ lines ─▶ {data dir}/{date}/{ticker}/{package}/{category}.jsonl
//! topics ──┘            {data dir}/{date}/streams/{channel}.jsonl
//! ```
//!
//! A lost connection is opened again, and the gap is told. A file ends with a whole line, whatever happens.

mod feed_recorder;
mod heard;
mod hub_recorder;
#[cfg(feature = "kafka")]
mod kafka_recorder;
mod record_options;
mod recorded_files;
mod stream_lines;
mod stream_recorder;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use self::heard::{Heard, ToFiles, WAITING};
pub use self::record_options::RecordOptions;
use self::record_options::Recorded;
use self::recorded_files::{RecordedFileError, RecordedFiles};
use super::shutdown::{self, Signals};
use crate::source::recorded::line_stats::counted;

/// How long the connections may take to end.
const CLOSING: Duration = Duration::from_secs(5);

/// Things left out that are told one by one.
const TOLD: u64 = 10;

/// Records until a signal, or until enough records came.
pub fn record(options: &RecordOptions) -> anyhow::Result<()> {
    // Files are written on this thread, which may block; the connections go on beside it.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(options))
}

async fn run(options: &RecordOptions) -> anyhow::Result<()> {
    let recorded = options.recorded()?;
    let mut recording = FilesAtWork {
        files: RecordedFiles::new(&options.data_dir, options.zone(&recorded)?),
        left: options.count.unwrap_or(u64::MAX),
        gaps: 0,
        skipped: 0,
        left_out: 0,
    };
    let signals = Signals::new()?;
    let (files, heard) = mpsc::channel(WAITING);
    let (finished, is_finished) = std::sync::mpsc::channel();
    let source = start(recorded, files, is_finished);
    recording.write(heard, signals, options.sync).await?;
    if recording.left > 0 {
        // Nobody waits for it, unless topics are recorded.
        let _ = finished.send(());
    }
    drop(finished);
    let ended = tokio::time::timeout(CLOSING, source).await;
    recording.print();
    match ended {
        Ok(ended) => ended?,
        Err(_) => Ok(()),
    }
}

/// Starts the source. `finished` tells that everything it has sent is on the disk.
#[cfg_attr(not(feature = "kafka"), expect(clippy::needless_pass_by_value, reason = "only Kafka takes `finished`"))]
fn start(
    recorded: Recorded,
    files: ToFiles,
    #[cfg_attr(not(feature = "kafka"), expect(unused_variables, reason = "only Kafka commits"))]
    finished: std::sync::mpsc::Receiver<()>,
) -> JoinHandle<anyhow::Result<()>> {
    match recorded {
        Recorded::Hubs(request) => tokio::spawn(hub_recorder::record(request, files)),
        Recorded::Streams(request) => tokio::spawn(stream_recorder::record(request, files)),
        Recorded::Feeds(feeds) => tokio::spawn(feed_recorder::record(feeds, files)),
        #[cfg(feature = "kafka")]
        Recorded::Topics(request) => {
            tokio::task::spawn_blocking(move || kafka_recorder::record(&request, files, &finished))
        }
    }
}

/// A recording under way.
struct FilesAtWork {
    files: RecordedFiles,
    /// Records until it ends.
    left: u64,
    gaps: u64,
    /// Messages that servers have left out; each time is a gap.
    skipped: u64,
    left_out: u64,
}

impl FilesAtWork {
    /// Writes what is heard until a signal, enough records, or the end of the source.
    async fn write(
        &mut self,
        mut heard: mpsc::Receiver<Heard>,
        mut signals: Signals,
        sync: Duration,
    ) -> Result<(), RecordedFileError> {
        let mut sync = interval(sync);
        sync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.left > 0 {
            // All three are cancel-safe.
            tokio::select! {
                one = heard.recv() => match one {
                    Some(one) => self.take(one)?,
                    None => break,
                },
                _ = sync.tick() => self.files.sync()?,
                _ = signals.next() => {
                    shutdown::end_at_next(signals);
                    break;
                }
            }
        }
        // The sources end; what they have sent is written.
        heard.close();
        while let Some(one) = heard.recv().await {
            self.take(one)?;
        }
        self.files.sync()
    }

    fn take(&mut self, heard: Heard) -> Result<(), RecordedFileError> {
        match heard {
            // Enough is recorded: what is discarded must come again when it goes on, so it is not confirmed either.
            Heard::Record(_) | Heard::Sync(_) if self.left == 0 => {}
            Heard::Record(record) => {
                self.left -= 1;
                self.files.append(record)?;
            }
            Heard::LeftOut(reason) => {
                self.left_out += 1;
                if self.left_out <= TOLD {
                    eprintln!("left out: {reason}");
                }
            }
            Heard::Skipped { channel, count } => {
                self.gaps += 1;
                self.skipped += count;
                let messages = counted(count, "message", "messages");
                eprintln!("{channel}: {messages} missing: the server left them out, as they were taken too slowly");
            }
            Heard::Lost { what, reason } => eprintln!("{what} is lost: {reason}; trying again"),
            Heard::Back { what, away } => {
                self.gaps += 1;
                self.files.may_repeat();
                let seconds = away.as_secs_f64();
                eprintln!("{what} is back after {seconds:.1} s; what was sent meanwhile is missing");
            }
            Heard::Sync(written) => {
                self.files.sync()?;
                // The source may have ended.
                let _ = written.send(());
            }
        }
        Ok(())
    }

    /// Prints what was recorded. A closed output is no error: the files are complete.
    fn print(&self) {
        use std::io::Write as _;
        let mut out = std::io::stdout().lock();
        let (mut records, mut repeated) = (0, 0);
        for (series, figures) in self.files.figures() {
            let _ = writeln!(out, "{} {}", series.display(), counted(figures.records, "record", "records"));
            records += figures.records;
            repeated += figures.repeated;
        }
        let mut told = vec![counted(records, "record", "records")];
        for (count, one, many) in [
            (self.gaps, "gap", "gaps"),
            (self.skipped, "message that the server left out", "messages that the server left out"),
            (repeated, "record that came again was left out", "records that came again were left out"),
            (self.left_out, "message could not be recorded", "messages could not be recorded"),
        ] {
            if count > 0 {
                told.push(counted(count, one, many));
            }
        }
        let _ = writeln!(out, "{}", told.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::record::recorded_files::RecordedRecord;

    fn at_work(folder: &std::path::Path, left: u64) -> FilesAtWork {
        let files = RecordedFiles::new(folder, jiff::tz::TimeZone::UTC);
        FilesAtWork { files, left, gaps: 0, skipped: 0, left_out: 0 }
    }

    fn record() -> Heard {
        Heard::Record(RecordedRecord { series: "streams/lines.jsonl".into(), at: 0, line: b"{}".to_vec() })
    }

    #[test]
    fn what_a_server_leaves_out_is_a_gap() {
        let folder = tempfile::tempdir().unwrap();
        let mut recording = at_work(folder.path(), u64::MAX);
        for count in [180, 1] {
            recording.take(Heard::Skipped { channel: "lines".to_owned(), count }).unwrap();
        }
        assert_eq!((recording.gaps, recording.skipped), (2, 181));
    }

    #[test]
    fn nothing_is_acknowledged_once_records_may_have_been_discarded() {
        let folder = tempfile::tempdir().unwrap();
        let mut recording = at_work(folder.path(), 2);
        let mut acknowledged = || {
            let (written, on_disk) = std::sync::mpsc::channel();
            recording.take(record()).unwrap();
            recording.take(Heard::Sync(written)).unwrap();
            on_disk.try_recv().is_ok()
        };
        assert_eq!([acknowledged(), acknowledged(), acknowledged()], [true, false, false]);
    }
}
