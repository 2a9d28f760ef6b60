//! A request that may steer the server, as an argument of its handler.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;

use super::app::{App, Peer, error};
use super::control_access::ControlRefusal;
use crate::engine::system_clock::monotonic_ms;

/// A request that may steer: the first argument of each handler that changes something for others.
pub struct Controller;

impl IntoResponse for ControlRefusal {
    fn into_response(self) -> Response {
        let status = match self {
            Self::NoToken | Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::NotJson { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Off | Self::NotLocal | Self::ForeignHost { .. } | Self::ForeignOrigin { .. } => StatusCode::FORBIDDEN,
        };
        let answer = error(status, &self.to_string());
        match status {
            StatusCode::UNAUTHORIZED => ([(WWW_AUTHENTICATE, "Bearer")], answer).into_response(),
            StatusCode::TOO_MANY_REQUESTS => ([(RETRY_AFTER, "1")], answer).into_response(),
            _ => answer,
        }
    }
}

impl FromRequestParts<Arc<App>> for Controller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        if let Some(unavailable) = app.unavailable() {
            return Err(unavailable);
        }
        let Ok(peer) = Peer::from_request_parts(parts, app).await;
        let admitted = app.control.admit(&app.options.control, peer.0.ip(), parts, monotonic_ms());
        admitted.map(|()| Self).map_err(IntoResponse::into_response)
    }
}
