//! The clocks of a server: the common one, and those of sessions; and the loading of other dates.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Sender, bounded};
use jiff::Timestamp;
use jiff::civil::Date;

use super::clock::Clock;
use super::dataset::{Dataset, DatasetError, DatasetOptions, dates};
use super::day_prices::DayPrices;
use super::market::{Market, spans};
use super::player::{Player, PlayerParts, Swap};
use super::player_options::{AnchorMode, ReplayOptions, ShiftDays};
use super::playhead::Playhead;
use super::priority::become_real_time;
use super::score::Score;
use super::stage::{Stage, datasets, report};
use super::stand::Stand;
use super::trading::Trading;
use super::window_figures::WindowFigures;
use super::window_options::WindowOptions;
use crate::engine::hub::Hub;
use crate::health::status::{SourceHealth, Status};
use crate::replay::change::{Change, Pace, Refused};
use crate::replay::moment::{Span, date_at};
use crate::replay::remote::{Remote, remote};
use crate::replay::replays::{
    LoadJob, LoadState, RecordedDate, Replays, SessionError, SessionInfo, SessionStart, is_session_name,
};
use crate::replay::snapshot::{Snapshot, State};
use crate::streams::Streams;

/// Loads that are remembered.
const JOBS: usize = 16;

/// Gaps of a date that are told.
const GAPS: usize = 16;

/// Shorter gaps are none, seconds.
const GAP_S: u32 = 5;

/// How long the first blocks of other dates may take before the clock goes to them all the same.
const PREPARED_WITHIN: Duration = Duration::from_secs(30);

/// What the clocks are made of.
#[derive(Clone)]
#[expect(missing_docs, reason = "see Clocks")]
pub struct ClockParts {
    pub hub: Arc<Hub>,
    pub status: Arc<Status>,
    pub health: Arc<SourceHealth>,
    pub figures: Arc<WindowFigures>,
    pub dataset: DatasetOptions,
    pub window: WindowOptions,
    pub replay: ReplayOptions,
    pub prefix: String,
    /// Where the recorded day is played on the JSON streams; `None` if it is not.
    pub streams: Option<Arc<Streams>>,
    pub stop: Arc<AtomicBool>,
}

/// What to do when the common clock plays other dates.
pub type Loaded = Box<dyn Fn(&Arc<Stage>, &Arc<Stand>) + Send + Sync>;

/// The clocks of a server.
pub struct Clocks {
    parts: ClockParts,
    common: Remote,
    swaps: Sender<Swap>,
    prices: Arc<DayPrices>,
    stage: Mutex<Arc<Stage>>,
    jobs: Mutex<VecDeque<LoadJob>>,
    next_job: AtomicU64,
    sessions: Mutex<BTreeMap<String, Session>>,
    loaded: Loaded,
}

struct Session {
    remote: Remote,
    stage: Arc<Stage>,
    stand: Arc<Stand>,
    stop: Arc<AtomicBool>,
    idle_since: Instant,
}

impl Clocks {
    /// Starts the common clock on a stage. `trading`: the records of its dates for the JSON streams.
    pub fn begin(parts: ClockParts, stage: Stage, trading: Vec<Trading>, loaded: Loaded) -> anyhow::Result<Arc<Self>> {
        let stage = Arc::new(stage);
        let stand = Arc::new(Stand::new(stage.market(), &parts.hub, None));
        stage.window().add(&stand);
        loaded(&stage, &stand);
        let prices = Arc::new(DayPrices::default());
        let score = parts.streams.as_ref().map(|streams| {
            prices.stand(&stand);
            Score::new(Arc::clone(streams), Arc::clone(&prices), trading, stage.market())
        });
        let options = parts.replay.clone();
        let at_first = match (options.start_paused, options.wait_for) {
            (true, _) => State::Paused,
            (_, clients) if clients > 0 => State::Waiting { clients },
            _ => State::Playing,
        };
        let (player, common) = player(&parts, &stage, &stand, options.pace(), at_first, None);
        let (swaps, swapped) = bounded(1);
        let player =
            Player::new(PlayerParts { score, health: Some(Arc::clone(&parts.health)), swaps: swapped, ..player });
        let clocks = Arc::new(Self {
            parts,
            common,
            swaps,
            prices,
            stage: Mutex::new(Arc::clone(&stage)),
            jobs: Mutex::default(),
            next_job: AtomicU64::new(1),
            sessions: Mutex::default(),
            loaded,
        });
        stage.build()?;
        let first = Change { seek: options.start_at, pause_at: options.until.map(Some), ..Change::default() };
        let stop = Arc::clone(&clocks.parts.stop);
        thread::Builder::new().name("replay".to_owned()).spawn(move || {
            if options.clock_real_time
                && let Err(error) = become_real_time()
            {
                tracing::debug!(%error, "no real-time priority for the clock: ticks may be late beside busy shards");
            }
            player.run(first, &stop);
        })?;
        let (idle, stop) = (Arc::clone(&clocks), Arc::clone(&clocks.parts.stop));
        thread::Builder::new().name("sessions".to_owned()).spawn(move || idle.end_idle(&stop))?;
        Ok(clocks)
    }

