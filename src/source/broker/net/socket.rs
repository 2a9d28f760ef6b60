//! Opening a broker's socket, and why it does not open.
//!
//! Tokens stand in the URL, so no error of tungstenite is printed as it is: some quote the URL.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use tokio::net::TcpStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, http as ws_http};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

/// An open WebSocket, with or without TLS.
pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Where and how to connect.
#[derive(Clone)]
pub struct SocketTarget {
    /// With its query. Never printed.
    pub url: String,
    /// Headers besides those of the handshake.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Decides which certificates are accepted.
    pub tls: Arc<ClientConfig>,
    /// How long name, TCP, TLS and upgrade may take together.
    pub timeout: Duration,
    /// The largest message, bytes.
    pub max_message_bytes: usize,
}

/// Why a socket did not open.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server answered something else than an upgrade.
    #[error("the server refused the socket: HTTP {status}{}", if body.is_empty() { String::new() } else { format!(", {body}") })]
    Refused {
        /// The HTTP status of the answer.
        status: u16,
        /// The wait that `Retry-After` asks for.
        retry_after: Option<Duration>,
        /// The answer's text; may hold anything, secrets too.
        body: String,
    },
    /// The name, TCP or TLS failed.
    #[error("cannot connect to {host}: {source}")]
    Network {
        /// Whom the URL names, as `host:port`.
        host: String,
        /// What the resolver, the system or TLS says.
        source: io::Error,
    },
    /// The handshake was not finished in time.
    #[error("cannot connect to {host}: no answer within {timeout:?}")]
    TimedOut {
        /// Whom the URL names, as `host:port`.
        host: String,
        /// The time that the settings give a handshake.
        timeout: Duration,
    },
    /// The server does not speak WebSocket.
    #[error("{host} does not speak WebSocket: {reason}")]
    Protocol {
        /// Whom the URL names, as `host:port`.
        host: String,
        /// What the handshake lacks.
        reason: &'static str,
    },
    /// The configured URL is not one of a WebSocket.
    #[error("expected a ws:// or wss:// URL with a host")]
    BadUrl,
}

/// Connects, within the timeout.
pub async fn connect(target: &SocketTarget) -> Result<Socket, ConnectError> {
    let mut request = target.url.as_str().into_client_request().map_err(|_| ConnectError::BadUrl)?;
    let secure = match request.uri().scheme_str() {
        Some("wss") => true,
        Some("ws") => false,
        _ => return Err(ConnectError::BadUrl),
    };
    let name = request.uri().host().ok_or(ConnectError::BadUrl)?.trim_matches(['[', ']']).to_owned();
    let port = request.uri().port_u16().unwrap_or(if secure { 443 } else { 80 });
    let host = format!("{name}:{port}");
    for (header, value) in &target.headers {
        request.headers_mut().insert(header, value.clone());
    }
    let connector = if secure { Connector::Rustls(Arc::clone(&target.tls)) } else { Connector::Plain };
    let config = WebSocketConfig::default()
        .max_message_size(Some(target.max_message_bytes))
        .max_frame_size(Some(target.max_message_bytes));
    let connecting = async {
        let network = |source| ConnectError::Network { host: host.clone(), source };
        let tcp = TcpStream::connect((name.as_str(), port)).await.map_err(network)?;
        // Subscriptions are small and should not wait for one another.
        tcp.set_nodelay(true).map_err(network)?;
        let opened = client_async_tls_with_config(request, tcp, Some(config), Some(connector)).await;
        opened.map(|(socket, _)| socket).map_err(|error| refusal(error, &host))
    };
    let timed_out = || ConnectError::TimedOut { host: host.clone(), timeout: target.timeout };
    tokio::time::timeout(target.timeout, connecting).await.unwrap_or_else(|_| Err(timed_out()))
}

fn refusal(error: tungstenite::Error, host: &str) -> ConnectError {
    let host = host.to_owned();
    match error {
        tungstenite::Error::Http(response) => {
            let retry_after = retry_after(response.headers());
            let status = response.status().as_u16();
            let body = response.body().as_deref().unwrap_or_default();
            let body = String::from_utf8_lossy(&body[..body.len().min(4096)]).trim().to_owned();
            ConnectError::Refused { status, retry_after, body }
        }
        tungstenite::Error::Io(source) => ConnectError::Network { host, source },
        tungstenite::Error::Url(_) => ConnectError::BadUrl,
        other => ConnectError::Protocol { host, reason: broken(&other) },
    }
}

/// Why an open socket ended, in words that quote nothing.
pub fn broken(error: &tungstenite::Error) -> &'static str {
    match error {
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => "the server closed it",
        tungstenite::Error::Io(_) => "the network lost it",
        tungstenite::Error::Tls(_) => "TLS failed",
        tungstenite::Error::Capacity(_) => "a message was larger than max_message_bytes",
        tungstenite::Error::Utf8(_) => "a text message was not UTF-8",
        tungstenite::Error::Protocol(_) => "the WebSocket protocol was violated",
        _ => "the WebSocket handshake failed",
    }
}

/// The longest wait a server can impose.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);

/// `Retry-After` in seconds; its form with a date is not used by the brokers.
pub fn retry_after(headers: &ws_http::HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER))
}
