//! Opening a socket, and why it does not open.
//!
//! Tokens stand in the URL, so no error quotes it, and none of tungstenite's is printed as it is.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::header::{HeaderName, HeaderValue};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

pub use super::opening_handshake::Socket;
use super::opening_handshake::{self, Refusal};

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
        /// What its answer lacks.
        reason: &'static str,
    },
    /// The configured URL is not one of a WebSocket.
    #[error("expected a ws:// or wss:// URL with a host")]
    BadUrl,
}

/// Connects, within the timeout.
pub async fn connect(target: &SocketTarget) -> Result<Socket, ConnectError> {
    let uri: Uri = target.url.parse().map_err(|_| ConnectError::BadUrl)?;
    let secure = match uri.scheme_str() {
        Some("wss") => true,
        Some("ws") => false,
        _ => return Err(ConnectError::BadUrl),
    };
    let name = uri.host().ok_or(ConnectError::BadUrl)?.trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let host = format!("{name}:{port}");
    let config = WebSocketConfig::default()
        .max_message_size(Some(target.max_message_bytes))
        .max_frame_size(Some(target.max_message_bytes));
    let connecting = async {
        let network = |source| ConnectError::Network { host: host.clone(), source };
        let tcp = TcpStream::connect((name.as_str(), port)).await.map_err(network)?;
        // Subscriptions are small and should not wait for one another.
        tcp.set_nodelay(true).map_err(network)?;
        let stream = if secure {
            let server = ServerName::try_from(name.clone()).map_err(|_| ConnectError::BadUrl)?;
            let tls = TlsConnector::from(Arc::clone(&target.tls)).connect(server, tcp).await.map_err(network)?;
            MaybeTlsStream::Rustls(tls)
        } else {
            MaybeTlsStream::Plain(tcp)
        };
        opening_handshake::open(stream, &uri, &target.headers, config).await.map_err(|refusal| match refusal {
            Refusal::Status(status, retry_after, body) => ConnectError::Refused { status, retry_after, body },
            Refusal::NoAnswer => ConnectError::Protocol { host: host.clone(), reason: "it gave no HTTP answer" },
            Refusal::Lacks(reason) => ConnectError::Protocol { host: host.clone(), reason },
        })
    };
    let timed_out = || ConnectError::TimedOut { host: host.clone(), timeout: target.timeout };
    tokio::time::timeout(target.timeout, connecting).await.unwrap_or_else(|_| Err(timed_out()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::broker::net::tls::client_config;
    use futures_util::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

    /// A server for one connection, which answers what `answer` makes of the request's lines and does not close.
    async fn connected(
        end: &str,
        answer: impl FnOnce(&str) -> Vec<u8> + Send + 'static,
    ) -> (Result<Socket, ConnectError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}{end}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let request = String::from_utf8(request).unwrap();
            stream.write_all(&answer(&request)).await.unwrap();
            (request, stream)
        });
        let target = SocketTarget {
            url,
            headers: vec![(HeaderName::from_static("x-kite-version"), HeaderValue::from_static("3"))],
            tls: client_config(None).unwrap(),
            timeout: Duration::from_secs(20),
            max_message_bytes: 1 << 20,
        };
        let opened = connect(&target).await;
        let (request, _open) = server.await.unwrap();
        (opened, request)
    }

    fn key(request: &str) -> &str {
        let line = |line: &&str| line.to_ascii_lowercase().starts_with("sec-websocket-key:");
        request.lines().find(line).and_then(|line| line.split_once(':')).map(|(_, key)| key.trim()).unwrap()
    }

    #[tokio::test]
    async fn a_frame_that_comes_with_the_answer_is_not_lost_and_connection_may_be_a_list() {
        let answer = |request: &str| {
            let accept = derive_accept_key(key(request).as_bytes());
            let head = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive\r\n\
                 Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            [head.as_bytes(), b"\x81\x05hello"].concat()
        };
        let (opened, request) = connected("?token=x", answer).await;
        assert!(request.starts_with("GET /?token=x HTTP/1.1\r\n"), "{request}");
        assert!(request.to_ascii_lowercase().contains("\r\nx-kite-version: 3\r\n"), "{request}");
        let mut socket = opened.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
    }

    #[tokio::test]
    async fn a_refusal_without_an_end_tells_its_status_wait_and_text() {
        let answer = |_: &str| b"HTTP/1.1 429 Too Many\r\nRetry-After: 7\r\n\r\nslow down".to_vec();
        match connected("/", answer).await.0 {
            Err(ConnectError::Refused { status: 429, retry_after: Some(wait), body }) => {
                assert_eq!((wait.as_secs(), body.as_str()), (7, "slow down"));
            }
            other => panic!("{other:?}"),
        }
        let (opened, _) = connected("/", |_: &str| b"SSH-2.0-x\r\n\r\n".to_vec()).await;
        assert!(opened.unwrap_err().to_string().ends_with("does not speak WebSocket: it gave no HTTP answer"));
    }
}
