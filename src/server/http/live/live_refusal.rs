//! Why a request of the live page is refused. Nothing of it was executed.

use axum::response::{IntoResponse, Response};
use http::StatusCode;

use crate::server::http::app::error;
use crate::server::http::request_body::BodyError;

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum LiveRefusal {
    /// The request got something wrong.
    #[error("{expected}")]
    Bad { expected: String },
    /// The message is not one of its channel.
    #[error("{reason}")]
    Unprocessable { reason: String },
    /// The body is too large, or did not come.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// It has ended, or never was.
    #[error("no open connection {id:?}")]
    NoConnection { id: String },
    /// Nobody has joined it, and no source declares it.
    #[error("no group {group:?}; GET /live/options lists those with data")]
    NoGroup { group: String },
    /// Nobody would get the message.
    #[error("nobody has joined {group:?}: the message would reach nobody")]
    Nobody { group: String },
    /// As `--max-live-readers` says.
    #[error("too many readers of the live page (--max-live-readers)")]
    TooManyReaders,
    /// The shard has too much else to do.
    #[error("the server has too much else to do; try again")]
    Busy,
    /// A bug of ours.
    #[error("the request failed; flowcast's log says why")]
    Failed,
}

impl LiveRefusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Bad { .. } => StatusCode::BAD_REQUEST,
            Self::Unprocessable { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Body(unread) => unread.status(),
            Self::NoConnection { .. } | Self::NoGroup { .. } => StatusCode::NOT_FOUND,
            Self::Nobody { .. } => StatusCode::CONFLICT,
            Self::TooManyReaders | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for LiveRefusal {
    fn into_response(self) -> Response {
        error(self.status(), &self.to_string())
    }
}
