//! A server of the flowcast kind over real sockets, small enough to be read at one glance, that can be
//! told to do wrong. Its bytes are written by hand, not with the swarm's own encoder.

mod bytes;
mod http;
pub mod outcome;
mod streams;
pub mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use xxhash_rust::xxh3::xxh3_64;

pub const TICK: Duration = Duration::from_millis(20);
pub const TICKERS: [&str; 3] = ["ES_SPX", "NDX", "SPX"];

/// What happens to a publication on its way to one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tamper {
    Drop,
    Duplicate,
    /// Sent after the next one.
    Swap,
    /// Another payload under the same number and record time.
    Forge,
    /// A payload that cannot be read.
    Break,
    /// The record of another ticker.
    Misplace,
    /// A record of another kind.
    Mistype,
    /// The connection is cut before it.
    Cut,
    /// One bit of the message is flipped: this one.
    Flip(usize),
    /// So many bytes of the message come.
    Shorten(usize),
    /// The connection is closed with this code after it.
    Close(u16),
}

/// An entry of the ledger that says that a fault was ordered, and what is done.
#[derive(Clone, Copy, Debug)]
pub struct Ordered {
    /// As in [`Behaviour::tamper`].
    pub client: usize,
    pub publication: u64,
    /// As the entry says it, or no entry.
    pub kind: Option<&'static str>,
    pub does: Option<Tamper>,
}

