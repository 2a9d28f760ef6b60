//! One socket: bytes out in the order they must leave, bytes in as messages.
//!
//! An idle connection owns no buffer: [`Outbound`] exists while something is unsent, `Inbound`'s
//! buffer while a message is partial. Data frames are not queued here at all; a blocked connection
//! keeps its cursors, and at most the rest of one frame.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use bytes::{Buf, Bytes};
use rustix::net::{SendFlags, send};

use super::close::Close;
use super::mailbox::UpgradedSocket;
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

/// Unsent bytes that are not data in a ring.
#[derive(Default)]
struct Outbound {
    /// The rest of what was sent in part; goes before anything else.
    tail: Bytes,
    /// Finished control frames; they go at the next frame boundary, before data.
    control: Vec<u8>,
    /// The latest state of groups that were joined, with their lanes; they go before the groups' data. Each is shared
    /// by all who join at the time, and there is one per group.
    states: VecDeque<(u32, Bytes)>,
}

impl Outbound {
    /// Removes the first `sent` bytes. What is left of a frame that went in part becomes the tail, because it must
    /// be finished before any other. Returns how many of `sent` were more than there was.
    fn taken(&mut self, sent: usize) -> usize {
        let mut left = sent;
        let of_tail = left.min(self.tail.len());
        self.tail.advance(of_tail);
        left -= of_tail;
        if left > 0 && !self.control.is_empty() {
            let rest = self.control.split_off(left.min(self.control.len()));
            left -= self.control.len();
            (self.tail, self.control) = (rest.into(), Vec::new());
        }
        while left > 0
            && let Some((_, mut state)) = self.states.pop_front()
        {
            let of_state = left.min(state.len());
            state.advance(of_state);
            left -= of_state;
            self.tail = state;
        }
        left
    }

    fn is_empty(&self) -> bool {
        self.tail.is_empty() && self.control.is_empty() && self.states.is_empty()
    }
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
            outbound: (!answer.is_empty()).then(|| Box::new(Outbound { control: answer, ..Outbound::default() })),
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

    /// Where to append control frames.
    pub fn control(&mut self) -> &mut Vec<u8> {
        &mut self.outbound.get_or_insert_default().control
    }

    /// Whether it is neither closing nor closed.
    pub fn is_open(&self) -> bool {
        self.state == ConnectionState::Open
    }

    /// Bytes of control frames that wait.
    pub fn control_bytes(&self) -> usize {
        self.outbound.as_ref().map_or(0, |outbound| outbound.control.len())
    }

    /// Whether anything but data waits to be sent.
    pub fn has_unsent(&self) -> bool {
        self.outbound.is_some()
    }

    /// Queues the latest state of a group that was joined: one finished frame.
    pub fn push_state(&mut self, lane: u32, frame: Bytes) {
        self.outbound.get_or_insert_default().states.push_back((lane, frame));
    }

    /// Drops the state of a group that was left, unless a part of it was sent.
    pub fn drop_state(&mut self, lane: u32) {
        self.retain_states(|of| of != lane);
    }

    /// Drops every state, because nothing but a close frame is sent from now on.
    pub fn drop_states(&mut self) {
        self.retain_states(|_| false);
    }

    fn retain_states(&mut self, keep: impl Fn(u32) -> bool) {
        if let Some(outbound) = &mut self.outbound {
            outbound.states.retain(|(lane, _)| keep(*lane));
            if outbound.is_empty() {
                self.outbound = None;
            }
        }
    }

    /// Appends what goes before data to `out`, but of states only up to `limit` bytes in all. Returns whether that
    /// was everything.
    pub fn copy_unsent(&self, limit: usize, out: &mut Vec<u8>) -> bool {
        let Some(outbound) = &self.outbound else { return true };
        let tail = outbound.tail.len().min(limit);
        out.extend_from_slice(&outbound.tail[..tail]);
        if tail < outbound.tail.len() {
            return false;
        }
        out.extend_from_slice(&outbound.control);
        for (_, state) in &outbound.states {
            let part = state.len().min(limit.saturating_sub(out.len()));
            out.extend_from_slice(&state[..part]);
            if part < state.len() {
                return false;
            }
        }
        true
    }

    /// Notes that the first `sent` of the bytes that [`Connection::copy_unsent`] gave are gone. Returns how
    /// many of `sent` remain for the data after them.
    pub fn unsent_taken(&mut self, sent: usize) -> usize {
        let Some(outbound) = &mut self.outbound else { return sent };
        let (was_partial, rest) = (!outbound.tail.is_empty(), outbound.taken(sent));
        // The kernel has room again for a client that had filled its buffer: it reads. A ping may have to wait behind
        // a large frame for longer than its answer may take.
        if was_partial && sent > 0 {
            self.heard_ms = monotonic_ms();
        }
        if outbound.is_empty() {
            self.outbound = None;
        }
        rest
    }

    /// Keeps the rest of a data frame that went in part. It is copied, because a slice would keep the whole block in
    /// which the frame lies.
    pub fn keep_tail(&mut self, rest: &[u8]) {
        let outbound = self.outbound.get_or_insert_default();
        debug_assert!(outbound.tail.is_empty(), "nothing is sent past a tail");
        outbound.tail = Bytes::copy_from_slice(rest);
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
        connection.keep_tail(b"tail");
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
        connection.push_state(1, Bytes::from_static(b"first"));
        connection.push_state(2, Bytes::from_static(b"second"));
        connection.push_state(3, Bytes::from_static(b"third"));
        assert_eq!(connection.control_bytes(), 6, "states are no answers");
        let mut out = Vec::new();
        assert!(!connection.copy_unsent(8, &mut out));
        assert_eq!(out, b"answerfi");
        assert_eq!(connection.unsent_taken(8), 0);
        connection.control().extend_from_slice(b"pong");
        assert_eq!(unsent(&connection), b"rstpongsecondthird");
        assert_eq!(connection.heard_ms, 0, "nothing had been sent in part before");
        connection.drop_state(1);
        connection.drop_state(2);
        assert_eq!(unsent(&connection), b"rstpongthird");
        connection.drop_states();
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
