//! What the acceptor says and hears: just enough HTTP and WebSocket for the swarm.

use serde_json::json;
use swarm::clock::{now_ns, unix_ns};
use swarm::wire::form::Protocol;
use tungstenite::handshake::derive_accept_key;

/// A request, as far as the floor cares.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// `/negotiate` or `/v2/negotiate`
    Negotiate {
        /// What the `Host` header says.
        host: String,
    },
    /// `/ticks` as JSON: only the clock.
    Now,
    /// `/ticks` as server-sent events.
    Ticks,
    /// A WebSocket upgrade.
    Upgrade {
        /// The client's key.
        key: String,
        /// The subprotocols it offers; none on the JSON streams.
        subprotocol: Option<String>,
    },
    /// `/api/publish`: messages for the JSON streams, one per line.
    Publish {
        /// All of them.
        body: Vec<u8>,
    },
    /// Anything else.
    Unknown,
}

/// Reads the request at the beginning of `bytes`; also returns its length. `None` while it is
/// incomplete.
pub fn parse_request(bytes: &[u8]) -> Result<Option<(Request, usize)>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head_len) = request.parse(bytes)? else { return Ok(None) };
    let find = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).into_owned())
    };
    let header = |name: &str| find(name).unwrap_or_default();
    let body_len = header("content-length").parse().unwrap_or(0);
    let Some(body) = bytes[head_len..].get(..body_len) else { return Ok(None) };
    let path = request.path.unwrap_or_default().split('?').next().unwrap_or_default();
    let parsed = match path {
        "/negotiate" | "/v2/negotiate" => Request::Negotiate { host: header("host") },
        "/ticks" if header("accept").contains("text/event-stream") => Request::Ticks,
        "/ticks" => Request::Now,
        "/api/publish" => Request::Publish { body: body.to_vec() },
        _ if !header("upgrade").is_empty() => {
            Request::Upgrade { key: header("sec-websocket-key"), subprotocol: find("sec-websocket-protocol") }
        }
        _ => Request::Unknown,
    };
    Ok(Some((parsed, head_len + body_len)))
}

/// The answer to a negotiation.
pub fn negotiated(host: &str) -> Vec<u8> {
    let url = format!("ws://{host}/client/hubs/orderflow?access_token=floor");
    ok(&json!({ "websocket_urls": { "orderflow": url }, "prefix": "blue" }))
}

/// What the ledger says of its clock.
pub fn clock(newest: u64) -> serde_json::Value {
    let now = json!({ "monotonic_ns": now_ns(), "unix_ns": unix_ns() });
    json!({ "hub": "orderflow", "now": now, "oldest": newest, "newest": newest, "ticks": [] })
}

/// An answer with a JSON body.
pub fn ok(body: &serde_json::Value) -> Vec<u8> {
    let body = body.to_string();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// A refusal.
pub fn refused(status: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").into_bytes()
}

/// The head of a stream of server-sent events.
pub const EVENTS: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

/// The answer to an upgrade; on the hub with the connected message right behind it.
pub fn welcome(key: &str, protocol: Protocol) -> Vec<u8> {
    let accept = derive_accept_key(key.as_bytes());
    let named = protocol.subprotocol().map(|subprotocol| format!("sec-websocket-protocol: {subprotocol}\r\n"));
    let mut bytes = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {accept}\r\n{}\r\n",
        named.unwrap_or_default()
    )
    .into_bytes();
    if protocol.is_protobuf() {
        // DownstreamMessage { system: { connected: { connection_id: "floor", reconnection_token: "f" } } }
        append(&mut bytes, protocol, b"\x1a\x0c\x0a\x0a\x0a\x05floor\x1a\x01f");
    } else if protocol != Protocol::Streams {
        let connected = json!({
            "type": "system", "event": "connected", "userId": "swarm", "connectionId": "floor",
            "reconnectionToken": "f",
        });
        append(&mut bytes, protocol, connected.to_string().as_bytes());
    }
    bytes
}

/// The answer to a message that joins a group, or subscribes to channels; `None` to any other.
pub fn welcome_to_group(protocol: Protocol, message: &[u8]) -> Option<Vec<u8>> {
    if protocol != Protocol::Streams {
        return joined(protocol, message).map(|ack_id| ack(protocol, ack_id));
    }
    let message: serde_json::Value = serde_json::from_slice(message).ok()?;
    let mut bytes = Vec::new();
    let answer = json!({ "type": "subscribed", "channels": message.get("channels")? });
    append(&mut bytes, protocol, answer.to_string().as_bytes());
    Some(bytes)
}

/// The ack of a join.
fn ack(protocol: Protocol, ack_id: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if protocol.is_protobuf() {
        // DownstreamMessage { ack: { ack_id, success: true } }
        let mut ack = vec![0x08];
        write_varint(&mut ack, ack_id);
        ack.extend([0x10, 1]);
        let mut message = vec![0x0a, ack.len() as u8];
        message.extend(ack);
        append(&mut bytes, protocol, &message);
    } else {
        append(&mut bytes, protocol, json!({ "type": "ack", "ackId": ack_id, "success": true }).to_string().as_bytes());
    }
    bytes
}

/// The answer to a ping.
pub fn pong(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x8a, payload.len() as u8];
    bytes.extend_from_slice(payload);
    bytes
}