    /// The prices of the day so far, for the JSON streams.
    pub fn prices(&self) -> &Arc<DayPrices> {
        &self.prices
    }

    fn stage(&self) -> Arc<Stage> {
        Arc::clone(&locked(&self.stage))
    }

    /// Opens other dates, and has the common clock go to them when their first blocks are built.
    fn open(self: &Arc<Self>, job: u64, datasets: &[Dataset]) -> Result<(), String> {
        let parts = &self.parts;
        let shift = shift_days(parts.replay.shift_days, datasets);
        let (market, errors) = Market::open(datasets, &parts.prefix, &parts.hub, shift);
        report(datasets, &errors);
        parts.figures.count_bad(errors.len() as u64);
        if market.tracks.is_empty() {
            return Err("no file of these dates has a record that can be read; see the log".to_owned());
        }
        self.progress(job, |job| (job.done, job.total) = (market.tracks.len(), market.tracks.len() + errors.len()));
        let stage = Arc::new(Stage::new(market, &parts.hub, parts.window.clone(), Arc::clone(&parts.figures)));
        let stand = Arc::new(Stand::new(stage.market(), &parts.hub, None));
        stage.window().rehearse(&stand);
        stage.build().map_err(|error| format!("cannot start the builders: {error}"))?;
        stage.prepare(&stand, PREPARED_WITHIN);
        let score = parts.streams.as_ref().map(|streams| {
            let trading = trading(stage.market());
            Score::new(Arc::clone(streams), Arc::clone(&self.prices), trading, stage.market())
        });
        let (done, swapped) = bounded(1);
        let (playhead, axis) = (Playhead::new(Arc::clone(&stand)), Arc::new(stage.axis()));
        let swap = Swap { playhead, axis, score, stage: Arc::clone(&stage), done };
        self.swaps.send(swap).map_err(|_| "the server is shutting down".to_owned())?;
        swapped.recv_timeout(PREPARED_WITHIN).map_err(|_| "the clock did not answer".to_owned())?;
        (self.loaded)(&stage, &stand);
        // The old one ends here, unless a session still plays it.
        *locked(&self.stage) = stage;
        Ok(())
    }

    fn progress(&self, id: u64, change: impl FnOnce(&mut LoadJob)) {
        if let Some(job) = locked(&self.jobs).iter_mut().find(|job| job.id == id) {
            change(job);
        }
    }

    /// Ends sessions that have been without clients for long.
    fn end_idle(&self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(250));
            let idle: Vec<String> = {
                let mut sessions = locked(&self.sessions);
                for session in sessions.values_mut().filter(|session| session.remote.seats().taken() > 0) {
                    session.idle_since = Instant::now();
                }
                let is_idle = |session: &Session| session.idle_since.elapsed() >= self.parts.replay.session_idle;
                sessions.iter().filter(|(_, session)| is_idle(session)).map(|(name, _)| name.clone()).collect()
            };
            for name in idle {
                tracing::info!(session = name, "no client for --session-idle; the session ends");
                self.end(&name);
            }
        }
        for name in locked(&self.sessions).keys().cloned().collect::<Vec<_>>() {
            self.end(&name);
        }
    }

    fn end(&self, name: &str) -> bool {
        let Some(session) = locked(&self.sessions).remove(name) else { return false };
        session.stop.store(true, Ordering::Relaxed);
        session.stage.window().remove(&session.stand);
        for place in session.stand.places() {
            self.parts.hub.undeclare(&place.group);
            self.parts.hub.undeclare(&place.spot);
        }
        true
    }

    fn begin_player(&self, name: &str, start: SessionStart) -> Result<Session, SessionError> {
        let stage = self.stage();
        let stand = Arc::new(Stand::new(stage.market(), &self.parts.hub, Some(name)));
        stage.window().add(&stand);
        let pace = start.pace.unwrap_or_else(|| self.parts.replay.pace());
        let at_first = if start.is_paused { State::Paused } else { State::Playing };
        let (parts, remote) = player(&self.parts, &stage, &stand, pace, at_first, Some(name));
        let first = Change { seek: start.from, ..Change::default() };
        let stop = Arc::new(AtomicBool::new(false));
        let (player, stopped) = (Player::new(parts), Arc::clone(&stop));
        let spawned = thread::Builder::new().name("session".to_owned()).spawn(move || player.run(first, &stopped));
        spawned.map_err(|error| Refused::Unreadable { reason: format!("cannot start a clock: {error}") })?;
        Ok(Session { remote, stage, stand, stop, idle_since: Instant::now() })
    }
}

