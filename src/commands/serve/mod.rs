//! Serving: starts the parts in order, and stops them in order.
//!
//! The port is bound when the day's files are found and before they are read, so that a missing folder and a port in use
//! are reported immediately, and probes get 503 while the data loads.

mod day;
mod live_sources;
mod progress;
mod recorded_day;
mod secret_watch;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use crate::commands::serve::live_sources::LiveSources;
use crate::commands::serve::secret_watch::SecretWatch;
use crate::commands::shutdown::{self, Signals};
use crate::config::ServeOptions;
use crate::engine::hub::{Hub, HubOptions};
use crate::engine::ledger::LedgerOptions;
use crate::faults::batch_notes::NotedHub;
use crate::faults::fault_board::{FaultBoard, TickSource};
use crate::faults::fault_plan::FaultPlan;
use crate::health::status::Status;
use crate::server::http::app::{App, HttpBounds, ServingState, Stage, shown_budget};
use crate::server::http::control_access::ControlAccess;
use crate::server::http::jwt::Authority;
use crate::server::http::listen::{listen, raise_file_limit};
use crate::server::http::live::live_options::ShownSetting;
use crate::server::http::live::live_state::LiveState;
use crate::server::http::live::reader;
use crate::server::http::negotiate::api_slots::ApiSlots;
use crate::server::http::replay::replay_state::ReplayState;
use crate::server::http::rest::rest_state::RestState;
use crate::server::http::routes;
use crate::server::shard::context::{Hubs, ShardContext};
use crate::server::shard::event_loop::Shard;
use crate::server::shard::mailbox::{ShardHandle, ShardMessage};
use crate::source::recorded::dataset::Dataset;
use crate::streams::{STREAMS_HUB, Streams};
use crate::wire::gexbot::ORDERFLOW_HUB;

/// Open files beside connections and the data's: listeners, logs, the shards' own, sources of live data.
const OWN_FILES: u64 = 64;

/// How long live sources may take to store how far they have read.
const COMMIT: Duration = Duration::from_secs(5);

/// Serves until a signal. `settings` are what reports show of the options.
pub fn serve(options: ServeOptions, settings: Vec<ShownSetting>) -> anyhow::Result<()> {
    let runtime = Runtime::new().context("cannot start the runtime")?;
    let started = {
        // Listeners and signals register with the runtime that will poll them.
        let _entered = runtime.enter();
        start(&options, settings)?
    };
    let ended = runtime.block_on(run(options, started));
    // Idle HTTP connections must not keep the process alive.
    runtime.shutdown_background();
    ended
}

/// What runs before the data is loaded.
struct Started {
    app: Arc<App>,
    /// The dates to replay.
    datasets: Vec<Dataset>,
    shards: Vec<thread::JoinHandle<()>>,
    signals: Signals,
    /// When the process began to start, monotonic ns.
    began: Instant,
}