/// Appends one message of less than 64 KiB as a frame.
pub fn append(bytes: &mut Vec<u8>, protocol: Protocol, message: &[u8]) {
    bytes.push(if protocol.is_protobuf() { 0x82 } else { 0x81 });
    if message.len() < 126 {
        bytes.push(message.len() as u8);
    } else {
        bytes.push(126);
        bytes.extend((message.len() as u16).to_be_bytes());
    }
    bytes.extend_from_slice(message);
}

/// Opcode, payload and length of the masked frame at the beginning of `bytes`, unmasked in place;
/// `None` while it is incomplete.
pub fn parse_frame(bytes: &mut [u8]) -> Option<(u8, &[u8], usize)> {
    let opcode = bytes.first()? & 0x0f;
    let (head, len) = match bytes.get(1)? & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        len => (2, usize::from(len)),
    };
    let mask: [u8; 4] = bytes.get(head..head + 4)?.try_into().ok()?;
    let payload = bytes.get_mut(head + 4..(head + 4).checked_add(len)?)?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Some((opcode, payload, head + 4 + len))
}

/// The ack id of a message, if it is a join.
fn joined(protocol: Protocol, message: &[u8]) -> Option<u64> {
    if !protocol.is_protobuf() {
        let message: serde_json::Value = serde_json::from_slice(message).ok()?;
        return (message["type"] == "joinGroup").then(|| message["ackId"].as_u64())?;
    }
    // UpstreamMessage { join_group (6): { group (1), ack_id (2) } }, with the lengths of one byte that
    // every group's name allows.
    let [0x32, _, 0x0a, len, rest @ ..] = message else { return None };
    let [0x10, varint @ ..] = rest.get(usize::from(*len)..)? else { return None };
    Some(varint.iter().rev().fold(0, |id, byte| id << 7 | u64::from(byte & 0x7f)))
}

fn write_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

#[cfg(test)]
mod tests {
    use swarm::wire::downstream::{Message, Reader};
    use swarm::wire::frame::parse_header;
    use swarm::wire::streams::StreamMessage;
    use swarm::wire::upstream;

    use std::collections::BTreeMap;

    use super::*;

    const BOTH: [Protocol; 2] = [Protocol::JsonReliable, Protocol::ProtobufReliable];

    #[test]
    fn the_swarm_reads_what_the_floor_says() {
        for protocol in BOTH {
            let read = |frame: &[u8]| {
                let header = parse_header(frame).unwrap().unwrap();
                assert_eq!(header.frame_len(), frame.len());
                Reader::new().unwrap().read(protocol, &frame[header.header_len..]).unwrap()
            };
            let welcome = welcome("key", protocol);
            let head_len = welcome.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            assert!(matches!(read(&welcome[head_len..]), Message::Connected { reconnection_token: Some(_), .. }));
            assert_eq!(read(&ack(protocol, 300)), Message::Ack { ack_id: 300, outcome: Ok(()) });
        }
    }

    #[test]
    fn the_floor_reads_what_the_swarm_says() {
        for protocol in BOTH {
            let mut bytes = Vec::new();
            upstream::join(&mut bytes, protocol, "blue_SPX_orderflow_orderflow", 300);
            let whole = bytes.len();
            let (_, payload, len) = parse_frame(&mut bytes).unwrap();
            assert_eq!((joined(protocol, payload), len), (Some(300), whole));
            let mut bytes = Vec::new();
            upstream::sequence_ack(&mut bytes, protocol, 7);
            assert_eq!(joined(protocol, parse_frame(&mut bytes).unwrap().1), None);
            assert!(parse_frame(&mut bytes[..5]).is_none());
        }
    }

    #[test]
    fn a_subscription_is_answered_with_its_channels() {
        let mut bytes = Vec::new();
        assert_eq!(upstream::subscribe(&mut bytes, &["lines".to_owned()], &[], &BTreeMap::new(), None), 1);
        let (_, message, _) = parse_frame(&mut bytes).unwrap();
        let answer = welcome_to_group(Protocol::Streams, message).unwrap();
        let header = parse_header(&answer).unwrap().unwrap();
        let read = swarm::wire::streams::read(&answer[header.header_len..]).unwrap();
        assert!(matches!(read, StreamMessage::Subscribed { channels, .. } if channels == ["lines"]));
        assert_eq!(welcome_to_group(Protocol::Streams, br#"{"type":"ping"}"#), None);
    }

    #[test]
    fn requests_are_told_apart() {
        let parse = |text: &str| parse_request(text.as_bytes()).unwrap().map(|(request, _)| request);
        let negotiate = "GET /v2/negotiate?key=x HTTP/1.1\r\nHost: h:1\r\n\r\n";
        assert_eq!(parse(negotiate), Some(Request::Negotiate { host: "h:1".to_owned() }));
        assert_eq!(parse("GET /ticks HTTP/1.1\r\nAccept: text/event-stream\r\n\r\n"), Some(Request::Ticks));
        assert_eq!(parse("GET /ticks HTTP/1.1\r\n\r\n"), Some(Request::Now));
        assert_eq!(parse("GET /ticks HTTP/1.1\r\n"), None);
        let publish = "POST /api/publish HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(parse(publish), Some(Request::Publish { body: b"{}".to_vec() }));
        assert_eq!(parse(&publish[..publish.len() - 1]), None, "its body is incomplete");
    }
}
