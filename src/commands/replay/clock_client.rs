//! The replay resource of a server, as a client sees it.

use std::time::Duration;

use anyhow::{Context, bail};
use http::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::replay_command::ControlToken;
use crate::source::broker::net::http_client::{Call, HttpClient};
use crate::source::broker::net::tls::client_config;

/// How long a request may take. A step of many ticks is answered when they are published.
const PATIENCE: Duration = Duration::from_mins(10);

/// Bytes of the largest answer: a year of dates with their gaps.
const MAX_ANSWER: usize = 16 << 20;

/// The replay resource of a server.
pub struct ClockClient {
    http: HttpClient,
    base: String,
    /// Path of the clock that is meant.
    clock: String,
    authorization: Option<SecretString>,
}

impl ClockClient {
    /// Connects to nothing yet.
    pub fn new(url: &str, session: Option<&str>, token: ControlToken) -> anyhow::Result<Self> {
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let clock = match session {
            None => "/replay".to_owned(),
            Some(name) => {
                let name = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
                format!("/replay/sessions/{name}")
            }
        };
        let bearer = |token: SecretString| SecretString::from(format!("Bearer {}", token.expose_secret()));
        Ok(Self {
            http: HttpClient { tls: client_config(None)?, timeout: PATIENCE, max_answer_bytes: MAX_ANSWER },
            base: url.trim_end_matches('/').to_owned(),
            clock,
            authorization: token.control_token.map(bearer),
        })
    }

    /// The clock's state.
    pub async fn clock(&self) -> anyhow::Result<Value> {
        self.call(Method::GET, &self.clock, None).await
    }

    /// Changes the clock; the state afterwards.
    pub async fn change(&self, change: &Value) -> anyhow::Result<Value> {
        self.call(Method::PATCH, &self.clock, Some(change)).await
    }

    /// Begins to load dates; the job.
    pub async fn load(&self, dates: &Value) -> anyhow::Result<Value> {
        self.call(Method::POST, "/replay/load", Some(dates)).await
    }

    /// A job by its number.
    pub async fn job(&self, id: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, &format!("/replay/load/{id}"), None).await
    }

    /// The dates that can be loaded.
    pub async fn dates(&self) -> anyhow::Result<Value> {
        self.call(Method::GET, "/replay/dates", None).await
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        // Whoever reads needs no token.
        let token = self.authorization.as_ref().filter(|_| body.is_some());
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let url = format!("{}{path}", self.base);
        let answer = self.http.call(Call { method, url: &url, token, body }).await?;
        let said: Option<Value> = serde_json::from_slice(&answer.body).ok();
        match (answer.status, said) {
            (200..300, said) => said.with_context(|| format!("expected JSON from {url}: is it a flowcast server?")),
            (status, said) => match said.as_ref().and_then(|said| said["error"].as_str()) {
                Some(reason) => bail!("{reason}"),
                None => bail!("expected a flowcast server at {}, got HTTP {status}", self.base),
            },
        }
    }
}
