//! The WebSocket opening handshake as a client sees it (RFC 6455 §4.1).

use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;

/// The longest response head that is read before giving up.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// The `User-Agent` of every request; the real API refuses clients without one.
pub const USER_AGENT: &str = concat!("swarm/", env!("CARGO_PKG_VERSION"));

/// Why an upgrade did not happen.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    /// The server answered with another status than 101.
    #[error("upgrade refused: HTTP {status}{}", if reason.is_empty() { String::new() } else { format!(" {reason}") })]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The start of the body, if it came with the head.
        reason: String,
    },
    /// `Sec-WebSocket-Accept` does not answer our key.
    #[error("upgrade answered with a wrong Sec-WebSocket-Accept")]
    WrongAccept,
    /// The subprotocol in the answer is not the one asked for.
    #[error("asked for subprotocol {asked}, the server chose {chosen}")]
    WrongSubprotocol {
        /// What the client offered, or `none`.
        asked: String,
        /// What the server answered, or `none`.
        chosen: String,
    },
    /// The answer is not HTTP.
    #[error("the answer to the upgrade is not HTTP: {0}")]
    Malformed(String),
    /// No end of the head within 16 KiB.
    #[error("the head of the answer to the upgrade is over {MAX_HEAD_BYTES} bytes")]
    TooLarge,
}

impl UpgradeError {
    /// The status of a refusal.
    pub fn status(&self) -> Option<u16> {
        if let Self::Refused { status, .. } = self { Some(*status) } else { None }
    }
}

/// One handshake: the request to send, and what its answer must hold.
#[derive(Debug)]
pub struct Upgrade {
    accept: String,
    subprotocol: Option<&'static str>,
}

impl Upgrade {
    /// Makes a handshake with a fresh key and its request.
    pub fn new(host: &str, path: &str, subprotocol: Option<&'static str>) -> (Self, Vec<u8>) {
        let key = generate_key();
        let offer = subprotocol.map_or(String::new(), |name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nUser-Agent: {USER_AGENT}\r\n{offer}\r\n"
        );
        let accept = derive_accept_key(key.as_bytes());
        (Self { accept, subprotocol }, request.into_bytes())
    }

    /// Checks the answer; returns the length of its head once that is complete.
    ///
    /// What follows the head in `bytes` are the server's first frames.
    pub fn check(&self, bytes: &[u8]) -> Result<Option<usize>, UpgradeError> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let head_len = match response.parse(bytes) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) if bytes.len() > MAX_HEAD_BYTES => return Err(UpgradeError::TooLarge),
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(UpgradeError::Malformed(error.to_string())),
        };
        let status = response.code.unwrap_or_default();
        if status != 101 {
            let body = String::from_utf8_lossy(&bytes[head_len..]);
            let reason: String = body.trim().chars().take(120).collect();
            return Err(UpgradeError::Refused { status, reason });
        }
        let header = |name: &str| {
            response
                .headers
                .iter()
                .find(|header| header.name.eq_ignore_ascii_case(name))
                .map(|header| String::from_utf8_lossy(header.value).trim().to_owned())
        };
        if header("sec-websocket-accept").as_deref() != Some(self.accept.as_str()) {
            return Err(UpgradeError::WrongAccept);
        }
        let chosen = header("sec-websocket-protocol");
        if chosen.as_deref() != self.subprotocol {
            return Err(UpgradeError::WrongSubprotocol {
                asked: self.subprotocol.unwrap_or("none").to_owned(),
                chosen: chosen.unwrap_or_else(|| "none".to_owned()),
            });
        }
        Ok(Some(head_len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTOCOL: &str = "json.webpubsub.azure.v1";

    fn answer(upgrade: &Upgrade, protocol: &str) -> Vec<u8> {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n\
             sec-websocket-protocol: {protocol}\r\n\r\n",
            upgrade.accept
        )
        .into_bytes()
    }

    #[test]
    fn a_good_answer_ends_where_the_first_frame_begins() {
        let (upgrade, request) = Upgrade::new("h:1", "/client/hubs/x", Some(PROTOCOL));
        let request = String::from_utf8(request).unwrap();
        assert!(request.starts_with("GET /client/hubs/x HTTP/1.1\r\nHost: h:1\r\n"));
        assert!(request.contains("Sec-WebSocket-Protocol: json.webpubsub.azure.v1\r\n"));
        let mut bytes = answer(&upgrade, PROTOCOL);
        let head_len = bytes.len();
        assert_eq!(upgrade.check(&bytes[..head_len - 1]), Ok(None));
        bytes.extend([0x81, 0]);
        assert_eq!(upgrade.check(&bytes), Ok(Some(head_len)));
    }

    #[test]
    fn another_subprotocol_is_refused() {
        let (upgrade, _) = Upgrade::new("h", "/", Some(PROTOCOL));
        let bytes = answer(&upgrade, "protobuf.webpubsub.azure.v1");
        assert!(matches!(upgrade.check(&bytes), Err(UpgradeError::WrongSubprotocol { .. })));
    }

    #[test]
    fn a_wrong_accept_key_is_refused() {
        let (upgrade, _) = Upgrade::new("h", "/", Some(PROTOCOL));
        let (other, _) = Upgrade::new("h", "/", Some(PROTOCOL));
        assert_eq!(upgrade.check(&answer(&other, PROTOCOL)), Err(UpgradeError::WrongAccept));
    }

    #[test]
    fn a_refusal_keeps_its_status_and_reason() {
        let (upgrade, _) = Upgrade::new("h", "/", None);
        let error = upgrade.check(b"HTTP/1.1 503 Service Unavailable\r\n\r\n{\"error\":\"full\"}").unwrap_err();
        assert_eq!(error.to_string(), "upgrade refused: HTTP 503 {\"error\":\"full\"}");
        assert!(matches!(upgrade.check(b"SSH-2.0\r\n\r\n"), Err(UpgradeError::Malformed(_))));
    }
}
