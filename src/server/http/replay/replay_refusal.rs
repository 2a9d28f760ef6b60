//! Why a request to the replay is refused. Nothing of it was executed.

use axum::response::{IntoResponse, Response};
use http::StatusCode;

use crate::replay::change::Refused;
use crate::replay::change_json::ChangeError;
use crate::replay::replays::SessionError;
use crate::replay::wanted_dates::DatesError;
use crate::server::http::app::error;

/// Why a request to the replay is refused.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum ReplayRefusal {
    /// There is no clock.
    #[error("nothing is replayed here: the source is live")]
    Live,
    /// The body is no change.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The body names no dates.
    #[error(transparent)]
    Dates(#[from] DatesError),
    /// The clock refuses.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// No session is begun.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Anything else that the request got wrong.
    #[error("{expected}")]
    Bad { expected: String },
    /// The body is too large, or did not come.
    #[error("{reason}")]
    Body { status: StatusCode, reason: String },
    /// No session of this name.
    #[error("no session {name:?}: it has not begun or has ended; GET /replay/sessions lists those there are")]
    NoSession { name: String },
    /// No load of this number.
    #[error("no load {job:?}; the last 16 are remembered")]
    NoJob { job: String },
    /// As `--max-tick-readers` says.
    #[error("too many readers of events (--max-tick-readers)")]
    TooManyReaders,
    /// A bug of ours.
    #[error("the request failed; flowcast's log says why")]
    Failed,
}

impl ReplayRefusal {
    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Change(_) | Self::Dates(_) | Self::Bad { .. } | Self::Session(SessionError::BadName) => {
                StatusCode::BAD_REQUEST
            }
            Self::Live => StatusCode::CONFLICT,
            Self::Body { status, .. } => *status,
            Self::NoSession { .. } | Self::NoJob { .. } => StatusCode::NOT_FOUND,
            Self::Session(SessionError::TooMany { .. }) => StatusCode::TOO_MANY_REQUESTS,
            Self::TooManyReaders => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Refused(refused) | Self::Session(SessionError::Refused(refused)) => of_clock(refused),
        }
    }
}

fn of_clock(refused: &Refused) -> StatusCode {
    match refused {
        Refused::StepWhilePlaying { .. } | Refused::IsLoading { .. } | Refused::Anchored => StatusCode::CONFLICT,
        Refused::OtherEpoch { .. } => StatusCode::PRECONDITION_FAILED,
        Refused::OutOfRange { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        Refused::NoSuchDate { .. } => StatusCode::NOT_FOUND,
        Refused::Unreadable { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        Refused::NotIndexed { .. } | Refused::Busy { .. } | Refused::Ending => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl IntoResponse for ReplayRefusal {
    fn into_response(self) -> Response {
        let status = self.status();
        error(status, &self.to_string())
    }
}
