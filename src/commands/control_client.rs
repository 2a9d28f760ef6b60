//! What a server can be asked and told by those who steer it, over HTTP.

use std::time::Duration;

use anyhow::{Context, bail};
use http::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::server::http::jwt::secret;
use crate::source::broker::net::http_client::{Call, HttpClient};
use crate::source::broker::net::tls::client_config;

/// How long a request may take. A step of many ticks is answered when they are published.
const PATIENCE: Duration = Duration::from_mins(10);

/// Bytes of the largest answer: a year of dates with their gaps.
const MAX_ANSWER: usize = 16 << 20;

/// The token that allows to steer.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ControlToken {
    /// The server's control token
    #[arg(long, global = true, env = "FLOWCAST_CONTROL_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    #[arg(value_parser = secret)]
    pub control_token: Option<SecretString>,
}

/// A server that is steered.
pub struct ControlClient {
    http: HttpClient,
    base: String,
    authorization: Option<SecretString>,
}

impl ControlClient {
    /// Connects to nothing yet.
    pub fn new(url: &str, token: ControlToken) -> anyhow::Result<Self> {
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let bearer = |token: SecretString| SecretString::from(format!("Bearer {}", token.expose_secret()));
        Ok(Self {
            http: HttpClient { tls: client_config(None)?, timeout: PATIENCE, max_answer_bytes: MAX_ANSWER },
            base: url.trim_end_matches('/').to_owned(),
            authorization: token.control_token.map(bearer),
        })
    }

    /// What the server answers; its reason if it refuses.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        // Whoever reads needs no token.
        let token = self.authorization.as_ref().filter(|_| method != Method::GET);
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
