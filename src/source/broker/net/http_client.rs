//! The HTTP client of this process, for the brokers, `flowcast tail`, `flowcast replay` and `flowcast top`: each call is
//! one connection, over hyper, that ends with its answer.
//!
//! Calls are rare (a login, a subscription of many instruments), so there is no pool to keep, and
//! nothing remains when a call is cancelled. No error quotes a URL.
//!
//! `reqwest` would save about 100 of these lines and cost 33 more crates, among them those of
//! internationalized domain names: 43 s of one core's time in a debug build.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::opening_handshake::retry_after;

/// How calls are made. No proxy is used and no redirect followed.
#[derive(Clone)]
pub struct HttpClient {
    /// Decides which certificates are accepted.
    pub tls: Arc<ClientConfig>,
    /// How long a call may take in all.
    pub timeout: Duration,
    /// The largest answer, bytes.
    pub max_answer_bytes: usize,
}

/// What is asked of a server.
pub struct Call<'a> {
    /// The HTTP method, such as `PUT`.
    pub method: Method,
    /// Its URL, without secrets.
    pub url: &'a str,
    /// The session's token, the whole value of `authorization`; `None` at the login.
    pub token: Option<&'a SecretString>,
    /// JSON; empty for none.
    pub body: Vec<u8>,
}

/// The answer of a server, whatever its status.
#[derive(Debug)]
pub struct HttpAnswer {
    /// The HTTP status, 100 to 999.
    pub status: u16,
    /// The wait that `Retry-After` asks for.
    pub retry_after: Option<Duration>,
    /// The body, no longer than `max_answer_bytes`.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The name, TCP or TLS failed.
    #[error("cannot connect to {host}: {source}")]
    Network {
        /// Whom the URL names, as `host:port`.
        host: String,
        /// What the resolver, the system or TLS says.
        source: io::Error,
    },
    /// The answer did not come in time.
    #[error("{host} gave no answer within {timeout:?}")]
    TimedOut {
        /// Whom the URL names, as `host:port`.
        host: String,
        /// The time that the settings give a call.
        timeout: Duration,
    },
    /// The answer is no HTTP, ends too early, or is too large.
    #[error("{host} gave no HTTP answer of at most {limit} bytes")]
    Broken {
        /// Whom the URL names, as `host:port`.
        host: String,
        /// How many bytes an answer may have.
        limit: usize,
    },
    /// The configured URL is none.
    #[error("expected an http:// or https:// URL with a host")]
    BadUrl,
}

impl HttpClient {
    /// Makes one call on a connection of its own. Every status is an answer; none is tried again here.
    pub async fn call(&self, call: Call<'_>) -> Result<HttpAnswer, HttpError> {
        let (target, request) = target(call)?;
        let calling = async { self.exchange(self.dial(&target).await?, request, &target.host).await };
        let timed_out = || HttpError::TimedOut { host: target.host.clone(), timeout: self.timeout };
        tokio::time::timeout(self.timeout, calling).await.unwrap_or_else(|_| Err(timed_out()))
    }

    /// Makes a call whose answer has no end, such as server-sent events. Only the head of the answer has a time.
    pub async fn follow(&self, call: Call<'_>) -> Result<AnswerStream, HttpError> {
        let (target, request) = target(call)?;
        let broken = || HttpError::Broken { host: target.host.clone(), limit: self.max_answer_bytes };
        let calling = async {
            let stream = self.dial(&target).await?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| broken())?;
            let driver = AbortOnDrop(tokio::spawn(async move { drop(connection.await) }));
            let response = sender.send_request(request).await.map_err(|_| broken())?;
            let (parts, body) = response.into_parts();
            Ok(AnswerStream { status: parts.status.as_u16(), body, _driver: driver, _sender: sender })
        };
        let timed_out = || HttpError::TimedOut { host: target.host.clone(), timeout: self.timeout };
        tokio::time::timeout(self.timeout, calling).await.unwrap_or_else(|_| Err(timed_out()))
    }

    async fn dial(&self, target: &CallTarget) -> Result<Box<dyn Stream>, HttpError> {
        let network = |source| HttpError::Network { host: target.host.clone(), source };
        let tcp = TcpStream::connect((target.name.as_str(), target.port)).await.map_err(network)?;
        if !target.secure {
            return Ok(Box::new(tcp));
        }
        let server = ServerName::try_from(target.name.clone()).map_err(|_| HttpError::BadUrl)?;
        let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(server, tcp).await.map_err(network)?;
        Ok(Box::new(tls))
    }

    async fn exchange(
        &self,
        stream: Box<dyn Stream>,
        request: Request<Full<Bytes>>,
        host: &str,
    ) -> Result<HttpAnswer, HttpError> {
        let broken = || HttpError::Broken { host: host.to_owned(), limit: self.max_answer_bytes };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| broken())?;
        let answering = async {
            let response = sender.send_request(request).await.map_err(|_| broken())?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, self.max_answer_bytes).collect().await.map_err(|_| broken())?;
            let retry_after = retry_after(&parts.headers);
            Ok(HttpAnswer { status: parts.status.as_u16(), retry_after, body: body.to_bytes() })
        };
        // The connection is driven here, not in a task: it ends with the answer.
        let mut answering = std::pin::pin!(answering);
        tokio::select! {
            answer = &mut answering => answer,
            _ended = connection => answering.await,
        }
    }
}

/// An answer that goes on. Dropping it ends the connection.
pub struct AnswerStream {
    /// The HTTP status, 100 to 999.
    pub status: u16,
    body: Incoming,
    _driver: AbortOnDrop,
    _sender: SendRequest<Full<Bytes>>,
}

impl AnswerStream {
    /// What comes next of the body; `None` at its end, or when the connection breaks.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            // The others are trailers.
            if let Ok(data) = self.body.frame().await?.ok()?.into_data() {
                return Some(data);
            }
        }
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Whom a URL names.
struct CallTarget {
    name: String,
    port: u16,
    secure: bool,
    /// Name and port, for errors.
    host: String,
}

fn target(call: Call<'_>) -> Result<(CallTarget, Request<Full<Bytes>>), HttpError> {
    let uri: Uri = call.url.parse().map_err(|_| HttpError::BadUrl)?;
    let secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(HttpError::BadUrl),
    };
    let name = uri.host().ok_or(HttpError::BadUrl)?.trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let host = format!("{name}:{port}");
    let request = request(call, &uri).ok_or(HttpError::BadUrl)?;
    Ok((CallTarget { name, port, secure, host }, request))
}

/// `None` if the token is no header's value.
fn request(call: Call<'_>, uri: &Uri) -> Option<Request<Full<Bytes>>> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder()
        .method(call.method)
        .uri(path)
        .header(HOST, uri.authority()?.as_str())
        .header(USER_AGENT, concat!("flowcast/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/json");
    if let Some(token) = call.token {
        let mut value = HeaderValue::from_str(token.expose_secret()).ok()?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    request.body(Full::new(call.body.into())).ok()
}
