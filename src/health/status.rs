//! The state of the sources: a registry for `/websocket/status` and the metrics.
//!
//! A source registers once, keeps its [`SourceHealth`] and updates it with plain atomics. Readers get a
//! [`SourceSnapshot`]. No figure depends on another, so Relaxed is enough throughout.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;

use crate::engine::system_clock;

/// The state of one source, updated by the source itself. A source of several channels has one per channel.
pub struct SourceHealth {
    name: String,
    /// How often it should move, ns; 0 for a source that may be quiet.
    interval_ns: AtomicU64,
    /// Since when it should, Unix ns.
    since_unix_ns: AtomicU64,
    started_unix_ns: u64,
    connected: AtomicBool,
    last_update_unix_ns: AtomicU64,
    errors: AtomicU64,
    recoveries: AtomicU64,
    position: AtomicU64,
    state: Mutex<Option<SourceState>>,
}

/// What a source says it is doing, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceState {
    /// One word, such as `open`: a value of the key `state` in `/websocket/status`.
    pub state: &'static str,
    /// What is wrong, in words for an operator; empty when nothing is.
    pub reason: String,
}

/// A [`SourceHealth`] at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSnapshot {
    /// Its key in `stream_health`, and its label in the metrics.
    pub name: String,
    /// Connected, and moving as often as it should.
    pub is_healthy: bool,
    /// Unix ns of the last update; `None` before the first.
    pub last_update_unix_ns: Option<u64>,
    /// Input refused and failures of the source.
    pub errors: u64,
    /// How often the source lost its connection and tried again.
    pub recoveries: u64,
    /// The source's own count of where it is: the tick ordinal of a replay.
    pub position: u64,
    /// Unix ns of its start.
    pub started_unix_ns: u64,
    /// What its source reports about itself, if it does.
    pub state: Option<SourceState>,
}

/// A counter or gauge that a source sets and the metrics read.
#[derive(Debug, Clone)]
pub struct Figure {
    /// Whether it can fall; a counter only rises.
    pub is_gauge: bool,
    /// The metric's name, without prefix and suffix.
    pub name: &'static str,
    /// One sentence without a full stop, for `# HELP`.
    pub help: &'static str,
    /// Name and value; figures of one name have the same label names.
    pub labels: Vec<(&'static str, Cow<'static, str>)>,
    /// The owner writes it, with Relaxed.
    pub value: Arc<AtomicU64>,
}

/// Every source of the process, and the figures they registered.
pub struct Status {
    sources: Mutex<Vec<Arc<SourceHealth>>>,
    figures: Mutex<Vec<Figure>>,
    drift: Histogram,
}

impl Default for Status {
    fn default() -> Self {
        let buckets = [1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.5, 1.0];
        Self { sources: Mutex::default(), figures: Mutex::default(), drift: Histogram::new(buckets) }
    }
}

impl Status {
    /// Registers a source. With an `interval` it is unhealthy once it has not moved for three of them.
    pub fn register(&self, name: impl Into<String>, interval: Option<Duration>) -> Arc<SourceHealth> {
        let source = Arc::new(SourceHealth {
            name: name.into(),
            interval_ns: AtomicU64::new(ns(interval)),
            since_unix_ns: AtomicU64::new(0),
            started_unix_ns: system_clock::unix_ns(),
            connected: AtomicBool::new(true),
            last_update_unix_ns: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            recoveries: AtomicU64::new(0),
            position: AtomicU64::new(0),
            state: Mutex::default(),
        });
        locked(&self.sources).push(Arc::clone(&source));
        source
    }

    /// Registers a counter and returns it, or the one that has this name and these labels already.
    pub fn count(
        &self,
        name: &'static str,
        help: &'static str,
        labels: Vec<(&'static str, Cow<'static, str>)>,
    ) -> Arc<AtomicU64> {
        self.figure(Figure { is_gauge: false, name, help, labels, value: Arc::default() })
    }

    /// Registers a figure that may fall, likewise.
    pub fn gauge(
        &self,
        name: &'static str,
        help: &'static str,
        labels: Vec<(&'static str, Cow<'static, str>)>,
    ) -> Arc<AtomicU64> {
        self.figure(Figure { is_gauge: true, name, help, labels, value: Arc::default() })
    }

    fn figure(&self, figure: Figure) -> Arc<AtomicU64> {
        let mut figures = locked(&self.figures);
        let is_there = |other: &&Figure| other.name == figure.name && other.labels == figure.labels;
        if let Some(there) = figures.iter().find(is_there) {
            return Arc::clone(&there.value);
        }
        let value = Arc::clone(&figure.value);
        // Figures of one name stand side by side: the metrics' text format wants them so.
        let at = figures.iter().rposition(|other| other.name == figure.name).map_or(figures.len(), |last| last + 1);
        figures.insert(at, figure);
        value
    }

