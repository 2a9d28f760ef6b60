//! What does a publication cost as its subscribers grow: 1, 100, 1,000, 9,000?
//!
//! A real shard with real loopback sockets, one group, one tick at a time. `published` is what the
//! tick's thread pays, in processor time: it must not grow. `sent` is until the shard has handed the last subscriber its
//! frame: it must grow no faster than linearly. Both with and without the tick ledger, which nobody
//! reads. And what do faults on demand cost who does not use them: without a plan, with a plan of no faults, with one
//! that looks for somebody at every tick and finds nobody? The clients are emptied off the clock. 9,000 and not 10,000: each subscriber takes two of
//! the 20,000 files this process may open.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Args, Command, FromArgMatches};
use criterion::{BenchmarkId, Criterion, Throughput};
use flowcast::engine::frames::{Form, FrameStore, Frames};
use flowcast::engine::group::Group;
use flowcast::engine::hub::{Hub, HubOptions};
use flowcast::engine::ledger::LedgerOptions;
use flowcast::faults::batch_notes::NotedHub;
use flowcast::faults::fault_board::{FaultBoard, TickSource};
use flowcast::faults::fault_plan::FaultPlan;
use flowcast::faults::plan_reader::PlanSyntax;
use flowcast::health::status::Status;
use flowcast::server::http::listen::raise_file_limit;
use flowcast::server::shard::context::{Hubs, ShardContext};
use flowcast::server::shard::event_loop::Shard;
use flowcast::server::shard::mailbox::{
    Admitted, Arrival, ClientProtocol, NewSocket, ShardHandle, ShardMessage, UpgradedSocket,
};
use flowcast::server::shard::shard_options::ShardOptions;
use flowcast::server::shard::user_agents::AgentId;
use flowcast::streams::Streams;
use flowcast::streams::stream_options::StreamOptions;
use flowcast::wire::byte_budget::ByteBudget;
use flowcast::wire::gexbot::HubTopic;
use flowcast::wire::payload::Profile;
use flowcast::wire::webpubsub::{PubSubWire, Syntax};
use flowcast::wire::websocket::{self, Opcode};

const GROUP: &str = "blue_SPX_orderflow_orderflow";

