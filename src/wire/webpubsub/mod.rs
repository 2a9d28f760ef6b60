//! Azure Web PubSub: the four subprotocols the real SDKs speak.
//!
//! Messages, acks and error names: `docs/protocols/webpubsub.md`.
//!
//! # References
//! - <https://learn.microsoft.com/azure/azure-web-pubsub/reference-json-webpubsub-subprotocol>
//! - <https://learn.microsoft.com/azure/azure-web-pubsub/reference-protobuf-webpubsub-subprotocol>

mod json;
mod protobuf;
pub mod received;
mod reliable;

use std::borrow::Cow;
use std::fmt;

use super::payload::Profile;
use super::websocket::Message;

/// The type URL of an orderflow payload; clients match it as a substring.
pub const ORDERFLOW_TYPE_URL: &str = "proto.orderflow";

/// Characters a group name may have (`docs/protocols/webpubsub.md`, "Limits").
pub const MAX_GROUP_NAME: usize = 1024;

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Syntax {
    /// Text frames of JSON.
    Json,
    /// Binary frames of protobuf.
    Protobuf,
}

/// What a connection speaks: chosen once at the upgrade, a value from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Wire {
    /// JSON or protobuf.
    pub syntax: Syntax,
    /// Sequence ids, sequence acks and recovery.
    pub reliable: bool,
    /// The scale of the numbers in the payloads.
    pub profile: Profile,
}

/// What is built once per record and shared by plain and reliable connections: a syntax in a
/// profile. The reliable frame is the plain one with a sequence id, see [`Wire::finish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlainForm {
    /// JSON or protobuf.
    pub syntax: Syntax,
    /// The scale of the numbers.
    pub profile: Profile,
}

impl PlainForm {
    /// Every form, in the order of [`PlainForm::index`].
    pub const ALL: [Self; 4] = [
        Self { syntax: Syntax::Protobuf, profile: Profile::V2025_11 },
        Self { syntax: Syntax::Protobuf, profile: Profile::V2026_04 },
        Self { syntax: Syntax::Json, profile: Profile::V2025_11 },
        Self { syntax: Syntax::Json, profile: Profile::V2026_04 },
    ];

    /// Position in [`PlainForm::ALL`].
    pub const fn index(self) -> usize {
        let syntax = match self.syntax {
            Syntax::Protobuf => 0,
            Syntax::Json => 2,
        };
        syntax + self.profile.index()
    }

    /// The syntax's name in metrics and `inspect`.
    pub const fn syntax_name(self) -> &'static str {
        match self.syntax {
            Syntax::Protobuf => "protobuf",
            Syntax::Json => "json",
        }
    }
}

/// The subprotocol names, each with its syntax and whether it is reliable (`docs/protocols/webpubsub.md`,
/// "Subprotocols").
pub const SUBPROTOCOLS: [(&str, Syntax, bool); 4] = [
    ("json.webpubsub.azure.v1", Syntax::Json, false),
    ("json.reliable.webpubsub.azure.v1", Syntax::Json, true),
    ("protobuf.webpubsub.azure.v1", Syntax::Protobuf, false),
    ("protobuf.reliable.webpubsub.azure.v1", Syntax::Protobuf, true),
];

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Upstream<'a> {
    /// Become a subscriber of a group.
    Join {
        /// The group's name.
        group: Cow<'a, str>,
        /// Answer with this id.
        ack_id: Option<u64>,
    },
    /// Stop being one.
    Leave {
        /// The group's name.
        group: Cow<'a, str>,
        /// Answer with this id.
        ack_id: Option<u64>,
    },
    /// Publish to a group. Nobody may here.
    SendToGroup {
        /// Answer with this id.
        ack_id: Option<u64>,
    },
    /// Call an event handler. There is none here.
    Event {
        /// Answer with this id.
        ack_id: Option<u64>,
    },
    /// Everything up to this sequence id has been received.
    SequenceAck(u64),
    /// Application-level keep-alive, answered with a pong.
    Ping,
}

/// Why a message is none. The service closes the connection with [`Malformed::code`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A text frame on a protobuf connection or the other way round.
    #[error("expected {expected} frames, got a {actual} frame")]
    WrongFrameType {
        /// What this subprotocol uses.
        expected: &'static str,
        /// What came.
        actual: &'static str,
    },
    /// Not a message of this subprotocol.
    #[error("expected an upstream message, got: {0}")]
    Unparsable(String),
    /// A group name no service has.
    #[error("expected a group name of 1 to 1024 characters that are not all blank, got one of {0}")]
    BadGroupName(usize),
}

impl Malformed {
    /// A message that cannot be parsed. The reason may quote it: it is cut, since it goes to the log
    /// and back to the client.
    fn unparsable(reason: impl fmt::Display) -> Self {
        const LIMIT: usize = 120;
        let mut reason = reason.to_string();
        if let Some((end, _)) = reason.char_indices().nth(LIMIT) {
            reason.truncate(end);
            reason.push('…');
        }
        Self::Unparsable(reason)
    }

    /// Wrong frame type 1003, everything else 1007 (`docs/protocols/webpubsub.md`, "Subprotocols").
    pub const fn code(&self) -> u16 {
        match self {
            Self::WrongFrameType { .. } => 1003,
            Self::Unparsable(_) | Self::BadGroupName(_) => 1007,
        }
    }
}

/// How a request ended. `Err` carries Azure's error name and a message for people
/// (`docs/protocols/webpubsub.md`, "Acks").
pub type AckResult<'a> = Result<(), (ErrorName, &'a str)>;

/// Azure's names for what can go wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorName {
    /// The connection may not do that.
    Forbidden,
    /// The service could not do that.
    InternalServerError,
    /// This ack id was executed before; the SDKs take it as success.
    Duplicate,
    /// The request cannot be understood.
    BadRequest,
}

impl ErrorName {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forbidden => "Forbidden",
            Self::InternalServerError => "InternalServerError",
            Self::Duplicate => "Duplicate",
            Self::BadRequest => "BadRequest",
        }
    }
}

/// What the service says besides data.
#[derive(Debug)]
pub enum Downstream<'a> {
    /// The first message of every connection.
    Connected {
        /// Names the session.
        connection_id: &'a str,
        /// Who the client is.
        user_id: &'a str,
        /// Allows a recovery; only on reliable connections.
        reconnection_token: Option<&'a str>,
    },
    /// The last message before a close by the service.
    Disconnected {
        /// Why.
        reason: &'a str,
    },
    /// The answer to a request.
    Ack {
        /// The request's id.
        ack_id: u64,
        /// How it ended.
        result: AckResult<'a>,
    },
    /// The answer to an application ping.
    Pong,
}

impl Wire {
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

    /// Understands one message of a client, pings and closes excepted.
    pub fn parse<'a>(self, message: &Message<'a>) -> Result<Upstream<'a>, Malformed> {
        let upstream = match (self.syntax, message) {
            (Syntax::Json, Message::Text(text)) => json::parse(text)?,
            (Syntax::Protobuf, Message::Binary(bytes)) => protobuf::parse(bytes)?,
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

/// The payload inside a plain protobuf frame that [`append_data`] wrote: its last bytes.
pub fn payload_of(frame: &[u8], group: &str, type_url: &str) -> std::ops::Range<usize> {
    protobuf::payload_of(frame, group, type_url)
}

/// The payload inside a plain JSON frame that [`append_data`] wrote, decoded.
pub fn payload_of_json(frame: &[u8]) -> Option<Vec<u8>> {
    json::payload_of(frame)
}
