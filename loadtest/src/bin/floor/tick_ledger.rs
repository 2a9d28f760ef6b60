//! What was sent when: the part of flowcast's tick ledger that the swarm follows.
//!
//! A thread of its own writes server-sent events, so that the sender pays for handing a tick over and
//! for nothing else; without a reader not even for that.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use serde_json::json;

use super::messages;
use super::recording::TickFrames;

/// When a tick was due and begun.
#[derive(Clone, Copy, Debug)]
pub struct TickTimes {
    /// Its number.
    pub ordinal: u64,
    /// When it was due.
    pub scheduled_ns: u64,
    /// When it began.
    pub published_ns: u64,
}

enum LedgerMessage {
    Follow(Arc<TcpStream>),
    Tick { times: TickTimes, publications: Vec<LedgerLine> },
}

struct LedgerLine {
    group: String,
    sequence_id: u64,
    timestamp: i64,
    hash: u64,
}

/// See the module's documentation.
pub struct Ledger {
    messages: Sender<LedgerMessage>,
    followers: Arc<AtomicUsize>,
    newest: Arc<AtomicU64>,
}

impl Ledger {
    /// Starts the writing thread.
    pub fn start() -> std::io::Result<Self> {
        let (messages, mailbox) = channel();
        let (followers, newest) = (Arc::<AtomicUsize>::default(), Arc::<AtomicU64>::default());
        let writer = Writer { followers: Arc::clone(&followers), newest: Arc::clone(&newest), sockets: Vec::new() };
        thread::Builder::new().name("ledger".to_owned()).spawn(move || writer.run(&mailbox))?;
        Ok(Self { messages, followers, newest })
    }

    /// The position of the newest tick that was written.
    pub fn newest(&self) -> u64 {
        self.newest.load(Ordering::Relaxed)
    }

    /// Writes every tick from now on to `socket`.
    pub fn follow(&self, socket: Arc<TcpStream>) {
        self.followers.fetch_add(1, Ordering::Relaxed);
        // The writer lives as long as the process.
        let _ = self.messages.send(LedgerMessage::Follow(socket));
    }

    /// Enters a tick that has been sent.
    pub fn append(&self, times: TickTimes, tick: &TickFrames, first_id: u64) {
        if self.followers.load(Ordering::Relaxed) == 0 {
            return;
        }
        let publication = |(sequence_id, record): (u64, &super::recording::Record)| LedgerLine {
            group: record.group.clone(),
            sequence_id,
            timestamp: record.timestamp,
            hash: record.hash,
        };
        let publications = (first_id..).zip(&tick.records).map(publication).collect();
        let _ = self.messages.send(LedgerMessage::Tick { times, publications });
    }
}

struct Writer {
    followers: Arc<AtomicUsize>,
    newest: Arc<AtomicU64>,
    sockets: Vec<Arc<TcpStream>>,
}

impl Writer {
    fn run(mut self, mailbox: &Receiver<LedgerMessage>) {
        for message in mailbox {
            let newest = self.newest.load(Ordering::Relaxed);
            match message {
                LedgerMessage::Follow(socket) => {
                    let greeting = format!("event: now\ndata: {}\n\n", messages::clock(newest));
                    // A reader that is slow holds nobody up but readers.
                    let greeted = socket
                        .set_nonblocking(false)
                        .and_then(|()| (&*socket).write_all(messages::EVENTS))
                        .and_then(|()| (&*socket).write_all(greeting.as_bytes()));
                    if greeted.is_ok() {
                        self.sockets.push(socket);
                    } else {
                        self.followers.fetch_sub(1, Ordering::Relaxed);
                    }
                }
                LedgerMessage::Tick { times, publications } => self.write(newest + 1, times, &publications),
            }
        }
    }

    fn write(&mut self, seq: u64, times: TickTimes, publications: &[LedgerLine]) {
        let publications: Vec<_> = publications
            .iter()
            .map(|publication| {
                json!({
                    "group": publication.group,
                    "sequence_id": publication.sequence_id,
                    "record_timestamp": publication.timestamp,
                    "payloads": { "2026-04": format!("{:016x}", publication.hash) },
                })
            })
            .collect();
        let tick = json!({
            "seq": seq,
            "ordinal": times.ordinal,
            "scheduled_ns": times.scheduled_ns,
            "published_ns": times.published_ns,
            "publications": publications,
        });
        let event = format!("event: tick\nid: {seq}\ndata: {tick}\n\n");
        self.sockets.retain(|socket| {
            let goes_on = (&**socket).write_all(event.as_bytes()).is_ok();
            if !goes_on {
                self.followers.fetch_sub(1, Ordering::Relaxed);
            }
            goes_on
        });
        self.newest.store(seq, Ordering::Relaxed);
    }
}
