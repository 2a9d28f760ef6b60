//! The upgrade of `GET /ws`: checks the token and makes a session of the JSON streams on a shard.
//!
//! Everything that can be refused is refused before the `101` (`docs/streams.md`).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::ORIGIN;
use uuid::Uuid;

use super::app::{App, error};
use super::auth;
use super::faults::request_faults::refused_upgrade;
use super::jwt::Claims;
use super::upgrade::{PendingUpgrade, hand_over};
use crate::faults::fault_plan::STREAMS_NAME;
use crate::server::shard::mailbox::{Admitted, Arrival, ClientProtocol, NewSocket, ShardMessage};

/// Characters of the longest `client_id`.
const MAX_CLIENT_ID: usize = 128;

/// `GET /ws`
pub async fn ws(State(app): State<Arc<App>>, request: Request) -> Response {
    upgrade(&app, request).unwrap_or_else(|refused| *refused)
}

fn upgrade(app: &App, request: Request) -> Result<Response, Box<Response>> {
    if let Some(unavailable) = app.unavailable() {
        return Err(Box::new(unavailable));
    }
    let refuse = |status, reason: &str| Box::new(error(status, reason));
    let PendingUpgrade { request, response, on_upgrade } =
        PendingUpgrade::of(request).map_err(|refused| Box::new(refused.into_response()))?;

    if let Some(origin) = request.headers().get(ORIGIN)
        && !origin.to_str().is_ok_and(|origin| app.authority.allows_origin(origin))
    {
        return Err(refuse(StatusCode::FORBIDDEN, "this origin is not allowed (WS_ALLOWED_ORIGINS)"));
    }
    let query = request.uri().query();
    let parameter = auth::parameter(query, "token");
    let token = parameter.as_deref().or_else(|| auth::bearer(request.headers()));
    let claims = app.authority.check(token).map_err(|reason| refuse(StatusCode::UNAUTHORIZED, &reason.to_string()))?;
    let client_id = auth::parameter(query, "client_id").unwrap_or_else(|| Uuid::new_v4().to_string());
    if client_id.chars().count() > MAX_CLIENT_ID {
        return Err(refuse(StatusCode::BAD_REQUEST, "expected a client_id of at most 128 characters"));
    }

    if let Some(refused) = refused_upgrade(app, &client_id, STREAMS_NAME) {
        return Err(Box::new(refused));
    }
    let full = || refuse(StatusCode::SERVICE_UNAVAILABLE, "too many connections");
    let (admitted, others) = Admitted::take(&app.pending);
    if app.connections() + others as u64 >= app.options.max_connections as u64 {
        return Err(full());
    }
    let (admitted_stream, others) = Admitted::take(&app.pending_streams);
    if app.stream_connections() + others as u64 >= app.stream_options.max_connections as u64 {
        return Err(full());
    }

    let grant = claims.map(Claims::grant).unwrap_or_default();
    let (user, protocol) = (client_id.into(), ClientProtocol::Streams { grant, admitted: admitted_stream });
    let agent = app.live.agent(request.headers());
    let open = move |socket, read| {
        ShardMessage::Open(Arrival {
            client: NewSocket { socket, agent, admitted },
            read,
            user,
            protocol,
            restored: None,
            wanted: None,
        })
    };
    tokio::spawn(hand_over(on_upgrade, app.next_shard().clone(), open));
    Ok(response.map(|()| Body::empty()))
}