fn main() {
    let files = raise_file_limit().unwrap_or(u64::MAX);
    // Only `cargo bench` says --bench; `cargo test` runs each once, to see that it works, and needs no
    // crowd for that.
    let measured = std::env::args().any(|arg| arg == "--bench");
    let most = if measured { files.saturating_sub(100) / 2 } else { 100 };
    let mut criterion = Criterion::default().configure_from_args().sample_size(10);
    let mut measure = criterion.benchmark_group("subscribers");
    for subscribers in [1, 100, 1_000, 9_000].into_iter().filter(|&subscribers| subscribers as u64 <= most) {
        measure.throughput(Throughput::Elements(subscribers as u64));
        for (ledger, publications) in [("ledger on", 65_536), ("ledger off", 0)] {
            let mut bench = Bench::new(subscribers, publications, None);
            for (what, until_sent) in [("published", false), ("sent", true)] {
                let id = BenchmarkId::new(format!("{what}, {ledger}"), subscribers);
                measure.bench_function(id, |bencher| bencher.iter_custom(|ticks| bench.run(ticks, until_sent)));
            }
        }
    }
    measure.finish();
    let mut measure = criterion.benchmark_group("faults");
    let subscribers = if measured { 1_000 } else { 10 };
    measure.throughput(Throughput::Elements(subscribers as u64));
    for (plan, text) in [
        ("no plan", None),
        ("a plan without faults", Some("")),
        ("a plan that finds nobody", Some("[[fault]]\nevery = 1\nwho = { key = \"nobody\" }\ndo = \"drop\"\n")),
    ] {
        let mut bench = Bench::new(subscribers, 65_536, text);
        let id = BenchmarkId::new(format!("sent, {plan}"), subscribers);
        measure.bench_function(id, |bencher| bencher.iter_custom(|ticks| bench.run(ticks, true)));
    }
    measure.finish();
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

struct Bench {
    hub: Arc<Hub>,
    group: Arc<Group>,
    shard: ShardHandle,
    store: Arc<dyn FrameStore>,
    clients: Vec<TcpStream>,
}

impl Bench {
    /// A shard with `subscribers` clients, all joined, and a plan of faults if there is one.
    fn new(subscribers: usize, ledger_publications: usize, plan: Option<&str>) -> Self {
        let ledger = LedgerOptions { ledger_publications };
        let hub = Arc::new(Hub::new("bench", &HubOptions { max_silent_groups: 0, ledger }));
        let group = hub.declare(GROUP, "SPX");
        let command = StreamOptions::augment_args(ShardOptions::augment_args(Command::new("bench")));
        let matches = command.get_matches_from(["bench"]);
        let streams = HubOptions { max_silent_groups: 0, ledger: LedgerOptions { ledger_publications: 0 } };
        let stream_options = StreamOptions::from_arg_matches(&matches).expect("defaults");
        let streams = Arc::new(Hub::new("streams", &streams));
        let streams = Streams::new(streams, [], stream_options.clone(), &Status::default());
        let faults = Arc::new(FaultBoard::new(TickSource { hub: NotedHub::Groups, is_every_batch: true }));
        hub.sequencer().note_on(Arc::clone(&faults), NotedHub::Groups);
        streams.hub().sequencer().note_on(Arc::clone(&faults), NotedHub::Streams);
        if let Some(plan) = plan {
            faults.begin(FaultPlan::read(plan.as_bytes(), PlanSyntax::Toml).expect("a plan"));
        }
        let context = ShardContext {
            hubs: Hubs { orderflow: Arc::clone(&hub), streams: Arc::clone(streams.hub()) },
            prefix: "blue".into(),
            tokens: None,
            options: Arc::new(ShardOptions::from_arg_matches(&matches).expect("defaults")),
            stream_options: stream_options.clone(),
            streams,
            silent: Arc::default(),
            faults,
            unfinished: ByteBudget::new(64 << 20, Arc::default(), Arc::default()),
            closed: Arc::default(),
        };
        let (shard, _) = Shard::spawn(0, &context).expect("a thread");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let clients = (0..subscribers).map(|_| client(&listener, &shard)).collect();
        let mut frame = Vec::new();
        websocket::append(Opcode::Binary, &[7; 300], &mut frame);
        while group.subscribers() < subscribers {
            std::thread::yield_now();
        }
        Self { hub, group, shard, store: Arc::new(OneFrame(frame.into())), clients }
    }

    /// `ticks` ticks, one by one, with the clients emptied in between.
    fn run(&mut self, ticks: u64, until_sent: bool) -> Duration {
        let mut total = Duration::ZERO;
        for tick in 0..ticks {
            let due = self.shard.stats().frames() + self.clients.len() as u64;
            let (started, cpu) = (Instant::now(), thread_cpu());
            self.hub.sequencer().begin(None).publish(&self.group, Frames::new(Arc::clone(&self.store), tick as u32));
            let published = thread_cpu().saturating_sub(cpu);
            while self.shard.stats().frames() < due {
                std::thread::yield_now();
            }
            total += if until_sent { started.elapsed() } else { published };
            let mut buffer = [0; 4096];
            for client in &mut self.clients {
                // Nothing there is fine: the frame is then read with the next.
                while client.read(black_box(&mut buffer)).is_ok_and(|length| length > 0) {}
            }
        }
        total
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // The shard's thread ends when its last client is gone.
        let _ = self.shard.send(ShardMessage::Drain);
    }
}

/// Processor time of this thread. The doorbell wakes the shard, which may take this very processor:
/// the time until the publisher runs again is not its own.
fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A client as the upgrade leaves it, and its join.
fn client(listener: &TcpListener, shard: &ShardHandle) -> TcpStream {
    let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("a socket");
    let (socket, _) = listener.accept().expect("the client just connected");
    socket.set_nonblocking(true).expect("a socket option");
    let join = [&[0x32, GROUP.len() as u8 + 2, 0x0a, GROUP.len() as u8], GROUP.as_bytes()].concat();
    // A mask of zeros leaves the payload as it is.
    client.write_all(&[&[0x82, 0x80 | join.len() as u8, 0, 0, 0, 0], &join[..]].concat()).expect("an open socket");
    client.set_nonblocking(true).expect("a socket option");
    let wire = PubSubWire { syntax: Syntax::Protobuf, reliable: false, profile: Profile::V2026_04 };
    let protocol =
        ClientProtocol::WebPubSub { wire, hub: HubTopic::Orderflow.hub(false), assignment: None, session: None };
    let (admitted, _) = Admitted::take(&Arc::default());
    let mut letter = Some(ShardMessage::Open(Arrival {
        client: NewSocket {
            socket: UpgradedSocket { socket, answer: Vec::new() },
            agent: AgentId::default(),
            admitted,
        },
        read: Bytes::new(),
        user: "bench".into(),
        protocol,
        restored: None,
        wanted: None,
    }));
    while let Some(unsent) = letter.take() {
        // The mailbox is bounded; the bench is faster than the shard.
        if shard.has_room() {
            shard.send(unsent).expect("there was room");
        } else {
            letter = Some(unsent);
            std::thread::yield_now();
        }
    }
    client
}
