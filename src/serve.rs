//! Serving: puts the parts together, and takes them apart in order.
//!
//! The port is bound first, so that a busy one is told at once and probes see 503 while the data
//! loads. Nothing here looks at data.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use crate::config::ServeOptions;
use crate::engine::clock;
use crate::engine::frames::Form;
use crate::engine::hub::Hub;
use crate::engine::status::Status;
use crate::server::app::{App, Stage};
use crate::server::http;
use crate::server::limiter::ToldOnce;
use crate::server::listen::{listen, raise_file_limit};
use crate::server::shard::{Letter, Shard, ShardHandle};
use crate::shutdown::{self, Signals};
use crate::source::arena::{self, Encodings};
use crate::source::dataset::Dataset;
use crate::source::load::{self, FileReport, Loaded};
use crate::source::replay::Replay;
use crate::wire::gexbot::ORDERFLOW_HUB;

/// Serves until a signal.
pub fn serve(options: ServeOptions) -> anyhow::Result<()> {
    let runtime = Runtime::new().context("cannot start the runtime")?;
    let started = {
        // Listeners and signals register with the runtime that will poll them.
        let _entered = runtime.enter();
        start(&options)?
    };
    let ended = runtime.block_on(run(options, started));
    // Idle HTTP connections must not hold the process.
    runtime.shutdown_background();
    ended
}

/// What is there before the data is.
struct Started {
    app: Arc<App>,
    shards: Vec<thread::JoinHandle<()>>,
    signals: Signals,
    /// When the process began to start, monotonic ns.
    began: Instant,
}

/// Binds the port and starts the shards; nobody is served yet.
fn start(options: &ServeOptions) -> anyhow::Result<Started> {
    let began = Instant::now();
    let signals = Signals::new().context("cannot listen for signals")?;
    let files = raise_file_limit();
    let listeners = listen(&options.listen)?;
    if let Some(files) = files.filter(|&files| files < (options.http.max_connections as u64).saturating_add(64)) {
        let connections = files.saturating_sub(64);
        tracing::info!(files, connections, "the hard limit of open files allows about this many connections");
    }

    let hub = Arc::new(Hub::new(ORDERFLOW_HUB, &options.hub));
    let prefix: Arc<str> = options.general.group_prefix.as_str().into();
    let silent = Arc::new(ToldOnce::default());
    let shard_options = Arc::new(options.shard.clone());
    let (handles, threads): (Vec<ShardHandle>, Vec<_>) = (0..shard_options.count() as u8)
        .map(|index| Shard::spawn(index, &hub, Arc::clone(&prefix), Arc::clone(&shard_options), Arc::clone(&silent)))
        .collect::<Result<Vec<_>, _>>()
        .context("cannot start a shard")?
        .into_iter()
        .unzip();

    for name in options.streams.without_effect() {
        tracing::warn!(name, "this setting has no effect: the JSON streams on /ws are not built yet");
    }
    let pinned = options.arena.pin_profile.then_some(options.arena.profile);
    let (streams, http) = (options.streams.clone(), options.http.clone());
    let app = Arc::new(App::new(hub, Arc::default(), handles, streams, http, prefix, pinned));
    let permits = Arc::new(Semaphore::new(options.http.max_http_connections));
    let routes = http::routes(&app);
    let mut stdout = std::io::stdout();
    for (at, listener) in listeners.into_iter().enumerate() {
        let address = listener.local_addr().context("a bound socket has an address")?;
        if at == 0 {
            // The one line on standard output, for scripts that start us on port 0. A closed
            // standard output is no reason not to serve.
            let _ = writeln!(stdout, "flowcast listening on http://{address}").and_then(|()| stdout.flush());
        }
        tracing::info!(%address, "listening");
        tokio::spawn(http::serve(listener, routes.clone(), Arc::clone(&app), Arc::clone(&permits)));
    }
    Ok(Started { app, shards: threads, signals, began })
}

/// Loads, serves, and stops at a signal.
async fn run(options: ServeOptions, started: Started) -> anyhow::Result<()> {
    let Started { app, shards, mut signals, began } = started;
    let deadline = Duration::from_secs(options.general.shutdown_timeout_seconds);
    let stop = Arc::new(AtomicBool::new(false));
    if options.http.ws_enabled {
        let (hub, status) = (Arc::clone(&app.hub), Arc::clone(&app.status));
        let stop = Arc::clone(&stop);
        let loading = tokio::task::spawn_blocking(move || begin_replay(&options, &hub, &status, stop));
        tokio::select! {
            loaded = loading => loaded.context("loading panicked")??,
            signal = signals.next() => {
                tracing::info!(signal, "stopped while loading");
                return Ok(());
            }
        }
    }
    app.set_stage(Stage::Serving);
    tracing::info!(seconds = began.elapsed().as_secs_f64(), "serving");

    let signal = signals.next().await;
    tracing::info!(signal, connections = app.connections(), "shutting down; a second signal ends at once");
    shutdown::end_at_next(signals);
    app.set_stage(Stage::Draining);
    stop.store(true, Ordering::Relaxed);
    drain(&app, shards, deadline).await;
    Ok(())
}