impl Replays for Clocks {
    fn common(&self) -> &Remote {
        &self.common
    }

    fn dates(&self) -> Result<Vec<RecordedDate>, Refused> {
        let dates = dates(&self.parts.dataset.data_dir).map_err(|error| unreadable(&error))?;
        let stage = self.stage();
        let found = dates.into_iter().filter_map(|date| {
            let day = stage.market().days.iter().position(|day| day.date == date);
            match day {
                Some(day) => Some(loaded_date(stage.market(), day)),
                None => Some(other_date(&Dataset::on(&self.parts.dataset.data_dir, date).ok()?)),
            }
        });
        Ok(found.collect())
    }

    fn load(self: Arc<Self>, dates: Vec<Date>) -> Result<LoadJob, Refused> {
        let found = self.dates_with_data()?;
        if let Some(&date) = dates.iter().find(|date| !found.contains(date)) {
            let available = crate::replay::wanted_dates::shown(&found);
            return Err(Refused::NoSuchDate { date, available });
        }
        let datasets = datasets(&self.parts.dataset, &dates).map_err(|error| unreadable(&error))?;
        let job = {
            let mut jobs = locked(&self.jobs);
            if let Some(running) = jobs.iter().find(|job| job.state == LoadState::Loading) {
                return Err(Refused::IsLoading { dates: crate::replay::wanted_dates::shown(&running.dates) });
            }
            let id = self.next_job.fetch_add(1, Ordering::Relaxed);
            let total = datasets.iter().map(|dataset| dataset.files.len()).sum();
            let job = LoadJob { id, dates, state: LoadState::Loading, done: 0, total };
            if jobs.len() == JOBS {
                jobs.pop_front();
            }
            jobs.push_back(job.clone());
            job
        };
        let (clocks, id) = (Arc::clone(&self), job.id);
        let load = move || {
            let state = match clocks.open(id, &datasets) {
                Ok(()) => LoadState::Loaded,
                Err(reason) => {
                    tracing::error!("cannot load other dates: {reason}; the running ones go on");
                    LoadState::Failed(reason)
                }
            };
            clocks.progress(id, |job| job.state = state);
        };
        if let Err(error) = thread::Builder::new().name("load".to_owned()).spawn(load) {
            self.progress(id, |job| job.state = LoadState::Failed(error.to_string()));
        }
        Ok(job)
    }

    fn job(&self, id: u64) -> Option<LoadJob> {
        locked(&self.jobs).iter().find(|job| job.id == id).cloned()
    }

    fn session(&self, name: &str) -> Option<Remote> {
        locked(&self.sessions).get(name).map(|session| session.remote.clone())
    }

    fn begin_session(&self, name: &str, start: SessionStart) -> Result<Remote, SessionError> {
        if !is_session_name(name) {
            return Err(SessionError::BadName);
        }
        let mut sessions = locked(&self.sessions);
        if let Some(session) = sessions.get_mut(name) {
            session.idle_since = Instant::now();
            return Ok(session.remote.clone());
        }
        let limit = usize::from(self.parts.replay.max_sessions);
        if sessions.len() >= limit {
            return Err(SessionError::TooMany { limit });
        }
        let session = self.begin_player(name, start)?;
        let remote = session.remote.clone();
        sessions.insert(name.to_owned(), session);
        Ok(remote)
    }

    fn end_session(&self, name: &str) -> bool {
        self.end(name)
    }

    fn sessions(&self) -> Vec<SessionInfo> {
        let info =
            |(name, session): (&String, &Session)| SessionInfo { name: name.clone(), remote: session.remote.clone() };
        locked(&self.sessions).iter().map(info).collect()
    }
}

impl Clocks {
    fn dates_with_data(&self) -> Result<Vec<Date>, Refused> {
        let dir = &self.parts.dataset.data_dir;
        let dates = dates(dir).map_err(|error| unreadable(&error))?;
        Ok(dates.into_iter().filter(|&date| Dataset::on(dir, date).is_ok()).collect())
    }
}

/// For whoever asks over HTTP: where the data lies is the operator's business.
fn unreadable(error: &DatasetError) -> Refused {
    tracing::warn!("{error}");
    let reason = match error {
        DatasetError::Unreadable { source, .. } => format!("the data folder cannot be read: {source}"),
        _ => "the data of these dates cannot be read; the server's log says why".to_owned(),
    };
    Refused::Unreadable { reason }
}

