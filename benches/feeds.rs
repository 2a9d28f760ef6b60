//! How many Kite packets and XTS events does one core decode a second, and how long is a record's way
//! from a broker's socket to an in-process subscriber?
//!
//! `decode` ends at the packet's or event's fields, `record` at the normalized record a subscriber
//! gets. Messages are as the brokers send them: Kite's with 100 full packets each, XTS's captured
//! 1501, 1502 and 1512 events. Goals: 5 M full Kite packets, 200 k XTS full events a second and core.
//!
//! Decoding is measured in CPU time of the thread, which neighbours on a shared machine take little
//! from.
//!
//! The way is measured over loopback sockets, one record at a time: from before a server writes a
//! packet to when `recv` has returned it. p50, p99 and the most of 20,000; the floor is the same
//! packet over the same kind of socket, read by a bare WebSocket client.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use flowcast::health::status::Status;
use flowcast::source::broker::feed_options::BrokerOptions;
use flowcast::source::broker::feeds::Feeds;
use flowcast::source::broker::instrument::{Broker, Exchange, Instrument};
use flowcast::source::broker::kite::packet;
use flowcast::source::broker::quote::ReceivedAt;
use flowcast::source::broker::xts::event_fields::Code;
use flowcast::source::broker::xts::socketio::{self, Frame};
use flowcast::source::broker::xts::xts_events::{self, XtsUpdate};
use flowcast::source::broker::{build, feed_settings};
use futures_util::{SinkExt, StreamExt};
use rustix::time::{ClockId, clock_gettime};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

/// Packets in a Kite message.
const PACKETS: usize = 100;

fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).expect("a fixture")
}

/// Criterion's own clock is the wall's.
fn cpu_time(rounds: u64, mut work: impl FnMut()) -> Duration {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let began = now();
    (0..rounds).for_each(|_| work());
    now().saturating_sub(began)
}

fn main() {
    let measuring = std::env::args().any(|argument| argument == "--bench");
    let mut criterion = Criterion::default().configure_from_args();
    kite(&mut criterion);
    xts(&mut criterion);
    criterion.final_summary();
    way(if measuring { 20_000 } else { 20 });
}

fn kite(criterion: &mut Criterion) {
    let one = fixture("kite/msg_full_infy.bin");
    let mut frame = (PACKETS as u16).to_be_bytes().to_vec();
    (0..PACKETS).for_each(|_| frame.extend(&one[2..]));
    let instrument = Instrument { symbol: "INFY".into(), exchange: Exchange::Nse, id: 408_065 };
    let feed: Arc<str> = "kite".into();

    let mut group = criterion.benchmark_group("kite full packets");
    group.throughput(Throughput::Elements(PACKETS as u64));
    group.bench_function("decode", |bencher| {
        let mut work = || {
            for packet in packet::packets(black_box(&frame)) {
                let _ = black_box(packet);
            }
        };
        bencher.iter_custom(|rounds| cpu_time(rounds, &mut work));
    });
    group.bench_function("record", |bencher| {
        let mut work = || {
            let received = ReceivedAt::now();
            for packet in packet::packets(black_box(&frame)) {
                black_box(Arc::new(packet.expect("a good frame").market_data(&feed, &instrument, received)));
            }
        };
        bencher.iter_custom(|rounds| cpu_time(rounds, &mut work));
    });
    group.finish();
}

