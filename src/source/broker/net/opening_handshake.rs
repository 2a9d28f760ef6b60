//! The opening handshake of a WebSocket, on a stream that is connected.
//!
//! tungstenite compares the whole value of the answer's `Connection` with `Upgrade`. But `Connection` and `Upgrade` are
//! lists, which may stand in several lines and have other members (RFC 9110 §5.3, §7.6.1, §7.8), and proxies write
//! such answers. So hyper speaks HTTP here, and tungstenite gets the stream after the 101.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY};
use http::header::{HeaderName, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// An open WebSocket, with or without TLS.
pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The longest wait a server can impose.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);

/// How much of a refusal's text is read.
const SHOWN_BYTES: usize = 4096;

/// How long a refusal's text may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why the server's answer opens no socket.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Another answer than 101: its status, its `Retry-After`, and the beginning of its text.
    Status(u16, Option<Duration>, String),
    /// It is no HTTP, or ends too early.
    NoAnswer,
    /// A 101 that is not one of a WebSocket, and what it lacks.
    Lacks(&'static str),
}

/// Asks for the upgrade, and checks the answer as RFC 6455 §4.1 says.
pub(super) async fn open(
    stream: MaybeTlsStream<TcpStream>,
    uri: &Uri,
    headers: &[(HeaderName, http::HeaderValue)],
    config: WebSocketConfig,
) -> Result<Socket, Refusal> {
    let key = generate_key();
    let request = request(uri, headers, &key).ok_or(Refusal::NoAnswer)?;
    let handshake = http1::Builder::new().title_case_headers(true).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|_| Refusal::NoAnswer)?;
    let opening = async {
        let answer = sender.send_request(request).await.map_err(|_| Refusal::NoAnswer)?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refused(answer).await);
        }
        check(answer.headers(), headers, &key)?;
        let upgraded = hyper::upgrade::on(answer).await.map_err(|_| Refusal::NoAnswer)?;
        let parts = upgraded.downcast::<TokioIo<MaybeTlsStream<TcpStream>>>().map_err(|_| Refusal::NoAnswer)?;
        let (stream, read) = (parts.io.into_inner(), parts.read_buf.to_vec());
        Ok(WebSocketStream::from_partially_read(stream, read, Role::Client, Some(config)).await)
    };
    // The connection is driven here, not in a task; it ends when it has handed over the stream.
    let mut opening = std::pin::pin!(opening);
    tokio::select! {
        opened = &mut opening => opened,
        _ended = connection.with_upgrades() => opening.await,
    }
}

/// `None` if the URL has no host.
fn request(uri: &Uri, headers: &[(HeaderName, http::HeaderValue)], key: &str) -> Option<Request<Empty<Bytes>>> {
    // Without the user and password that may stand before the host.
    let host = match uri.port() {
        Some(port) => format!("{}:{port}", uri.host()?),
        None => uri.host()?.to_owned(),
    };
    // Displayed, it begins with a `/` even where the URL has only a query.
    let path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    let mut request = Request::builder()
        .uri(path)
        .header(HOST, host)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, key);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body(Empty::new()).ok()
}

/// The status, and the beginning of the text as far as it has come.
async fn refused(answer: Response<Incoming>) -> Refusal {
    let (parts, mut body) = answer.into_parts();
    let mut text = Vec::new();
    let reading = async {
        while text.len() < SHOWN_BYTES
            && let Some(Ok(frame)) = body.frame().await
        {
            text.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        }
    };
    // The status is what matters; a text without an end must not become a timeout.
    let _ = tokio::time::timeout(PATIENCE, reading).await;
    text.truncate(SHOWN_BYTES);
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    Refusal::Status(parts.status.as_u16(), retry_after(&parts.headers), text)
}

