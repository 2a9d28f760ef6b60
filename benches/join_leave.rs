//! What does a shard's first join and last leave of a group cost, alone and against other shards?
//!
//! Only these touch the hub's map; later joins of the same shard are counters. `declared` groups
//! stay, `silent` ones are made and removed each time. With several threads each is a shard that
//! joins and leaves the same groups as the others: the worst case for the map's locks. `while
//! publishing` adds a publisher that never rests.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use flowcast::engine::frames::{Form, FrameStore, Frames};
use flowcast::engine::hub::{Hub, HubOptions};
use flowcast::engine::ledger::LedgerOptions;

const GROUPS: usize = 128;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("join and leave");
    group.throughput(Throughput::Elements(1));
    for (name, declared) in [("declared", true), ("silent", false)] {
        for threads in [1, 2, 4] {
            let (hub, names) = hub(declared);
            group.bench_function(format!("{name}, {threads} shards"), |bencher| {
                bencher.iter_custom(|times| churn(&hub, &names, threads, times));
            });
        }
    }
    let (hub, names) = hub(true);
    group.bench_function("declared, 1 shard, while publishing", |bencher| {
        bencher.iter_custom(|times| while_publishing(&hub, || churn(&hub, &names, 1, times)));
    });
    group.finish();
    criterion.final_summary();
}

fn hub(declared: bool) -> (Arc<Hub>, Vec<String>) {
    let ledger = LedgerOptions { ledger_publications: 65_536 };
    let hub = Arc::new(Hub::new("bench", &HubOptions { max_silent_groups: GROUPS, ledger }));
    let names: Vec<_> = (0..GROUPS).map(|group| format!("blue_T{group}_orderflow_orderflow")).collect();
    if declared {
        for name in &names {
            hub.declare(name, name);
        }
    }
    (hub, names)
}

/// `times` joins and leaves on each of `threads` threads; the time per join and leave of one of them.
fn churn(hub: &Hub, names: &[String], threads: usize, times: u64) -> Duration {
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for name in names.iter().cycle().take(times as usize) {
                    let (group, receiver) = hub.subscribe(name).expect("as many silent groups as names");
                    black_box(receiver);
                    hub.unsubscribe(&group);
                }
            });
        }
    });
    started.elapsed()
}

fn while_publishing(hub: &Hub, measure: impl FnOnce() -> Duration) -> Duration {
    struct Nothing;
    impl FrameStore for Nothing {
        fn frame(&self, _: u32, _: Form) -> Bytes {
            Bytes::new()
        }
        fn timestamp(&self, _: u32) -> i64 {
            0
        }
    }
    let stop = AtomicBool::new(false);
    let (group, receiver) = hub.subscribe("blue_T0_orderflow_orderflow").expect("a declared group");
    let frames = Frames::new(Arc::new(Nothing), 0);
    let taken = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                hub.sequencer().begin(None).publish(&group, frames.clone());
            }
        });
        let taken = measure();
        stop.store(true, Ordering::Relaxed);
        taken
    });
    drop(receiver);
    hub.unsubscribe(&group);
    taken
}