/// How the server behaves; the default is as it should.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// What happens to which publication (of the tampered group, by its number from 1) on which of the
    /// connections to its hub.
    pub tamper: Option<(usize, u64, Tamper)>,
    /// The group that is tampered with, left unsent or not in the ledger.
    pub tampered: (&'static str, &'static str),
    /// Publications that are in the ledger and never sent.
    pub unsent: Vec<u64>,
    /// Publications that are sent and not in the ledger.
    pub unledgered: Vec<u64>,
    /// Positions the ledger skips.
    pub ledger_gap: Option<u64>,
    pub has_ledger: bool,
    /// Nothing is published in groups with this in their name.
    pub silent: &'static str,
    /// Every n-th upgrade is refused with 503.
    pub refuse_every: Option<usize>,
    /// Upgrades are never answered.
    pub is_mute: bool,
    /// Joins of this ticker are refused.
    pub forbidden: Option<&'static str>,
    /// What negotiation gives instead of our own address.
    pub public: Option<String>,
    /// `/ws` and publishing ask for this token.
    pub token: Option<&'static str>,
    /// `/ws` answers subscriptions without this channel, and sends nothing of it.
    pub unsubscribed: Option<&'static str>,
    /// Clients that ask for a policy are sent the messages with these numbers, and not told of the others.
    pub of_policy: (u64, u64),
    /// Publishing is refused from this message on.
    pub full_at: Option<u64>,
    /// A producer behind the server numbers messages of `lines` up to this one.
    pub produces: Option<u64>,
    /// Its clock is ahead of everybody's.
    pub has_foreign_clock: bool,
    /// Before which publication of the tampered group the clock jumps, why, and to which record.
    pub jumps: Vec<(u64, &'static str, u64)>,
    /// Faults on demand, and what is done beside them.
    pub orders: Vec<Ordered>,
    /// GET /v2/negotiate with this key is refused with 429 so often, and whether that was ordered.
    pub refuse_key: Option<(&'static str, usize, bool)>,
    /// The session whose clock it is; every other tick of the ledger is then one of the common clock, which
    /// publishes in the same groups, for others.
    pub session: Option<&'static str>,
    /// Every tick pings every connection, and cuts one that is this many answers behind.
    pub max_unanswered_pings: Option<u64>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            tamper: None,
            tampered: ("orderflow", "blue_SPX_orderflow_orderflow"),
            unsent: Vec::new(),
            unledgered: Vec::new(),
            ledger_gap: None,
            has_ledger: true,
            silent: "(none)",
            refuse_every: None,
            is_mute: false,
            forbidden: None,
            public: None,
            token: None,
            unsubscribed: None,
            of_policy: (0, u64::MAX),
            full_at: None,
            produces: None,
            has_foreign_clock: false,
            jumps: Vec::new(),
            orders: Vec::new(),
            refuse_key: None,
            session: None,
            max_unanswered_pings: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Form {
    pub is_protobuf: bool,
    pub is_reliable: bool,
}

#[derive(Debug)]
struct Subscriber {
    number: usize,
    hub: String,
    /// Its number among the connections to its hub.
    at_hub: usize,
    socket: TcpStream,
    form: Form,
    groups: Vec<String>,
    held: Option<Vec<u8>>,
    /// Reliable frames since the join, by number, for a recovery.
    sent: BTreeMap<u64, Vec<u8>>,
    acked: u64,
    is_cut: bool,
    pings: u64,
    pongs: u64,
}

#[derive(Debug, Default)]
struct State {
    subscribers: Vec<Subscriber>,
    ticks: Vec<String>,
    sequence: u64,
    upgrades: usize,
    /// Connections that each hub has had.
    at_hub: BTreeMap<String, usize>,
    /// Groups that POST asked for, by token and hub.
    memberships: BTreeMap<(String, String), Vec<String>>,
    /// Keys that POSTed.
    keys: Vec<String>,
    /// The record that comes next, and the epoch of the clock.
    record: u64,
    epoch: u64,
    /// Requests that were refused for their key.
    refused: usize,
    /// What was asked for beside GET /v2/negotiate.
    queries: BTreeSet<String>,
}

#[derive(Debug)]
struct Inner {
    behaviour: Behaviour,
    address: SocketAddr,
    state: Mutex<State>,
    ticked: Condvar,
    streams: Mutex<streams::State>,
    stop: AtomicBool,
}

/// A running server; ends when dropped.
#[derive(Debug)]
pub struct Fake(Arc<Inner>);

impl Fake {
    pub fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inner = Arc::new(Inner {
            behaviour,
            address: listener.local_addr().unwrap(),
            state: Mutex::new(State { sequence: 1_700_000_000_000_000, ..State::default() }),
            ticked: Condvar::new(),
            streams: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&inner);
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                if accepting.stop.load(Relaxed) {
                    return;
                }
                let serving = Arc::clone(&accepting);
                thread::spawn(move || http::serve(&serving, socket));
            }
        });
        let ticking = Arc::clone(&inner);
        thread::spawn(move || ticking.run());
        let producing = Arc::clone(&inner);
        thread::spawn(move || streams::produce(&producing));
        Self(inner)
    }

    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The fewest pings that any connection has answered.
    pub fn fewest_pongs(&self) -> u64 {
        self.0.state.lock().unwrap().subscribers.iter().map(|one| one.pongs).min().unwrap_or(0)
    }

    /// The keys that negotiated with POST.
    pub fn keys(&self) -> Vec<String> {
        self.0.state.lock().unwrap().keys.clone()
    }

    /// The queries of GET /v2/negotiate.
    pub fn queries(&self) -> Vec<String> {
        self.0.state.lock().unwrap().queries.iter().cloned().collect()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.0.stop.store(true, Relaxed);
        self.0.ticked.notify_all();
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.0.address);
    }
}

pub fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

impl Inner {
    fn run(&self) {
        let mut spx = 0;
        let start_ns = now_ns();
        for ordinal in 1.. {
            let scheduled_ns = start_ns + ordinal * TICK.as_nanos() as u64;
            thread::sleep(Duration::from_nanos(scheduled_ns.saturating_sub(now_ns())));
            if self.stop.load(Relaxed) {
                return;
            }
            self.tick(ordinal, scheduled_ns, &mut spx);
            self.ticked.notify_all();
        }
    }

