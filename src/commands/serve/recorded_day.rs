//! The recorded day as REST reads it: the replay's clock, and lines by their number.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use jiff::civil::Date;

use crate::health::status::SourceHealth;
use crate::server::http::rest::day_folder;
use crate::server::http::rest::series::{RecordedDay, RecordedSeries};
use crate::source::recorded::dataset::Dataset;
use crate::source::recorded::replay::CacheMode;

/// The day that is replayed.
pub struct ReplayedDay {
    date: Date,
    data_dir: PathBuf,
    mode: CacheMode,
    clock: Arc<SourceHealth>,
    series: Vec<RecordedSeries>,
    /// Of each series, once it was asked for: where its slots begin, and where the file ended.
    starts: Vec<OnceLock<Vec<u64>>>,
}

impl ReplayedDay {
    /// All files of the day's folder, on this clock. Nothing is read yet.
    pub fn new(dataset: &Dataset, mode: CacheMode, clock: Arc<SourceHealth>) -> Self {
        let data_dir = dataset.path.parent().unwrap_or(&dataset.path).to_owned();
        let series = day_folder::files(&data_dir, dataset.date, None);
        let starts = series.iter().map(|_| OnceLock::new()).collect();
        Self { date: dataset.date, data_dir, mode, clock, series, starts }
    }

    fn starts(&self, series: usize) -> &[u64] {
        self.starts[series].get_or_init(|| starts_of(&self.series[series].path).unwrap_or_default())
    }
}

/// Where non-blank lines begin, and at last the end of the file.
fn starts_of(path: &Path) -> io::Result<Vec<u64>> {
    let (mut reader, mut at, mut line, mut starts) = (BufReader::new(File::open(path)?), 0, Vec::new(), Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 {
        if !line.trim_ascii().is_empty() {
            starts.push(at);
        }
        at += line.len() as u64;
        line.clear();
    }
    starts.push(at);
    Ok(starts)
}

impl RecordedDay for ReplayedDay {
    fn date(&self) -> Date {
        self.date
    }

    fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    fn wraps(&self) -> bool {
        self.mode == CacheMode::Rotation
    }

    fn series(&self) -> &[RecordedSeries] {
        &self.series
    }

    fn slots(&self, series: usize) -> (u64, bool) {
        (self.starts(series).len().saturating_sub(1) as u64, true)
    }

    fn position(&self, series: usize) -> Option<u64> {
        let (slots, _) = self.slots(series);
        let last = slots.checked_sub(1)?;
        let tick = self.clock.last_position()?;
        Some(if self.wraps() { tick % slots } else { tick.min(last) })
    }

    fn line(&self, series: usize, slot: u64) -> io::Result<Option<Vec<u8>>> {
        let at = usize::try_from(slot).unwrap_or(usize::MAX);
        let Some(&[start, end]) = self.starts(series).get(at..at.saturating_add(2)) else { return Ok(None) };
        let mut line = vec![0; usize::try_from(end - start).unwrap_or_default()];
        File::open(&self.series[series].path)?.read_exact_at(&mut line, start)?;
        let length = line.iter().position(|&byte| byte == b'\n').unwrap_or(line.len());
        line.truncate(line[..length].trim_ascii_end().len());
        let is_record = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&line)
            .is_ok_and(|record| record.get("timestamp").is_some_and(serde_json::Value::is_i64));
        Ok(is_record.then_some(line))
    }
}