/// Whether a 101 is the answer to our request.
fn check(answer: &HeaderMap, asked: &[(HeaderName, http::HeaderValue)], key: &str) -> Result<(), Refusal> {
    if !lists(answer, &UPGRADE, "websocket") {
        return Err(Refusal::Lacks("its answer lacks \"Upgrade: websocket\""));
    }
    if !lists(answer, &CONNECTION, "upgrade") {
        return Err(Refusal::Lacks("its answer lacks \"Connection: upgrade\""));
    }
    let accept = answer.get(SEC_WEBSOCKET_ACCEPT).map(|accept| accept.as_bytes().trim_ascii());
    if accept != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
        return Err(Refusal::Lacks("the Sec-WebSocket-Accept of its answer does not fit our key"));
    }
    if members(answer, &SEC_WEBSOCKET_EXTENSIONS).next().is_some() {
        return Err(Refusal::Lacks("it wants an extension that we did not offer"));
    }
    let offered = asked.iter().find(|(name, _)| *name == SEC_WEBSOCKET_PROTOCOL).map(|(_, value)| value);
    match (offered, answer.get(SEC_WEBSOCKET_PROTOCOL)) {
        (offered, chosen) if offered == chosen => Ok(()),
        (Some(_), None) => Err(Refusal::Lacks("it does not speak the subprotocol that we asked for")),
        _ => Err(Refusal::Lacks("it chose a subprotocol that we did not ask for")),
    }
}

/// The members of a list header, over all of its lines.
fn members<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|member| !member.is_empty())
}

fn lists(headers: &HeaderMap, name: &HeaderName, member: &str) -> bool {
    members(headers, name).any(|one| one.eq_ignore_ascii_case(member))
}

/// `Retry-After` in seconds; its form with a date is not used by the brokers.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: (&str, &str) = ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");

    fn lacks(lines: &[(&str, &str)], asked: Option<&str>) -> Option<&'static str> {
        let mut answer = HeaderMap::new();
        for (name, value) in lines {
            answer.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let asked: Vec<_> = asked.map(|name| (SEC_WEBSOCKET_PROTOCOL, name.parse().unwrap())).into_iter().collect();
        match check(&answer, &asked, KEY) {
            Ok(()) => None,
            Err(Refusal::Lacks(what)) => Some(what),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn connection_and_upgrade_are_lists_in_one_or_more_lines() {
        for lines in [
            &[("connection", "Upgrade"), ("upgrade", "websocket"), ACCEPT][..],
            &[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket"), ACCEPT],
            &[("connection", "upgrade , keep-alive"), ("upgrade", "h2c,websocket"), ACCEPT],
            &[("connection", "keep-alive"), ("connection", "Upgrade"), ("upgrade", "websocket, x"), ACCEPT],
            &[("connection", ",Upgrade,"), ("upgrade", "h2c"), ("upgrade", "websocket"), ACCEPT],
        ] {
            assert_eq!(lacks(lines, None), None, "{lines:?}");
        }
    }

    #[test]
    fn an_answer_that_is_not_a_websockets_is_told_apart() {
        let (connection, upgrade) = (("connection", "upgrade"), ("upgrade", "websocket"));
        for (lines, asked, words) in [
            (&[connection, ACCEPT][..], None, "Upgrade: websocket"),
            (&[("connection", "upgraded"), upgrade, ACCEPT], None, "Connection: upgrade"),
            (&[connection, upgrade], None, "Sec-WebSocket-Accept"),
            (&[connection, upgrade, ("sec-websocket-accept", "x")], None, "Sec-WebSocket-Accept"),
            (&[connection, upgrade, ACCEPT, ("sec-websocket-extensions", "x")], None, "extension"),
            (&[connection, upgrade, ACCEPT], Some("a"), "does not speak the subprotocol"),
            (&[connection, upgrade, ACCEPT, ("sec-websocket-protocol", "b")], Some("a"), "did not ask for"),
            (&[connection, upgrade, ACCEPT, ("sec-websocket-protocol", "a")], None, "did not ask for"),
        ] {
            assert!(lacks(lines, asked).is_some_and(|what| what.contains(words)), "{lines:?}");
        }
        let chosen = [connection, upgrade, ACCEPT, ("sec-websocket-protocol", "a")];
        assert_eq!(lacks(&chosen, Some("a")), None);
    }
}
