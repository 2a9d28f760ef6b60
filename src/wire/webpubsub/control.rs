//! Control messages: what a client may ask for, and what the service answers.

use std::borrow::Cow;
use std::fmt;

/// A request of a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Upstream<'a> {
    /// Subscribe to a group.
    Join {
        /// 1 to 1024 characters, not all blank.
        group: Cow<'a, str>,
        /// The id to acknowledge; `None`: no acknowledgement is wanted.
        ack_id: Option<u64>,
    },
    /// End the subscription to a group.
    Leave {
        /// 1 to 1024 characters, not all blank.
        group: Cow<'a, str>,
        /// The id to acknowledge; `None`: no acknowledgement is wanted.
        ack_id: Option<u64>,
    },
    /// Publish to a group; always refused, since flowcast is the only publisher.
    SendToGroup {
        /// The id to acknowledge; `None`: no acknowledgement is wanted.
        ack_id: Option<u64>,
    },
    /// Call an event handler; always refused, since there is none.
    Event {
        /// The id to acknowledge; `None`: no acknowledgement is wanted.
        ack_id: Option<u64>,
    },
    /// Everything up to this sequence id has been received.
    SequenceAck(u64),
    /// Application-level keep-alive, answered with a pong.
    Ping,
}

/// Why a client's message cannot be understood. The connection is closed with [`Malformed::code`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A text frame on a protobuf connection, or a binary frame on a JSON connection.
    #[error("expected {expected} frames, got a {actual} frame")]
    WrongFrameType {
        /// `text` or `binary`.
        expected: &'static str,
        /// The other one of the two.
        actual: &'static str,
    },
    /// It is not a message of this subprotocol.
    #[error("expected an upstream message, got: {0}")]
    Unparsable(String),
    /// A group name that Azure's service refuses; its length in characters.
    #[error("expected a group name of 1 to 1024 characters that are not all blank, got one of {0}")]
    BadGroupName(usize),
}

impl Malformed {
    /// Cuts the reason, which may quote the message, since it goes to the log and back to the client.
    pub(super) fn unparsable(reason: impl fmt::Display) -> Self {
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
    /// The client is not allowed to do that.
    Forbidden,
    /// The request failed in the service.
    InternalServerError,
    /// A request with this ack id was executed before; the SDKs take this as success.
    Duplicate,
    /// The request is not valid.
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

/// A control message of the service: everything but data.
#[derive(Debug)]
pub enum Downstream<'a> {
    /// The first message of every connection.
    Connected {
        /// The id of the session.
        connection_id: &'a str,
        /// The user the token names.
        user_id: &'a str,
        /// The secret for a recovery; `None` on the plain subprotocols.
        reconnection_token: Option<&'a str>,
    },
    /// The last message before a close by the service.
    Disconnected {
        /// For people to read; programs should not depend on it.
        reason: &'a str,
    },
    /// The answer to a request.
    Ack {
        /// The id that the request carried.
        ack_id: u64,
        /// Success, or the error's name and message.
        result: AckResult<'a>,
    },
    /// The answer to an application ping.
    Pong,
}