    fn tick(&self, ordinal: u64, scheduled_ns: u64, spx: &mut u64) {
        let mut guard = self.state.lock().unwrap();
        let state = &mut *guard;
        self.jump(state, *spx + 1);
        state.record += 1;
        let record = state.record;
        let published_ns = now_ns();
        let mut publications = Vec::new();
        let mut entries = Vec::new();
        let groups: BTreeSet<String> = state.subscribers.iter().flat_map(|one| one.groups.iter().cloned()).collect();
        for group in groups {
            let ticker = TICKERS.into_iter().find(|ticker| group.starts_with(&format!("blue_{ticker}_")));
            let Some(ticker) = ticker.filter(|_| !group.contains(self.behaviour.silent)) else { continue };
            state.sequence += 1;
            let sequence_id = state.sequence;
            let members = state.subscribers.iter().filter(|one| one.groups.contains(&group)).count();
            // Two records share a second.
            let timestamp = 1_764_340_000 + (record / 2);
            let type_url = bytes::type_url(&group);
            let value = bytes::payload(type_url, ticker, timestamp, record);
            let publication = if group == self.behaviour.tampered.1 {
                *spx += 1;
                *spx
            } else {
                0
            };
            if !self.behaviour.unsent.contains(&publication) {
                for subscriber in state.subscribers.iter_mut().filter(|one| one.groups.contains(&group)) {
                    let frame = bytes::data(subscriber.form, &group, type_url, &value, sequence_id);
                    let tamper = self.behaviour.tamper.filter(|&(number, which, _)| {
                        number == subscriber.at_hub
                            && which == publication
                            && self.behaviour.tampered.0 == subscriber.hub
                    });
                    let ordered = self.behaviour.orders.iter().find(|one| {
                        one.client == subscriber.at_hub && one.publication == publication && publication > 0
                    });
                    let tamper = tamper.map(|(.., tamper)| tamper).or(ordered.and_then(|one| one.does));
                    if let Some(kind) = ordered.and_then(|one| one.kind) {
                        let (tamper, number) = (ordered.and_then(|one| one.does), subscriber.number);
                        entries.push(bytes::order(kind, tamper, number, &group, sequence_id));
                    }
                    let instead = match tamper {
                        Some(Tamper::Forge) => {
                            Some((type_url, bytes::payload(type_url, ticker, timestamp, record + 1_000_000)))
                        }
                        Some(Tamper::Break) => Some((type_url, b"no zstd frame".to_vec())),
                        Some(Tamper::Misplace) => Some((type_url, bytes::payload(type_url, "NDX", timestamp, record))),
                        Some(Tamper::Mistype) => Some(("proto.greek", value.clone())),
                        _ => None,
                    };
                    let instead =
                        instead.map(|(url, value)| bytes::data(subscriber.form, &group, url, &value, sequence_id));
                    subscriber.deliver(frame, sequence_id, tamper, instead);
                }
            }
            if !self.behaviour.unledgered.contains(&publication) {
                publications.push(format!(
                    r#"{{"group":"{group}","sequence_id":{sequence_id},"record_timestamp":{timestamp},"subscribers":{members},"payloads":{{"2026-04":"{:016x}"}}}}"#,
                    xxh3_64(&value)
                ));
            }
        }
        let publications = publications.join(",");
        let times = format!(r#""ordinal":{ordinal},"scheduled_ns":{scheduled_ns},"published_ns":{published_ns}"#);
        if self.behaviour.session.is_some() {
            let others = publications.replace(r#""sequence_id":"#, r#""sequence_id":9"#);
            self.enter(state, &format!(r#"{times},"epoch":7,"publications":[{others}]"#));
        }
        let clock = self.clock(state.epoch);
        self.enter(state, &format!(r#"{times},{clock}"publications":[{publications}]"#));
        if !entries.is_empty() {
            self.order(state, &entries.join(","));
        }
        if let Some(most) = self.behaviour.max_unanswered_pings {
            state.subscribers.iter_mut().for_each(|one| one.ping(most));
        }
        state.subscribers.retain(|one| one.form.is_reliable || !one.is_cut);
    }
}

impl Inner {
    /// Opens an epoch, if the clock jumps before this publication of the tampered group.
    fn jump(&self, state: &mut State, publication: u64) {
        let Some(&(_, cause, record)) = self.behaviour.jumps.iter().find(|(before, ..)| *before == publication) else {
            return;
        };
        state.epoch += 1;
        state.record = record;
        let (now, clock, epoch) = (now_ns(), self.clock(state.epoch), state.epoch + 1);
        let times = r#""from":"2025-11-28T14:30:00Z","to":"2025-11-28T14:31:00Z""#;
        self.enter(
            state,
            &format!(
                r#""ordinal":0,"scheduled_ns":{now},"published_ns":{now},{clock}"opens":{{"epoch":{epoch},"cause":"{cause}",{times}}},"publications":[]"#
            ),
        );
    }

    /// Which clock's tick it is, if it is one that can jump.
    fn clock(&self, jumps: u64) -> String {
        let session = self.behaviour.session.map_or(String::new(), |name| format!(r#""session":"{name}","#));
        if self.behaviour.jumps.is_empty() { session } else { format!(r#"{session}"epoch":{},"#, jumps + 1) }
    }

    /// Enters faults that were ordered.
    fn order(&self, state: &mut State, entries: &str) {
        let now = now_ns();
        let times = format!(r#""ordinal":0,"scheduled_ns":{now},"published_ns":{now}"#);
        self.enter(state, &format!(r#"{times},"faults":[{entries}],"publications":[]"#));
    }

    /// Enters a tick into the ledger.
    fn enter(&self, state: &mut State, tick: &str) {
        let mut seq = state.ticks.len() as u64 + 1;
        if self.behaviour.ledger_gap.is_some_and(|gap| seq >= gap) {
            seq += 5;
        }
        state.ticks.push(format!(r#"{{"seq":{seq},"scheduled_unix_ns":0,"published_unix_ns":0,{tick}}}"#));
    }
}

impl Subscriber {
    fn ping(&mut self, max_unanswered: u64) {
        if self.is_cut {
            return;
        }
        if self.pings > self.pongs + max_unanswered {
            self.is_cut = true;
            let _ = self.socket.shutdown(Shutdown::Both);
            return;
        }
        self.pings += 1;
        let _ = self.socket.write_all(&[0x89, 1, self.pings as u8]);
    }

    fn deliver(&mut self, mut frame: Vec<u8>, sequence_id: u64, tamper: Option<Tamper>, instead: Option<Vec<u8>>) {
        self.sent.insert(sequence_id, frame.clone());
        match (tamper, instead) {
            (Some(Tamper::Drop), _) => return,
            (Some(Tamper::Duplicate), _) => frame.extend(frame.clone()),
            (Some(Tamper::Swap), _) => {
                self.held = Some(frame);
                return;
            }
            (_, Some(instead)) => frame = instead,
            (Some(Tamper::Flip(bit)), _) => frame = bytes::flipped(&frame, bit),
            (Some(Tamper::Shorten(len)), _) => {
                let header = bytes::header_len(&frame);
                frame = bytes::frame(frame[0], &frame[header..header + len]);
            }
            (Some(Tamper::Close(code)), _) => {
                let close = bytes::frame(0x88, &code.to_be_bytes());
                let _ = self.socket.write_all(&[&frame[..], &close].concat());
                self.is_cut = true;
                let _ = self.socket.shutdown(Shutdown::Write);
            }
            (Some(Tamper::Cut), _) => {
                self.is_cut = true;
                let _ = self.socket.shutdown(Shutdown::Both);
            }
            _ => {}
        }
        if let Some(held) = self.held.take() {
            frame.extend(held);
        }
        if !self.is_cut {
            // A client that is gone is noticed by its reader.
            let _ = self.socket.write_all(&frame);
        }
    }
}
