//! One receiving thread: an epoll descriptor, a table of its clients' connections, one read buffer for all.
//!
//! No connection has a task, a thread or a buffer of its own; between two reads it is a few hundred bytes
//! in the table. [`receive`] is the path every frame takes, [`message`] the slow side of it, [`setup`]
//! how a client comes up, [`ending`] how it goes, [`timers`] what is due by time.

pub mod client;
pub mod ending;
pub mod followed;
pub mod held;
pub mod measure;
pub mod message;
pub mod ramp;
pub mod receive;
pub mod setup;
pub mod shared;
pub mod stream_client;
pub mod tally;
pub mod timers;
pub mod transport;

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, Sender, SyncSender};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::time::Timespec;

use self::client::{Client, ClientReceipts, Clients};
use self::measure::Measure;
use self::shared::{Finish, Shared};
use self::tally::{Settled, Tally, WorkerResult};
use self::transport::Connector;
use crate::clock::{MILLISECOND, SECOND, now_ns, thread_cpu_ns};
use crate::http::Trust;
use crate::ledger::follow::Event;
use crate::ledger::{Groups, Tick};
use crate::negotiate::NegotiationPool;
use crate::orders::book::OrderBook;
use crate::plan::{Class, Plan};
use crate::sequence::witness::HeardNumber;
use crate::stats::histogram;
use crate::stats::interval::Interval;
use crate::stats::procfs;
use crate::verify::Identity;
use crate::verify::fault::Faults;
use crate::verify::slot::LedgerEntry;
use crate::verify::verifier::Verifier;
use crate::wire::downstream::Reader;
use crate::wire::group::GroupName;

/// Events taken from the kernel at once: few, so that time and ledger are looked at between them.
const EVENTS: usize = 256;

/// The longest wait for events.
const MAX_WAIT_NS: i64 = 2 * MILLISECOND.cast_signed();

/// The read buffer: one message and one read.
const BUFFER_BYTES: usize = crate::wire::frame::MAX_MESSAGE_BYTES * 2;

/// How often the end of the run checks whether everybody has everything.
const FINISH_CHECK_NS: u64 = 10 * MILLISECOND;

/// Faults that are listed where many are ordered: each must be compared with its order.
const MAX_ORDERED_FAULTS: usize = 500_000;

