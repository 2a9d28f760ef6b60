//! The replay resource of a server, as a client sees it.

use http::Method;
use serde_json::Value;

use crate::commands::control_client::{ControlClient, ControlToken};

/// The replay resource of a server.
pub struct ClockClient {
    server: ControlClient,
    /// Path of the clock that is meant.
    clock: String,
}

impl ClockClient {
    /// Connects to nothing yet.
    pub fn new(url: &str, session: Option<&str>, token: ControlToken) -> anyhow::Result<Self> {
        let clock = match session {
            None => "/replay".to_owned(),
            Some(name) => {
                let name = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
                format!("/replay/sessions/{name}")
            }
        };
        Ok(Self { server: ControlClient::new(url, token)?, clock })
    }

    /// The clock's state.
    pub async fn clock(&self) -> anyhow::Result<Value> {
        self.server.call(Method::GET, &self.clock, None).await
    }

    /// Changes the clock; the state afterwards.
    pub async fn change(&self, change: &Value) -> anyhow::Result<Value> {
        self.server.call(Method::PATCH, &self.clock, Some(change)).await
    }

    /// Begins to load dates; the job.
    pub async fn load(&self, dates: &Value) -> anyhow::Result<Value> {
        self.server.call(Method::POST, "/replay/load", Some(dates)).await
    }

    /// A job by its number.
    pub async fn job(&self, id: &str) -> anyhow::Result<Value> {
        self.server.call(Method::GET, &format!("/replay/load/{id}"), None).await
    }

    /// The dates that can be loaded.
    pub async fn dates(&self) -> anyhow::Result<Value> {
        self.server.call(Method::GET, "/replay/dates", None).await
    }
}
