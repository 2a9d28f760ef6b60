//! What a dialect may use while it talks with one client: the shard's parts, lent for one call.

use crate::engine::hub::TooManySilentGroups;
use crate::server::shard::connection::Connection;
use crate::server::shard::lanes::Lanes;
use crate::server::shard::outbox::{AckFault, Outbox};
use crate::server::shard::session::Session;
use crate::server::shard::sessions::Sessions;
use crate::wire::Wire;

/// One client, and the parts of the shard that its requests change.
pub struct Conversation<'a> {
    /// The key of the client's session.
    pub key: u32,
    /// All sessions of the shard.
    pub sessions: &'a mut Sessions,
    /// The groups they are in.
    pub lanes: &'a mut Lanes,
    /// Sends what is due for a session.
    pub outbox: &'a mut Outbox,
}

impl Conversation<'_> {
    /// The client's session. It stays while the conversation does: only the loop ends sessions.
    pub fn session(&mut self) -> Option<&mut Session> {
        self.sessions.get_mut(self.key)
    }

    /// Where to append answers to the client; `None` if its connection is closing.
    pub fn answer(&mut self) -> Option<&mut Vec<u8>> {
        self.sessions.connection_mut(self.key).filter(|connection| connection.is_open()).map(Connection::control)
    }

    /// Bytes of answers that the client has not taken yet.
    pub fn unread_bytes(&self) -> usize {
        self.sessions.connection(self.key).map_or(0, Connection::control_bytes)
    }

    /// Makes the client a subscriber. Returns the lane, unless it was there before.
    pub fn join(&mut self, group: &str) -> Result<Option<u32>, TooManySilentGroups> {
        self.sessions.join(self.key, group, self.lanes)
    }

    /// The lane of a group on the client's clock, if it has subscribers.
    pub fn lane_of(&self, group: &str) -> Option<u32> {
        let session = self.sessions.get(self.key)?;
        self.lanes.find(&session.group_key(group), session.wire)
    }

    /// Ends a subscription of the client, if there is one.
    pub fn leave(&mut self, group: &str) {
        self.sessions.leave(self.key, group, self.lanes);
    }

    /// The id of the first publication that the client has not got from these groups.
    pub fn first_undelivered(&mut self, groups: &[String]) -> u64 {
        let drained = self.lanes.drained(Wire::Streams);
        let lanes = &*self.lanes;
        let Some(session) = self.sessions.get_mut(self.key) else { return drained + 1 };
        let next = groups.iter().filter_map(|group| {
            let lane = lanes.find(group, Wire::Streams)?;
            let cursor = session.membership(lane)?.cursor;
            lanes.lane(lane).ring.get(cursor).map(|frame| frame.id)
        });
        next.min().unwrap_or(drained + 1)
    }

    /// Sends what the client has to read from histories, when its turn comes.
    pub fn pull(&mut self) {
        self.outbox.queue_pull(self.key, self.sessions);
    }

    /// What a plan of faults does to an ack for the client.
    pub fn ack_fault(&mut self, ack_id: u64) -> Option<AckFault> {
        self.outbox.strike_ack(self.key, ack_id, self.sessions, self.lanes)
    }

    /// Sends what waits for the client.
    pub fn flush(&mut self) {
        self.outbox.flush(self.key, self.sessions, self.lanes);
    }
}
