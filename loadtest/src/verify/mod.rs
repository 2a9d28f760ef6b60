//! What each client received, checked against what the server says it published.
//!
//! A group's publications form one sequence, and a client that joined must receive a contiguous run
//! of it. [`log::GroupLog`] holds that sequence as one worker knows it: its front part is *confirmed*
//! by the tick ledger, its back part is *provisional*, made of first copies that arrived before their
//! ledger entry. A [`member::Member`] is one client's place in a group: where its run began and which
//! publication must come next. The usual frame is byte for byte the next slot's frame, and costs one
//! comparison; everything else is decoded and judged, if need be later, when the ledger has caught up.
//!
//! When the ledger shows that the provisional order was wrong (the first client to receive something
//! was the one that missed something), the log is corrected and the correction is applied to every member, so
//! that the client at fault is named and no other: see [`correction`].

pub mod correction;
pub mod fault;
pub mod log;
pub mod member;
pub mod slot;
pub mod verifier;

/// What a publication is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The hub's counter; 0 in a frame of a plain wire, until the ledger entry replaces it.
    pub sequence_id: u64,
    /// xxh3-64 of `Any.value`; `None` when the ledger gives no hash for the profile.
    pub hash: Option<u64>,
    /// The record's own time.
    pub timestamp: i64,
}

/// How publications of a log are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// By `sequenceId`: reliable wires of a server whose counter is shared by all connections.
    Sequence,
    /// By payload: plain wires, and servers without a ledger.
    Payload,
}

impl Identity {
    /// Whether both claim to be the same publication under `key`; their contents may still differ.
    pub fn is_same_publication(&self, other: &Self, key: Key) -> bool {
        match key {
            Key::Sequence => self.sequence_id == other.sequence_id,
            Key::Payload => self.has_same_content(other),
        }
    }

    /// Whether record time and payload agree, as far as both are known.
    pub fn has_same_content(&self, other: &Self) -> bool {
        let hashes_agree = match (self.hash, other.hash) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        self.timestamp == other.timestamp && hashes_agree
    }
}
