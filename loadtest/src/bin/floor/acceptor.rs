//! The thread that accepts, greets and listens: one epoll descriptor for all sockets.
//!
//! A client that joins its first group is handed to the sender before the join is acknowledged, so
//! that nothing published after the ack is missing. Whoever says something unexpected is dropped.

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::Sender as Channel;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use swarm::wire::form::Protocol;

use super::messages::{self, Request};
use super::publish;
use super::recording::TickFrames;
use super::tick_ledger::Ledger;

/// Events taken from the kernel at once.
const EVENTS: usize = 256;

/// Most bytes read at once.
const READ_BYTES: usize = 64 << 10;

/// One socket.
struct Visitor {
    socket: Arc<TcpStream>,
    /// The beginning of a request or frame whose end is yet to come.
    inbox: Vec<u8>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Http,
    Upgraded,
    Joined,
}

/// What becomes of a visitor.
enum VisitorFate {
    Stays,
    /// Its socket reads the ledger from now on.
    Follows,
    Leaves,
}

/// See the module's documentation.
pub struct Acceptor {
    listener: TcpListener,
    protocol: Protocol,
    members: Channel<Arc<TcpStream>>,
    posts: Channel<TickFrames>,
    ledger: Arc<Ledger>,
    epoll: OwnedFd,
    /// By the number of their descriptor.
    visitors: HashMap<u64, Visitor>,
    buffer: Box<[u8]>,
}

impl Acceptor {
    /// A acceptor at `listener`, which must not block.
    pub fn new(
        listener: TcpListener,
        protocol: Protocol,
        members: Channel<Arc<TcpStream>>,
        posts: Channel<TickFrames>,
        ledger: Arc<Ledger>,
    ) -> std::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(listener.as_raw_fd() as u64), EventFlags::IN)?;
        let (visitors, buffer) = (HashMap::new(), vec![0; READ_BYTES].into());
        Ok(Self { listener, protocol, members, posts, ledger, epoll, visitors, buffer })
    }

    /// Keeps the acceptor until the process ends.
    pub fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        let own = self.listener.as_raw_fd() as u64;
        loop {
            events.clear();
            // EINTR is a wake-up like any other; nothing else can fail with a valid descriptor.
            let _ = epoll::wait(&self.epoll, spare_capacity(&mut events), None);
            for event in &events {
                match event.data.u64() {
                    key if key == own => self.accept(),
                    key => self.hear(key),
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            let key = socket.as_raw_fd() as u64;
            let watched = epoll::add(&self.epoll, socket.as_fd(), EventData::new_u64(key), EventFlags::IN);
            if watched.is_ok() && socket.set_nonblocking(true).is_ok() {
                let visitor = Visitor { socket: Arc::new(socket), inbox: Vec::new(), stage: Stage::Http };
                self.visitors.insert(key, visitor);
            }
        }
    }

    /// Reads what a visitor has sent.
    fn hear(&mut self, key: u64) {
        let Some(visitor) = self.visitors.get_mut(&key) else { return };
        let outcome = match (&*visitor.socket).read(&mut self.buffer) {
            Ok(0) => VisitorFate::Leaves,
            Ok(length) => {
                visitor.inbox.extend_from_slice(&self.buffer[..length]);
                self.answer(key)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => VisitorFate::Stays,
            Err(_) => VisitorFate::Leaves,
        };
        if matches!(outcome, VisitorFate::Stays) {
            return;
        }
        let Some(visitor) = self.visitors.remove(&key) else { return };
        // The sender may hold the socket too, so dropping it does not take it from the descriptor.
        let _ = epoll::delete(&self.epoll, visitor.socket.as_fd());
        match outcome {
            VisitorFate::Follows => self.ledger.follow(visitor.socket),
            _ => drop(visitor.socket.shutdown(Shutdown::Both)),
        }
    }

    /// Answers everything that is whole in a visitor's inbox.
    fn answer(&mut self, key: u64) -> VisitorFate {
        let Self { visitors, protocol, members, posts, ledger, .. } = self;
        let Some(visitor) = visitors.get_mut(&key) else { return VisitorFate::Leaves };
        let mut inbox = std::mem::take(&mut visitor.inbox);
        let mut at = 0;
        loop {
            let heard = match visitor.stage {
                Stage::Http => visitor.on_request(&inbox[at..], *protocol, posts, ledger),
                _ => visitor.on_frame(&mut inbox[at..], *protocol, members),
            };
            match heard {
                Heard::Whole(length) => at += length,
                Heard::Part => break,
                Heard::End(outcome) => return outcome,
            }
        }
        visitor.inbox = inbox.split_off(at);
        VisitorFate::Stays
    }
}

enum Heard {
    /// So many bytes were a request or a frame.
    Whole(usize),
    /// The rest is yet to come.
    Part,
    End(VisitorFate),
}

impl Visitor {
    fn on_request(&mut self, bytes: &[u8], protocol: Protocol, posts: &Channel<TickFrames>, ledger: &Ledger) -> Heard {
        let (request, length) = match messages::parse_request(bytes) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return Heard::Part,
            Err(_) => return Heard::End(VisitorFate::Leaves),
        };
        let answer = match request {
            Request::Negotiate { host } => messages::negotiated(&host),
            Request::Now => messages::ok(&messages::clock(ledger.newest())),
            Request::Ticks => return Heard::End(VisitorFate::Follows),
            Request::Publish { body } => match publish::tick(&body) {
                Ok(tick) => {
                    let answer = publish::accepted(&tick);
                    // The sender lives as long as the process.
                    let _ = posts.send(tick);
                    answer
                }
                Err(_) => messages::refused("422 Unprocessable Content"),
            },
            Request::Upgrade { key, subprotocol } if subprotocol.as_deref() == protocol.subprotocol() => {
                self.stage = Stage::Upgraded;
                messages::welcome(&key, protocol)
            }
            Request::Upgrade { .. } => messages::refused("400 Bad Request"),
            Request::Unknown => messages::refused("404 Not Found"),
        };
        self.say(&answer, length)
    }

    fn on_frame(&mut self, bytes: &mut [u8], protocol: Protocol, members: &Channel<Arc<TcpStream>>) -> Heard {
        const CLOSE: u8 = 0x8;
        const PING: u8 = 0x9;
        match messages::parse_frame(bytes) {
            None => Heard::Part,
            Some((CLOSE, ..)) => Heard::End(VisitorFate::Leaves),
            Some((PING, payload, length)) => self.say(&messages::pong(payload), length),
            Some((_, message, length)) => match messages::welcome_to_group(protocol, message) {
                Some(answer) => {
                    if self.stage == Stage::Upgraded {
                        self.stage = Stage::Joined;
                        // The sender lives as long as the process.
                        let _ = members.send(Arc::clone(&self.socket));
                    }
                    self.say(&answer, length)
                }
                None => Heard::Whole(length),
            },
        }
    }

    /// Answers what was `heard` bytes long. Whoever leaves answers unread is dropped.
    fn say(&self, answer: &[u8], heard: usize) -> Heard {
        match (&*self.socket).write_all(answer) {
            Ok(()) => Heard::Whole(heard),
            Err(_) => Heard::End(VisitorFate::Leaves),
        }
    }
}