/// Binds the port and starts the shards; nobody is served yet.
fn start(options: &ServeOptions, settings: Vec<ShownSetting>) -> anyhow::Result<Started> {
    let began = Instant::now();
    refuse_huge_pages();
    let signals = Signals::new().context("cannot listen for signals")?;
    let secrets = secrets(options).context("cannot listen for signals")?;
    // What is wrong with the data folder is said before anything says that the server is there.
    let plan = options.faults.read()?;
    let datasets = if options.replays() { day::find(options)? } else { Vec::new() };
    let limit = raise_file_limit();
    let listeners = listen(&options.listen)?;
    let data_files = datasets.iter().map(|dataset| dataset.files.len()).sum();
    tell_file_limit(limit, data_files, options.http.max_connections);

    let status = Arc::new(Status::default());
    let hub = Arc::new(Hub::new(ORDERFLOW_HUB, &options.hub));
    let streams = Streams::new(stream_hub(options), options.kafka.channels(), options.streams.clone(), &status);
    let faults = fault_board(options, plan, &hub, streams.hub());
    let prefix: Arc<str> = options.general.group_prefix.as_str().into();
    let context = ShardContext {
        hubs: Hubs { orderflow: Arc::clone(&hub), streams: Arc::clone(streams.hub()) },
        prefix: Arc::clone(&prefix),
        tokens: options.session_key.tokens()?.map(Arc::new),
        options: Arc::new(options.shard.clone()),
        stream_options: options.streams.clone(),
        streams: Arc::clone(&streams),
        silent: Arc::default(),
        faults: Arc::clone(&faults),
        unfinished: shown_budget(options.shard.unfinished_bytes, "unfinished_messages", &status),
        closed: Arc::default(),
    };
    let (shards, threads) = spawn_shards(&context)?;
    let app = Arc::new(App {
        session_tokens: context.tokens.clone(),
        slots: ApiSlots::new(&options.http.negotiate, &prefix, &status),
        rest: RestState::new(&options.http.rest, &status),
        replay: ReplayState::default(),
        faults,
        control: ControlAccess::new(&options.http.control, &status),
        live: LiveState::new(options.http.live, settings, Arc::clone(&context.closed)),
        tick_readers: Arc::new(Semaphore::new(options.http.max_tick_readers)),
        bounds: HttpBounds::new(&options.http, options.listen.answer_timeout(), &status),
        pending: Arc::default(),
        pending_streams: Arc::default(),
        state: ServingState::default(),
        hub,
        status,
        shards,
        streams,
        stream_options: options.streams.clone(),
        authority: Authority::new(&options.auth)?,
        options: options.http.clone(),
        prefix,
        pinned: options.window.pin_profile.then_some(options.window.profile),
        max_groups_per_connection: options.shard.max_groups_per_connection,
    });
    secrets.begin(&app);
    accept(listeners, &app)?;
    Ok(Started { app, datasets, shards: threads, signals, began })
}

