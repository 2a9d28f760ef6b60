//! The recorded day: opens it, starts the builders of its frames, and its clock.
//!
//! ```text
//! Dataset ─▶ Market ─▶ tracks ─┬▶ Window (blocks of frames, ahead of the clock)
//!                              └▶ Replay ─┬▶ the groups of all hubs
//!                                         └▶ DayPrices, Trading (JSON streams)
//! ```

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use anyhow::{Context, bail};

use crate::commands::serve::progress::Progress;
use crate::commands::serve::recorded_day::ReplayedDay;
use crate::config::ServeOptions;
use crate::health::status::SourceHealth;
use crate::server::http::app::App;
use crate::source::recorded::dataset::Dataset;
use crate::source::recorded::day_prices::DayPrices;
use crate::source::recorded::market::Market;
use crate::source::recorded::player::Replay;
use crate::source::recorded::track::Track;
use crate::source::recorded::trading::{Trading, TradingReport};
use crate::source::recorded::window::Window;
use crate::source::recorded::window_figures::WindowFigures;
use crate::wire::streams::Channels;

/// Opens the day, and starts its clock and all that runs on it.
pub fn begin(options: &ServeOptions, app: &App, stop: &Arc<AtomicBool>) -> anyhow::Result<()> {
    let (hub, status) = (&app.hub, &app.status);
    let dataset = Dataset::find(&options.dataset)?;
    let health = status.register(hub.name(), Some(options.replay.interval));
    let figures = WindowFigures::new(status, Arc::clone(&health));
    let (market, errors) = Market::open(&dataset, &options.general.group_prefix, hub);
    let market = Arc::new(market);
    for path in &dataset.others {
        tracing::warn!("{}: ignored; expected a name such as gex_full.jsonl, of a category of GexBot", path.display());
    }
    for error in &errors {
        tracing::error!("{error}; this group is not served");
    }
    figures.count_bad(errors.len() as u64);
    let trading = options.replays_trading().then(|| load_trading(options, app, &dataset.path, &market.tracks));
    let trading = trading.transpose()?;
    if options.dataset.strict {
        let is_clean = read_all(&market, &figures) && errors.is_empty();
        if !is_clean || trading.as_ref().is_some_and(|(_, bad)| *bad > 0) {
            bail!("the data has errors, and --strict refuses them");
        }
    }
    if market.tracks.is_empty() {
        bail!("no file of {} has a record that can be read; see the log above", dataset.date);
    }

    let day = ReplayedDay::new(&dataset, &market, options.replay.cache_mode);
    app.rest.set_day(Arc::new(day));
    app.set_topics(market.tracks.iter().filter_map(|track| track.topic()));
    let prices = trading.is_some().then(|| {
        let tickers = market.tickers().map(|(_, tracks)| tracks[0].ticker());
        Arc::new(DayPrices::new(tickers))
    });
    let (replay, window) = (&options.replay, options.window.clone());
    let window = Window::new(Arc::clone(&market), Arc::clone(hub), window, replay.interval, prices.is_some(), figures);
    let window = Arc::new(window);
    let replay = Replay::new(
        Arc::clone(hub),
        &market,
        replay.clone(),
        Arc::clone(status),
        Arc::clone(&health),
        window.alarm(),
        prices.clone(),
    );
    if let Some((trading, prices)) = trading.map(|(trading, _)| trading).zip(prices) {
        follow(app, &health, trading, prices, stop)?;
    }
    for _ in 0..builders() {
        let (window, stop) = (Arc::clone(&window), Arc::clone(stop));
        thread::Builder::new().name("builder".to_owned()).spawn(move || window.run(&stop))?;
    }
    let stop = Arc::clone(stop);
    thread::Builder::new().name("replay".to_owned()).spawn(move || replay.run(&stop))?;
    Ok(())
}

/// Threads that build frames: half of the processors, the others are for the shards.
fn builders() -> usize {
    thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2))
}

/// Reads every line; logs and counts the bad ones, and returns whether there is none.
fn read_all(market: &Market, figures: &WindowFigures) -> bool {
    let progress = Progress::new();
    let bad = market.read_all(&|done, total| progress.tell(done, total));
    progress.finish();
    figures.count_bad(bad);
    bad == 0
}

/// The day's signals, trades and portfolios, and how many of their lines are bad.
fn load_trading(
    options: &ServeOptions,
    app: &App,
    day: &Path,
    tracks: &[Arc<Track>],
) -> anyhow::Result<(Trading, u64)> {
    let (trading, reports) = Trading::load(day, tracks, options.replay.cache_mode).context("cannot load the data")?;
    for (TradingReport { path, records, bad, first_bad, .. }, (channel, _)) in
        reports.iter().zip(Channels::TRADING.iter().skip(1))
    {
        let path = path.display();
        for (line, reason) in first_bad {
            tracing::warn!("{path}:{line}: {reason}");
        }
        if *bad > first_bad.len() as u64 {
            tracing::warn!("{path}: {bad} bad lines in all, {} of them not listed", bad - first_bad.len() as u64);
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
    app: &App,
    clock: &Arc<SourceHealth>,
    trading: Trading,
    prices: Arc<DayPrices>,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<()> {
    app.streams.add_price_source(Box::new(move |streams| prices.offer(streams)));
    let (streams, clock, stop) = (Arc::clone(&app.streams), Arc::clone(clock), Arc::clone(stop));
    thread::Builder::new().name("trading".to_owned()).spawn(move || trading.run(&streams, &clock, &stop))?;
    Ok(())
}
