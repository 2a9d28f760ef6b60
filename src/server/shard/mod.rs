//! A shard: one thread that owns its connections and shares nothing with the others.
//!
//! ```text
//! doorbell ─▶ drain (receivers ─▶ rings) ─▶ sweep (128 sessions a turn) ─▶ one send each
//! epoll    ─▶ receive ─▶ requests (join, leave, …) ─▶ acks
//! ```
//!
//! The sweep rolls: between two turns the shard looks at the doorbell, the sockets and the timers,
//! so a newer publication joins the same send of whoever was not served yet. One slow socket
//! delays nobody: the kernel takes what it takes, and a cursor remembers the rest.

mod bell;
mod connection;
mod keepalive;
pub mod lanes;
pub mod lifecycle;
mod marks;
mod outbox;
mod refusal;
mod requests;
mod session;
pub mod stats;
pub mod subscriptions;
mod timeouts;
#[cfg_attr(not(feature = "io-uring"), path = "no_uring.rs")]
mod uring;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::time::Timespec;
use slab::Slab;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::engine::clock;
use crate::engine::policy::LagOptions;
use crate::health::log_limit::{LogLimiter, SeenNames};
use crate::server::shard::bell::{Bell, Signal};
use crate::server::shard::keepalive::Keepalive;
use crate::server::shard::lanes::{Groups, Hubs};
use crate::server::shard::marks::{Mark, Marks};
use crate::server::shard::outbox::Batch;
use crate::server::shard::refusal::HeldAck;
use crate::server::shard::session::{Pick, Session};
use crate::server::shard::stats::ShardStats;
use crate::server::shard::subscriptions::Grant;
use crate::server::shard::timeouts::Timeouts;
use crate::streams::stream_options::StreamOptions;
use crate::wire::Wire;
use crate::wire::streams::Channels;
use crate::wire::webpubsub;

/// One read per readiness event; what is left raises the next event. A thousand small requests fit:
/// more at once would keep the others waiting.
const READ_BUFFER: usize = 16 << 10;

/// Letters that may wait for a shard; beyond it the server answers 503.
const MAILBOX: usize = 4096;

/// How far the start of the sweep moves back from tick to tick: 1/494 of the way round, so that every
/// subscriber is early as often as late. One that is served more than a retransmission timeout (200 ms
/// or more) after the last time makes its TCP acknowledge the next sixteen segments at once, each with a
/// packet of its own (`tcp_event_data_recv` in the kernel's `net/ipv4/tcp_input.c`). So nobody waits
/// noticeably longer than a tick: a small step back makes all a little later, and those that come
/// from the end to the front earlier.
const STEP: u32 = 0x0084_8fd4;

/// `epoll` data of the doorbell; sessions use their slab key.
const BELL: u64 = u64::MAX;

/// How connections are treated.
#[derive(Debug, Clone, clap::Args)]
pub struct ShardOptions {
    /// Threads that serve connections; 0: one per core
    #[arg(long, env = "FLOWCAST_SHARDS", default_value_t = 0, value_name = "SHARDS")]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=64))]
    pub shards: u8,
    /// Send through io_uring, if the kernel has it and allows it
    #[arg(long, env = "FLOWCAST_IO_URING", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub io_uring: bool,
    /// Groups one connection may join
    #[arg(long, env = "FLOWCAST_MAX_GROUPS_PER_CONNECTION", default_value_t = 150, value_name = "GROUPS")]
    pub max_groups_per_connection: usize,
    /// Largest message a client may send, bytes
    #[arg(long, env = "FLOWCAST_MAX_MESSAGE_BYTES", default_value_t = 512 << 10, value_name = "BYTES")]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(125..=64 << 20))]
    pub max_message_bytes: usize,
    /// Bytes of answers a client may leave unread before it is closed
    #[arg(long, env = "FLOWCAST_MAX_REPLY_BYTES", default_value_t = 256 << 10, value_name = "BYTES")]
    pub max_reply_bytes: usize,
    /// Milliseconds an ack is held back: an ack that overtakes the caller of the Python
    /// SDK costs it 30 s
    #[arg(long, env = "FLOWCAST_ACK_DELAY_MS", default_value_t = 2, value_name = "MS")]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=1000))]
    pub ack_delay_ms: u64,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub keepalive: Keepalive,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub lag: LagOptions,
}