    /// Removes a source that is gone, and the figures with this label.
    pub fn remove(&self, source: &Arc<SourceHealth>, label: (&'static str, &str)) {
        locked(&self.sources).retain(|other| !Arc::ptr_eq(other, source));
        locked(&self.figures).retain(|figure| !figure.labels.iter().any(|(name, value)| (*name, &**value) == label));
    }

    /// Every registered figure; those of one name stand side by side.
    pub fn figures(&self) -> Vec<Figure> {
        locked(&self.figures).clone()
    }

    /// The value of a figure, added up over its labels; 0 if nobody has registered it.
    pub fn figure_value(&self, name: &str) -> u64 {
        let figures = locked(&self.figures);
        figures.iter().filter(|figure| figure.name == name).map(|figure| figure.value.load(Ordering::Relaxed)).sum()
    }

    /// How late ticks began, seconds.
    pub fn drift(&self) -> &Histogram {
        &self.drift
    }

    /// Every source as it is now, in the order of registration.
    pub fn snapshot(&self) -> Vec<SourceSnapshot> {
        locked(&self.sources).iter().map(|source| source.snapshot(system_clock::unix_ns())).collect()
    }
}

fn ns(interval: Option<Duration>) -> u64 {
    interval.map_or(0, |interval| u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1))
}

/// Locks, even after a panic elsewhere: nothing is left half done under these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SourceHealth {
    /// Counts one update, received at `unix_ns`.
    pub fn count_update(&self, unix_ns: u64) {
        self.position.fetch_add(1, Ordering::Relaxed);
        self.last_update_unix_ns.store(unix_ns, Ordering::Relaxed);
    }

    /// Sets the source's position, reached at `unix_ns`; what a position means, the source decides.
    pub fn set_position(&self, position: u64, unix_ns: u64) {
        self.position.store(position, Ordering::Relaxed);
        self.last_update_unix_ns.store(unix_ns, Ordering::Relaxed);
    }

    /// Counts inputs that were refused, and failures.
    pub fn count_errors(&self, count: u64) {
        self.errors.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts a connection that was lost and is tried again.
    pub fn count_recovery(&self) {
        self.recoveries.fetch_add(1, Ordering::Relaxed);
    }

    /// Sets whether the source is available. A replay that has run out of records is not.
    pub fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
    }

    /// From now on it should move this often, or may be quiet.
    pub fn expect_updates(&self, interval: Option<Duration>) {
        let interval = ns(interval);
        if self.interval_ns.swap(interval, Ordering::Relaxed) != interval {
            self.since_unix_ns.store(system_clock::unix_ns(), Ordering::Relaxed);
        }
    }

    /// What the source is doing, and why, for `/websocket/status`.
    pub fn set_state(&self, state: &'static str, reason: &str) {
        *locked(&self.state) = Some(SourceState { state, reason: reason.to_owned() });
    }

    /// [`SourceHealth::position`], or `None` before the first update.
    pub fn last_position(&self) -> Option<u64> {
        (self.last_update_unix_ns.load(Ordering::Relaxed) > 0).then(|| self.position())
    }

    /// The source's position: the tick ordinal of a replay, or a count of updates. 0 before the first.
    pub fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    fn snapshot(&self, now_unix_ns: u64) -> SourceSnapshot {
        let last = Some(self.last_update_unix_ns.load(Ordering::Relaxed)).filter(|&last| last > 0);
        let since = last.unwrap_or(self.started_unix_ns).max(self.since_unix_ns.load(Ordering::Relaxed));
        let interval_ns = self.interval_ns.load(Ordering::Relaxed);
        let moving = interval_ns == 0 || now_unix_ns.saturating_sub(since) <= interval_ns.saturating_mul(3);
        SourceSnapshot {
            name: self.name.clone(),
            is_healthy: self.connected.load(Ordering::Relaxed) && moving,
            last_update_unix_ns: last,
            errors: self.errors.load(Ordering::Relaxed),
            recoveries: self.recoveries.load(Ordering::Relaxed),
            position: self.position.load(Ordering::Relaxed),
            started_unix_ns: self.started_unix_ns,
            state: locked(&self.state).clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_healthy_while_it_moves_within_three_intervals() {
        let status = Status::default();
        let stream = status.register("orderflow", Some(Duration::from_secs(1)));
        let started = stream.started_unix_ns;
        assert!(stream.snapshot(started + 3_000_000_000).is_healthy, "it has time for its first update");
        assert!(!stream.snapshot(started + 3_000_000_001).is_healthy);
        stream.set_position(1, started + 2_000_000_000);
        assert!(stream.snapshot(started + 5_000_000_000).is_healthy);
        stream.set_connected(false);
        assert!(!stream.snapshot(started + 2_000_000_000).is_healthy);
    }

    #[test]
    fn figures_of_one_name_stand_side_by_side_and_leave_with_their_source() {
        let status = Status::default();
        let label = |id: &str| vec![("feed", id.to_owned().into())];
        let first = status.count("records", "", label("a"));
        status.count("errors", "", label("a"));
        status.count("records", "", label("b"));
        assert!(Arc::ptr_eq(&first, &status.count("records", "", label("a"))), "the same figure");
        let names: Vec<_> = status.figures().iter().map(|figure| figure.name).collect();
        assert_eq!(names, ["records", "records", "errors"]);
        let stream = status.register("a", None);
        status.remove(&stream, ("feed", "a"));
        assert_eq!((status.figures().len(), status.snapshot().len()), (1, 0));
    }

    #[test]
    fn a_stream_without_an_interval_may_be_quiet() {
        let stream = Status::default().register("signals", None);
        assert!(stream.snapshot(u64::MAX).is_healthy);
    }
}
