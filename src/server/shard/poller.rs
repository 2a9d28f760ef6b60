//! What a shard sleeps on: its sockets, its doorbell and its next timer.

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Wake;
use std::time::Duration;

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::time::Timespec;

use super::bell::{Bell, Notifier};
use crate::engine::system_clock::monotonic_ms;
use crate::health::log_limit;

/// `epoll` data of the doorbell; sessions use their key, which is shorter.
const BELL: u64 = u64::MAX;

/// Wakes a shard's thread. The hubs and the shard's mailbox ring it.
pub type Doorbell = Bell<EventFd>;

/// The eventfd of a shard.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl Notifier for EventFd {
    fn raise(&self) {
        // Fails only when the counter would overflow, which is a ring too.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    fn lower(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl Wake for Doorbell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

/// What a shard asks the kernel about a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Whether it can be read.
    Read,
    /// Whether it can be read, or written: the connection is blocked.
    ReadAndWrite,
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        match self {
            Self::Read => epoll::EventFlags::IN,
            Self::ReadAndWrite => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        }
    }
}

/// A socket that epoll has reported.
#[derive(Debug, Clone, Copy)]
pub struct ReadySocket {
    /// The key of its session.
    pub key: u32,
    /// There are bytes to read, or the client's end, or an error.
    pub is_readable: bool,
    /// It was full and takes bytes again.
    pub is_writable: bool,
}

/// The shard's `epoll` and its doorbell.
pub struct Poller {
    epoll: OwnedFd,
    bell: Arc<Doorbell>,
}

impl Poller {
    /// One that waits for nothing but its doorbell.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = Arc::new(Bell::new(EventFd(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?)));
        epoll::add(&epoll, &bell.notifier().0, epoll::EventData::new_u64(BELL), epoll::EventFlags::IN)?;
        Ok(Self { epoll, bell })
    }

    /// The bell that ends [`Poller::wait`].
    pub fn bell(&self) -> &Arc<Doorbell> {
        &self.bell
    }

    /// Waits for a socket, the doorbell or the moment `until_ms`; `None`: for ever.
    pub fn wait(&self, until_ms: Option<u64>, events: &mut Vec<epoll::Event>) {
        let left_ms = until_ms.map(|until_ms| until_ms.saturating_sub(monotonic_ms()));
        let timeout = left_ms.map(|ms| Timespec::try_from(Duration::from_millis(ms)).unwrap_or_default());
        // EINTR is a wake-up like any other; nothing else can fail with valid descriptors.
        let _ = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), timeout.as_ref());
    }

    /// The socket of an event. The doorbell has none: it is answered here.
    pub fn take(&self, event: epoll::Event) -> Option<ReadySocket> {
        if event.data.u64() == BELL {
            self.bell.answer();
            return None;
        }
        let readable = epoll::EventFlags::IN | epoll::EventFlags::ERR | epoll::EventFlags::HUP;
        // The kernel's structure is packed: no reference to its fields.
        let flags = event.flags;
        Some(ReadySocket {
            key: event.data.u64() as u32,
            is_readable: flags.intersects(readable),
            is_writable: flags.contains(epoll::EventFlags::OUT),
        })
    }

    /// Watches a session's new socket; false, with a log line, if the kernel refuses.
    pub fn add(&self, key: u32, socket: &TcpStream) -> bool {
        let data = epoll::EventData::new_u64(u64::from(key));
        let watched = epoll::add(&self.epoll, socket, data, Interest::Read.flags());
        if let Err(error) = watched
            && log_limit::client_line(tracing::Level::ERROR)
        {
            tracing::error!(%error, "the kernel refuses to watch one more socket; the connection is dropped");
        }
        watched.is_ok()
    }

    /// Changes what the kernel tells about a session's socket; nothing while the session is detached.
    pub fn set_interest(&self, key: u32, socket: Option<&TcpStream>, interest: Interest) {
        let Some(socket) = socket else { return };
        let data = epoll::EventData::new_u64(u64::from(key));
        // Cannot fail: the socket was added when it was connected and leaves with its descriptor.
        let _ = epoll::modify(&self.epoll, socket, data, interest.flags());
    }
}
