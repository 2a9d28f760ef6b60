//! What a plan has done to one client or request: an entry of the tick ledger (`docs/faults.md`, "Entries").

use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::fault_plan::FaultKind;

/// One client or request that a fault has struck.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FaultEntry {
    /// Which plan since the start of the server, from 1.
    pub plan: u64,
    /// The fault's number in the plan, from 1.
    pub fault: usize,
    /// Its kind.
    #[serde(rename = "do", serialize_with = "name")]
    pub kind: FaultKind,
    /// The plan's tick at which it struck.
    pub tick: u64,
    /// The plan's tick at which the fault fired.
    pub fired: u64,
    /// The hub's name, or `ws`; `None` for everybody, and for a negotiate.
    pub hub: Option<&'static str>,
    /// The connection's id, if it has one.
    #[serde(serialize_with = "id")]
    pub connection: Option<Uuid>,
    /// Hash of the client's key.
    #[serde(serialize_with = "hex")]
    pub user: Option<u64>,
    /// The how-manieth session of this key on this hub it is; 0 for a request.
    pub nth: u32,
    /// It struck everybody in these groups.
    #[serde(skip_serializing_if = "is_false")]
    pub everyone: bool,
    /// The frames that were struck, in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<StruckFrame>,
    /// What else there is to say about the kind.
    #[serde(flatten)]
    pub detail: FaultDetail,
}

/// Values of single kinds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct FaultDetail {
    /// The close code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// The close reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<str>>,
    /// The status of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What `Retry-After` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// For how long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ms: Option<u64>,
    /// The `ackId` of the request that is not answered, or late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ack_id: Option<u64>,
    /// How many pings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

/// A frame that was struck.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct StruckFrame {
    /// The group's name on the wire.
    pub group: Box<str>,
    /// The publication's id.
    pub sequence_id: u64,
    /// What the message of `/ws` says about itself.
    #[serde(flatten)]
    pub place: Option<StreamPlace>,
    /// The bit of the message that was flipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bit: Option<u64>,
    /// Bytes that were sent of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<u64>,
    /// Bytes that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// How long it was held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ms: Option<u64>,
    /// The id of the frame that left before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

/// Channel and numbers of a message of `/ws`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, serde::Deserialize)]
pub struct StreamPlace {
    /// Its channel.
    #[serde(default)]
    pub channel: Box<str>,
    /// Its number in the channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The partition that the number is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
}

impl FaultEntry {
    /// What it counts for in the ledger: each frame as much as a client.
    pub fn weight(&self) -> usize {
        self.frames.len().max(1)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references over")]
fn name<S: Serializer>(kind: &FaultKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.name())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references over")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::ref_option, reason = "serde hands references over")]
fn hex<S: Serializer>(user: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    user.map(|user| format!("{user:016x}")).serialize(serializer)
}

#[expect(clippy::ref_option, reason = "serde hands references over")]
fn id<S: Serializer>(connection: &Option<Uuid>, serializer: S) -> Result<S::Ok, S::Error> {
    connection.map(|connection| connection.to_string()).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_entry_says_what_there_is_to_say_and_no_more() {
        let frame = StruckFrame { group: "g".into(), sequence_id: 7, bit: Some(9), ..StruckFrame::default() };
        let entry = FaultEntry {
            plan: 1,
            fault: 2,
            kind: FaultKind::Corrupt,
            tick: 4,
            fired: 3,
            hub: Some("orderflow"),
            connection: Some(Uuid::nil()),
            user: Some(0xab),
            nth: 1,
            everyone: false,
            frames: vec![frame],
            detail: FaultDetail::default(),
        };
        let expected = json!({
            "plan": 1, "fault": 2, "do": "corrupt", "tick": 4, "fired": 3, "hub": "orderflow",
            "connection": "00000000-0000-0000-0000-000000000000", "user": "00000000000000ab", "nth": 1,
            "frames": [{"group": "g", "sequence_id": 7, "bit": 9}],
        });
        assert_eq!(serde_json::to_value(&entry).unwrap(), expected);
    }
}
