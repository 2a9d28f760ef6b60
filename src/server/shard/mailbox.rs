//! What the rest of the server tells a shard, and how.

use std::borrow::Cow;
use std::convert::Infallible;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::assignment::Assignment;
use super::grant::Grant;
use super::poller::Doorbell;
use super::question::Question;
use super::stats::ShardStats;
use super::user_agents::AgentId;
use crate::engine::wanted_form::WantedForm;
use crate::replay::seat::Seat;
use crate::wire::gexbot::HubName;
use crate::wire::webpubsub;

/// Messages that may wait for a shard; beyond it the server answers 503.
const CAPACITY: usize = 4096;

/// What the rest of the server tells a shard.
pub enum ShardMessage {
    /// A client has been upgraded.
    Open(Arrival),
    /// A client wants its session back, before it is answered.
    Claim(SessionClaim),
    /// A client whose claim was granted has been upgraded.
    Attach {
        /// The connection id of the session that was claimed.
        id: Uuid,
        /// The client.
        client: NewSocket,
        /// What it sent behind the handshake.
        read: Bytes,
    },
    /// A client that asked for a session which cannot be recovered has been upgraded, to be told so.
    Refuse {
        /// The client.
        client: NewSocket,
        /// The hub that it connects to.
        hub: HubName,
        /// Its protocol.
        wire: webpubsub::PubSubWire,
    },
    /// Assignments have changed: their sessions follow, or end if another negotiate took their place.
    Assigned(AssignmentNews),
    /// A replay session has ended: the clients on its clock are closed.
    ClockEnded(Arc<str>),
    /// An operator asks something.
    Ask(Question),
    /// Tell everybody, close everything, and end.
    Drain,
}

/// What a client says about the session that it wants back.
pub struct SessionClaim {
    /// The connection id that the client names.
    pub id: Uuid,
    /// The reconnection token it was given.
    pub token: u128,
    /// The hub that the client connects to; only its own sessions can be recovered there.
    pub hub: HubName,
    /// The session's wire, or nothing if it cannot be recovered.
    pub reply: oneshot::Sender<Option<webpubsub::PubSubWire>>,
}

/// Assignments whose groups changed, or that were replaced, for every shard alike.
#[derive(Clone)]
pub struct AssignmentNews {
    /// Their ids; a shard ignores those of which it has no session.
    pub assignments: Arc<[u64]>,
    /// Dropped when the shard has acted.
    pub done: mpsc::Sender<Infallible>,
}

/// A socket that is no longer HTTP's.
pub struct UpgradedSocket {
    /// In non-blocking mode.
    pub socket: TcpStream,
    /// The `101`. It is not sent yet: the shard sends it with what it says first.
    pub answer: Vec<u8>,
}

/// A client whose upgrade is finished.
pub struct NewSocket {
    /// Its socket.
    pub socket: UpgradedSocket,
    /// What it calls itself.
    pub agent: AgentId,
    /// Counts it against the limit until the shard counts it.
    pub admitted: Admitted,
}

/// A client with a session of its own.
pub struct Arrival {
    /// The client.
    pub client: NewSocket,
    /// What it sent behind the handshake.
    pub read: Bytes,
    /// Who it says it is. A credential on Web PubSub: never logged.
    pub user: Box<str>,
    /// Its protocol, with what only that protocol needs.
    pub protocol: ClientProtocol,
    /// Keeps what it will be subscribed to built until it is.
    pub wanted: Option<WantedForm>,
    /// What its session was on another node, or before a restart; `None`: it has a new one.
    pub restored: Option<RestoredSession>,
}

/// What a client's token says of its session.
pub struct RestoredSession {
    /// Its connection id.
    pub id: Uuid,
    /// Full names of the groups that it had joined, all of which it may join.
    pub groups: Vec<Cow<'static, str>>,
}

/// What an upgraded client speaks, and may do.
pub enum ClientProtocol {
    /// One of the Web PubSub subprotocols.
    WebPubSub {
        /// Which of them, and the profile.
        wire: webpubsub::PubSubWire,
        /// The hub that it connected to.
        hub: HubName,
        /// The groups that the server joins for it; without, the client joins.
        assignment: Option<Arc<Assignment>>,
        /// The session whose clock it is on; without, the clock that all share.
        session: Option<Box<Seat>>,
    },
    /// The JSON streams, on `/ws`.
    Streams {
        /// The channels its token allows, and when it expires.
        grant: Grant,
        /// Counts it among the connections of the streams until the shard does.
        admitted: Admitted,
    },
}

/// A slot under the limit of connections, held until the shard counts the connection itself.
pub struct Admitted(Arc<AtomicUsize>);

impl Admitted {
    /// Takes a slot. Also returns how many other slots are held.
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

/// A shard as the rest of the server sees it.
#[derive(Clone)]
pub struct ShardHandle {
    messages: Sender<ShardMessage>,
    bell: Arc<Doorbell>,
    stats: Arc<ShardStats>,
}

/// A shard takes no more messages for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the shard's mailbox is full, or the shard has ended")]
pub struct MailboxFull;

impl ShardHandle {
    /// A handle to a shard, and the receiver from which the shard reads.
    pub fn new(bell: Arc<Doorbell>, stats: Arc<ShardStats>) -> (Self, Receiver<ShardMessage>) {
        let (messages, mailbox) = bounded(CAPACITY);
        (Self { messages, bell, stats }, mailbox)
    }

    /// Tells the shard; never waits.
    pub fn send(&self, message: ShardMessage) -> Result<(), MailboxFull> {
        self.messages
            .try_send(message)
            .map_err(|(TrySendError::Full(_) | TrySendError::Disconnected(_))| MailboxFull)?;
        self.bell.ring();
        Ok(())
    }

    /// Whether a message would be taken now.
    pub fn has_room(&self) -> bool {
        !self.messages.is_full()
    }

    /// The shard's counters, which any thread may read.
    pub fn stats(&self) -> &ShardStats {
        &self.stats
    }
}
