//! XTS over REST: login, subscriptions, logout; and what a refusal means.
//!
//! Source: `docs/protocols/xts.md`, "Flow", "Subscription", "Limits"; `tests/fixtures/xts/rest.jsonl`.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::event_fields::{Code, Key};
use crate::source::broker::credentials::{Credentials, hide};
use crate::source::broker::feed_settings::FeedSettings;
use crate::source::broker::net::http_client::{Call, HttpAnswer, HttpClient, HttpError};
use crate::source::broker::net::rate::CallRate;

/// A session at the broker.
#[derive(Debug, Clone)]
pub struct Login {
    /// Stands in the `Authorization` header and the socket's URL.
    pub token: SecretString,
    /// Stands in the socket's URL.
    pub user_id: String,
}

/// Why a call did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// The network, or a server that is out of order: try again.
    #[error("{0}")]
    Trouble(String),
    /// Too many calls: try again later.
    #[error("too many calls: {reason}")]
    Busy {
        /// How long the server wants to be left alone.
        retry_after: Option<Duration>,
        /// What the server says, for people.
        reason: String,
    },
    /// The token, or at login the credentials, are refused.
    #[error("{0}")]
    Auth(String),
    /// The instruments are subscribed already: no failure.
    #[error("already subscribed: {0}")]
    Already(String),
    /// The call will never succeed.
    #[error("{0}")]
    Refused(String),
}

/// The REST side of one feed.
pub struct Rest {
    pub(super) http: HttpClient,
    pub(super) settings: Arc<FeedSettings>,
    pub(super) calls: Arc<CallRate>,
}

/// What every answer looks like.
#[derive(Debug, Deserialize)]
struct Envelope<R> {
    #[serde(default)]
    code: String,
    #[serde(default)]
    description: String,
    #[serde(default = "Option::default")]
    result: Option<R>,
}

/// The snapshots of a subscription: JSON texts, one per instrument that has one.
#[derive(Debug, Default, Deserialize)]
pub struct Snapshots {
    /// One JSON text per instrument.
    #[serde(rename = "listQuotes", default)]
    pub quotes: Vec<String>,
    /// How many more instruments the session may have.
    #[serde(rename = "Remaining_Subscription_Count", default)]
    pub remaining: Option<i64>,
}

impl Rest {
    /// Opens a session; its token authorizes all other calls.
    pub async fn login(&self, credentials: &Credentials) -> Result<Login, RestError> {
        let body = json!({
            "appKey": credentials.key.expose_secret(),
            "secretKey": credentials.secret.expose_secret(),
            "source": self.settings.xts.source,
        });
        let answer = self.call(Method::POST, "/auth/login", None, body.to_string(), credentials).await;
        // What a login refuses are the credentials, whatever it calls that.
        let answer = answer.map_err(|error| match error {
            RestError::Refused(reason) | RestError::Already(reason) => RestError::Auth(reason),
            other => other,
        })?;
        Login::read(&answer.body)
    }

    /// Subscribes instruments by one code.
    pub async fn subscribe(
        &self,
        login: &Login,
        code: Code,
        keys: &[Key],
        credentials: &Credentials,
    ) -> Result<Snapshots, RestError> {
        let body = subscription(code, keys);
        let answer = self.call(Method::POST, "/instruments/subscription", Some(login), body, credentials).await?;
        Ok(Snapshots::read(&answer.body))
    }

    /// Ends the subscription of instruments by one code; other codes of theirs go on.
    pub async fn unsubscribe(
        &self,
        login: &Login,
        code: Code,
        keys: &[Key],
        credentials: &Credentials,
    ) -> Result<(), RestError> {
        let body = subscription(code, keys);
        self.call(Method::PUT, "/instruments/subscription", Some(login), body, credentials).await.map(drop)
    }

    /// Ends the session at the broker; its token is dead afterwards.
    pub async fn logout(&self, login: &Login, credentials: &Credentials) -> Result<(), RestError> {
        self.call(Method::DELETE, "/auth/logout", Some(login), String::new(), credentials).await.map(drop)
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        login: Option<&Login>,
        body: String,
        credentials: &Credentials,
    ) -> Result<HttpAnswer, RestError> {
        self.calls.acquire().await;
        let url = format!("{}{path}", self.settings.base_url);
        let token = login.map(|login| &login.token);
        let call = Call { method, url: &url, token, body: body.into_bytes() };
        let answer = self.http.call(call).await.map_err(|error: HttpError| RestError::Trouble(error.to_string()))?;
        if answer.status == 200 {
            return Ok(answer);
        }
        let clean = |text: &str| match login {
            Some(login) => credentials.clean(&hide(&login.token, text)),
            None => credentials.clean(text),
        };
        let refusal = RestError::of_answer(&answer, clean);
        if let RestError::Busy { retry_after, .. } = refusal {
            // Nobody of this feed calls meanwhile.
            self.calls.pause(retry_after.unwrap_or_default());
        }
        Err(refusal)
    }
}

impl Login {
    /// Reads the answer to a login.
    pub fn read(body: &[u8]) -> Result<Self, RestError> {
        #[derive(Deserialize)]
        struct LoginResult {
            token: String,
            #[serde(rename = "userID")]
            user_id: String,
        }
        let envelope: Option<Envelope<LoginResult>> = serde_json::from_slice(body).ok();
        let result = envelope.and_then(|envelope| envelope.result).filter(|result| !result.token.is_empty());
        let expected = || RestError::Trouble("expected a login's answer with token and userID".to_owned());
        let LoginResult { token, user_id } = result.ok_or_else(expected)?;
        Ok(Self { token: token.into(), user_id })
    }
}

impl Snapshots {
    /// Reads the answer to a subscription. What it asked for is subscribed even if the snapshots cannot be
    /// read, so there are none then.
    pub fn read(body: &[u8]) -> Self {
        let envelope: Option<Envelope<Self>> = serde_json::from_slice(body).ok();
        envelope.and_then(|envelope| envelope.result).unwrap_or_default()
    }
}

impl RestError {
    /// What an answer other than 200 means. `clean` takes secrets out of what the server says.
    pub fn of_answer(answer: &HttpAnswer, clean: impl Fn(&str) -> String) -> Self {
        let envelope: Option<Envelope<IgnoredAny>> = serde_json::from_slice(&answer.body).ok();
        let (code, description) = envelope.map(|answer| (answer.code, answer.description)).unwrap_or_default();
        let reason = clean(format!("HTTP {} {code} {description}", answer.status).trim_end());
        match (answer.status, code.as_str()) {
            (429, _) => Self::Busy { retry_after: answer.retry_after, reason },
            (401 | 403, _) | (_, "e-session-0007") => Self::Auth(reason),
            (400, "e-session-0002") => Self::Already(reason),
            // What a server that is out of order says of a request is nothing to go by.
            (408 | 500.., _) => Self::Trouble(reason),
            _ => Self::Refused(reason),
        }
    }
}

fn subscription(code: Code, keys: &[Key]) -> String {
    let instrument = |key: &Key| json!({ "exchangeSegment": key.segment, "exchangeInstrumentID": key.id });
    let instruments: Vec<_> = keys.iter().map(instrument).collect();
    json!({ "instruments": instruments, "xtsMessageCode": code.number() }).to_string()
}