fn xts(criterion: &mut Criterion) {
    let text = String::from_utf8(fixture("xts/captured-session.jsonl")).expect("text");
    let frames = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let frames: Vec<String> = frames.filter_map(|line| line["frame"].as_str().map(str::to_owned)).collect();
    let instrument = Instrument { symbol: "RELIANCE".into(), exchange: Exchange::Nse, id: 2885 };
    let feed: Arc<str> = "xts".into();
    let mut group = criterion.benchmark_group("xts full events");
    for code in ["1501", "1502", "1512"] {
        let name = format!("42[\"{code}-json-full\"");
        let frames: Vec<&String> = frames.iter().filter(|frame| frame.starts_with(&name)).collect();
        let code = Code::from_number(code.parse().expect("a number")).expect("a code");
        group.throughput(Throughput::Elements(frames.len() as u64));
        group.bench_function(format!("{} to record", code.number()), |bencher| {
            let mut work = || {
                for frame in &frames {
                    let received = ReceivedAt::now();
                    let Ok(Frame::Event { payload, .. }) = socketio::parse(black_box(frame)) else {
                        panic!("an event")
                    };
                    let read = xts_events::full(code, &payload, received.unix_ms, |said| {
                        let XtsUpdate::Data(_, code, fields) = said else { return };
                        let record = fields.market_data(code, Broker::XtsPro, &feed, &instrument, received);
                        black_box(Arc::new(record));
                    });
                    read.expect("a good event");
                }
            };
            bencher.iter_custom(|rounds| cpu_time(rounds, &mut work));
        });
    }
    let noise: Vec<&String> = frames.iter().filter(|frame| frame.contains("1105-json")).collect();
    group.throughput(Throughput::Elements(noise.len() as u64));
    group.bench_function("1105 noise", |bencher| {
        let mut work = || noise.iter().for_each(|frame| drop(black_box(socketio::parse(black_box(frame)))));
        bencher.iter_custom(|rounds| cpu_time(rounds, &mut work));
    });
    group.finish();
}

/// A server that writes what it is given to its one client.
async fn server() -> (String, mpsc::Sender<Message>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("ws://{}", listener.local_addr().expect("bound"));
    let (sender, mut messages) = mpsc::channel::<Message>(1);
    tokio::spawn(async move {
        let (stream, _): (TcpStream, _) = listener.accept().await.expect("a client");
        stream.set_nodelay(true).expect("a socket");
        let mut socket = accept_async(stream).await.expect("an upgrade");
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => socket.send(message).await.expect("an open socket"),
                    None => break,
                },
                // Subscriptions: every packet is sent anyway.
                said = socket.next() => if !matches!(said, Some(Ok(_))) { break },
            }
        }
    });
    (url, sender)
}

/// The latency of single records, feed and floor in turn.
fn way(records: usize) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (url, to_feed) = server().await;
        let folder = tempfile::tempdir().expect("a folder");
        let credentials = folder.path().join("kite.toml");
        fs::write(&credentials, "api_key = \"k\"\naccess_token = \"t\"\n").expect("a file");
        let text = format!(
            "[[feeds]]\nid = \"kite\"\nbroker = \"zerodha\"\nws_url = {url:?}\ncredentials_file = '{}'\n\
             silence = \"1h\"\nsymbols = {{ INFY = 408065 }}\n",
            credentials.display()
        );
        let mut table: toml::Table = toml::from_str(&text).expect("TOML");
        let feed = feed_settings::feeds(table.remove("feeds").expect("there")).expect("good settings").remove(0);
        let feeds = Feeds::new(BrokerOptions::default(), Arc::new(Status::default()));
        feeds.add(build(feed).expect("a feed")).expect("the first");
        let mut receiver = feeds.subscribe("bench", ["INFY"]).expect("offered").receiver;
        let (bare_url, to_bare) = server().await;
        let (mut bare, _) = tokio_tungstenite::connect_async(bare_url).await.expect("a socket");

        let packet = Message::binary(fixture("kite/msg_full_infy.bin"));
        // The subscription must be in place before what is measured.
        while !feeds.health()[0].is_connected() || feeds.health()[0].subscribed == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (mut through, mut floor) = (Vec::with_capacity(records), Vec::with_capacity(records));
        for _ in 0..records {
            let began = Instant::now();
            to_feed.send(packet.clone()).await.expect("the server");
            receiver.recv().await.expect("a record");
            through.push(began.elapsed());
            let began = Instant::now();
            to_bare.send(packet.clone()).await.expect("the server");
            bare.next().await.expect("a message").expect("an open socket");
            floor.push(began.elapsed());
        }
        for (name, mut times) in [("feed to subscriber", through), ("bare socket", floor)] {
            times.sort_unstable();
            let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
            println!("{name}: p50 {:?}, p99 {:?}, most {:?} of {records}", at(0.5), at(0.99), at(1.0));
        }
        feeds.stop().await;
    });
}
