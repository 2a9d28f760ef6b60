//! What operators may ask of a shard, and what it answers ([`super::looks`] does).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::close::CloseFrame;
use super::user_agents::AgentId;
use crate::wire::Wire;
use crate::wire::gexbot::HubName;

/// A question to a shard. A dropped answer means that the shard has too many of them, or has ended.
#[expect(missing_docs, reason = "the variants say what the fields are")]
pub enum Question {
    /// The connections that are most frames behind.
    Worst { limit: usize, reply: oneshot::Sender<WorstConnections> },
    /// How long sweeps took since the last question, and nothing else.
    Sweeps { reply: oneshot::Sender<SweepTimes> },
    /// The connection with this id; `None`: there is none.
    One { id: Uuid, reply: oneshot::Sender<Option<ConnectionGroups>> },
    /// Closes the connection with this id; false: there is none.
    Close { id: Uuid, frame: CloseFrame, reply: oneshot::Sender<bool> },
}

/// The connections of a shard that are most frames behind, and what else it knows.
#[derive(Default)]
pub struct WorstConnections {
    /// In no particular order; filled up with connections that are not behind.
    pub connections: Vec<SeenConnection>,
    /// Sockets that took less than they were offered.
    pub blocked: u64,
    /// The largest number of frames that a subscriber is behind, for groups where somebody is: by the group's key, and
    /// whether it is one of `/ws`.
    pub lags: HashMap<(Arc<str>, bool), u64>,
    /// How long sweeps took since the last question.
    pub sweeps: SweepTimes,
}

/// A connection at one moment.
pub struct SeenConnection {
    /// The connection id of its protocol.
    pub id: Uuid,
    /// Its protocol.
    pub wire: Wire,
    /// The hub that it is on; without meaning on `/ws`.
    pub hub: HubName,
    /// Who it says it is, fit to be shown.
    pub user: String,
    /// What it calls itself.
    pub agent: AgentId,
    /// The replay session that it is on.
    pub session: Option<String>,
    /// The other end of the TCP connection.
    pub address: Option<SocketAddr>,
    /// How many groups it has joined.
    pub groups: usize,
    /// Frames that are due in all its groups, and their bytes.
    pub behind: (u64, u64),
    /// Data frames handed to the kernel.
    pub frames: u64,
    /// Bytes handed to the kernel.
    pub bytes: u64,
    /// For how long it has been connected, ms.
    pub age_ms: u64,
    /// When it was last heard, or seen to read: so long ago, ms.
    pub quiet_ms: u64,
    /// `open`, `blocked` or `closing`.
    pub state: &'static str,
}

/// A connection with its groups: each one's key, and how many frames it is behind there.
pub struct ConnectionGroups {
    /// The connection.
    pub connection: SeenConnection,
    /// At most 1000 of its groups.
    pub groups: Vec<(Arc<str>, u64)>,
}

/// How long sweeps took, from the first session's turn to the last one's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweepTimes {
    /// How many there were.
    pub sweeps: u64,
    /// All together.
    pub total_us: u64,
    /// The longest of them.
    pub longest_us: u64,
}

impl SweepTimes {
    /// The slower of two shards, by the longest sweep.
    #[must_use]
    pub fn slower(self, other: Self) -> Self {
        if other.longest_us >= self.longest_us { other } else { self }
    }

    /// Adds one.
    pub fn count(&mut self, us: u64) {
        self.sweeps += 1;
        self.total_us += us;
        self.longest_us = self.longest_us.max(us);
    }
}
