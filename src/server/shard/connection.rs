//! One socket: bytes out in the order they must leave, bytes in as messages.
//!
//! An idle connection owns no buffer: [`Outbound`] exists while something is unsent, `Inbound`'s
//! buffer while a message is partial. Data frames are not queued here at all; a blocked connection
//! keeps its cursors, and at most the rest of one frame.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::{SendFlags, send};

use super::close::Close;
use super::mailbox::UpgradedSocket;
use super::outbound::Outbound;
use super::user_agents::AgentId;
use crate::engine::system_clock::monotonic_ms;
use crate::wire::websocket::inbound::Inbound;

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// Requests are heard and data flows.
    Open,
    /// The close frame is queued; nothing else will be.
    Closing {
        /// Which row of the table it is.
        close: Close,
        /// The client's close frame has come: the connection ends when ours is sent.
        answered: bool,
    },
    /// Everything is sent and our side is shut; waiting for the client's end.
    Lingering {
        /// Which row of the table it is.
        close: Close,
    },
}

/// A client's socket, with what is unsent and what is partly received.
pub struct Connection {
    /// Where it is in its life.
    pub state: ConnectionState,
    /// When the client was last heard, or seen to read, ms.
    pub heard_ms: u64,
    /// What the client calls itself.
    pub agent: AgentId,
    /// Keeps bytes only while a message is incomplete.
    pub inbound: Inbound,
    socket: TcpStream,
    outbound: Option<Box<Outbound>>,
}

