//! How many records per second does one core turn from JSONL lines into finished frames, and where
//! does the time go?
//!
//! A full generated day of orderflow (23,400 records a ticker). `line to frames` is what the goal W8 is about:
//! parse, scale, protobuf, zstd, and the plain frame of both syntaxes in one profile; so are `gex` and `greek`, a
//! tenth of a day with 90 strikes and 5 priors in each record. `blocks` is the same as a builder of the window does
//! it, four tickers of orderflow from disk. The other rows are orderflow's parts, alone.
//!
//! Criterion's figures are by the wall clock. The table after them is what to quote: records per
//! second of *CPU time*, medians over interleaved rounds, every row once per round, so that neighbours
//! on a shared machine take little away from it and rows can be compared.

mod day;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Command, FromArgMatches};
use criterion::{Criterion, SamplingMode, Throughput};
use flowcast::engine::hub::{Hub, HubOptions};
use flowcast::source::recorded::block_builder::BlockBuilder;
use flowcast::source::recorded::dataset::{DataDate, Dataset, DatasetOptions};
use flowcast::source::recorded::market::Market;
use flowcast::source::recorded::parts::{Part, Parts};
use flowcast::source::recorded::window_options::WindowOptions;
use flowcast::wire::gexbot::PayloadKind;
use flowcast::wire::payload::orderflow::{self, Orderflow};
use flowcast::wire::payload::{Encoder, EncoderOptions, Record};
use flowcast::wire::webpubsub::{ORDERFLOW_TYPE_URL, Syntax, append_data};
use prost::Message;
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use zstd::bulk::Compressor;

/// Levels that can be worth it for messages this small; -1 is the default.
const LEVELS: [i32; 4] = [-7, -1, 1, 3];

/// `FLOWCAST_BENCH_ROUNDS`: rounds of the table.
const ROUNDS: usize = 11;

struct Row {
    name: String,
    records: usize,
    run: Box<dyn FnMut()>,
}

fn main() {
    pin_to_one_core();
    // `cargo test` runs every row once, to see that it runs: a minute of the day is enough.
    let measuring = std::env::args().any(|argument| argument == "--bench");
    let mut rows = rows(if measuring { 23_400 } else { 60 });

    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("encode");
    // One pass over the day is long; ten of them tell enough.
    group.sample_size(10).sampling_mode(SamplingMode::Flat).warm_up_time(Duration::from_millis(500));
    for row in &mut rows {
        group.throughput(Throughput::Elements(row.records as u64));
        group.bench_function(row.name.as_str(), |bencher| bencher.iter(&mut row.run));
    }
    group.finish();
    criterion.final_summary();
    if measuring {
        print_table(&mut rows);
    }
}

/// So that a figure is one core's.
fn pin_to_one_core() {
    let mut core = CpuSet::new();
    core.set(0);
    if let Err(error) = sched_setaffinity(None, &core) {
        println!("not pinned: {error}");
    }
}

fn rows(records: u32) -> Vec<Row> {
    let lines = Arc::new(day::lines(day::SERIES, records));
    let parsed = lines.iter().map(|line| orderflow::parse(line).expect("a generated line").record);
    let parsed: Arc<Vec<Orderflow>> = Arc::new(parsed.collect());
    let messages: Arc<Vec<Vec<u8>>> = Arc::new(parsed.iter().map(Message::encode_to_vec).collect());
    let mut default = encoder(defaults::<EncoderOptions>().zstd_level);
    let payloads: Arc<Vec<Vec<u8>>> = Arc::new(parsed.iter().map(|record| default.encode(record).to_vec()).collect());

    let mut rows = Vec::new();
    let mut row = |name: String, run: Box<dyn FnMut()>| rows.push(Row { name, records: records as usize, run });
    row("line to frames".to_owned(), line_to_frames(Arc::clone(&lines)));
    row("parse and scale".to_owned(), {
        let lines = Arc::clone(&lines);
        Box::new(move || {
            for line in lines.iter() {
                black_box(orderflow::parse(line).is_ok());
            }
        })
    });
    row("protobuf".to_owned(), {
        let (parsed, mut out) = (Arc::clone(&parsed), Vec::new());
        Box::new(move || {
            for record in parsed.iter() {
                out.clear();
                record.encode(&mut out).expect("a Vec grows as needed");
                black_box(&out);
            }
        })
    });
    for level in LEVELS {
        row(format!("protobuf and zstd {level}"), {
            let (parsed, mut encoder) = (Arc::clone(&parsed), encoder(level));
            Box::new(move || {
                for record in parsed.iter() {
                    black_box(encoder.encode(record));
                }
            })
        });
        row(format!("zstd {level}"), zstd_alone(Arc::clone(&messages), level));
    }
    for (name, syntax) in [("protobuf frame", Syntax::Protobuf), ("json frame", Syntax::Json)] {
        let (payloads, mut out) = (Arc::clone(&payloads), Vec::new());
        let run = move || {
            for payload in payloads.iter() {
                out.clear();
                append_data(syntax, day::GROUP, ORDERFLOW_TYPE_URL, payload, &mut out);
                black_box(&out);
            }
        };
        row(name.to_owned(), Box::new(run));
    }
    for (kind, series) in [(PayloadKind::Gex, "classic/gex_full"), (PayloadKind::Greek, "state/gamma_zero")] {
        rows.push(option_line_to_frames(kind, series, records.div_ceil(10)));
    }
    rows.push(blocks(records));
    rows
}