/// Why a worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The kernel refused a descriptor or a thread.
    #[error("a worker could not start: {0}")]
    Io(#[from] std::io::Error),
    /// The certificates are not usable.
    #[error("a worker could not set TLS up: {0}")]
    Tls(#[from] rustls::Error),
}

/// What a worker is given.
#[derive(Debug)]
pub struct WorkerSetup {
    /// Which worker this is.
    pub number: u32,
    /// The run.
    pub plan: Arc<Plan>,
    /// What main and workers tell each other.
    pub shared: Arc<Shared>,
    /// Where socket URLs come from.
    pub negotiations: NegotiationPool,
    /// Whom TLS trusts.
    pub trust: Trust,
    /// Ticks from the ledger.
    pub ledger: Receiver<Event>,
    /// Where finished seconds go.
    pub intervals: Sender<Interval>,
    /// Where numbers heard on the JSON streams go, if an external producer gives them.
    pub heard_numbers: Option<SyncSender<HeardNumber>>,
}

/// See the module's documentation.
pub struct Worker {
    number: u32,
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    negotiations: NegotiationPool,
    connector: Connector,
    ledger: Receiver<Event>,
    intervals: Sender<Interval>,
    heard_numbers: Option<SyncSender<HeardNumber>>,
    epoll: OwnedFd,
    clients: Clients,
    verifier: Verifier,
    book: OrderBook,
    // What the channels of /ws number their messages by, minus the numbers in the payloads; by group.
    channel_offsets: Vec<Option<u64>>,
    // The publisher's number of what was published last; by group.
    newest: Vec<u64>,
    // Clients with a policy to whom no message was due yet in some channel.
    awaiting_first: Vec<usize>,
    reader: Reader,
    groups: Groups,
    buffer: Box<[u8]>,
    scratch: Vec<u8>,
    interval: Interval,
    settled: Settled,
    tally: Tally,
    // The groups of the plan, taken apart; none for the channels of the JSON streams.
    names: Vec<Option<GroupName>>,
    // Connections whose negotiation has been asked for at least once.
    ramped: u32,
    next_source: usize,
    timers: timers::Timers,
    ledger_seq: u64,
    measure: Measure,
    cut_at_ns: u64,
    cpu_at_cut_ns: u64,
    starved_at_cut_ns: u64,
    next_finish_check_ns: u64,
}

impl Worker {
    /// Prepares the worker's table; nothing is opened yet.
    pub fn new(setup: WorkerSetup) -> Result<Self, WorkerError> {
        let WorkerSetup { number, plan, shared, negotiations, trust, ledger, intervals, heard_numbers } = setup;
        let mut list = Vec::new();
        for client in plan.clients_of(number) {
            let role = plan.role(client);
            let protocol = plan.protocols[role.form as usize];
            let connection = |hub| Client::new(plan.connection(client, hub), role.form, protocol, role.class);
            list.extend(plan.hubs_of(client).into_iter().map(connection));
        }
        let mut verifier = Verifier::new(&plan.keys(), plan.groups.len() as u32, plan.has_ledger, plan.clock_error_ns);
        if plan.expects_faults {
            verifier.notes_accepted = true;
            verifier.faults = Faults::listing(MAX_ORDERED_FAULTS);
        }
        Ok(Self {
            number,
            clients: Clients { list },
            names: plan.groups.iter().map(|name| GroupName::parse(name)).collect(),
            verifier,
            book: OrderBook::default(),
            channel_offsets: vec![None; plan.groups.len()],
            newest: vec![0; plan.groups.len()],
            awaiting_first: Vec::new(),
            reader: Reader::new()?,
            groups: Groups::new(&plan.groups),
            connector: Connector::new(&trust)?,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(std::io::Error::from)?,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            scratch: Vec::new(),
            interval: Interval::new(0),
            settled: Settled::default(),
            tally: Tally::default(),
            ramped: 0,
            next_source: 0,
            timers: timers::Timers::default(),
            ledger_seq: 0,
            measure: Measure::default(),
            cut_at_ns: 0,
            cpu_at_cut_ns: 0,
            starved_at_cut_ns: 0,
            next_finish_check_ns: 0,
            plan,
            shared,
            negotiations,
            ledger,
            intervals,
            heard_numbers,
        })
    }

    /// Runs to the end of the run.
    pub fn run(mut self) -> WorkerResult {
        self.add_users();
        self.cut_at_ns = now_ns();
        self.cpu_at_cut_ns = thread_cpu_ns();
        self.starved_at_cut_ns = procfs::thread_starved_ns().unwrap_or_default();
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            let wait = Timespec { tv_sec: 0, tv_nsec: MAX_WAIT_NS };
            // The only error of a valid descriptor is an interrupted wait: look around and wait again.
            let _ = epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&wait));
            let woken_ns = now_ns();
            for event in &events {
                self.on_event(*event);
            }
            self.hear_ledger();
            let now = now_ns();
            self.measure.set_window(self.shared.window_ns.get());
            self.ramp(now);
            self.run_timers(now);
            let idle_from_ns = now_ns();
            let away_ns = idle_from_ns.saturating_sub(woken_ns);
            self.interval.busy_ns += away_ns;
            if !events.is_empty() {
                histogram::record(&mut self.interval.loop_delay, away_ns, events.len() as u64);
            }
            self.cut_interval(idle_from_ns, false);
            self.publish_gauges();
            if self.shared.abort.load(Relaxed) {
                break;
            }
            if let Some(&finish) = self.shared.finish.get()
                && self.is_finished(finish, idle_from_ns)
            {
                break;
            }
        }
        self.conclude()
    }

    fn on_event(&mut self, event: epoll::Event) {
        let data = event.data.u64();
        let (index, socket_number) = (data as u32 as usize, (data >> 32) as u32);
        let Some(client) = self.clients.list.get(index) else { return };
        if client.socket_number != socket_number || client.transport.is_none() {
            return;
        }
        let flags = event.flags;
        if client.phase == client::Phase::Connecting {
            return self.on_connected(index);
        }
        if flags.contains(epoll::EventFlags::OUT) {
            self.flush(index);
        }
        if flags.contains(epoll::EventFlags::IN) {
            self.on_readable(index, receive::READ_BYTES);
        } else if flags.intersects(epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
            self.on_hangup(index);
        }
    }

    /// Takes what the ledger's thread has read.
    fn hear_ledger(&mut self) {
        while let Ok(event) = self.ledger.try_recv() {
            match event {
                Event::Tick(tick) => self.hear_tick(&tick),
                Event::Orders(tick) => self.hear_orders(&tick),
                Event::Gap => self.verifier.enter_gap(),
            }
        }
        self.record_timed();
    }

    fn hear_tick(&mut self, tick: &Tick) {
        let groups = self.plan.groups.len() as u32;
        for publication in &tick.publications {
            let hash = publication.hashes[self.plan.profile.index()];
            let identity =
                Identity { sequence_id: publication.sequence_id, hash, timestamp: publication.record_timestamp };
            for form in 0..self.plan.protocols.len() as u32 {
                let log = form * groups + publication.group;
                self.verifier.offer(&mut self.clients, log, LedgerEntry { identity, times: tick.times });
            }
            self.note_published(publication.group, publication.sequence_id, tick.times.published_ns);
        }
        self.hear_orders(tick);
        self.verifier.heard(&mut self.clients, tick.heard_ns);
        self.ledger_seq = tick.seq;
    }

    /// Ends a second of the run when it is over.
    fn cut_interval(&mut self, now: u64, is_last: bool) {
        let second = now.saturating_sub(self.shared.start_ns) / SECOND;
        if second == self.interval.second && !is_last {
            return;
        }
        let (cpu_ns, starved_ns) = (thread_cpu_ns(), procfs::thread_starved_ns().unwrap_or_default());
        let mut interval = std::mem::replace(&mut self.interval, Interval::new(second));
        interval.up = u64::from(self.tally.up);
        interval.faults = self.verifier.faults.total();
        interval.failures = self.tally.failures.total() + self.tally.drops.total();
        interval.length_ns = now - self.cut_at_ns;
        interval.cpu_ns = cpu_ns - self.cpu_at_cut_ns;
        interval.starved_ns = starved_ns.saturating_sub(self.starved_at_cut_ns);
        (self.cut_at_ns, self.cpu_at_cut_ns, self.starved_at_cut_ns) = (now, cpu_ns, starved_ns);
        // Main keeps the receiver until all workers have ended.
        let _ = self.intervals.send(interval);
    }

    fn publish_gauges(&self) {
        let gauges = &self.shared.gauges[self.number as usize];
        gauges.up.store(self.tally.up, Relaxed);
        gauges.arrived.store(self.tally.arrived, Relaxed);
        gauges.failed.store(self.tally.failures.total(), Relaxed);
    }

    /// Whether everything published until the cut has arrived, or the time for that is over.
    fn is_finished(&mut self, finish: Finish, now: u64) -> bool {
        if now >= finish.deadline_ns {
            return true;
        }
        // An order may be entered after its frame was sent.
        let settles_ns = if self.plan.expects_faults { held::SETTLE_NS } else { 0 };
        if now < self.next_finish_check_ns.max(finish.cut_ns + settles_ns) || self.ledger_seq < finish.ledger_seq {
            return false;
        }
        self.next_finish_check_ns = now + FINISH_CHECK_NS;
        self.read_to_the_newest();
        (0..self.clients.list.len()).all(|index| !self.lacks_something(index, finish.cut_ns))
    }

    /// Judges what is left to judge and hands everything over.
    fn conclude(mut self) -> WorkerResult {
        if let Some(&finish) = self.shared.finish.get() {
            self.read_what_has_arrived(finish);
        }
        let now = now_ns();
        if let Some(&finish) = self.shared.finish.get() {
            let has_whole_ledger = self.ledger_seq >= finish.ledger_seq;
            if has_whole_ledger {
                self.verifier.heard(&mut self.clients, finish.cut_ns);
            }
            for index in 0..self.clients.list.len() {
                self.release(index, now, true);
            }
            if has_whole_ledger {
                self.verifier.heard(&mut self.clients, finish.cut_ns);
            }
            for client in &mut self.clients.list {
                let is_attentive = client.is_attentive();
                let has_lived = is_attentive && client.phase == client::Phase::Up;
                for member in &mut client.members {
                    if has_lived {
                        self.verifier.judge_end(client.number, member, finish.cut_ns, now);
                    } else if is_attentive {
                        self.verifier.judge_first(client.number, member);
                    }
                }
            }
            if has_whole_ledger {
                (0..self.clients.list.len()).for_each(|index| self.judge_followed(index, now));
            }
            self.tally.ledger_incomplete = !has_whole_ledger;
        }
        let cut_ns = self.shared.finish.get().map_or(now, |finish| finish.cut_ns);
        let orders = self.plan.expects_faults.then(|| self.conclude_orders(cut_ns));
        self.record_timed();
        self.verifier.retire_all(&mut |slot| self.settled.add_slot(slot));
        self.cut_interval(now_ns(), true);
        self.say_goodbye();
        WorkerResult {
            receipts: self.receipts(),
            silent: self.silent(),
            verified: self.verifier.verified,
            unjudged: self.verifier.unjudged,
            faults: self.verifier.faults,
            tally: self.tally,
            settled: self.settled,
            orders,
            latency: self.measure.latency,
        }
    }

    /// What each client received, over all its connections.
    fn receipts(&self) -> Vec<(u32, Class, ClientReceipts)> {
        let client_of = |connection: &Client| self.plan.client_of(connection.number);
        let clients = self.clients.list.chunk_by(|one, other| client_of(one) == client_of(other));
        let sum = |connections: &[Client]| {
            let mut sum = ClientReceipts::default();
            for connection in connections {
                sum.merge(&connection.receipts);
            }
            (client_of(&connections[0]), connections[0].class, sum)
        };
        clients.map(sum).collect()
    }

    /// Groups in which nothing was published, as far as this worker knows.
    fn silent(&self) -> Vec<u32> {
        let mut is_silent = vec![true; self.plan.groups.len()];
        self.verifier.logs.iter().filter(|log| log.end() > 0).for_each(|log| is_silent[log.group as usize] = false);
        (0..).zip(is_silent).filter_map(|(group, is_silent)| is_silent.then_some(group)).collect()
    }

    /// Reads the sockets of clients that still lack something. A busy worker reaches its deadline with
    /// frames that arrived long before it: they lie in the kernel, and are not missing.
    fn read_what_has_arrived(&mut self, finish: Finish) {
        for index in 0..self.clients.list.len() {
            let mut before = None;
            // Each turn reads something, and no more than was published until the cut is wanted, so this ends.
            while before != Some(self.interval.bytes) && self.lacks_something(index, finish.cut_ns) {
                before = Some(self.interval.bytes);
                self.on_readable(index, receive::READ_BYTES);
            }
        }
        self.hear_ledger();
    }

    /// Whether a client that counts has not yet received all that was published until `cut_ns`, or one with a policy the
    /// newest of it.
    fn lacks_something(&self, index: usize, cut_ns: u64) -> bool {
        let client = &self.clients.list[index];
        self.lacks_newest(index)
            || client.is_attentive()
                && client.phase == client::Phase::Up
                && !client.members.iter().all(|member| self.verifier.is_complete(member, cut_ns))
    }

    fn epoll_data(index: usize, socket_number: u32) -> epoll::EventData {
        epoll::EventData::new_u64(u64::from(socket_number) << 32 | index as u64)
    }

    /// Says which readiness of a client's socket is of interest.
    fn watch(&mut self, index: usize, flags: epoll::EventFlags) {
        let client = &mut self.clients.list[index];
        client.watches_write = flags.contains(epoll::EventFlags::OUT);
        if let Some(transport) = &client.transport {
            // Fails only for a socket that is not registered: it was, when it was connected.
            let _ = epoll::modify(&self.epoll, transport.as_fd(), Self::epoll_data(index, client.socket_number), flags);
        }
    }
}