impl Connection {
    /// A connection over a non-blocking socket; the answer to its request goes before anything else.
    pub fn new(UpgradedSocket { socket, answer }: UpgradedSocket, agent: AgentId, now_ms: u64) -> Self {
        // The listener's limit is for HTTP clients that do not read; here the lag rule judges.
        // Fails only on a socket that is gone, which the first read tells.
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&socket, 0);
        Self {
            state: ConnectionState::Open,
            heard_ms: now_ms,
            agent,
            inbound: Inbound::default(),
            socket,
            outbound: (!answer.is_empty()).then(|| Box::new(Outbound::answer(answer))),
        }
    }

    /// The other end of the socket; `None` if it is gone. A system call: for a few connections at a time.
    pub fn peer(&self) -> Option<SocketAddr> {
        let peer = self.socket.peer_addr().ok()?;
        Some(SocketAddr::new(peer.ip().to_canonical(), peer.port()))
    }

    /// The socket, to be watched.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Reads once. `Ok(None)`: nothing there; `Ok(Some(0))`: the client's end.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            return match (&self.socket).read(buffer) {
                Ok(length) => Ok(Some(length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    /// Offers bytes to the kernel; returns how many it took, 0 if it takes none now.
    ///
    /// Everything a connection writes passes here: a transport that encrypts would stand in its
    /// place.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.send_with(bytes, SendFlags::empty())
    }

    fn send_with(&self, bytes: &[u8], more: SendFlags) -> io::Result<usize> {
        loop {
            return match send(self.socket.as_fd(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL | more) {
                Ok(sent) => Ok(sent),
                Err(rustix::io::Errno::AGAIN) => Ok(0),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }

    /// The same for bytes that leave in a TCP segment of their own.
    pub fn send_apart(&self, bytes: &[u8]) -> io::Result<usize> {
        // The end of a record: nothing is joined to it.
        self.send_with(bytes, SendFlags::EOR)
    }

    /// Whether it is neither closing nor closed.
    pub fn is_open(&self) -> bool {
        self.state == ConnectionState::Open
    }

    /// Where to append control frames.
    pub fn control(&mut self) -> &mut Vec<u8> {
        &mut self.outbound.get_or_insert_default().control
    }

    /// Bytes of control frames that wait.
    pub fn control_bytes(&self) -> usize {
        self.outbound.as_ref().map_or(0, |outbound| outbound.control.len())
    }

    /// Whether anything but data waits to be sent.
    pub fn has_unsent(&self) -> bool {
        self.outbound.is_some()
    }

    /// Appends what goes before data to `out`, but of states only up to `limit` bytes in all. Returns whether that
    /// was everything.
    pub fn copy_unsent(&self, limit: usize, out: &mut Vec<u8>) -> bool {
        self.outbound.as_ref().is_none_or(|outbound| outbound.copy(limit, out))
    }

    /// Where to add to what goes before data.
    pub fn outbound(&mut self) -> &mut Outbound {
        self.outbound.get_or_insert_default()
    }

    /// Drops the states of all lanes but those that are to be kept; what was sent in part stays.
    pub fn retain_states(&mut self, keep: impl Fn(u32) -> bool) {
        if let Some(outbound) = &mut self.outbound {
            outbound.retain_states(keep);
            if outbound.is_empty() {
                self.outbound = None;
            }
        }
    }

    /// Notes that the first `sent` of the bytes that went before data, and of the data, are gone. Returns how many of
    /// `sent` remain for the data.
    pub fn unsent_taken(&mut self, sent: usize) -> usize {
        let Some(outbound) = &mut self.outbound else { return sent };
        // The kernel has room again for a client that had filled its buffer: it reads. A ping may have to wait behind
        // a large frame for longer than its answer may take.
        if outbound.is_partial() && sent > 0 {
            self.heard_ms = monotonic_ms();
        }
        let rest = outbound.taken(sent);
        if outbound.is_empty() {
            self.outbound = None;
        }
        rest
    }

    /// Shuts our side: the client reads to the end and closes.
    pub fn linger(&mut self, close: Close) {
        self.state = ConnectionState::Lingering { close };
        // Fails if the client is gone already, which the next read tells.
        let _ = self.socket.shutdown(std::net::Shutdown::Write);
    }

    /// Makes dropping the socket a reset that throws unsent bytes away.
    pub fn abort_on_drop(&self) {
        // Fails only on a socket that is gone.
        let _ = rustix::net::sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn connection() -> Connection {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Connection::new(UpgradedSocket { socket, answer: Vec::new() }, AgentId::default(), 0)
    }

    fn unsent(connection: &Connection) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(connection.copy_unsent(usize::MAX, &mut out));
        out
    }

    #[test]
    fn a_frame_sent_in_part_is_finished_before_any_control_frame() {
        let mut connection = connection();
        connection.outbound().keep_tail(b"tail");
        connection.control().extend_from_slice(b"control");
        assert_eq!(unsent(&connection), b"tailcontrol");
        assert_eq!(connection.unsent_taken(2), 0);
        connection.control().extend_from_slice(b"+");
        assert_eq!(unsent(&connection), b"ilcontrol+");
        assert_eq!(connection.unsent_taken(5), 0);
        connection.control().extend_from_slice(b"later");
        assert_eq!(unsent(&connection), b"trol+later");
        assert_eq!(connection.unsent_taken(10 + 3), 3, "three bytes of data behind");
        assert!(!connection.has_unsent(), "nothing is kept");
    }

    #[test]
    fn states_go_after_control_frames_and_one_sent_in_part_is_finished_first() {
        let mut connection = connection();
        connection.control().extend_from_slice(b"answer");
        connection.outbound().push_state(1, Bytes::from_static(b"first"));
        connection.outbound().push_state(2, Bytes::from_static(b"second"));
        connection.outbound().push_state(3, Bytes::from_static(b"third"));
        assert_eq!(connection.control_bytes(), 6, "states are no answers");
        let mut out = Vec::new();
        assert!(!connection.copy_unsent(8, &mut out));
        assert_eq!(out, b"answerfi");
        assert_eq!(connection.unsent_taken(8), 0);
        connection.control().extend_from_slice(b"pong");
        assert_eq!(unsent(&connection), b"rstpongsecondthird");
        assert_eq!(connection.heard_ms, 0, "nothing had been sent in part before");
        connection.retain_states(|lane| lane != 1);
        connection.retain_states(|lane| lane != 2);
        assert_eq!(unsent(&connection), b"rstpongthird");
        connection.retain_states(|_| false);
        assert_eq!(unsent(&connection), b"rstpong");
        assert_eq!(connection.unsent_taken(7 + 2), 2);
        assert!(connection.heard_ms > 0, "it has taken more of a frame that went in part");
        assert!(!connection.has_unsent());
    }

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Connection>() <= 48, "{}", size_of::<Connection>());
    }
}
