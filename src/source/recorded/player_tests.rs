//! Random requests to a clock, against a model of ten lines: what is published is exactly what the model says.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::civil::date;
use proptest::prelude::*;
use tokio::sync::broadcast::Receiver;

use super::clocks::{ClockParts, Clocks};
use super::dataset::{DataDate, Dataset, DatasetOptions};
use super::market::Market;
use super::player_options::{AnchorMode, CacheMode, ReplayOptions, ShiftDays};
use super::stage::Stage;
use super::window_figures::WindowFigures;
use super::window_options::WindowOptions;
use crate::engine::frames::Form;
use crate::engine::group::Publication;
use crate::engine::hub::{Hub, HubOptions};
use crate::engine::ledger::LedgerOptions;
use crate::health::status::Status;
use crate::replay::change::{Change, Pace, Refused, Speed, Wanted};
use crate::replay::moment::{Clamped, Moment};
use crate::replay::remote::Answer;
use crate::replay::replays::{LoadState, Replays, SessionStart};
use crate::replay::snapshot::State;
use crate::wire::payload::{EncoderOptions, Profile};

/// 2025-11-28T14:30:00Z.
const BEGIN: i64 = 1_764_340_200;

/// Tickers with the seconds of their records, from the beginning on.
type Recorded = Vec<(&'static str, Vec<u32>)>;

/// A server without sockets: a clock, and a subscriber of every group.
struct Rig {
    clocks: Arc<Clocks>,
    hub: Arc<Hub>,
    stop: Arc<AtomicBool>,
    seen: u64,
    dir: tempfile::TempDir,
}

fn write_day(dir: &std::path::Path, day: &str, shift: i64, recorded: &Recorded) {
    for (ticker, seconds) in recorded {
        let folder = dir.join(day).join(ticker).join("orderflow");
        std::fs::create_dir_all(&folder).unwrap();
        let mut lines = String::new();
        for second in seconds {
            let timestamp = BEGIN + shift + i64::from(*second);
            writeln!(lines, r#"{{"timestamp":{timestamp},"ticker":"{ticker}","spot":{second}.25}}"#).unwrap();
        }
        std::fs::write(folder.join("orderflow.jsonl"), lines).unwrap();
    }
}

fn options() -> ReplayOptions {
    ReplayOptions {
        interval: Duration::from_secs(1),
        cache_mode: CacheMode::Exhaust,
        speed: Some(Speed::Times(1.0)),
        max_gap: None,
        dates: None,
        start_at: None,
        until: None,
        start_paused: true,
        wait_for: 0,
        anchor: AnchorMode::Start,
        shift_days: ShiftDays::By(0),
        clock_real_time: false,
        max_sessions: 2,
        session_idle: Duration::from_mins(10),
    }
}

impl Rig {
    fn new(recorded: &Recorded, replay: ReplayOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_day(dir.path(), "2025-11-28", 0, recorded);
        Self::on(dir, &["2025-11-28"], replay)
    }

    fn on(dir: tempfile::TempDir, days: &[&str], replay: ReplayOptions) -> Self {
        let dataset = DatasetOptions { data_dir: dir.path().to_owned(), data_date: DataDate::Latest, strict: false };
        let datasets: Vec<Dataset> =
            days.iter().map(|day| Dataset::on(dir.path(), day.parse().unwrap()).unwrap()).collect();
        let ledger = LedgerOptions { ledger_publications: 1 << 20 };
        let hub = Arc::new(Hub::new("test", &HubOptions { max_silent_groups: 0, ledger }));
        let status = Arc::new(Status::default());
        let health = status.register("test", None);
        let figures = Arc::new(WindowFigures::new(&status, Arc::clone(&health)));
        let window = WindowOptions {
            profile: Profile::V2026_04,
            pin_profile: false,
            arena_bytes: Some(64 << 20),
            window_ahead: Duration::from_secs(10),
            encoder: EncoderOptions { zstd_level: -7 },
        };
        let (market, errors) = Market::open(&datasets, "blue", &hub, 0);
        assert!(errors.is_empty());
        let stage = Stage::new(market, &hub, window.clone(), Arc::clone(&figures));
        let mut receivers = Vec::new();
        for track in &stage.market().tracks {
            receivers.push(hub.subscribe(track.group_name()).unwrap().1);
            track.group().want(Form::new(0));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || take_out(receivers, &stopped));
        let parts = ClockParts {
            hub: Arc::clone(&hub),
            status,
            health,
            figures,
            dataset,
            window,
            replay,
            prefix: "blue".to_owned(),
            streams: None,
            stop: Arc::clone(&stop),
        };
        let clocks = Clocks::begin(parts, stage, Vec::new(), Box::new(|_, _| {})).unwrap();
        Self { clocks, hub, stop, seen: 0, dir }
    }

    fn ask(&self, change: Change) -> Result<Answer, Refused> {
        let remote = self.clocks.common().clone();
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(remote.change(change))
    }

    /// What was published since the last call: ticker and second, in order within each ticker.
    fn published(&mut self) -> Vec<(String, i64)> {
        let mut published = Vec::new();
        for (seq, tick) in self.hub.sequencer().ledger().after(self.seen, usize::MAX) {
            self.seen = seq;
            for publication in &tick.publications {
                let ticker = publication.group.split('_').nth(1).unwrap().to_owned();
                published.push((ticker, publication.record_timestamp - BEGIN));
            }
        }
        published.sort_by(|(one, _), (other, _)| one.cmp(other));
        published
    }
}

/// What a shard does: it makes room.
fn take_out(mut receivers: Vec<Receiver<Publication>>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        for receiver in &mut receivers {
            while receiver.try_recv().is_ok() {}
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The same clock, without threads, files and frames: a position in each ticker.
struct Model {
    recorded: Recorded,
    next: Vec<usize>,
    now: u32,
    has_ended: bool,
}

impl Model {
    fn new(recorded: &Recorded) -> Self {
        Self { recorded: recorded.clone(), next: vec![0; recorded.len()], now: first(recorded), has_ended: false }
    }

    fn seek(&mut self, second: u32) {
        let position = |seconds: &Vec<u32>| seconds.partition_point(|&at| at < second);
        self.next = self.recorded.iter().map(|(_, seconds)| position(seconds)).collect();
        self.now = self.due().unwrap_or(second);
        self.has_ended = false;
    }

    fn due(&self) -> Option<u32> {
        self.recorded.iter().zip(&self.next).filter_map(|((_, seconds), &at)| seconds.get(at).copied()).min()
    }

    fn step(&mut self, published: &mut Vec<(String, i64)>) {
        let Some(due) = self.due() else { return self.has_ended = true };
        for ((ticker, seconds), next) in self.recorded.iter().zip(&mut self.next) {
            while seconds.get(*next).is_some_and(|&at| at <= due) {
                published.push(((*ticker).to_owned(), i64::from(due)));
                *next += 1;
            }
        }
        self.now = due;
    }

    fn back(&mut self, steps: usize, published: &mut Vec<(String, i64)>) {
        let mut times: Vec<u32> = self.recorded.iter().flat_map(|(_, seconds)| seconds).copied().collect();
        times.sort_unstable();
        times.dedup();
        let before = times.partition_point(|&at| at < self.now);
        let target = times.get(before.saturating_sub(steps)).copied().filter(|_| before > 0).unwrap_or(self.now);
        self.seek(target);
        self.step(published);
    }
}

fn first(recorded: &Recorded) -> u32 {
    recorded.iter().map(|(_, seconds)| seconds[0]).min().unwrap()
}

#[derive(Debug, Clone)]
enum Asked {
    Seek(u32),
    Step(u8),
    Back(u8),
    Stop,
}

fn asked() -> impl Strategy<Value = Asked> {
    prop_oneof![
        (0u32..90).prop_map(Asked::Seek),
        (1u8..8).prop_map(Asked::Step),
        (1u8..5).prop_map(Asked::Back),
        Just(Asked::Stop),
    ]
}

/// Rising seconds, some of them twice.
fn seconds() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(0u32..4, 1..40).prop_map(|steps| {
        let mut now = 0;
        let second = |step| {
            now += step;
            now
        };
        steps.into_iter().map(second).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_asked_of_a_standing_clock_it_publishes_what_the_model_says(
        spx in seconds(), ndx in seconds(), requests in prop::collection::vec(asked(), 1..20),
    ) {
        let recorded: Recorded = vec![("NDX", ndx), ("SPX", spx)];
        let mut rig = Rig::new(&recorded, options());
        let mut model = Model::new(&recorded);
        for request in requests {
            let mut expected = Vec::new();
            let change = match request {
                Asked::Seek(second) => {
                    let last = recorded.iter().map(|(_, seconds)| *seconds.last().unwrap()).max().unwrap();
                    model.seek(second.clamp(first(&recorded), last));
                    Change { seek: Some(Moment::At((BEGIN + i64::from(second)) * 1000)), wanted: Some(Wanted::Paused), ..Change::default() }
                }
                Asked::Step(steps) => {
                    (0..steps).for_each(|_| model.step(&mut expected));
                    Change { step: Some(i64::from(steps)), ..Change::default() }
                }
                Asked::Back(steps) => {
                    model.back(usize::from(steps), &mut expected);
                    Change { step: Some(-i64::from(steps)), ..Change::default() }
                }
                Asked::Stop => {
                    model.seek(0);
                    Change { wanted: Some(Wanted::Stopped), ..Change::default() }
                }
            };
            let before = rig.clocks.common().snapshot().epoch;
            let answer = rig.ask(change).unwrap();
            expected.sort_by(|(one, _), (other, _)| one.cmp(other));
            prop_assert_eq!(rig.published(), expected);
            prop_assert!(answer.snapshot.state != State::Playing);
            let jumps = u64::from(!matches!(request, Asked::Step(_)));
            prop_assert_eq!(answer.snapshot.epoch, before + jumps, "{:?}", request);
        }
    }
}

fn every_second(count: u32) -> Vec<u32> {
    (0..count).collect()
}

fn at(second: i64) -> Moment {
    Moment::At((BEGIN + second) * 1000)
}

#[test]
fn a_seek_says_where_it_went_and_whether_nothing_was_recorded_there() {
    let seconds = (0..10).chain(60..70).collect();
    let rig = Rig::new(&vec![("SPX", seconds)], options());
    let resolved = |moment| {
        let answer = rig.ask(Change { seek: Some(moment), ..Change::default() }).unwrap().resolved.unwrap();
        (answer.data_time / 1000 - BEGIN, answer.clamped, answer.in_gap)
    };
    assert_eq!(resolved(at(5)), (5, Clamped::None, false));
    assert_eq!(resolved(at(30)), (60, Clamped::None, true));
    assert_eq!(resolved(at(-100)), (0, Clamped::Start, false));
    assert_eq!(resolved(at(1000)), (69, Clamped::End, false));
    assert_eq!(resolved(Moment::Share(0.0)), (0, Clamped::None, false));
    assert_eq!(resolved(Moment::Record(12)), (62, Clamped::None, false));
    let strict = Change { seek: Some(at(1000)), is_strict: true, ..Change::default() };
    assert!(matches!(rig.ask(strict), Err(Refused::OutOfRange { .. })));
}

#[test]
fn what_is_refused_changes_nothing() {
    let rig = Rig::new(&vec![("SPX", every_second(100))], options());
    let before = rig.clocks.common().snapshot();
    let other = Change { if_epoch: Some(99), seek: Some(at(50)), ..Change::default() };
    assert_eq!(rig.ask(other).unwrap_err(), Refused::OtherEpoch { expected: 99, is: before.epoch });
    let playing = Change { wanted: Some(Wanted::Playing), step: Some(1), seek: Some(at(50)), ..Change::default() };
    assert_eq!(rig.ask(playing).unwrap_err(), Refused::StepWhilePlaying { state: "playing" });
    let after = rig.clocks.common().snapshot();
    assert_eq!((after.data_time, after.epoch, after.state), (before.data_time, before.epoch, before.state));
}

#[test]
fn a_record_is_published_once_there_are_frames_that_somebody_takes() {
    let mut rig = Rig::new(&vec![("SPX", every_second(9))], options());
    let group = rig.hub.subscribe("blue_SPX_orderflow_orderflow").unwrap().0;
    wait(|| group.is_served());
    // The first subscriber of another form is here, its frames are not built yet: only those are that nobody takes.
    group.unwant(Form::new(0));
    rig.ask(Change { step: Some(2), ..Change::default() }).unwrap();
    assert_eq!(rig.published(), []);
    group.want(Form::new(0));
    rig.ask(Change { step: Some(1), ..Change::default() }).unwrap();
    assert_eq!(rig.published(), [("SPX".to_owned(), 2)]);
}

#[test]
fn a_clock_on_recorded_time_plays_everything_in_order_and_ends() {
    let recorded = vec![("NDX", (0..40).step_by(2).collect()), ("SPX", every_second(40))];
    let mut rig = Rig::new(&recorded, options());
    let max = Change { pace: Some(Pace::Recorded(Speed::Max)), wanted: Some(Wanted::Playing), ..Change::default() };
    rig.ask(max).unwrap();
    wait(|| rig.clocks.common().snapshot().state == State::Ended);
    let expected =
        recorded.iter().flat_map(|(ticker, seconds)| seconds.iter().map(|&at| ((*ticker).to_owned(), i64::from(at))));
    assert_eq!(rig.published(), expected.collect::<Vec<_>>());
    assert_eq!(rig.clocks.common().snapshot().tick, 40, "both tickers in one tick where they have one time");
    rig.ask(Change { seek: Some(at(38)), ..Change::default() }).unwrap();
    wait(|| rig.clocks.common().snapshot().state == State::Ended);
    assert_eq!(rig.published().len(), 3, "a seek after the end plays again");
}

#[test]
fn a_clock_pauses_by_itself_where_it_is_told() {
    let mut rig = Rig::new(&vec![("SPX", every_second(100))], options());
    let pace = Some(Pace::Recorded(Speed::Times(100_000.0)));
    let until = Change { pace, pause_at: Some(Some(at(41))), wanted: Some(Wanted::Playing), ..Change::default() };
    rig.ask(until).unwrap();
    wait(|| rig.clocks.common().snapshot().state == State::Paused);
    let published = rig.published();
    assert_eq!((published.len(), published.last().unwrap().1), (42, 41));
    rig.ask(Change { step: Some(1), ..Change::default() }).unwrap();
    assert_eq!(rig.published(), [("SPX".to_owned(), 42)]);
}

#[test]
fn dates_follow_each_other_and_a_loop_comes_back_to_the_first() {
    let dir = tempfile::tempdir().unwrap();
    write_day(dir.path(), "2025-11-28", 0, &vec![("SPX", every_second(3))]);
    write_day(dir.path(), "2025-12-01", 3 * 86_400, &vec![("SPX", every_second(2)), ("NDX", every_second(1))]);
    let replay = ReplayOptions { cache_mode: CacheMode::Rotation, ..options() };
    let mut rig = Rig::on(dir, &["2025-11-28", "2025-12-01"], replay);
    rig.ask(Change { step: Some(6), ..Change::default() }).unwrap();
    let day = 3 * 86_400;
    let spx: Vec<i64> = rig.published().into_iter().filter(|(ticker, _)| ticker == "SPX").map(|(_, at)| at).collect();
    assert_eq!(spx, [0, 1, 2, day, day + 1, 0]);
    let answer = rig.ask(Change { seek: Some(Moment::At((BEGIN + day) * 1000)), ..Change::default() }).unwrap();
    assert_eq!(answer.resolved.unwrap().data_time, (BEGIN + day) * 1000);
    let causes: Vec<&str> = rig.clocks.common().epochs_after(0).iter().map(|epoch| epoch.cause.name()).collect();
    assert_eq!(causes, ["start", "loop", "seek"]);
}

#[test]
fn other_dates_are_loaded_beside_the_running_ones() {
    let mut rig = Rig::new(&vec![("SPX", every_second(10))], options());
    write_day(rig.dir.path(), "2025-12-01", 3 * 86_400, &vec![("SPX", every_second(5))]);
    let wanted = vec![date(2025, 12, 1)];
    let missing = Arc::clone(&rig.clocks).load(vec![date(2025, 12, 2)]);
    assert!(matches!(missing, Err(Refused::NoSuchDate { .. })));
    let job = Arc::clone(&rig.clocks).load(wanted.clone()).unwrap();
    wait(|| rig.clocks.job(job.id).unwrap().state != LoadState::Loading);
    assert_eq!(rig.clocks.job(job.id).unwrap().state, LoadState::Loaded);
    assert_eq!(rig.clocks.common().snapshot().axis.dates, wanted);
    rig.ask(Change { step: Some(2), ..Change::default() }).unwrap();
    let day = 3 * 86_400;
    assert_eq!(rig.published(), [("SPX".to_owned(), day), ("SPX".to_owned(), day + 1)]);
    let dates = rig.clocks.dates().unwrap();
    assert_eq!(
        dates.iter().map(|date| (date.is_loaded, date.records)).collect::<Vec<_>>(),
        [(false, None), (true, Some(5))]
    );
    assert_eq!(dates[0].union.unwrap().last, (BEGIN + 9) * 1000);
    let folder = rig.dir.path().to_owned();
    std::fs::remove_dir_all(&folder).unwrap();
    let gone = rig.clocks.dates().unwrap_err().to_string();
    assert!(gone.starts_with("the data folder cannot be read: ") && !gone.contains(folder.to_str().unwrap()), "{gone}");
}

#[test]
fn a_session_has_its_own_position_and_there_are_only_so_many() {
    let mut rig = Rig::new(&vec![("SPX", every_second(10))], options());
    let start = SessionStart { from: Some(at(5)), is_paused: true, pace: None };
    let one = rig.clocks.begin_session("one", start).unwrap();
    wait(|| one.snapshot().epoch == 2);
    assert_eq!(one.snapshot().data_time, (BEGIN + 5) * 1000);
    rig.ask(Change { step: Some(1), ..Change::default() }).unwrap();
    assert_eq!((one.snapshot().tick, rig.published().len()), (0, 1));
    let again = rig.clocks.begin_session("one", SessionStart::default()).unwrap();
    assert_eq!(again.snapshot().data_time, (BEGIN + 5) * 1000, "it exists, and stays where it is");
    rig.clocks.begin_session("two", start).unwrap();
    assert!(
        rig.clocks.begin_session("three", start).is_err_and(|error| error.to_string().contains("2 sessions exist"))
    );
    assert!(rig.clocks.begin_session(&"x".repeat(1024), start).is_err());
    assert!(rig.clocks.end_session("one") && !rig.clocks.end_session("one"));
    assert!(rig.clocks.begin_session("three", start).is_ok());
}

fn wait(mut is_so: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "it did not come to that");
        std::thread::sleep(Duration::from_millis(2));
    }
}