impl ShardOptions {
    /// How many shards there will be.
    pub fn count(&self) -> usize {
        match self.shards {
            0 => thread::available_parallelism().map_or(1, usize::from).min(64),
            shards => usize::from(shards),
        }
    }
}

/// What the rest of the server tells a shard.
pub enum Letter {
    /// A client has been upgraded.
    Open(Arrival),
    /// A client wants its session back, before it is answered.
    Claim {
        /// The session.
        id: Uuid,
        /// The token it was given.
        token: u128,
        /// The session's wire, or nothing if it cannot be recovered.
        reply: oneshot::Sender<Option<webpubsub::Wire>>,
    },
    /// A client whose claim was granted has been upgraded.
    Attach {
        /// The session.
        id: Uuid,
        /// Its new socket.
        socket: TcpStream,
        /// What it sent behind the handshake.
        read: Bytes,
        /// Counts it until the shard does.
        admitted: Admitted,
    },
    /// Tell everybody, close everything, and end.
    Drain,
}

/// An upgraded client.
pub struct Arrival {
    /// Its non-blocking socket.
    pub socket: TcpStream,
    /// What it sent behind the handshake.
    pub read: Bytes,
    /// Who it says it is.
    pub user: Box<str>,
    /// What it speaks.
    pub protocol: Protocol,
    /// Counts it until the shard does.
    pub admitted: Admitted,
}

/// What an upgraded client speaks, and may.
pub enum Protocol {
    /// Azure Web PubSub.
    WebPubSub(webpubsub::Wire),
    /// The JSON streams.
    Streams {
        /// What its token allows.
        grant: Grant,
        /// Counts it among the connections of the streams until the shard does.
        admitted: Admitted,
    },
}

/// A place among the connections there may be, held until the shard's own count has it.
pub struct Admitted(Arc<AtomicUsize>);

