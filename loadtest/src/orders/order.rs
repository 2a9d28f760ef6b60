//! One order, as the ledger has it.

use serde::{Deserialize, Serialize};

use crate::ledger::Groups;
use crate::ledger::offset::Offset;

/// The name of `/ws` among the hubs.
const STREAMS: &str = "ws";

/// What was ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "docs/faults.md describes each")]
pub enum OrderKind {
    Reset,
    ResetMidFrame,
    Close,
    Stall,
    Delay,
    Drop,
    Duplicate,
    Reorder,
    Corrupt,
    Truncate,
    Split,
    Silence,
    RefuseUpgrade,
    RefuseNegotiate,
    RefuseRecovery,
    ExpireToken,
    NoAck,
    LateAck,
    PingFlood,
}

impl OrderKind {
    /// The word in plans and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::ResetMidFrame => "reset-mid-frame",
            Self::Close => "close",
            Self::Stall => "stall",
            Self::Delay => "delay",
            Self::Drop => "drop",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::Corrupt => "corrupt",
            Self::Truncate => "truncate",
            Self::Split => "split",
            Self::Silence => "silence",
            Self::RefuseUpgrade => "refuse-upgrade",
            Self::RefuseNegotiate => "refuse-negotiate",
            Self::RefuseRecovery => "refuse-recovery",
            Self::ExpireToken => "expire-token",
            Self::NoAck => "no-ack",
            Self::LateAck => "late-ack",
            Self::PingFlood => "ping-flood",
        }
    }

    /// Whether it is about single frames, which its entries name.
    pub fn is_of_frames(self) -> bool {
        matches!(
            self,
            Self::Delay
                | Self::Drop
                | Self::Duplicate
                | Self::Reorder
                | Self::Corrupt
                | Self::Truncate
                | Self::Split
                | Self::Silence
        )
    }

    /// Whether the frame does not come.
    pub fn is_loss(self) -> bool {
        matches!(self, Self::Drop | Self::Silence)
    }

    /// Whether the message comes broken.
    pub fn is_damage(self) -> bool {
        matches!(self, Self::Corrupt | Self::Truncate)
    }

    /// Whether it is about requests, which a client makes before it has a connection.
    pub fn is_of_requests(self) -> bool {
        matches!(self, Self::RefuseUpgrade | Self::RefuseNegotiate | Self::ExpireToken)
    }

    /// Whether a connection ends, or does not come about, by it.
    pub fn is_ending(self) -> bool {
        matches!(
            self,
            Self::Reset
                | Self::ResetMidFrame
                | Self::Close
                | Self::RefuseUpgrade
                | Self::RefuseNegotiate
                | Self::RefuseRecovery
                | Self::ExpireToken
        )
    }
}

/// Whom an order is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Everybody in the groups of its frames.
    Everyone,
    /// The connection with this id.
    Connection(String),
    /// The client whose key has this hash: a request of it, or its connection to `/ws`, whose id it is not told.
    Client(u64),
}

/// A frame that an order is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderedFrame {
    /// The group's number in the plan.
    pub group: u32,
    /// The publication's number in the hub; on `/ws` the channel's own number of the message.
    pub sequence_id: u64,
    /// `corrupt`: which bit of the message is flipped.
    pub bit: Option<u64>,
    /// `truncate`: how many bytes of the message are sent.
    pub kept: Option<u64>,
    /// `delay`: for how long, ms.
    pub ms: u64,
}

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What.
    pub kind: OrderKind,
    /// The number of the fault in the plan.
    pub fault: u32,
    /// The plan's tick.
    pub tick: u64,
    /// When it was entered, in the client's clock.
    pub at_ns: u64,
    /// Whom.
    pub target: Target,
    /// Frames in groups of the run.
    pub frames: Vec<OrderedFrame>,
    /// `close`: with which code.
    pub code: Option<u16>,
    /// The status of a refusal.
    pub status: Option<u16>,
    /// The ack that is not sent, or late.
    pub ack_id: Option<u64>,
    /// `ping-flood`: how many.
    pub count: u64,
}