/// JSONL line → the plain frames of both syntaxes, as they lie in the arena.
fn line_to_frames(lines: Arc<Vec<Vec<u8>>>) -> Box<dyn FnMut()> {
    let mut encoder = encoder(defaults::<EncoderOptions>().zstd_level);
    let (mut protobuf, mut json) = (Vec::new(), Vec::new());
    Box::new(move || {
        protobuf.clear();
        json.clear();
        for line in lines.iter() {
            let record = orderflow::parse(line).expect("a generated line").record;
            let payload = encoder.encode(&record);
            append_data(Syntax::Protobuf, day::GROUP, ORDERFLOW_TYPE_URL, payload, &mut protobuf);
            append_data(Syntax::Json, day::GROUP, ORDERFLOW_TYPE_URL, payload, &mut json);
        }
        black_box((&protobuf, &json));
    })
}

/// The same for a record by strikes.
fn option_line_to_frames(kind: PayloadKind, series: &str, records: u32) -> Row {
    let name = if kind == PayloadKind::Gex { "gex" } else { "greek" };
    let lines = day::lines(series, records);
    let group = format!("blue_SPX_{}", series.replace('/', "_"));
    let mut encoder = encoder(defaults::<EncoderOptions>().zstd_level);
    let (mut protobuf, mut json) = (Vec::new(), Vec::new());
    let run = move || {
        protobuf.clear();
        json.clear();
        for line in &lines {
            let record = Record::parse(kind, line).expect("a generated line").record;
            let payload = record.encode(&mut encoder);
            append_data(Syntax::Protobuf, &group, kind.type_url(), payload, &mut protobuf);
            append_data(Syntax::Json, &group, kind.type_url(), payload, &mut json);
        }
        black_box((&protobuf, &json));
    };
    Row { name: format!("{name}: line to frames"), records: records as usize, run: Box::new(run) }
}

fn zstd_alone(messages: Arc<Vec<Vec<u8>>>, level: i32) -> Box<dyn FnMut()> {
    let mut compressor = Compressor::new(level).expect("memory for a zstd context");
    let mut out = Vec::with_capacity(4096);
    Box::new(move || {
        for message in messages.iter() {
            out.clear();
            compressor.compress_to_buffer(message, &mut out).expect("4 KiB are enough for a record");
            black_box(&out);
        }
    })
}

/// What a builder of the window does with a day: mapping, index, lines, blocks in both syntaxes.
fn blocks(records: u32) -> Row {
    const TICKERS: [&str; 4] = ["SPX", "ES_SPX", "NDX", "SPY"];
    let out = tempfile::tempdir().expect("a temporary folder");
    day::write(out.path(), day::SERIES, &TICKERS, records);
    let options = DatasetOptions { data_dir: out.path().to_owned(), data_date: DataDate::Latest, strict: true };
    let datasets = [Dataset::find(&options).expect("the day that was just written")];
    let window = defaults::<WindowOptions>();
    let parts: Parts = window.at_start().into_iter().map(Part::Record).collect();
    let mut builder = BlockBuilder::new(window.encoder).expect("memory for a zstd context");
    let run = move || {
        // The folder lives as long as this closure.
        let _ = &out;
        let (market, errors) = Market::open(&datasets, "blue", &Hub::new("bench", &defaults::<HubOptions>()), 0);
        assert!(errors.is_empty());
        for track in &market.tracks {
            track.index().scan(track.file(), usize::MAX).expect("a readable file");
            for block in 0..track.index().blocks() {
                black_box(builder.build(track, block, parts, &Arc::default()).expect("a readable block"));
            }
        }
        assert_eq!(market.slots(), u64::from(records) * TICKERS.len() as u64);
    };
    Row { name: "blocks, 4 tickers".to_owned(), records: records as usize * TICKERS.len(), run: Box::new(run) }
}

fn encoder(zstd_level: i32) -> Encoder {
    Encoder::new(EncoderOptions { zstd_level }).expect("memory for a zstd context")
}

/// The options a server without flags has.
fn defaults<T: Args + FromArgMatches>() -> T {
    let matches = T::augment_args(Command::new("bench")).get_matches_from(["bench"]);
    T::from_arg_matches(&matches).expect("defaults are valid")
}

fn print_table(rows: &mut [Row]) {
    let rounds = std::env::var("FLOWCAST_BENCH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    let mut seconds = vec![Vec::with_capacity(rounds); rows.len()];
    for round in 0..rounds {
        // Forth and back, so that no row always follows the same one.
        let forth = 0..rows.len();
        let order: Vec<usize> = if round % 2 == 0 { forth.collect() } else { forth.rev().collect() };
        for at in order {
            let before = cpu_seconds();
            (rows[at].run)();
            seconds[at].push(cpu_seconds() - before);
        }
    }
    println!("\nrecords per CPU-second, {rounds} interleaved rounds");
    println!("{:<24}{:>12}{:>12}{:>12}{:>12}", "", "median", "slowest", "fastest", "ns/record");
    for (row, mut seconds) in rows.iter().zip(seconds) {
        seconds.sort_by(f64::total_cmp);
        let [median, slowest, fastest] =
            [seconds.len() / 2, seconds.len() - 1, 0].map(|at| row.records as f64 / seconds[at]);
        println!("{:<24}{median:>12.0}{slowest:>12.0}{fastest:>12.0}{:>12.0}", row.name, 1e9 / median);
    }
}

/// What this process has used of a core, system time included.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
