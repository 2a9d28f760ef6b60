//! The floor: a server that does nothing but `send(2)`, to measure others against.
//!
//! It greets the swarm as flowcast does (negotiate, upgrade, joins, acks, pings, tick ledger), so that
//! the same clients connect to both, and then one thread sends the same ready bytes to every socket at
//! every tick: no groups, no cursors, no lag rule. The bytes are a recording of what flowcast sent, so
//! frames are equally long; on the JSON streams they are what the swarm has just posted, to either.
//!
//! Reading order: [`recording`] and [`publish`] (what is sent) → [`acceptor`] (who it is sent to;
//! [`messages`] are what it says) → [`sender`] (the sweep; [`uring`] is one of its ways) → [`tick_ledger`] (what was sent when).

mod acceptor;
mod messages;
mod publish;
mod recording;
mod sender;
mod tick_ledger;
mod uring;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use socket2::{Domain, Protocol as Transport, Socket, Type};
use swarm::wire::form::Protocol;

use self::acceptor::Acceptor;
use self::recording::Recording;
use self::sender::{Mode, Sender};
use self::tick_ledger::Ledger;

/// Connections the kernel queues before they are accepted.
const BACKLOG: i32 = 4096;

/// A server that does nothing but send(2): the floor others are measured against.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The subprotocol of the recording; no other is accepted
    #[arg(long, value_enum, default_value_t = Protocol::Protobuf)]
    protocol: Protocol,
    /// What a server sent to one client behind the handshake; its data frames are sent in rotation.
    /// Without it nothing is sent but, on the JSON streams, what is posted
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,
    /// Time between two ticks, such as 20ms
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// How a tick leaves: `send` is one send(2) per frame, `joined` one per tick, `io-uring` batches of
    /// those
    #[arg(long, value_enum, default_value_t = Mode::Send)]
    mode: Mode,
    /// Bytes of a connection's kernel send buffer; flowcast's default
    #[arg(long, default_value_t = 128 << 10, value_name = "BYTES")]
    send_buffer_bytes: usize,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let recording = args.recording.as_deref().map(|path| Recording::read(path, args.protocol)).transpose()?;
    swarm::limits::raise_file_limit(uring::MAX_MEMBERS.into())?;
    let listener = listen(&args).context("cannot listen")?;
    let address = listener.local_addr()?;

    let (members, joined) = channel();
    let (posts, posted) = channel();
    let ledger = Arc::new(Ledger::start()?);
    let acceptor = Acceptor::new(listener, args.protocol, members, posts, Arc::clone(&ledger))?;
    thread::Builder::new().name("acceptor".to_owned()).spawn(move || acceptor.run())?;
    let sender = Sender::new(args.mode, args.interval, joined, ledger)?;
    println!("sender thread {}", rustix::thread::gettid().as_raw_nonzero());
    println!("floor listening on http://{address}");
    std::io::stdout().flush()?;
    match recording {
        Some(recording) => sender.run(recording),
        None if args.protocol == Protocol::Streams => sender.relay(&posted),
        // Sockets that join must stay open.
        None => loop {
            thread::park();
        },
    }
}

fn listen(args: &Args) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Transport::TCP))?;
    // Accepted sockets inherit both.
    socket.set_send_buffer_size(args.send_buffer_bytes)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, args.port)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
