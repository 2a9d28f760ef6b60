//! The swarm's plain HTTP requests: negotiate, tickers, the tick ledger. Blocking, and every request
//! but the ledger's stream is bounded in time.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::wire::upgrade::USER_AGENT;

/// The longest answer that is read whole: a page of the tick ledger with many groups.
const MAX_BODY_BYTES: u64 = 256 * 1024 * 1024;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Unreachable, timed out, reset, not HTTP, or a certificate that is not trusted.
    #[error("{url}: {source}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// What `ureq` says.
        source: Box<ureq::Error>,
    },
    /// An answer with an error status.
    #[error("{url}: HTTP {status} {body}")]
    Status {
        /// What was asked.
        url: String,
        /// The status.
        status: u16,
        /// The start of the body.
        body: String,
    },
    /// The answer is not what it should be.
    #[error("{url}: not the JSON expected: {source}")]
    Json {
        /// What was asked.
        url: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// Why the certificates to trust cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[error("{path}: cannot be read as PEM certificates: {reason}")]
pub struct CertificateError {
    path: String,
    reason: String,
}

/// Whom TLS trusts: the given certificates, else Mozilla's.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    certificates: Arc<Vec<CertificateDer<'static>>>,
}

impl Trust {
    /// Trust in the certificates of a PEM file only.
    pub fn from_file(path: &Path) -> Result<Self, CertificateError> {
        let fail = |reason: String| CertificateError { path: path.display().to_string(), reason };
        let certificates = CertificateDer::pem_file_iter(path)
            .map_err(|error| fail(error.to_string()))?
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| fail(error.to_string()))?;
        if certificates.is_empty() {
            return Err(fail("no certificate in it".to_owned()));
        }
        Ok(Self { certificates: Arc::new(certificates) })
    }

    /// The certificates to trust, empty for Mozilla's.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }
}

/// A client with a pool of kept-alive connections.
#[derive(Clone, Debug)]
pub struct Http {
    agent: ureq::Agent,
    authorization: Option<String>,
}

impl Http {
    /// A client whose requests take at most `timeout` each.
    pub fn new(trust: &Trust, timeout: Duration) -> Self {
        Self::build(trust, Some(timeout), timeout)
    }

    /// A client for an endless answer: only connecting and the head of the answer are bounded.
    pub fn for_streams(trust: &Trust, timeout: Duration) -> Self {
        Self::build(trust, None, timeout)
    }

    fn build(trust: &Trust, global: Option<Duration>, timeout: Duration) -> Self {
        let roots = match trust.certificates() {
            [] => RootCerts::WebPki,
            some => some.iter().map(|der| Certificate::from_der(der).to_owned()).collect::<Vec<_>>().into(),
        };
        let agent = ureq::Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .user_agent(USER_AGENT)
            .proxy(None)
            .http_status_as_error(false)
            .timeout_global(global)
            .timeout_connect(Some(timeout))
            .timeout_recv_response(Some(timeout))
            .max_idle_age(Duration::from_mins(1))
            .build()
            .new_agent();
        Self { agent, authorization: None }
    }

    /// The same client with an `Authorization` header.
    #[must_use]
    pub fn with_authorization(mut self, value: String) -> Self {
        self.authorization = Some(value);
        self
    }

    /// Asks for JSON.
    pub fn get_json<T: DeserializeOwned>(&self, url: &str) -> Result<T, HttpError> {
        let mut body = self.get(url, "application/json")?;
        let bytes = body
            .with_config()
            .limit(MAX_BODY_BYTES)
            .read_to_vec()
            .map_err(|source| HttpError::Unreachable { url: url.to_owned(), source: Box::new(source) })?;
        serde_json::from_slice(&bytes).map_err(|source| HttpError::Json { url: url.to_owned(), source })
    }

    /// Posts JSON lines and reads a JSON answer.
    pub fn post_lines<T: DeserializeOwned>(&self, url: &str, lines: &str) -> Result<T, HttpError> {
        self.post(url, "application/x-ndjson", lines)
    }

    /// Posts JSON and reads a JSON answer.
    pub fn post_json<T: DeserializeOwned>(&self, url: &str, body: &impl Serialize) -> Result<T, HttpError> {
        let body = serde_json::to_string(body).map_err(|source| HttpError::Json { url: url.to_owned(), source })?;
        self.post(url, "application/json", &body)
    }

    fn post<T: DeserializeOwned>(&self, url: &str, content_type: &str, body: &str) -> Result<T, HttpError> {
        let mut request = self.agent.post(url).header("content-type", content_type);
        if let Some(value) = &self.authorization {
            request = request.header("authorization", value);
        }
        let unreachable = |source| HttpError::Unreachable { url: url.to_owned(), source: Box::new(source) };
        let mut body = succeeded(url, request.send(body).map_err(unreachable)?)?;
        let bytes = body.with_config().limit(MAX_BODY_BYTES).read_to_vec().map_err(unreachable)?;
        serde_json::from_slice(&bytes).map_err(|source| HttpError::Json { url: url.to_owned(), source })
    }

    /// Asks for server-sent events; the reader ends when the server ends.
    pub fn get_events(&self, url: &str) -> Result<impl Read + Send + use<>, HttpError> {
        Ok(self.get(url, "text/event-stream")?.into_reader())
    }

    fn get(&self, url: &str, accept: &str) -> Result<ureq::Body, HttpError> {
        let mut request = self.agent.get(url).header("accept", accept);
        if let Some(value) = &self.authorization {
            request = request.header("authorization", value);
        }
        let response = request
            .call()
            .map_err(|source| HttpError::Unreachable { url: url.to_owned(), source: Box::new(source) })?;
        succeeded(url, response)
    }
}

/// The body of a good answer.
fn succeeded(url: &str, response: ureq::http::Response<ureq::Body>) -> Result<ureq::Body, HttpError> {
    let status = response.status();
    let mut body = response.into_body();
    if status.is_success() {
        return Ok(body);
    }
    let mut start = Vec::new();
    // What the server says beside the status is a help, not a need.
    let _ = body.as_reader().take(300).read_to_end(&mut start);
    Err(HttpError::Status {
        url: url.to_owned(),
        status: status.as_u16(),
        body: String::from_utf8_lossy(&start).trim().to_owned(),
    })
}
