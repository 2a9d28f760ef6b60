//! After 1,000 reconnects and 1,000 rounds of subscribing no task, no socket and no memory remains.
//!
//! One test, alone in its process: it counts the process's descriptors, tasks and pages.

mod brokers;

use std::fs;
use std::sync::Arc;

use brokers::kite::{Act, Kite};
use brokers::local::Local;
use brokers::xts::{self, Xts};
use brokers::{CredentialsFile, block, eventually, health, parse, start};
use flowcast::health::status::Status;
use flowcast::source::broker::feed_options::{BrokerOptions, Grace};
use flowcast::source::broker::feeds::Feeds;
use tokio::runtime::Handle;

const ROUNDS: u64 = 1000;

/// Pages the process may grow by between the first tenth of the rounds and the last: allocators and
/// lazily filled tables need some, a leak of 4 KiB a round needs 900.
const PAGES: u64 = 512;

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

fn pages() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_thousand_reconnects_and_a_thousand_rounds_of_subscribing_leave_nothing_behind() {
    let (kite, broker) = (Kite::start().await, Xts::start().await);
    let (kite_file, xts_file) = (CredentialsFile::kite("token"), CredentialsFile::xts("good"));
    // A first call starts what the process keeps: signal pipes, blocking threads, allocator arenas.
    rounds(&kite, &broker, &kite_file, &xts_file, 20).await;
    eventually("the first connections are closed", || (kite.connections() == 0).then_some(())).await;
    let (files, running) = (descriptors(), tasks());
    rounds(&kite, &broker, &kite_file, &xts_file, ROUNDS).await;
    eventually("every socket is closed", || (descriptors() <= files).then_some(())).await;
    eventually("every task has ended", || (tasks() <= running).then_some(())).await;
    subscribing().await;
    eventually("every task has ended", || (tasks() <= running).then_some(())).await;
}

/// Reconnects both feeds so many times, and stops them.
async fn rounds(kite: &Kite, broker: &Xts, kite_file: &CredentialsFile, xts_file: &CredentialsFile, rounds: u64) {
    let quick = "backoff_base = \"1ms\"\nbackoff_cap = \"1ms\"\ncalls_per_second = 1000\n";
    let urls = format!("base_url = {:?}\nws_url = {:?}\n", broker.base_url, broker.ws_url);
    let one = format!("{quick}ws_url = {:?}\nsymbols = {{ INFY = 408065 }}", kite.url);
    let other = format!("{quick}{urls}symbols = {{ RELIANCE = {{ segment = 1, id = 2885 }} }}");
    let settings =
        vec![parse(&block("kite", "zerodha", kite_file, &one)), parse(&block("xts", "xts_client", xts_file, &other))];
    let (feeds, _events) = start(settings);
    let _receiver = feeds.subscribe("test", feeds.symbols()).unwrap().receiver;
    let mut early = 0;
    for round in 1..=rounds {
        eventually("both are subscribed", || {
            let open = feeds.health().iter().all(|feed| feed.is_connected() && feed.reconnects >= round - 1);
            (open && kite.subscribed().len() == 1 && broker.subscribed() == [(1501, 2885)]).then_some(())
        })
        .await;
        if round == rounds / 10 {
            early = pages();
        }
        kite.act(Act::Drop);
        broker.act(xts::Act::Drop);
    }
    eventually("both are back", || feeds.health().iter().all(|feed| feed.reconnects >= rounds).then_some(())).await;
    assert!(pages() < early + PAGES, "{early} pages after a tenth of the rounds, {} after all", pages());
    assert!(health(&feeds).subscribed <= 1, "the figures count what is, not what was");
    feeds.stop().await;
}

/// 1,000 rounds of subscribing and leaving, without a grace.
async fn subscribing() {
    let status = Arc::new(Status::default());
    let options =
        BrokerOptions { feed_unsubscribe_grace: Grace(Some(std::time::Duration::ZERO)), ..BrokerOptions::default() };
    let feeds = Feeds::new(options, Arc::clone(&status));
    let symbols: Vec<String> = (0..100).map(|at| format!("S{at}")).collect();
    let names: Vec<&str> = symbols.iter().map(String::as_str).collect();
    let feed = Local::new("local", &names);
    feeds.add(feed.clone()).unwrap();
    let mut early = 0;
    for round in 0..ROUNDS {
        let user = format!("user {round}");
        let receiver = feeds.subscribe(&user, &names).unwrap().receiver;
        let other = feeds.subscribe("other", &names[..50]).unwrap().receiver;
        eventually("wanted", || (feed.wanted().len() == 100).then_some(())).await;
        feeds.unsubscribe(&user, &names[..10]);
        drop((receiver, other));
        eventually("not wanted", || feed.wanted().is_empty().then_some(())).await;
        if round == ROUNDS / 10 {
            early = pages();
        }
    }
    assert!(pages() < early + PAGES, "{early} pages after a tenth of the rounds, {} after all", pages());
    feeds.stop().await;
    assert_eq!(status.figures().len(), 0);
}