impl Admitted {
    /// Takes a place. Returns how many others are under way besides.
    pub fn take(pending: &Arc<AtomicUsize>) -> (Self, usize) {
        let others = pending.fetch_add(1, Ordering::Relaxed);
        (Self(Arc::clone(pending)), others)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The eventfd of a shard.
struct Event(OwnedFd);

impl Signal for Event {
    fn raise(&self) {
        // Fails only when the counter would overflow, which is a ring too.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    fn lower(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl Wake for Bell<Event> {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

/// Where letters to a shard go.
#[derive(Clone)]
pub struct ShardHandle {
    mailbox: Sender<Letter>,
    bell: Arc<Bell<Event>>,
    stats: Arc<ShardStats>,
}

/// A shard that takes no more letters for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected room in a shard's mailbox, but it is full or its shard has ended")]
pub struct MailboxFull;

impl ShardHandle {
    /// Delivers a letter.
    pub fn send(&self, letter: Letter) -> Result<(), MailboxFull> {
        self.mailbox.try_send(letter).map_err(|(TrySendError::Full(_) | TrySendError::Disconnected(_))| MailboxFull)?;
        self.bell.ring();
        Ok(())
    }

    /// Whether a letter would be taken now.
    pub fn has_room(&self) -> bool {
        !self.mailbox.is_full()
    }

    /// The shard's counters.
    pub fn stats(&self) -> &ShardStats {
        &self.stats
    }
}

/// One thread's connections and everything they need.
pub struct Shard {
    index: u8,
    options: Arc<ShardOptions>,
    stream_options: StreamOptions,
    channels: Arc<Channels>,
    prefix: Arc<str>,
    stats: Arc<ShardStats>,
    sessions: Slab<Session>,
    marks: Marks,
    /// Reliable sessions by connection id.
    ids: HashMap<Uuid, u32>,
    groups: Groups,
    timers: Timers,
    next_serial: u32,
    /// Sessions with something to send, in the order of the sweep.
    queue: VecDeque<u32>,
    warnings: LogLimiter,
    epoll: OwnedFd,
    read_buffer: Box<[u8]>,
    scratch: Vec<u8>,
    picks: Vec<Pick>,
    batch: Batch,
    draining: bool,
    /// Where the next sweep starts, as a fraction of 2^32.
    rotation: u32,
    bell: Arc<Bell<Event>>,
    mailbox: Receiver<Letter>,
}

/// Everything a shard waits for. Entries carry a session's key and its serial at the time.
struct Timers {
    acks: Timeouts<HeldAck>,
    /// Of Web PubSub, and of the JSON streams.
    pings: [Pings; 2],
    closes: Timeouts<(u32, u32)>,
    detached: Timeouts<(u32, u32)>,
    /// When tokens of open connections expire, ms; an entry goes with its connection.
    expiries: BTreeSet<(u64, u32)>,
}

/// The keep-alive of one protocol's connections.
struct Pings {
    due: Timeouts<(u32, u32)>,
    answers: Timeouts<(u32, u32)>,
    /// From a ping to the moment its answer is missed, ms.
    grace_ms: u64,
}

impl Pings {
    fn new(interval_ms: u64, grace_ms: u64) -> Self {
        Self { due: Timeouts::new(interval_ms), answers: Timeouts::new(grace_ms), grace_ms }
    }
}

impl Timers {
    /// The keep-alive of a wire's connections.
    fn pings(&mut self, wire: Wire) -> &mut Pings {
        match wire {
            Wire::WebPubSub(_) => &mut self.pings[0],
            Wire::Streams => &mut self.pings[1],
        }
    }
}

impl Timers {
    fn next_ms(&self) -> Option<u64> {
        let next = [
            self.acks.next_ms(),
            self.closes.next_ms(),
            self.detached.next_ms(),
            self.expiries.first().map(|(due_ms, _)| *due_ms),
        ];
        let pings = self.pings.iter().flat_map(|pings| [pings.due.next_ms(), pings.answers.next_ms()]);
        next.into_iter().chain(pings).flatten().min()
    }
}

/// The shard's clock: milliseconds of `CLOCK_MONOTONIC`.
fn now_ms() -> u64 {
    clock::monotonic_ns() / 1_000_000
}

/// What all shards share.
#[derive(Clone)]
pub struct Common {
    /// The hubs.
    pub hubs: Hubs,
    /// First part of every orderflow group's name.
    pub prefix: Arc<str>,
    /// How connections are treated.
    pub options: Arc<ShardOptions>,
    /// How those of the JSON streams are.
    pub stream_options: StreamOptions,
    /// The channels of the JSON streams.
    pub channels: Arc<Channels>,
    /// Groups without data that were told of.
    pub silent: Arc<SeenNames>,
}

impl Shard {
    /// Starts a shard's thread.
    pub fn spawn(index: u8, common: Common) -> io::Result<(ShardHandle, JoinHandle<()>)> {
        let Common { hubs, prefix, options, stream_options, channels, silent } = common;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = Arc::new(Bell::new(Event(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?)));
        epoll::add(&epoll, &bell.signal().0, epoll::EventData::new_u64(BELL), epoll::EventFlags::IN)?;
        for hub in [&hubs.orderflow, &hubs.streams] {
            hub.attach(&Arc::clone(&bell).into());
        }
        let (letters, mailbox) = bounded(MAILBOX);
        let stats = Arc::new(ShardStats::default());
        let handle = ShardHandle { mailbox: letters, bell: Arc::clone(&bell), stats: Arc::clone(&stats) };
        let keepalive = options.keepalive;
        let stream_ping_ms = stream_options.ping_interval * 1000;
        let shard = Self {
            index,
            groups: Groups::new(hubs, options.lag, Arc::clone(&stats), silent),
            timers: Timers {
                acks: Timeouts::new(options.ack_delay_ms),
                pings: [
                    Pings::new(keepalive.ping_interval_seconds * 1000, keepalive.pong_grace_ms()),
                    Pings::new(stream_ping_ms, 2 * stream_ping_ms),
                ],
                closes: Timeouts::new(keepalive.write_timeout_seconds * 1000),
                detached: Timeouts::new(options.lag.session_timeout_seconds * 1000),
                expiries: BTreeSet::new(),
            },
            options,
            stream_options,
            channels,
            prefix,
            stats,
            sessions: Slab::new(),
            marks: Marks::default(),
            ids: HashMap::new(),
            next_serial: 0,
            queue: VecDeque::new(),
            warnings: LogLimiter::default(),
            epoll,
            read_buffer: vec![0; READ_BUFFER].into(),
            scratch: Vec::new(),
            picks: Vec::new(),
            batch: Batch::default(),
            draining: false,
            rotation: 0,
            bell,
            mailbox,
        };
        let thread = thread::Builder::new().name(format!("shard-{index}")).spawn(move || shard.run())?;
        Ok((handle, thread))
    }

    fn run(mut self) {
        self.batch.prepare(self.options.io_uring, self.index);
        let mut events = Vec::with_capacity(256);
        while !(self.draining && self.sessions.is_empty()) {
            self.wait(&mut events);
            for event in events.drain(..) {
                match event.data.u64() {
                    BELL => self.bell.answer(),
                    key => self.ready(key as u32, event.flags),
                }
                // One load when there is nothing: a flood of requests must not fill the channels.
                self.drain();
            }
            while let Ok(letter) = self.mailbox.try_recv() {
                self.open_letter(letter);
            }
            self.drain();
            self.sweep();
            self.expire(now_ms());
        }
    }

    /// Waits for a socket, the doorbell or a timer; only looks while the sweep is not over.
    fn wait(&self, events: &mut Vec<epoll::Event>) {
        let timeout_ms = match self.timers.next_ms() {
            _ if !self.queue.is_empty() => Some(0),
            Some(due_ms) => Some(due_ms.saturating_sub(now_ms())),
            None => None,
        };
        let timeout = timeout_ms.map(|ms| Timespec::try_from(Duration::from_millis(ms)).unwrap_or_default());
        // EINTR is a wake-up like any other; nothing else can fail with valid descriptors.
        let _ = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), timeout.as_ref());
    }

    fn open_letter(&mut self, letter: Letter) {
        match letter {
            Letter::Open(arrival) => self.open(arrival),
            Letter::Claim { id, token, reply } => {
                let claimed = self.claim(id, token);
                // If nobody waits any more, the session goes on waiting for its client.
                let _ = reply.send(claimed);
            }
            Letter::Attach { id, socket, read, admitted } => {
                self.attach(id, socket, &read);
                drop(admitted);
            }
            Letter::Drain => self.close_all(),
        }
    }

    /// Moves publications into the rings and queues whoever has something to send.
    fn drain(&mut self) {
        let Self { groups, sessions, marks, queue, rotation, .. } = self;
        let mut blocked = Vec::new();
        let mut moved = false;
        // Nobody was queued: whoever is when the next lane comes had everything until now.
        let all_caught_up = queue.is_empty();
        groups.drain(|lane_key, lane, first_new| {
            moved = true;
            let mut all_had_the_rest = true;
            // From another start each time, or the same subscribers would always be last.
            let start = ((u64::from(*rotation) * lane.subscribers.len() as u64) >> 32) as usize;
            let (last, first) = lane.subscribers.split_at(start);
            for &key in first.iter().chain(last) {
                match marks.get(key) {
                    Mark::Ready => {
                        marks.set(key, Mark::Queued);
                        queue.push_back(key);
                        continue;
                    }
                    Mark::Queued if all_caught_up => continue,
                    Mark::Blocked => blocked.push(key),
                    Mark::Queued | Mark::Away => {}
                }
                // Behind, but perhaps in another group only.
                let membership = sessions[key as usize].membership(lane_key);
                all_had_the_rest &= membership.is_some_and(|here| here.cursor >= first_new);
            }
            all_had_the_rest
        });
        if moved {
            *rotation = rotation.wrapping_sub(STEP);
        }
        // Once per session, not once per lane.
        blocked.sort_unstable();
        blocked.dedup();
        for key in blocked {
            self.check_lag(key);
        }
    }
}