/// Tells every client and waits until all are gone, or the deadline.
async fn drain(app: &App, shards: Vec<thread::JoinHandle<()>>, deadline: Duration) {
    for shard in &app.shards {
        while shard.send(Letter::Drain).is_err() && !shards.iter().all(thread::JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let ended = tokio::task::spawn_blocking(move || shards.into_iter().for_each(|shard| drop(shard.join())));
    match tokio::time::timeout(deadline, ended).await {
        Ok(_) => tracing::info!("every connection is closed"),
        Err(_elapsed) => {
            tracing::warn!(connections = app.connections(), "the shutdown timeout cuts these connections off");
        }
    }
}

/// Loads the day and starts its clock.
fn begin_replay(
    options: &ServeOptions,
    hub: &Arc<Hub>,
    status: &Arc<Status>,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let dataset = Dataset::find(&options.dataset)?;
    let encodings = Arc::new(Encodings::new(status));
    let progress = Progress::new();
    let loaded = load::load(&dataset, &options.general.group_prefix, &options.arena, &encodings, &|done, total| {
        progress.tell(done, total);
    })
    .context("cannot load the data")?;
    progress.finish();
    report(&dataset, &loaded);
    if options.dataset.strict && !loaded.is_clean() {
        bail!("the data has errors, and --strict refuses them");
    }
    if loaded.tracks.is_empty() {
        bail!("expected records for {}, but no file has any", dataset.date);
    }
    for form in options.arena.at_start() {
        hub.forms().set_ready(Form::new(form.index()));
    }

    let replay = Replay::new(Arc::clone(hub), &loaded.tracks, options.replay.clone(), Arc::clone(status));
    let stream = Arc::clone(replay.stream());
    let bad = loaded.reports.iter().map(|report| report.lines.bad + u64::from(report.failed.is_some())).sum();
    stream.failed(bad);
    let figure = |name, help, value| status.count(name, help, vec![]).store(value, Ordering::Relaxed);
    figure("records_loaded", "Records in the arena", loaded.records());
    figure("bad_input", "Lines and files of the data that were skipped", bad);
    let hub = Arc::clone(hub);
    let builder = thread::Builder::new().name("forms".to_owned());
    builder.spawn(move || arena::prepare(&loaded.tracks, hub.forms(), || stream.position()))?;
    thread::Builder::new().name("replay".to_owned()).spawn(move || replay.run(&stop))?;
    Ok(())
}

/// Says what was found: bad lines as `path:line: reason`, and one line that sums up.
fn report(dataset: &Dataset, loaded: &Loaded) {
    for FileReport { file, lines, failed } in &loaded.reports {
        let path = file.path.display();
        for (line, reason) in &lines.first_bad {
            tracing::warn!("{path}:{line}: {reason}");
        }
        let reported = lines.first_bad.len() as u64;
        if lines.bad > reported {
            tracing::warn!("{path}: {} more bad lines, {} in all", lines.bad - reported, lines.bad);
        }
        if lines.backwards > 0 {
            tracing::warn!("{path}: {} records are older than the one before; kept in file order", lines.backwards);
        }
        if lines.missing > 0 {
            tracing::info!("{path}: {} numbers are missing or null and count as 0", lines.missing);
        }
        if let Some(error) = failed {
            tracing::error!("{error}; the ticker is left out");
        }
    }
    let seconds = loaded.took.as_secs_f64();
    let records = loaded.records();
    tracing::info!(
        date = %dataset.date,
        tickers = loaded.tracks.len(),
        records,
        bytes = loaded.bytes(),
        seconds,
        records_per_second = (records as f64 / seconds) as u64,
        "loaded"
    );
}

/// How far loading is: a bar on a terminal, a line every two seconds elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    told_ns: AtomicU64,
}

impl Progress {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = "loading {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}";
            ProgressBar::new(0).with_style(ProgressStyle::with_template(style).expect("a valid template"))
        });
        Self { bar, told_ns: AtomicU64::new(clock::monotonic_ns()) }
    }

    fn tell(&self, done: u64, total: u64) {
        const TWO_SECONDS: u64 = 2_000_000_000;
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            return;
        }
        let (now, told) = (clock::monotonic_ns(), self.told_ns.load(Ordering::Relaxed));
        // One thread wins the exchange and writes the line.
        if now - told >= TWO_SECONDS
            && self.told_ns.compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            tracing::info!(done, total, "loading");
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
