//! The replay: one clock on which every ticker stands.
//!
//! A tick publishes the next record of every group that has subscribers: the record at the tick's
//! ordinal, modulo the track's length, so a ticker is where a live feed would be whether anybody
//! listens or not. The clock is a thread of its own on absolute deadlines (tokio's timer has steps
//! of 1 ms); it clones handles and encodes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::thread::{ClockId, clock_nanosleep_absolute};

use super::arena::Track;
use crate::engine::clock;
use crate::engine::frames::{FrameStore, Frames};
use crate::engine::group::Group;
use crate::engine::hub::{Due, Hub};
use crate::health::status::{SourceHealth, Status};

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

/// What follows the last record. Name and values are the predecessor's.
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

/// The tracks of a dataset on one clock.
pub struct Replay {
    hub: Arc<Hub>,
    tracks: Vec<ReplayTrack>,
    options: ReplayOptions,
    status: Arc<Status>,
    health: Arc<SourceHealth>,
    missed: Arc<AtomicU64>,
}

struct ReplayTrack {
    group: Arc<Group>,
    store: Arc<dyn FrameStore>,
    records: u64,
}

impl Replay {
    /// Declares a group per track; nothing is published yet.
    pub fn new(hub: Arc<Hub>, tracks: &[Arc<Track>], options: ReplayOptions, status: Arc<Status>) -> Self {
        let track = |track: &Arc<Track>| ReplayTrack {
            group: hub.declare(track.group(), track.ticker()),
            store: Arc::clone(track) as Arc<dyn FrameStore>,
            records: track.records(),
        };
        let tracks = tracks.iter().map(track).collect();
        let health = status.register(hub.name(), Some(options.interval));
        let missed =
            status.count("ticks_missed", "Ticks of the replay clock skipped because an earlier one was late", vec![]);
        Self { hub, tracks, options, status, health, missed }
    }

    /// Where the clock is and how the data was, for `/websocket/status` and the metrics.
    pub fn health(&self) -> &Arc<SourceHealth> {
        &self.health
    }

    /// Ticks until `stop` is set. Blocks: call it on a thread of its own.
    pub fn run(self, stop: &AtomicBool) {
        let mut schedule = TickSchedule::starting_at(first_deadline(self.options.interval), self.options.interval);
        for ordinal in 0.. {
            sleep_until(schedule.deadline_ns);
            if stop.load(Ordering::Relaxed) {
                return;
            }
            self.tick(ordinal, schedule.deadline_ns);
            let missed = schedule.advance(clock::monotonic_ns());
            if missed > 0 {
                self.missed.fetch_add(missed, Ordering::Relaxed);
            }
        }
    }

    /// Publishes the record at `ordinal` of every live group, as one batch.
    fn tick(&self, ordinal: u64, scheduled_ns: u64) {
        let mut batch = self.hub.begin(Some(Due { ordinal, scheduled_ns }));
        self.status.drift().observe(batch.drift_ns() as f64 / 1e9);
        let mut exhausted = true;
        for track in &self.tracks {
            let Some(record) = self.record_at(ordinal, track.records) else { continue };
            exhausted = false;
            if track.group.is_live() {
                batch.publish(&track.group, Frames::new(Arc::clone(&track.store), record));
            }
        }
        drop(batch);
        if !exhausted {
            self.health.set_position(ordinal, clock::unix_ns());
        } else if self.options.cache_mode == CacheMode::Exhaust
            && self.tracks.iter().any(|track| track.records == ordinal)
        {
            self.health.set_connected(false);
            tracing::info!(ordinal, "the last record of every ticker has been sent; the hub sends nothing more");
        }
    }

    fn record_at(&self, ordinal: u64, records: u64) -> Option<u32> {
        let record = match self.options.cache_mode {
            CacheMode::Rotation => ordinal % records,
            CacheMode::Exhaust => Some(ordinal).filter(|&ordinal| ordinal < records)?,
        };
        u32::try_from(record).ok()
    }
}

/// The grid of deadlines. A late tick is late once: the grid does not move.
struct TickSchedule {
    deadline_ns: u64,
    interval_ns: u64,
}

impl TickSchedule {
    fn starting_at(deadline_ns: u64, interval: Duration) -> Self {
        Self { deadline_ns, interval_ns: interval.as_nanos() as u64 }
    }

    /// Moves to the next deadline; returns how many ticks lie a whole interval or more in the past and are
    /// skipped. A deadline that has just passed is not skipped: its tick runs immediately, late.
    fn advance(&mut self, now_ns: u64) -> u64 {
        self.deadline_ns += self.interval_ns;
        let missed = now_ns.saturating_sub(self.deadline_ns) / self.interval_ns;
        self.deadline_ns += missed * self.interval_ns;
        missed
    }
}

/// The next whole second of the wall clock, as with the real feed; now for intervals below a second.
fn first_deadline(interval: Duration) -> u64 {
    const SECOND: u64 = 1_000_000_000;
    let now = clock::monotonic_ns();
    if interval < Duration::from_secs(1) { now } else { now + SECOND - clock::unix_ns() % SECOND }
}

fn sleep_until(deadline_ns: u64) {
    // Interrupted by a signal: sleep on, the deadline is absolute.
    while let Err(rustix::io::Errno::INTR) = clock_nanosleep_absolute(ClockId::Monotonic, &clock::timespec(deadline_ns))
    {
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_tick_is_late_once() {
        let mut schedule = TickSchedule::starting_at(1000, Duration::from_nanos(100));
        assert_eq!((schedule.advance(1010), schedule.deadline_ns), (0, 1100));
        assert_eq!((schedule.advance(1150), schedule.deadline_ns), (0, 1200), "50 late, and the grid stands");
        assert_eq!((schedule.advance(1390), schedule.deadline_ns), (0, 1300), "due meanwhile: runs at once");
        assert_eq!((schedule.advance(1740), schedule.deadline_ns), (3, 1700), "three whole beats are given up");
        assert_eq!((schedule.advance(1741), schedule.deadline_ns), (0, 1800));
    }

    #[test]
    fn an_interval_is_a_duration_with_a_unit() {
        assert_eq!(interval("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(interval("1m30s"), Ok(Duration::from_secs(90)));
        for text in ["1", "", "fast", "0s", "1us", "25h", "-1s"] {
            assert!(interval(text).unwrap_err().starts_with("expected a duration"), "{text}");
        }
    }
}
