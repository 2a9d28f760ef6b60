//! Requests that a plan of faults refuses, or keeps waiting. Without a plan each costs one relaxed load.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::RETRY_AFTER;
use uuid::Uuid;

use crate::faults::fault_entry::FaultDetail;
use crate::faults::fault_plan::{FaultAction, FaultKind, NegotiateFault};
use crate::faults::fault_run::StruckRequest;
use crate::server::http::app::{App, error};

/// What a request that is refused is told.
const TOLD: &str = "a plan of faults refuses this request (GET /faults)";

/// An upgrade of a client, to a hub or to `/ws`, that is refused.
pub fn refused_upgrade(app: &App, key: &str, hub: &'static str) -> Option<Response> {
    let struck = strike(app, FaultKind::RefuseUpgrade, key, Some(hub), None)?;
    let FaultAction::RefuseUpgrade { status, retry_after_ms } = struck.action else { return None };
    enter(app, struck, FaultDetail { status: Some(status), retry_after_ms, ..FaultDetail::default() });
    Some(refusal(status, retry_after_ms))
}

/// Whether the token of a client that connects to a hub has expired, as a plan says.
pub fn has_expired(app: &App, key: &str, hub: &'static str) -> bool {
    let Some(struck) = strike(app, FaultKind::ExpireToken, key, Some(hub), None) else { return false };
    enter(app, struck, FaultDetail { status: Some(401), ..FaultDetail::default() });
    true
}

/// Whether a recovery is answered as if there were no such session. `status` is that of the answer.
pub fn loses_session(app: &App, key: &str, hub: &'static str, id: Uuid, status: StatusCode) -> bool {
    let Some(struck) = strike(app, FaultKind::RefuseRecovery, key, Some(hub), Some(id)) else { return false };
    enter(app, struck, FaultDetail { status: Some(status.as_u16()), ..FaultDetail::default() });
    true
}

/// A negotiate that is refused. One that is slow waits here.
pub async fn refused_negotiate(app: &App, key: &str) -> Option<Response> {
    let struck = strike(app, FaultKind::RefuseNegotiate, key, None, None)?;
    match struck.action {
        FaultAction::RefuseNegotiate(NegotiateFault::Refused { status, retry_after_ms }) => {
            enter(app, struck, FaultDetail { status: Some(status), retry_after_ms, ..FaultDetail::default() });
            Some(refusal(status, retry_after_ms))
        }
        FaultAction::RefuseNegotiate(NegotiateFault::Slow { by_ms }) => {
            enter(app, struck, FaultDetail { ms: Some(by_ms), ..FaultDetail::default() });
            tokio::time::sleep(Duration::from_millis(by_ms)).await;
            None
        }
        _ => None,
    }
}

fn strike(
    app: &App,
    kind: FaultKind,
    key: &str,
    hub: Option<&'static str>,
    connection: Option<Uuid>,
) -> Option<StruckRequest> {
    if app.faults.running() == 0 {
        return None;
    }
    app.faults.strike_request(kind, key, hub, connection)
}

fn enter(app: &App, struck: StruckRequest, detail: FaultDetail) {
    let StruckRequest { mut entry, place, .. } = struck;
    entry.detail = detail;
    app.hub.sequencer().enter_faults(place, vec![entry]);
}

fn refusal(status: u16, retry_after_ms: Option<u64>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let mut answer = error(status, TOLD);
    // `error` has one of its own for some.
    answer.headers_mut().remove(RETRY_AFTER);
    match retry_after_ms {
        Some(ms) => ([(RETRY_AFTER, ms.div_ceil(1000).to_string())], answer).into_response(),
        None => answer,
    }
}
