//! The connections that were closed lately: who, why, and how far behind. All shards write to one list.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use super::close::Close;
use super::user_agents::AgentId;
use crate::wire::Wire;
use crate::wire::gexbot::HubName;

/// How many are remembered.
const REMEMBERED: usize = 200;

/// How a connection is ending, as its client is told.
#[derive(Debug, Clone, Default)]
pub struct Ending {
    /// The code in the close frame; `None`: there is none.
    pub code: Option<u16>,
    /// The reason in the close frame.
    pub reason: Cow<'static, str>,
    /// Frames that it was behind.
    pub behind: u64,
}

/// A connection that has ended.
#[derive(Debug)]
pub struct ClosedConnection {
    /// When, Unix ms.
    pub at_unix_ms: u64,
    /// The connection id of its protocol.
    pub id: Uuid,
    /// Its protocol.
    pub wire: Wire,
    /// The hub that it was on; without meaning on `/ws`.
    pub hub: HubName,
    /// Who it said it was, fit to be shown.
    pub user: String,
    /// What it called itself.
    pub agent: AgentId,
    /// The other end of the TCP connection, if the kernel still knew it.
    pub address: Option<SocketAddr>,
    /// Which row of the table it is.
    pub close: Close,
    /// What it was told, and how far it was behind.
    pub ending: Ending,
    /// From the upgrade to the end, ms.
    pub lived_ms: u64,
    /// Data frames handed to the kernel.
    pub frames: u64,
}

/// The connections that were closed lately, each with its number: 1 for the first one of the process.
#[derive(Default)]
pub struct ClosedLog(Mutex<Recent>);

#[derive(Default)]
struct Recent {
    count: u64,
    list: VecDeque<(u64, Arc<ClosedConnection>)>,
}

impl ClosedLog {
    /// Adds one; the oldest is forgotten.
    pub fn push(&self, closed: ClosedConnection) {
        let closed = Arc::new(closed);
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.count += 1;
        let number = recent.count;
        if recent.list.len() == REMEMBERED {
            recent.list.pop_front();
        }
        recent.list.push_back((number, closed));
    }

    /// All that are remembered, oldest first.
    pub fn recent(&self) -> Vec<(u64, Arc<ClosedConnection>)> {
        let recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.list.iter().cloned().collect()
    }
}
