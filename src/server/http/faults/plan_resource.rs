//! `GET`, `PUT` and `DELETE /faults`: the plan that runs.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};

use crate::faults::fault_plan::FaultPlan;
use crate::faults::plan_reader::{MAX_PLAN, PlanSyntax};
use crate::server::http::app::{App, Peer, error};
use crate::server::http::control_access::may_steer;
use crate::server::http::controller::Controller;
use crate::server::http::request_body;

/// How long a plan that ends waits for the shards, and how often it looks.
const SHARDS_MAY_STRIKE: Duration = Duration::from_secs(1);
const SHARDS_LOOK: Duration = Duration::from_millis(1);

/// `GET /faults`: the plan, and what it has done. Patterns of keys are shown to those who may steer.
pub async fn get(State(app): State<Arc<App>>, peer: Peer, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let shows_keys = may_steer(&app.options.control, peer.0.ip(), &parts);
    Json(app.faults.shown(shows_keys)).into_response()
}

/// `PUT /faults`: begins a plan; one that runs ends.
pub async fn put(_: Controller, State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let body = match request_body::read(&app, body, MAX_PLAN).await {
        Ok(body) => body,
        Err(unread) => return error(unread.status(), &unread.to_string()),
    };
    match FaultPlan::read(&body, syntax(&headers)) {
        Ok(plan) => {
            let faults = plan.faults.len();
            let_shards_strike(&app).await;
            app.faults.begin(plan);
            app.hub.sequencer().audience().ring_shards();
            tracing::warn!(plan = app.faults.last_plan(), faults, "a plan of faults begins");
            Json(app.faults.shown(true)).into_response()
        }
        Err(refused) => error(StatusCode::BAD_REQUEST, &refused.to_string()),
    }
}

/// `DELETE /faults`: ends the plan that runs, if one does.
pub async fn delete(_: Controller, State(app): State<Arc<App>>) -> Response {
    if app.faults.running() != 0 {
        let_shards_strike(&app).await;
        app.faults.end();
        app.hub.sequencer().audience().ring_shards();
        tracing::warn!(plan = app.faults.last_plan(), "the plan of faults has ended");
    }
    Json(app.faults.shown(true)).into_response()
}

/// Waits until the shards have struck whom the plan that runs means at all that is published: whoever steps the clock and
/// then ends the plan finds it done. A shard that stands still holds this up for a second at most.
async fn let_shards_strike(app: &App) {
    let Some(noted) = app.faults.noted() else { return };
    let all_have_struck = async {
        while !app.faults.all_have_struck(noted) {
            app.hub.sequencer().audience().ring_shards();
            tokio::time::sleep(SHARDS_LOOK).await;
        }
    };
    if tokio::time::timeout(SHARDS_MAY_STRIKE, all_have_struck).await.is_err() {
        tracing::warn!("a plan of faults ends before all shards have struck at what is published: one stands still");
    }
}

fn syntax(headers: &HeaderMap) -> PlanSyntax {
    let of_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = of_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/toml") { PlanSyntax::Toml } else { PlanSyntax::Json }
}
