//! The recorded day: loads it, reports what it holds, and starts its clock.
//!
//! ```text
//! Dataset ─▶ load ─▶ tracks ─┬▶ Replay (orderflow hub)
//!                            └▶ Spots, Trading (JSON streams)
//! ```

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, bail};

use crate::commands::counted;
use crate::commands::serve::progress::Progress;
use crate::commands::serve::recorded_day::ReplayedDay;
use crate::config::ServeOptions;
use crate::engine::frames::Form;
use crate::health::status::SourceHealth;
use crate::server::http::app::App;
use crate::source::recorded::arena::{self, ArenaOptions, Encodings, Track};
use crate::source::recorded::cache::Cache;
use crate::source::recorded::dataset::Dataset;
use crate::source::recorded::load;
use crate::source::recorded::loaded::{FileReport, Loaded};
use crate::source::recorded::replay::Replay;
use crate::source::recorded::trading::{Spots, Trading, TradingReport};
use crate::wire::streams::Channels;

/// Loads the day and starts its clock, and with it what else follows it.
pub fn begin(options: &ServeOptions, app: &App, stop: &Arc<AtomicBool>) -> anyhow::Result<()> {
    let (hub, status) = (&app.hub, &app.status);
    let dataset = Dataset::find(&options.dataset)?;
    let encodings = Arc::new(Encodings::new(status));
    let progress = Progress::new();
    let (prefix, cache) = (&options.general.group_prefix, Cache::open(&options.cache));
    let told = |done, total| progress.tell(done, total);
    let loaded = load::load(&dataset, prefix, &options.arena, cache.as_ref(), &encodings, &told)
        .context("cannot load the data")?;
    progress.finish();
    report(&dataset, &loaded);
    let trading = options.replays_trading().then(|| load_trading(options, app, &dataset.path, &loaded.tracks));
    let trading = trading.transpose()?;
    let clean = loaded.is_clean() && trading.as_ref().is_none_or(|(_, bad)| *bad == 0);
    if options.dataset.strict && !clean {
        bail!("the data has errors, and --strict refuses them");
    }
    if loaded.tracks.is_empty() {
        bail!("no file of {} has a record that can be read; see the log above", dataset.date);
    }
    for form in options.arena.at_start() {
        hub.forms().set_ready(Form::new(form.index()));
    }

    let replay = Replay::new(Arc::clone(hub), &loaded.tracks, options.replay.clone(), Arc::clone(status));
    let health = Arc::clone(replay.health());
    app.rest.set_day(Arc::new(ReplayedDay::new(&dataset, options.replay.cache_mode, Arc::clone(&health))));
    let bad = loaded.reports.iter().map(|report| report.lines.bad + u64::from(report.failed.is_some())).sum();
    health.count_errors(bad);
    let figure = |name, help, value| status.count(name, help, vec![]).store(value, Ordering::Relaxed);
    figure("records_loaded", "Records in the arena", loaded.records());
    figure("bad_input", "Lines and files of the data that were skipped", bad);
    if let Some((trading, _)) = trading {
        follow(options, app, &health, trading, &loaded.tracks, stop)?;
    }
    if let Some(cache) = cache {
        cache_frames(cache, &loaded, &options.arena)?;
    }
    let (hub, stop) = (Arc::clone(hub), Arc::clone(stop));
    let builder = thread::Builder::new().name("forms".to_owned());
    builder.spawn(move || arena::prepare(&loaded.tracks, hub.forms(), || health.position()))?;
    thread::Builder::new().name("replay".to_owned()).spawn(move || replay.run(&stop))?;
    Ok(())
}

/// Starts a thread that reads cached frames ahead of the clock, and then caches the frames that this start
/// has built.
fn cache_frames(cache: Cache, loaded: &Loaded, options: &ArenaOptions) -> io::Result<()> {
    let (unsaved, tracks, options) = (cache.unsaved(loaded, options), loaded.tracks.clone(), options.clone());
    let work = move || {
        arena::read_cached(&tracks, &options.at_start(), 0);
        cache.store(&unsaved, &options);
    };
    thread::Builder::new().name("cache".to_owned()).spawn(work)?;
    Ok(())
}

/// The day's signals, trades and portfolios, and how many of their lines are bad.
fn load_trading(
    options: &ServeOptions,
    app: &App,
    day: &Path,
    tracks: &[Arc<Track>],
) -> anyhow::Result<(Trading, u64)> {
    let (trading, reports) = Trading::load(day, tracks, options.replay.cache_mode).context("cannot load the data")?;
    for (TradingReport { path, records, bad, first_bad }, (channel, _)) in
        reports.iter().zip(Channels::TRADING.iter().skip(1))
    {
        let path = path.display();
        for (line, reason) in first_bad {
            tracing::warn!("{path}:{line}: {reason}");
        }
        if *bad > first_bad.len() as u64 {
            tracing::warn!("{path}: {} more bad lines, {bad} in all", bad - first_bad.len() as u64);
        }
        if let Some(health) = app.streams.health(channel) {
            health.count_errors(*bad);
        }
        tracing::debug!("{path}: {records} records");
    }
    Ok((trading, reports.iter().map(|report| report.bad).sum()))
}

/// Starts the trading streams on the clock of the replay.
fn follow(
    options: &ServeOptions,
    app: &App,
    clock: &Arc<SourceHealth>,
    trading: Trading,
    tracks: &[Arc<Track>],
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let mut spots = Spots::new(tracks, Arc::clone(clock), options.replay.cache_mode);
    app.streams.add_price_source(Box::new(move |streams| spots.offer(streams)));
    let (streams, clock, stop) = (Arc::clone(&app.streams), Arc::clone(clock), Arc::clone(stop));
    thread::Builder::new().name("trading".to_owned()).spawn(move || trading.run(&streams, &clock, &stop))?;
    Ok(())
}

/// Logs what was found: bad lines as `path:line: reason`, and one line that sums up.
fn report(dataset: &Dataset, loaded: &Loaded) {
    for FileReport { file, lines, failed, .. } in &loaded.reports {
        let path = file.path.display();
        for (line, reason) in &lines.first_bad {
            tracing::warn!("{path}:{line}: {reason}");
        }
        let reported = lines.first_bad.len() as u64;
        if lines.bad > reported {
            tracing::warn!("{path}: {} more bad lines, {} in all", lines.bad - reported, lines.bad);
        }
        if lines.backwards > 0 {
            let older = counted(lines.backwards, "record is", "records are");
            tracing::warn!("{path}: {older} older than the one before; replayed in the order of the file");
        }
        if lines.missing > 0 {
            let missing =
                counted(lines.missing, "number is missing or null and counts", "numbers are missing or null and count");
            tracing::info!("{path}: {missing} as 0");
        }
        if let Some(error) = failed {
            tracing::error!("{error}; this ticker is not served");
        }
    }
    let seconds = loaded.took.as_secs_f64();
    let records = loaded.records();
    tracing::info!(
        date = %dataset.date,
        tickers = loaded.tracks.len(),
        records,
        bytes = loaded.bytes(),
        from_cache = loaded.tracks.iter().filter(|track| track.is_cached()).count(),
        seconds,
        records_per_second = (records as f64 / seconds) as u64,
        "loaded"
    );
}
