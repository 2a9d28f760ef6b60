//! The loop of a shard: it waits, hands one part of the shard to another, and ends connections.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam::channel::Receiver;

use super::close::{Close, CloseFrame};
use super::context::ShardContext;
use super::dialect::Dialects;
use super::dialect::conversation::Conversation;
use super::inbox::Inbox;
use super::lanes::Lanes;
use super::looks::Looks;
use super::mailbox::{Admitted, Arrival, AssignmentNews, NewSocket, ShardHandle, ShardMessage};
use super::outbox::Outbox;
use super::poller::{Interest, Poller, ReadySocket};
use super::sessions::{Report, Sessions};
use super::stats::ShardStats;
use crate::engine::system_clock::monotonic_ms;
use crate::wire::Wire;

/// One thread's connections and everything they need.
pub struct Shard {
    mailbox: Receiver<ShardMessage>,
    poller: Poller,
    lanes: Lanes,
    sessions: Sessions,
    inbox: Inbox,
    outbox: Outbox,
    dialects: Dialects,
    looks: Looks,
}

impl Shard {
    /// Starts the thread of the shard with this number.
    pub fn spawn(index: u8, context: &ShardContext) -> io::Result<(ShardHandle, JoinHandle<()>)> {
        let poller = Poller::new()?;
        let report = Arc::default();
        context.hubs.attach(&Arc::clone(poller.bell()).into(), &report);
        let options = Arc::clone(&context.options);
        let stats = Arc::new(ShardStats::default());
        let (handle, mailbox) = ShardHandle::new(Arc::clone(poller.bell()), Arc::clone(&stats));
        let mut shard = Self {
            mailbox,
            poller,
            lanes: Lanes::new(context, Arc::clone(&stats)),
            sessions: Sessions::new(index, &options, Arc::clone(&context.closed), Arc::clone(&stats)),
            inbox: Inbox::new(&options, Arc::clone(&context.unfinished)),
            outbox: Outbox::new(context, Arc::clone(&stats), report),
            dialects: Dialects::new(context, &stats),
            looks: Looks::default(),
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
            // While the sweep is not over, only poll: do not sleep.
            let next_ms = [self.sessions.next_ms(), self.dialects.next_ms(), self.outbox.next_ms()];
            let next_ms = next_ms.into_iter().flatten().min();
            let has_work = self.outbox.has_queued() || !self.looks.is_empty();
            self.poller.wait(if has_work { Some(0) } else { next_ms }, &mut events);
            for event in events.drain(..) {
                if let Some(socket) = self.poller.take(event) {
                    self.ready(socket);
                }
                // One load when there is nothing. Otherwise the channels could fill up in a flood of requests.
                self.drain();
            }
            while let Ok(message) = self.mailbox.try_recv() {
                self.take(message);
            }
            self.drain();
            self.outbox.sweep(&mut self.sessions, &self.lanes);
            self.looks.turn(self.outbox.has_queued(), &mut self.sessions, &self.lanes, || self.outbox.take_sweeps());
            self.settle();
            self.expire(monotonic_ms());
        }
    }

    /// The kernel says a socket can be read, or written, or is gone.
    fn ready(&mut self, ReadySocket { key, is_readable, is_writable }: ReadySocket) {
        if is_readable {
            self.receive(key);
        }
        if is_writable && self.sessions.unblock(key) {
            self.poller.set_interest(key, self.sessions.socket(key), Interest::Read);
            self.outbox.unblocked(key, &mut self.sessions, &self.lanes);
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
            ShardMessage::Open(_) | ShardMessage::Refuse { .. } if self.sessions.is_draining() => {}
            ShardMessage::Open(Arrival { client, read, user, protocol, wanted, restored }) => {
                self.drain(); // What was published before is not for a session that comes back.
                let (key, stream_place) = self.sessions.arrive(user, protocol, restored, &mut self.lanes);
                self.outbox.arrived(key, &self.sessions);
                self.connect(key, client, Some(&read), stream_place);
                drop(wanted);
                self.sessions.end_replaced(key, &mut self.lanes);
            }
            ShardMessage::Claim(claim) => self.sessions.claim(claim, &mut self.lanes),
            ShardMessage::Attach { id, client, read } => {
                if let Some(key) = self.sessions.resume(id, &mut self.lanes) {
                    self.connect(key, client, Some(&read), None);
                }
            }
            ShardMessage::Refuse { client, hub, wire } => {
                let key = self.sessions.add_refused(hub, wire);
                self.connect(key, client, None, None);
            }
            ShardMessage::Assigned(AssignmentNews { assignments, .. }) => {
                for key in self.sessions.assigned(&assignments) {
                    self.converse(key, |_, dialects, wire, talk| dialects.of(wire).reassigned(talk));
                    self.sessions.end_replaced(key, &mut self.lanes);
                }
            }
            ShardMessage::ClockEnded(clock) => self.sessions.end_clock(&clock, &mut self.lanes),
            ShardMessage::Ask(question) => self.looks.push(question),
            ShardMessage::Drain => self.sessions.drain(&mut self.lanes),
        }
        self.settle();
    }

    /// Gives a session its socket, greets the client and handles what it has sent already (`None`: only to refuse it).
    /// Its places under the limits are held until the shard has counted it: a client that is greeted counts once.
    fn connect(&mut self, key: u32, client: NewSocket, sent: Option<&[u8]>, stream_place: Option<Admitted>) {
        let NewSocket { socket, agent, admitted } = client;
        let (is_watched, now_ms) = (self.poller.add(key, &socket.socket), monotonic_ms());
        self.sessions.connect(key, socket, agent, now_ms);
        drop((admitted, stream_place));
        match sent {
            _ if !is_watched => self.sessions.report(key, Report::Lost(Close::Gone)),
            Some(sent) => {
                self.converse(key, |inbox, dialects, wire, talk| inbox.welcome(sent, now_ms, dialects.of(wire), talk));
            }
            None => self.close(key, &Close::NotRecovered.into()),
        }
    }

    /// Acts on what the parts have reported about connections.
    fn settle(&mut self) {
        while let Some((key, report)) = self.sessions.next_report() {
            match report {
                Report::Awaits(interest) => self.poller.set_interest(key, self.sessions.socket(key), interest),
                Report::Lagging => self.dialects.too_slow(key, &mut self.sessions),
                Report::Close(frame) => self.close(key, &frame),
                Report::Finished(close) => self.sessions.depart(key, close, &mut self.lanes),
                Report::Lost(close) => self.sessions.lose(key, close, &mut self.lanes),
            }
        }
    }

    fn close(&mut self, key: u32, frame: &CloseFrame) {
        let farewell = self.dialects.farewell(key, frame, &self.sessions);
        self.sessions.close(key, frame, &farewell, &mut self.lanes);
        self.outbox.flush(key, &mut self.sessions, &self.lanes);
    }

    /// Ends what has expired, pings, and sends what was held back.
    fn expire(&mut self, now_ms: u64) {
        self.dialects.expire(now_ms, &mut self.sessions, &mut self.lanes, &mut self.outbox);
        self.settle();
        while let Some(ping) = self.dialects.next_overdue(now_ms, &mut self.sessions) {
            // If the shard was busy or the machine slept, the answer may already lie in the socket.
            self.receive(ping.key());
            if ping.is_overdue(&mut self.sessions) {
                self.sessions.lose(ping.key(), Close::PongTimeout, &mut self.lanes);
            }
        }
        self.sessions.expire(now_ms, &mut self.lanes);
        self.settle();
    }
}