/// An order as the server writes it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct WireOrder {
    fault: u32,
    #[serde(rename = "do")]
    kind: OrderKind,
    #[serde(default)]
    tick: u64,
    #[serde(default)]
    hub: Option<String>,
    #[serde(default)]
    connection: Option<String>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    everyone: bool,
    #[serde(default)]
    frames: Vec<WireFrame>,
    #[serde(default)]
    code: Option<u16>,
    #[serde(default)]
    status: Option<u16>,
    #[serde(default)]
    ack_id: Option<u64>,
    #[serde(default)]
    count: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
struct WireFrame {
    group: String,
    sequence_id: u64,
    #[serde(default)]
    channel: Option<String>,
    #[serde(default)]
    seq: Option<u64>,
    #[serde(default)]
    bit: Option<u64>,
    #[serde(default)]
    kept: Option<u64>,
    #[serde(default)]
    ms: Option<u64>,
}

impl WireOrder {
    /// Whether it is for a client of `/ws`.
    pub(crate) fn is_of_streams(&self) -> bool {
        self.hub.as_deref() == Some(STREAMS)
    }

    /// The order for the run's clients; `None` if it names nobody.
    pub(crate) fn resolve(self, groups: &Groups, published_ns: u64, offset: &Offset) -> Option<Order> {
        let user = self.user.as_deref().and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let is_refusal = self.kind.is_of_requests() && self.code.is_none();
        let is_streams = self.is_of_streams();
        let target = match (self.everyone, self.connection, user) {
            (true, ..) => Target::Everyone,
            (false, _, Some(user)) if is_refusal || is_streams => Target::Client(user),
            (false, Some(id), _) => Target::Connection(id),
            (false, None, Some(user)) => Target::Client(user),
            (false, None, None) => return None,
        };
        let frame = |frame: WireFrame| {
            let name = frame.channel.as_ref().unwrap_or(&frame.group);
            let group = groups.number(name)?;
            let WireFrame { seq, bit, kept, ms, .. } = frame;
            let sequence_id = if is_streams { seq? } else { frame.sequence_id };
            Some(OrderedFrame { group, sequence_id, bit, kept, ms: ms.unwrap_or_default() })
        };
        Some(Order {
            kind: self.kind,
            fault: self.fault,
            tick: self.tick,
            at_ns: offset.to_client(published_ns),
            target,
            frames: self.frames.into_iter().filter_map(frame).collect(),
            code: self.code,
            status: self.status,
            ack_id: self.ack_id,
            count: self.count.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_reduced_to_the_groups_of_the_run() {
        let json = r#"{"plan":2,"fault":1,"do":"corrupt","tick":41,"fired":40,"hub":"orderflow","connection":"c-1",
            "user":"9ae16a3b2f90404f","nth":1,"frames":[{"group":"g","sequence_id":7,"bit":90},{"group":"h","sequence_id":8,"bit":1}]}"#;
        let wire: WireOrder = serde_json::from_str(json).unwrap();
        let order = wire.resolve(&Groups::new(&["g".to_owned()]), 5, &Offset::same_clock()).unwrap();
        let frame = OrderedFrame { group: 0, sequence_id: 7, bit: Some(90), kept: None, ms: 0 };
        assert_eq!((order.kind, order.frames), (OrderKind::Corrupt, vec![frame]));
        assert_eq!(order.target, Target::Connection("c-1".to_owned()));
    }

    #[test]
    fn a_refused_request_is_known_by_the_hash_of_its_key() {
        let json = r#"{"plan":1,"fault":3,"do":"refuse-negotiate","tick":4,"fired":4,"hub":"orderflow","connection":null,
            "user":"00000000000000ff","nth":0,"status":429,"retry_after_ms":1000}"#;
        let wire: WireOrder = serde_json::from_str(json).unwrap();
        let order = wire.resolve(&Groups::default(), 5, &Offset::same_clock()).unwrap();
        assert_eq!((order.target, order.status), (Target::Client(255), Some(429)));
    }
}