/// A clock on a stage, and the handle on it.
fn player(
    parts: &ClockParts,
    stage: &Arc<Stage>,
    stand: &Arc<Stand>,
    pace: Pace,
    at_first: State,
    session: Option<&str>,
) -> (PlayerParts, Remote) {
    let axis = Arc::new(stage.axis());
    let clock = Clock::new(pace, parts.replay.max_gap, axis.span.first);
    let (remote, console) = remote(Snapshot {
        state: at_first,
        pace,
        achieved_speed: None,
        data_time: axis.span.first,
        record: 0,
        axis: Arc::clone(&axis),
        is_loop: parts.replay.is_loop(),
        max_gap: parts.replay.max_gap,
        // The player opens it as soon as it runs.
        epoch: 1,
        tick: 0,
        pause_at: None,
        late_us_p99: 0,
    });
    let parts = PlayerParts {
        hub: Arc::clone(&parts.hub),
        playhead: Playhead::new(Arc::clone(stand)),
        clock,
        console,
        axis,
        is_loop: parts.replay.is_loop(),
        state: at_first,
        is_anchored: session.is_none() && parts.replay.anchor == AnchorMode::Wall,
        session: session.map(Into::into),
        stage: Arc::clone(stage),
        status: Arc::clone(&parts.status),
        health: None,
        score: None,
        swaps: crossbeam::channel::never(),
    };
    (parts, remote)
}

/// By how many days the times of records are moved.
pub fn shift_days(shift: ShiftDays, datasets: &[Dataset]) -> i64 {
    match shift {
        ShiftDays::By(days) => days,
        ShiftDays::Today => {
            let today = date_at(Timestamp::now().as_millisecond());
            let days = |last: &Dataset| last.date.until(today).map_or(0, |span| i64::from(span.get_days()));
            datasets.last().map_or(0, days)
        }
    }
}

/// The records of the folder `streams/` of each date; what cannot be played is logged.
fn trading(market: &Market) -> Vec<Trading> {
    let load = |day| match market.trading(day) {
        Ok((trading, reports)) => {
            for report in reports.iter().filter(|report| report.bad > 0) {
                tracing::warn!("{}: {} bad lines are skipped", report.path.display(), report.bad);
            }
            trading
        }
        Err(error) => {
            tracing::error!("{error}; these records are not played");
            Trading::default()
        }
    };
    (0..market.days.len()).map(load).collect()
}

fn loaded_date(market: &Market, day: usize) -> RecordedDate {
    let tracks = &market.tracks[market.days[day].tracks.clone()];
    let spans: Vec<(u32, u32)> = tracks.iter().filter_map(|track| track.span()).collect();
    let complete = tracks.iter().all(|track| track.slots().1);
    let mut tickers: Vec<String> = tracks.iter().map(|track| track.ticker().to_owned()).collect();
    tickers.dedup();
    RecordedDate {
        date: market.days[day].date,
        is_loaded: true,
        tickers,
        files: tracks.len(),
        records: complete.then(|| tracks.iter().map(|track| track.slots().0).sum()),
        union: union(&spans),
        intersection: intersection(&spans),
        gaps: gaps(market, day),
    }
}

fn other_date(dataset: &Dataset) -> RecordedDate {
    let spans: Vec<(u32, u32)> = spans(dataset).into_iter().map(|(_, span)| span).collect();
    let mut tickers: Vec<String> = dataset.files.iter().map(|file| file.ticker.clone()).collect();
    tickers.dedup();
    RecordedDate {
        date: dataset.date,
        is_loaded: false,
        tickers,
        files: dataset.files.len(),
        records: None,
        union: union(&spans),
        intersection: intersection(&spans),
        gaps: Vec::new(),
    }
}

fn span(first: u32, last: u32) -> Span {
    Span { first: i64::from(first) * 1000, last: i64::from(last) * 1000 }
}

fn union(spans: &[(u32, u32)]) -> Option<Span> {
    let (first, last) = spans.iter().copied().reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?;
    Some(span(first, last))
}

fn intersection(spans: &[(u32, u32)]) -> Option<Span> {
    let (first, last) = spans.iter().copied().reduce(|a, b| (a.0.max(b.0), a.1.min(b.1)))?;
    (first <= last).then(|| span(first, last))
}

/// The longest times of a date without a record in any file, longest first.
fn gaps(market: &Market, day: usize) -> Vec<Span> {
    let tracks = &market.tracks[market.days[day].tracks.clone()];
    let times = |track: &Arc<super::track::Track>| {
        (0..track.index().scanned()).flat_map(|block| track.index().times_of(block).to_vec()).collect::<Vec<u32>>()
    };
    let mut all: Vec<u32> = tracks.iter().flat_map(times).collect();
    all.sort_unstable();
    all.dedup();
    let mut gaps: Vec<(u32, u32)> = all.windows(2).map(|pair| (pair[0], pair[1])).collect();
    gaps.retain(|(from, to)| to - from > GAP_S);
    gaps.sort_by_key(|(from, to)| std::cmp::Reverse(to - from));
    gaps.into_iter().take(GAPS).map(|(from, to)| span(from, to)).collect()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
