//! What does a publication cost the tick's thread, and what does a shard pay to take it?
//!
//! A group's receivers are shards, one per core, never subscribers: 0 to 16 of them. The clock runs
//! while a batch is begun, published and ended; receivers are emptied outside it, except in `taken`,
//! where it stops when the last receiver has read the last publication. The ledger row is the same
//! publish with a ledger that remembers nothing.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use flowcast::engine::frames::{Form, FrameStore, Frames};
use flowcast::engine::group::{Group, Publication};
use flowcast::engine::hub::{Hub, HubOptions};
use flowcast::engine::ledger::LedgerOptions;
use flowcast::engine::ring::Ring;
use tokio::sync::broadcast::Receiver;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    publish(&mut criterion);
    ledger(&mut criterion);
    ring(&mut criterion);
    criterion.final_summary();
}

/// One frame of a record's usual length.
struct OneFrame(Bytes);

impl FrameStore for OneFrame {
    fn frame(&self, _: u32, _: Form) -> Bytes {
        self.0.clone()
    }

    fn timestamp(&self, record: u32) -> i64 {
        i64::from(record)
    }
}

fn store() -> Arc<dyn FrameStore> {
    Arc::new(OneFrame(Bytes::from(vec![7; 304])))
}

/// A hub with `groups` groups, each with a receiver per shard.
struct Bench {
    hub: Hub,
    groups: Vec<Arc<Group>>,
    receivers: Vec<Receiver<Publication>>,
    store: Arc<dyn FrameStore>,
}

impl Bench {
    fn new(groups: usize, shards: usize, ledger_publications: usize) -> Self {
        let ledger = LedgerOptions { ledger_publications };
        let hub = Hub::new("bench", &HubOptions { max_silent_groups: 0, ledger });
        let names: Vec<_> = (0..groups).map(|group| format!("blue_T{group}_orderflow_orderflow")).collect();
        let groups = names.iter().map(|name| hub.declare(name, name)).collect();
        let receivers = names.iter().flat_map(|name| {
            let hub = &hub;
            (0..shards).map(move |_| hub.subscribe(name).expect("a declared group").1)
        });
        let receivers = receivers.collect();
        Self { hub, groups, receivers, store: store() }
    }

    /// One tick: the next record of every group.
    fn tick(&self, record: u32) {
        let mut batch = self.hub.sequencer().begin(None);
        for group in &self.groups {
            batch.publish(group, Frames::new(Arc::clone(&self.store), record));
        }
    }

    fn drain(&mut self) {
        for receiver in &mut self.receivers {
            while let Ok(publication) = receiver.try_recv() {
                black_box(publication);
            }
        }
    }

    /// `ticks` ticks, drained one by one, with or without the draining on the clock.
    fn run(&mut self, ticks: u64, with_drain: bool) -> Duration {
        let mut total = Duration::ZERO;
        for tick in 0..ticks {
            let started = Instant::now();
            self.tick(tick as u32);
            let published = started.elapsed();
            self.drain();
            total += if with_drain { started.elapsed() } else { published };
        }
        total
    }
}

fn publish(criterion: &mut Criterion) {
    let mut measure = criterion.benchmark_group("publish");
    for groups in [1, 16, 128] {
        measure.throughput(Throughput::Elements(groups as u64));
        for shards in [0, 1, 2, 4, 16] {
            let mut bench = Bench::new(groups, shards, 65_536);
            let id = |what| BenchmarkId::new(what, format!("{groups} groups, {shards} shards"));
            measure.bench_function(id("published"), |bencher| bencher.iter_custom(|ticks| bench.run(ticks, false)));
            if shards > 0 {
                measure.bench_function(id("taken"), |bencher| bencher.iter_custom(|ticks| bench.run(ticks, true)));
            }
        }
    }
    measure.finish();
}

fn ledger(criterion: &mut Criterion) {
    let mut measure = criterion.benchmark_group("ledger");
    measure.throughput(Throughput::Elements(16));
    for (name, publications) in [("on", 65_536), ("off", 0)] {
        let mut bench = Bench::new(16, 2, publications);
        measure.bench_function(name, |bencher| bencher.iter_custom(|ticks| bench.run(ticks, false)));
    }
    measure.finish();
}

/// What a shard does with one publication and one form in use: fetch the frame, keep it.
fn ring(criterion: &mut Criterion) {
    let mut measure = criterion.benchmark_group("ring");
    measure.throughput(Throughput::Elements(1));
    let frames = Frames::new(store(), 0);
    for (name, capacity) in [("push, plain", 256), ("push, reliable", 4096)] {
        let mut ring = Ring::new(capacity, 64 << 20);
        let mut id = 0;
        measure.bench_function(name, |bencher| {
            bencher.iter(|| {
                id += 1;
                ring.push(id, frames.frame(Form::new(1)));
            });
        });
    }
    let mut ring = Ring::new(256, 64 << 20);
    (1..=300).for_each(|id| ring.push(id, frames.frame(Form::new(1))));
    let newest = ring.head() - 1;
    measure.bench_function("get", |bencher| bencher.iter(|| ring.get(black_box(newest)).map(|entry| entry.id)));
    measure.finish();
}
