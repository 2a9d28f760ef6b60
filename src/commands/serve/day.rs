//! The recorded days: opens them, and starts their clock with all that follows it.
//!
//! ```text
//! Dataset ─▶ Market ─▶ Stage ─┬▶ Window (blocks of frames, ahead of the clock)
//!                             └▶ Clocks ─▶ Player ─┬▶ the groups of all hubs
//!                                                  └▶ Score (JSON streams)
//! ```

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, bail};

use crate::commands::serve::progress::Progress;
use crate::commands::serve::recorded_day::serve_days;
use crate::config::ServeOptions;
use crate::replay::change::Pace;
use crate::server::http::app::App;
use crate::source::recorded::clocks::{ClockParts, Clocks, shift_days};
use crate::source::recorded::dataset::{self, Dataset};
use crate::source::recorded::market::Market;
use crate::source::recorded::stage::{Stage, datasets, report};
use crate::source::recorded::trading::{Trading, TradingReport};
use crate::source::recorded::window_figures::WindowFigures;
use crate::wire::streams::Channels;

/// Opens the days, and starts their clock and all that runs on it.
pub fn begin(
    options: &ServeOptions,
    datasets: &[Dataset],
    app: &Arc<App>,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<Arc<Clocks>> {
    let (hub, status) = (&app.hub, &app.status);
    let interval = if let Pace::Interval(interval) = options.replay.pace() { Some(interval) } else { None };
    let health = status.register(hub.name(), interval);
    let figures = Arc::new(WindowFigures::new(status, Arc::clone(&health)));
    let shift = shift_days(options.replay.shift_days, datasets);
    let (market, errors) = Market::open(datasets, &options.general.group_prefix, hub, shift);
    report(datasets, &errors);
    figures.count_bad(errors.len() as u64);
    let trading = options.replays_trading().then(|| load_trading(app, &market)).transpose()?;
    if options.dataset.strict {
        let is_clean = read_all(&market, &figures) && errors.is_empty();
        if !is_clean || trading.as_ref().is_some_and(|(_, bad)| *bad > 0) {
            bail!("the data has errors, and --strict refuses them");
        }
    }
    if market.tracks.is_empty() {
        bail!("no file of {} has a record that can be read; see the log above", market.days[0].date);
    }
    let stage = Stage::new(market, hub, options.window.clone(), Arc::clone(&figures));
    let parts = ClockParts {
        hub: Arc::clone(hub),
        status: Arc::clone(status),
        health,
        figures,
        dataset: options.dataset.clone(),
        window: options.window.clone(),
        replay: options.replay.clone(),
        prefix: options.general.group_prefix.clone(),
        streams: trading.is_some().then(|| Arc::clone(&app.streams)),
        stop: Arc::clone(stop),
    };
    let trading = trading.map_or_else(Vec::new, |(trading, _)| trading);
    let (served, data_dir, is_loop) = (Arc::clone(app), options.dataset.data_dir.clone(), options.replay.is_loop());
    let loaded = move |stage: &Arc<Stage>, stand: &_| {
        served.set_topics(stage.market().tracks.iter().filter_map(|track| track.topic()));
        serve_days(&served.rest, stand, &data_dir, is_loop);
    };
    let clocks = Clocks::begin(parts, stage, trading, Box::new(loaded))?;
    if options.replays_trading() {
        let prices = Arc::clone(clocks.prices());
        app.streams.add_price_source(Box::new(move |streams| prices.offer(streams)));
    }
    Ok(clocks)
}

/// The files of the dates that are to be played, in order.
pub fn find(options: &ServeOptions) -> anyhow::Result<Vec<Dataset>> {
    let Some(wanted) = &options.replay.dates else { return Ok(vec![Dataset::find(&options.dataset)?]) };
    let mut dates = wanted.among(&dataset::dates(&options.dataset.data_dir)?).context("--dates")?;
    dates.sort_unstable();
    dates.dedup();
    datasets(&options.dataset, &dates).context("--dates")
}

/// Reads every line; logs and counts the bad ones, and returns whether there is none.
fn read_all(market: &Market, figures: &WindowFigures) -> bool {
    let progress = Progress::new();
    let bad = market.read_all(&|done, total| progress.tell(done, total));
    progress.finish();
    figures.count_bad(bad);
    bad == 0
}

/// The signals, trades and portfolios of each date, and how many of their lines are bad.
fn load_trading(app: &App, market: &Market) -> anyhow::Result<(Vec<Trading>, u64)> {
    let (mut days, mut bad_lines) = (Vec::new(), 0);
    for day in 0..market.days.len() {
        let (trading, reports) = market.trading(day).context("cannot load the data")?;
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
            bad_lines += bad;
        }
        days.push(trading);
    }
    Ok((days, bad_lines))
}
