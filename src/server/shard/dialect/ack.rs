//! Acks of Web PubSub (`docs/protocols/webpubsub.md`, "Acks"): held back for a moment, and with an error where a
//! request is refused.

use std::borrow::Cow;

use crate::wire::gexbot::{HubName, HubTopic, NameError};
use crate::wire::webpubsub::ErrorName;

/// An ack that waits until `--ack-delay-ms` has passed.
#[derive(Debug)]
pub struct HeldAck {
    /// The key of the session that asked.
    pub key: u32,
    /// The session's serial at the time of the request.
    pub serial: u32,
    /// The `ackId` of the request; `None`: only a new token is due.
    pub ack_id: Option<u64>,
    /// Success, or why the request was refused.
    pub result: Result<(), AckFailure>,
    /// The lane that was joined: the ack waits until its frames are built.
    pub lane: Option<u32>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckFailure {
    /// The request was executed before. The SDKs take it as success.
    Duplicate,
    /// The group's name is not of the form that this hub's groups have.
    NameMalformed(HubTopic),
    /// The group belongs to another hub.
    NameOfOtherHub {
        /// The hub that the client is connected to.
        hub: HubName,
        /// The hub that carries the group; `None`: every v2 hub does.
        carrier: Option<HubTopic>,
    },
    /// The group's prefix is not the negotiated one.
    NameOfOtherPrefix,
    /// The server joins for this client, and not this group.
    NotAssigned,
    /// The connection has joined as many groups as it may.
    TooManyGroups,
    /// The server has as many groups without data as it may.
    TooManySilentGroups,
    /// The client tried to publish; flowcast is the only publisher.
    Publishing,
    /// The client called an event handler; flowcast has none.
    NoEventHandler,
}

impl AckFailure {
    /// Why a group of this name cannot be joined on this hub.
    pub fn of_name(error: NameError, hub: HubName) -> Self {
        match error {
            NameError::Malformed => Self::NameMalformed(hub.topic),
            NameError::OtherHub { topic } => Self::NameOfOtherHub { hub, carrier: topic },
            NameError::OtherPrefix => Self::NameOfOtherPrefix,
        }
    }

    /// The name that Azure's service gives this error.
    pub fn name(self) -> ErrorName {
        match self {
            Self::Duplicate => ErrorName::Duplicate,
            Self::NameMalformed(_) => ErrorName::BadRequest,
            Self::NameOfOtherHub { .. }
            | Self::NameOfOtherPrefix
            | Self::NotAssigned
            | Self::TooManyGroups
            | Self::TooManySilentGroups
            | Self::Publishing => ErrorName::Forbidden,
            Self::NoEventHandler => ErrorName::InternalServerError,
        }
    }

    /// What was expected, for the person who reads the client's log.
    pub fn words(self, prefix: &str, max_groups: usize) -> Cow<'static, str> {
        match self {
            Self::Duplicate => "a request with this ackId was executed before".into(),
            Self::NameMalformed(topic) => format!("expected a group {prefix}_{}", topic.group_form()).into(),
            Self::NameOfOtherHub { hub, carrier } => {
                let form = hub.topic.group_form();
                let carriers = match carrier {
                    Some(topic) => format!("the hubs {} and {}", topic.hub(false), topic.hub(true)),
                    None => "the v2 hubs".to_owned(),
                };
                format!("expected a group {prefix}_{form} on the hub {hub}; this group is on {carriers}").into()
            }
            Self::NameOfOtherPrefix => format!("expected a group with the negotiated prefix {prefix}").into(),
            Self::NotAssigned => {
                "expected a group that this connection was negotiated with; PATCH negotiate changes them".into()
            }
            Self::TooManyGroups => format!("expected at most {max_groups} groups on a connection").into(),
            Self::TooManySilentGroups => "too many groups without data are joined on this server".into(),
            Self::Publishing => "clients may not publish on this hub".into(),
            Self::NoEventHandler => "this hub has no event handler".into(),
        }
    }
}
