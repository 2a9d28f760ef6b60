//! A request to a server that replays, and its body.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::request::Parts;

use super::replay_refusal::ReplayRefusal;
use crate::replay::remote::Remote;
use crate::replay::replays::Replays;
use crate::server::http::app::App;
use crate::server::http::request_body::{self, ReadBody};

/// Bytes of the longest body: a list of 366 dates has some 5,000.
const MAX_BODY: usize = 16 << 10;

/// A request to a server that replays.
pub struct OnReplay {
    /// The server.
    pub app: Arc<App>,
    /// Its clocks.
    pub clocks: Arc<dyn Replays>,
}

impl FromRequestParts<Arc<App>> for OnReplay {
    type Rejection = Response;

    async fn from_request_parts(_: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        if let Some(unavailable) = app.unavailable() {
            return Err(unavailable);
        }
        let clocks = app.replay.clocks().ok_or(ReplayRefusal::Live).map_err(IntoResponse::into_response)?;
        Ok(Self { app: Arc::clone(app), clocks: Arc::clone(clocks) })
    }
}

impl OnReplay {
    /// The whole body.
    pub async fn read(&self, body: Body) -> Result<ReadBody, ReplayRefusal> {
        let read = request_body::read(&self.app, body, MAX_BODY).await;
        read.map_err(|unread| ReplayRefusal::Body { status: unread.status(), reason: unread.to_string() })
    }

    /// The clock of a session.
    pub fn session(&self, name: &str) -> Result<Remote, ReplayRefusal> {
        let shown = || name.chars().take(64).collect();
        self.clocks.session(name).ok_or_else(|| ReplayRefusal::NoSession { name: shown() })
    }

    /// Asks the clocks what may wait for a disk.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(Arc<dyn Replays>) -> Result<T, ReplayRefusal> + Send + 'static,
    ) -> Result<T, ReplayRefusal> {
        let clocks = Arc::clone(&self.clocks);
        tokio::task::spawn_blocking(move || work(clocks)).await.unwrap_or(Err(ReplayRefusal::Failed))
    }
}
