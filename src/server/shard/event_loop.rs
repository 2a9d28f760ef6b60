//! The loop of a shard: it waits, hands one part of the shard to another, and ends connections.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam::channel::Receiver;
use uuid::Uuid;

use super::close::{Close, CloseFrame};
use super::dialect::Dialects;
use super::dialect::conversation::Conversation;
use super::dialect::stream_client::StreamClient;
use super::dialect::streams::StreamsDialect;
use super::dialect::webpubsub::WebPubSubDialect;
use super::inbox::Inbox;
use super::lanes::{Hubs, Lanes};
use super::mailbox::{Arrival, ClientProtocol, ShardHandle, ShardMessage};
use super::marks::Mark;
use super::outbox::Outbox;
use super::poller::{Interest, Poller, ReadySocket};
use super::sessions::{Report, Sessions};
use super::shard_options::ShardOptions;
use super::stats::ShardStats;
use crate::engine::clock::monotonic_ms;
use crate::health::log_limit::SeenNames;
use crate::streams::stream_options::StreamOptions;
use crate::wire::streams::Channels;
use crate::wire::{Wire, webpubsub};

/// What all shards share.
#[derive(Clone)]
pub struct ShardContext {
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
    /// Groups without data that were logged.
    pub silent: Arc<SeenNames>,
}

/// One thread's connections and everything they need.
pub struct Shard {
    mailbox: Receiver<ShardMessage>,
    poller: Poller,
    lanes: Lanes,
    sessions: Sessions,
    inbox: Inbox,
    outbox: Outbox,
    dialects: Dialects,
}

