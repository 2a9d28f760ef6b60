//! Acks of Web PubSub (`docs/protocols/webpubsub.md`, "Acks"): held back for a moment, and with an error where a
//! request is refused.

use std::borrow::Cow;

use crate::wire::gexbot::NameError;
use crate::wire::webpubsub::ErrorName;

/// The answer to a request, held back for a moment.
#[derive(Debug)]
pub struct HeldAck {
    /// Whose answer it is.
    pub key: u32,
    /// The session's serial at the time of the request.
    pub serial: u32,
    /// The request's id.
    pub ack_id: u64,
    /// How it ended.
    pub result: Result<(), AckFailure>,
}

/// What a client may not do, or cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckFailure {
    /// The request was executed before. The SDKs take it as success.
    Duplicate,
    /// The group's name is not of the form.
    NameMalformed,
    /// The group belongs to another hub.
    NameOfOtherHub,
    /// The group's prefix is not the negotiated one.
    NameOfOtherPrefix,
    /// The connection has joined as many groups as it may.
    TooManyGroups,
    /// The server has as many groups without data as it may.
    TooManySilentGroups,
    /// Clients publish nothing here.
    Publishing,
    /// There is no event handler here.
    NoEventHandler,
}

impl AckFailure {
    /// Azure's name for it.
    pub fn name(self) -> ErrorName {
        match self {
            Self::Duplicate => ErrorName::Duplicate,
            Self::NameMalformed => ErrorName::BadRequest,
            Self::NameOfOtherHub
            | Self::NameOfOtherPrefix
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
            Self::NameMalformed => format!("expected a group {prefix}_TICKER_orderflow_orderflow").into(),
            Self::NameOfOtherHub => "expected a group of the orderflow hub, got another hub's".into(),
            Self::NameOfOtherPrefix => format!("expected a group with the negotiated prefix {prefix}").into(),
            Self::TooManyGroups => format!("expected at most {max_groups} groups on a connection").into(),
            Self::TooManySilentGroups => "too many groups without data are joined on this server".into(),
            Self::Publishing => "clients may not publish on this hub".into(),
            Self::NoEventHandler => "this hub has no event handler".into(),
        }
    }
}

impl From<NameError> for AckFailure {
    fn from(error: NameError) -> Self {
        match error {
            NameError::Malformed => Self::NameMalformed,
            NameError::OtherHub => Self::NameOfOtherHub,
            NameError::OtherPrefix => Self::NameOfOtherPrefix,
        }
    }
}