/// mimalloc asks for huge pages, of which a few live bytes hold 2 MB each: 10,000 idle connections cost three times their
/// size. Nothing here is read in strides that would miss them.
fn refuse_huge_pages() {
    // Fails on kernels that have none.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// The files of secrets and keys, before they are read. From here on SIGHUP does not end a server that has a use for it,
/// however long the data loads.
fn secrets(options: &ServeOptions) -> std::io::Result<SecretWatch> {
    if !options.broker.feeds.is_empty() {
        // The feeds listen for it when they are there; whoever does first keeps it from ending the process.
        drop(signal(SignalKind::hangup())?);
    }
    SecretWatch::new(options.auth.key_files())
}

fn spawn_shards(context: &ShardContext) -> anyhow::Result<(Vec<ShardHandle>, Vec<thread::JoinHandle<()>>)> {
    let spawned = (0..context.options.count() as u8).map(|index| Shard::spawn(index, context));
    let spawned: Vec<_> = spawned.collect::<Result<_, _>>().context("cannot start a shard")?;
    Ok(spawned.into_iter().unzip())
}

/// The board on which both hubs note their batches while a plan of faults runs; with the plan that the server begins with.
/// A server without GexBot's hubs counts the batches of the streams as ticks.
fn fault_board(options: &ServeOptions, plan: Option<FaultPlan>, hub: &Hub, streams: &Hub) -> Arc<FaultBoard> {
    let hubs = options.replays() || options.kafka.feeds_orderflow();
    let source = if hubs { NotedHub::Groups } else { NotedHub::Streams };
    let board = Arc::new(FaultBoard::new(TickSource { hub: source, is_every_batch: !options.replays() }));
    hub.sequencer().note_on(Arc::clone(&board), NotedHub::Groups);
    streams.sequencer().note_on(Arc::clone(&board), NotedHub::Streams);
    if let Some(plan) = plan {
        tracing::warn!(faults = plan.faults.len(), "serving with a plan of faults");
        board.begin(plan);
    }
    board
}

/// Says how many connections the limit of open files allows if it is not as many as the settings do. Each file of the
/// dates that are replayed stays open. `None`: the limit is not known.
fn tell_file_limit(limit: Option<u64>, data_files: usize, max_connections: usize) {
    let Some(limit) = limit else { return };
    let connections = limit.saturating_sub(OWN_FILES).saturating_sub(data_files as u64);
    if connections < max_connections as u64 {
        tracing::info!(
            limit,
            data_files,
            connections,
            "the limit of open files (ulimit -n) allows fewer connections than --max-connections"
        );
    }
}

/// Accepts on every listener, and prints the address of the first.
fn accept(listeners: Vec<TcpListener>, app: &Arc<App>) -> anyhow::Result<()> {
    if app.live.is_on() {
        tokio::spawn(reader::gather(Arc::clone(app)));
    }
    let routes = routes::routes(app);
    let mut stdout = std::io::stdout();
    for (at, listener) in listeners.into_iter().enumerate() {
        let address = listener.local_addr().context("a bound socket has an address")?;
        if at == 0 {
            // The one line on standard output, for scripts that start us on port 0. A closed
            // standard output is no reason not to serve.
            let _ = writeln!(stdout, "flowcast listening on http://{address}").and_then(|()| stdout.flush());
        }
        tracing::info!(%address, "listening");
        tokio::spawn(routes::serve(listener, routes.clone(), Arc::clone(app)));
    }
    Ok(())
}

/// The hub of the JSON streams. It has no tick ledger: a source has its own truth of what it sent, and
/// the ledger would keep every message alive.
fn stream_hub(options: &ServeOptions) -> Arc<Hub> {
    let ledger = LedgerOptions { ledger_publications: 0 };
    Arc::new(Hub::new(STREAMS_HUB, &HubOptions { max_silent_groups: options.streams.max_filters, ledger }))
}

/// Loads, serves, and stops at a signal.
async fn run(options: ServeOptions, started: Started) -> anyhow::Result<()> {
    let Started { app, datasets, shards, mut signals, began } = started;
    let deadline = Duration::from_secs(options.general.shutdown_timeout_seconds);
    let stop = Arc::new(AtomicBool::new(false));
    let (streams, stopped) = (Arc::clone(&app.streams), Arc::clone(&stop));
    thread::Builder::new().name("streams".to_owned()).spawn(move || streams.conflate(&stopped))?;
    if options.replays() {
        let loading = {
            let (app, stop) = (Arc::clone(&app), Arc::clone(&stop));
            let options = options.clone();
            tokio::task::spawn_blocking(move || day::begin(&options, &datasets, &app, &stop))
        };
        tokio::select! {
            loaded = loading => app.replay.set_clocks(loaded.context("loading panicked")??),
            signal = signals.next() => {
                tracing::info!(signal, "stopped while loading");
                return Ok(());
            }
        }
    }
    let live = LiveSources::begin(&options, &app)?;
    app.set_stage(Stage::Serving);
    tracing::info!(seconds = began.elapsed().as_secs_f64(), "serving");

    let signal = signals.next().await;
    tracing::info!(signal, connections = app.connections(), "shutting down; a second signal ends the process now");
    shutdown::end_at_next(signals);
    app.set_stage(Stage::Draining);
    stop.store(true, Ordering::Relaxed);
    tokio::join!(live.end(deadline.min(COMMIT)), drain(&app, shards, deadline));
    Ok(())
}

/// Tells every client that the server goes, and waits until all are gone, or for the deadline.
async fn drain(app: &App, shards: Vec<thread::JoinHandle<()>>, deadline: Duration) {
    for shard in &app.shards {
        while shard.send(ShardMessage::Drain).is_err() && !shards.iter().all(thread::JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let ended = tokio::task::spawn_blocking(move || shards.into_iter().for_each(|shard| drop(shard.join())));
    match tokio::time::timeout(deadline, ended).await {
        Ok(_) => tracing::info!("every connection is closed"),
        Err(_elapsed) => {
            tracing::warn!(connections = app.connections(), "shutdown timeout: cutting off these connections");
        }
    }
}
