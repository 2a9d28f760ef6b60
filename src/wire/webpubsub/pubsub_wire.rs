//! One subprotocol: reads a client's messages, writes control messages and data frames.

use super::control::{Downstream, Malformed, Upstream};
use super::forms::{PlainForm, SUBPROTOCOLS, Syntax};
use super::{json, protobuf, reliable};
use crate::wire::payload::Profile;
use crate::wire::websocket::ClientMessage;

/// The type URL of an orderflow payload; clients match it as a substring.
pub const ORDERFLOW_TYPE_URL: &str = "proto.orderflow";

/// Characters a group name may have (`docs/protocols/webpubsub.md`, "Limits").
pub const MAX_GROUP_NAME: usize = 1024;

/// A subprotocol and a profile: what a connection of Azure Web PubSub speaks, chosen at the upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PubSubWire {
    /// JSON in text frames, or protobuf in binary ones.
    pub syntax: Syntax,
    /// Sequence ids, sequence acks and recovery.
    pub reliable: bool,
    /// The scale of the numbers in the payloads.
    pub profile: Profile,
}

impl PubSubWire {
    /// The subprotocol's name, as in `Sec-WebSocket-Protocol`.
    pub fn subprotocol(self) -> &'static str {
        SUBPROTOCOLS
            .iter()
            .find_map(|&(name, syntax, reliable)| ((syntax, reliable) == (self.syntax, self.reliable)).then_some(name))
            .expect("SUBPROTOCOLS lists all four combinations")
    }

    /// The form whose frames this wire sends, as they are or with a sequence id.
    pub const fn plain_form(self) -> PlainForm {
        PlainForm { syntax: self.syntax, profile: self.profile }
    }

    /// Parses one text or binary message of a client.
    pub fn parse<'a>(self, message: &ClientMessage<'a>) -> Result<Upstream<'a>, Malformed> {
        let upstream = match (self.syntax, message) {
            (Syntax::Json, ClientMessage::Text(text)) => json::parse(text)?,
            (Syntax::Protobuf, ClientMessage::Binary(bytes)) => protobuf::parse(bytes)?,
            (Syntax::Json, _) => return Err(Malformed::WrongFrameType { expected: "text", actual: "binary" }),
            (Syntax::Protobuf, _) => return Err(Malformed::WrongFrameType { expected: "binary", actual: "text" }),
        };
        if let Upstream::Join { group, .. } | Upstream::Leave { group, .. } = &upstream
            && (group.chars().count() > MAX_GROUP_NAME || group.trim().is_empty())
        {
            return Err(Malformed::BadGroupName(group.chars().count()));
        }
        Ok(upstream)
    }

    /// Appends a control message as a finished frame.
    pub fn append(self, message: &Downstream<'_>, out: &mut Vec<u8>) {
        match self.syntax {
            Syntax::Json => json::append(message, out),
            Syntax::Protobuf => protobuf::append(message, out),
        }
    }

    /// Appends the reliable frame: the plain one with its sequence id.
    ///
    /// `sequence_id` is at least 1 (the SDKs read 0 as absent) and below 2^53 (JSON numbers in JS).
    pub fn finish(self, plain: &[u8], sequence_id: u64, out: &mut Vec<u8>) {
        debug_assert!(self.reliable && (1..1 << 53).contains(&sequence_id));
        match self.syntax {
            Syntax::Json => reliable::append_json(plain, sequence_id, out),
            Syntax::Protobuf => reliable::append_protobuf(plain, sequence_id, out),
        }
    }
}

/// Appends the finished plain frame of a group's data: `payload` in an `Any`, from `group`.
pub fn append_data(syntax: Syntax, group: &str, type_url: &str, payload: &[u8], out: &mut Vec<u8>) {
    match syntax {
        Syntax::Json => json::append_data(group, type_url, payload, out),
        Syntax::Protobuf => protobuf::append_data(group, type_url, payload, out),
    }
}

/// Appends the finished plain frame of a group's data that is a JSON value, given as its text (`docs/protocols/webpubsub.md`,
/// "Data across protocols").
pub fn append_json_data(syntax: Syntax, group: &str, text: &str, out: &mut Vec<u8>) {
    match syntax {
        Syntax::Json => json::append_json_data(group, text, out),
        Syntax::Protobuf => protobuf::append_json_data(group, text, out),
    }
}

/// The payload inside a plain protobuf frame that [`append_data`] wrote: its last bytes.
pub fn payload_of(frame: &[u8], group: &str, type_url: &str) -> std::ops::Range<usize> {
    protobuf::payload_of(frame, group, type_url)
}

/// The payload inside a plain JSON frame that [`append_data`] wrote, decoded.
pub fn payload_of_json(frame: &[u8]) -> Option<Vec<u8>> {
    json::payload_of(frame)
}
