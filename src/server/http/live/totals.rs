//! What the shards have counted at one moment, and the rates between two.

use super::live_snapshot::{HubFlow, TotalRates};
use crate::engine::system_clock;
use crate::server::http::app::App;
use crate::server::shard::mailbox::ShardHandle;
use crate::server::shard::stats::{Count, STREAMS, ShardStats};
use crate::wire::gexbot::HubName;

/// Hubs, and the streams behind them.
pub const PLACES: usize = STREAMS + 1;

/// What the hub at a place is called.
pub fn place_name(place: usize) -> &'static str {
    HubName::all().nth(place).map_or("streams", HubName::name)
}

/// The counters of all shards, added up.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// When, monotonic ns.
    pub at_ns: u64,
    pub cpu_ns: u64,
    pub frames: [u64; PLACES],
    pub bytes: [u64; PLACES],
    pub connections: [u64; PLACES],
    /// The last ids of both sequences together: they rise by one for each publication.
    pub publications: u64,
    /// Publications to each hub's groups; only a census counts them.
    pub hub_publications: [u64; PLACES],
    pub recoveries: u64,
    pub lagged: u64,
    pub skipped: u64,
    pub opened: u64,
    pub closed: u64,
    pub overruns: u64,
    pub gap_frames: u64,
}

impl Totals {
    /// What is counted now, but for the publications of each hub: those are a census's to add.
    pub fn of(app: &App) -> Self {
        let stats = || app.shards.iter().map(ShardHandle::stats);
        let sum = |count: fn(&ShardStats) -> &Count| stats().map(|stats| count(stats).get()).sum();
        let mut totals = Self {
            at_ns: system_clock::monotonic_ns(),
            cpu_ns: super::process::cpu_ns(),
            publications: [&app.hub, app.streams.hub()].map(|hub| hub.sequencer().published()).iter().sum(),
            recoveries: sum(|stats| &stats.recoveries),
            lagged: stats().map(|stats| stats.closes("lag")).sum(),
            skipped: sum(|stats| &stats.skipped),
            opened: sum(|stats| &stats.opened),
            overruns: sum(|stats| &stats.overruns),
            gap_frames: sum(|stats| &stats.recovery_gap_frames),
            ..Self::default()
        };
        for (place, hub) in stats().flat_map(|stats| (0..PLACES).map(move |place| (place, stats.hub(place)))) {
            totals.frames[place] += hub.frames.get();
            totals.bytes[place] += hub.bytes.get();
            totals.connections[place] += hub.connections.get();
        }
        totals.closed = totals.opened.saturating_sub(totals.connections.iter().sum());
        totals
    }

    /// From `before` to these.
    pub fn since<'a>(&'a self, before: &'a Self) -> Between<'a> {
        let seconds = self.at_ns.saturating_sub(before.at_ns) as f64 / 1e9;
        Between { now: self, before, seconds: seconds.max(1e-3) }
    }
}

/// Two moments.
#[derive(Clone, Copy)]
pub struct Between<'a> {
    now: &'a Totals,
    before: &'a Totals,
    seconds: f64,
}

impl Between<'_> {
    /// So many a second, to a tenth.
    pub fn rate(&self, now: u64, before: u64) -> f64 {
        (now.saturating_sub(before) as f64 / self.seconds * 10.0).round() / 10.0
    }

    /// How many of something came in between.
    pub fn count(&self, what: fn(&Totals) -> u64) -> u64 {
        what(self.now).saturating_sub(what(self.before))
    }

    fn rate_of(&self, what: fn(&Totals) -> u64) -> f64 {
        self.rate(what(self.now), what(self.before))
    }

    /// Processors in use, to a hundredth.
    pub fn cpu_cores(&self) -> f64 {
        (self.count(|totals| totals.cpu_ns) as f64 / self.seconds / 1e7).round() / 100.0
    }

    /// How long is between them, s.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }

    /// Frames a second of the hub at a place.
    pub fn frames_per_s(&self, place: usize) -> f64 {
        self.rate(self.now.frames[place], self.before.frames[place])
    }

    /// The rates of everything together.
    pub fn total(&self) -> TotalRates {
        TotalRates {
            frames_per_s: self.rate_of(|totals| totals.frames.iter().sum()),
            bytes_per_s: self.rate_of(|totals| totals.bytes.iter().sum()),
            publications_per_s: self.rate_of(|totals| totals.publications),
            recoveries_per_s: self.rate_of(|totals| totals.recoveries),
            drops_per_s: self.rate_of(|totals| totals.lagged),
            skipped_per_s: self.rate_of(|totals| totals.skipped),
            opened_per_s: self.rate_of(|totals| totals.opened),
            closed_per_s: self.rate_of(|totals| totals.closed),
        }
    }

    /// Sets the rates of one hub; that of its publications only if a census counted them both times.
    pub fn of_hub(&self, place: usize, has_census: bool, flow: &mut HubFlow) {
        let rate = |of: fn(&Totals) -> &[u64; PLACES]| Some(self.rate(of(self.now)[place], of(self.before)[place]));
        flow.frames_per_s = rate(|totals| &totals.frames);
        flow.bytes_per_s = rate(|totals| &totals.bytes);
        flow.publications_per_s = rate(|totals| &totals.hub_publications).filter(|_| has_census);
    }
}