impl Shard {
    /// Starts a shard's thread.
    pub fn spawn(index: u8, context: ShardContext) -> io::Result<(ShardHandle, JoinHandle<()>)> {
        let ShardContext { hubs, prefix, options, stream_options, channels, silent } = context;
        let poller = Poller::new()?;
        for hub in [&hubs.orderflow, &hubs.streams] {
            hub.attach(&Arc::clone(poller.bell()).into());
        }
        let stats = Arc::new(ShardStats::default());
        let shared = || Arc::clone(&stats);
        let (handle, mailbox) = ShardHandle::new(Arc::clone(poller.bell()), shared());
        let mut shard = Self {
            mailbox,
            poller,
            lanes: Lanes::new(hubs, options.lag, shared(), silent),
            sessions: Sessions::new(index, &options, shared()),
            inbox: Inbox::new(&options),
            outbox: Outbox::new(options.lag, shared()),
            dialects: Dialects::new(
                WebPubSubDialect::new(prefix, &options, shared()),
                StreamsDialect::new(channels, stream_options, options.max_reply_bytes, shared()),
            ),
        };
        let thread = thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
            shard.outbox.prepare(options.io_uring, index);
            shard.run();
        })?;
        Ok((handle, thread))
    }

    fn run(mut self) {
        let mut events = Vec::with_capacity(256);
        while !(self.sessions.is_draining() && self.sessions.is_empty()) {
            // Only looks while the sweep is not over.
            let next_ms = self.sessions.next_ms().into_iter().chain(self.dialects.next_ms()).min();
            self.poller.wait(if self.outbox.has_queued() { Some(0) } else { next_ms }, &mut events);
            for event in events.drain(..) {
                if let Some(socket) = self.poller.take(event) {
                    self.ready(socket);
                }
                // One load when there is nothing: a flood of requests must not fill the channels.
                self.drain();
            }
            while let Ok(message) = self.mailbox.try_recv() {
                self.take(message);
            }
            self.drain();
            self.outbox.sweep(&mut self.sessions, &self.lanes);
            self.settle();
            self.expire(monotonic_ms());
        }
    }

    /// The kernel says a socket can be read, or written, or is gone.
    fn ready(&mut self, socket: ReadySocket) {
        let key = socket.key;
        if socket.is_readable {
            self.receive(key);
        }
        if socket.is_writable && self.sessions.mark(key) == Mark::Blocked {
            self.sessions.set_mark(key, Mark::Ready);
            self.set_interest(key, Interest::Read);
            self.outbox.flush(key, &mut self.sessions, &self.lanes);
            self.settle();
        }
    }

    fn receive(&mut self, key: u32) {
        self.converse(key, |inbox, dialects, wire, talk| inbox.receive(dialects.of(wire), talk));
        self.settle();
    }

    /// Lends the parts to a conversation with one client.
    fn converse(&mut self, key: u32, what: impl FnOnce(&mut Inbox, &mut Dialects, Wire, &mut Conversation<'_>)) {
        let Self { sessions, lanes, outbox, .. } = self;
        let Some(wire) = sessions.get(key).map(|session| session.wire) else { return };
        what(&mut self.inbox, &mut self.dialects, wire, &mut Conversation { key, sessions, lanes, outbox });
    }

    fn drain(&mut self) {
        self.outbox.drain(&mut self.sessions, &mut self.lanes);
        self.settle();
    }

    fn take(&mut self, message: ShardMessage) {
        match message {
            ShardMessage::Open(arrival) => self.open(arrival),
            ShardMessage::Claim { id, token, reply } => {
                let claimed = self.claim(id, token);
                // If nobody waits any more, the session goes on waiting for its client.
                let _ = reply.send(claimed);
            }
            ShardMessage::Attach { id, socket, read, admitted } => {
                self.attach(id, socket, &read);
                drop(admitted);
            }
            ShardMessage::Drain => {
                self.sessions.drain(&mut self.lanes);
                self.sessions.keys().into_iter().for_each(|key| self.close(key, &Close::Shutdown.into()));
            }
        }
        self.settle();
    }

    /// A new client: a session and its connection.
    fn open(&mut self, arrival: Arrival) {
        let Arrival { socket, read, user, protocol, admitted } = arrival;
        if self.sessions.is_draining() {
            return;
        }
        let (wire, client, admitted_stream) = match protocol {
            ClientProtocol::WebPubSub(wire) => (Wire::WebPubSub(wire), None, None),
            ClientProtocol::Streams { grant, admitted } => {
                (Wire::Streams, Some(Box::new(StreamClient::new(grant))), Some(admitted))
            }
        };
        let key = self.sessions.add(user, wire, client);
        self.connect(key, socket, &read);
        drop((admitted, admitted_stream));
    }

    /// Whether a session can be recovered. Its old socket, if it has one, is aborted at once, and
    /// the session waits anew, for the socket that is being upgraded.
    fn claim(&mut self, id: Uuid, token: u128) -> Option<webpubsub::Wire> {
        let key = self.sessions.find_recoverable(id, token)?;
        let Wire::WebPubSub(wire) = self.sessions.get(key)?.wire else { return None };
        if self.sessions.connection(key).is_some() {
            self.sessions.lose(key, Close::Recovered, &mut self.lanes);
        } else {
            self.sessions.wait_anew(key);
        }
        self.sessions.waits(id).then_some(wire)
    }

    /// A recovered session gets its new socket and goes on where the client was.
    fn attach(&mut self, id: Uuid, socket: TcpStream, read: &[u8]) {
        if let Some(key) = self.sessions.find(id) {
            self.sessions.lose(key, Close::Recovered, &mut self.lanes);
        }
        // Unknown: it expired between claim and upgrade, or the server drains. The client sees the
        // socket close and asks again.
        if let Some(key) = self.sessions.find(id) {
            self.sessions.resume(key, &self.lanes);
            self.connect(key, socket, read);
        }
    }

    /// Gives a session its socket, greets the client and hears what it has said already.
    fn connect(&mut self, key: u32, socket: TcpStream, read: &[u8]) {
        // The listener's limit is for HTTP clients that do not read; here the lag rule judges.
        // Fails only on a socket that is gone, which the first read tells.
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&socket, 0);
        let watched = self.poller.add(key, &socket);
        let now_ms = monotonic_ms();
        self.sessions.connect(key, socket, now_ms);
        self.converse(key, |inbox, dialects, wire, talk| {
            let dialect = dialects.of(wire);
            dialect.keepalive().start(now_ms, key, talk.sessions.serial(key));
            dialect.greet(talk);
            if let Err(error) = watched {
                tracing::error!(%error, "the kernel refuses to watch one more socket; the connection is dropped");
                return talk.sessions.report(key, Report::Lost(Close::Gone));
            }
            if !read.is_empty() {
                inbox.hear(&mut read.to_vec(), dialect, talk);
            }
            talk.flush();
        });
    }

    /// Does what the parts have found out about connections.
    fn settle(&mut self) {
        while let Some((key, report)) = self.sessions.next_report() {
            match report {
                Report::Blocked => self.set_interest(key, Interest::ReadAndWrite),
                Report::Lagging => self.too_slow(key),
                Report::Close(frame) => self.close(key, &frame),
                Report::Finished(close) => self.sessions.depart(key, close, &mut self.lanes),
                Report::Lost(close) => self.sessions.lose(key, close, &mut self.lanes),
            }
        }
    }

    fn set_interest(&self, key: u32, interest: Interest) {
        if let Some(connection) = self.sessions.connection(key) {
            self.poller.set_interest(key, connection.socket(), interest);
        }
    }

    fn too_slow(&mut self, key: u32) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.connection.as_ref().is_some_and(super::connection::Connection::is_open) {
            tracing::info!(connection = %session.id, "too slow: further behind than --client-buffer allows");
            let report = self.dialects.of(session.wire).too_slow(session);
            self.sessions.report(key, report);
        }
    }

    fn close(&mut self, key: u32, frame: &CloseFrame) {
        let mut farewell = Vec::new();
        if frame.close() == Close::Shutdown
            && let Some(session) = self.sessions.get(key)
        {
            self.dialects.of(session.wire).append_farewell(session, frame.reason(), &mut farewell);
        }
        self.sessions.close(key, frame, &farewell, &mut self.lanes);
        self.outbox.flush(key, &mut self.sessions, &self.lanes);
    }

    /// Does what is due.
    fn expire(&mut self, now_ms: u64) {
        for dialect in self.dialects.all() {
            dialect.expire(now_ms, &mut self.sessions, &self.lanes, &mut self.outbox);
            while let Some(key) = dialect.keepalive().next_pinged(now_ms, &mut self.sessions) {
                self.outbox.flush(key, &mut self.sessions, &self.lanes);
            }
        }
        self.settle();
        while let Some(ping) = self.dialects.next_overdue(now_ms, &mut self.sessions) {
            // A shard that was busy, or a machine that slept, may have an answer lying in the socket.
            self.receive(ping.key());
            if ping.is_overdue(&mut self.sessions) {
                self.sessions.lose(ping.key(), Close::PongTimeout, &mut self.lanes);
            }
        }
        self.sessions.expire(now_ms, &mut self.lanes);
        self.settle();
    }
}
