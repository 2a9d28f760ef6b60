//! The JSON subprotocols: one JSON object per text frame.

use std::borrow::Cow;

use base64::engine::general_purpose::STANDARD;
use base64::{Engine, encoded_len};
use prost::Message;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::control::{Downstream, Malformed, Upstream};
use super::protobuf;
use crate::wire::proto::webpubsub::Any;
use crate::wire::websocket::{self, Opcode};

/// Every key any upstream message has; which of them must be there depends on `type`
/// (`docs/protocols/webpubsub.md`, "Messages from the client").
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UpstreamJson<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    group: Option<Cow<'a, str>>,
    event: Option<IgnoredAny>,
    data: Option<IgnoredAny>,
    ack_id: Option<u64>,
    sequence_id: Option<u64>,
}

/// Parses one text message of a client. `type` is compared without case, as Azure does.
pub(super) fn parse(text: &str) -> Result<Upstream<'_>, Malformed> {
    // serde would also read the fields from an array.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(Malformed::unparsable("expected a JSON object"));
    }
    let request: UpstreamJson<'_> = serde_json::from_str(text).map_err(Malformed::unparsable)?;
    let ack_id = request.ack_id;
    let kind = request.r#type.to_ascii_lowercase();
    match kind.as_str() {
        "joingroup" => Ok(Upstream::Join { group: needed(request.group, "group")?, ack_id }),
        "leavegroup" => Ok(Upstream::Leave { group: needed(request.group, "group")?, ack_id }),
        "sendtogroup" => {
            needed(request.group, "group")?;
            needed(request.data, "data")?;
            Ok(Upstream::SendToGroup { ack_id })
        }
        "event" => needed(request.event, "event").map(|_| Upstream::Event { ack_id }),
        "sequenceack" => needed(request.sequence_id, "sequenceId").map(Upstream::SequenceAck),
        "ping" => Ok(Upstream::Ping),
        _ => Err(Malformed::unparsable(format_args!("type {kind:?}"))),
    }
}

fn needed<T>(value: Option<T>, key: &str) -> Result<T, Malformed> {
    value.ok_or_else(|| Malformed::unparsable(format_args!("a message without {key:?}")))
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
enum DownstreamJson<'a> {
    #[serde(rename_all = "camelCase")]
    System {
        event: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        user_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        connection_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reconnection_token: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<&'a str>,
    },
    #[serde(rename_all = "camelCase")]
    Ack {
        ack_id: u64,
        success: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<AckError<'a>>,
    },
    Pong,
}

#[derive(Serialize)]
struct AckError<'a> {
    name: &'static str,
    message: &'a str,
}

/// Appends a control message as a text frame.
pub(super) fn append(message: &Downstream<'_>, out: &mut Vec<u8>) {
    let response = match *message {
        Downstream::Connected { connection_id, user_id, reconnection_token } => DownstreamJson::System {
            event: "connected",
            user_id: Some(user_id),
            connection_id: Some(connection_id),
            reconnection_token,
            message: None,
        },
        Downstream::Disconnected { reason } => DownstreamJson::System {
            event: "disconnected",
            user_id: None,
            connection_id: None,
            reconnection_token: None,
            message: Some(reason),
        },
        Downstream::Ack { ack_id, result } => DownstreamJson::Ack {
            ack_id,
            success: result.is_ok(),
            error: result.err().map(|(name, message)| AckError { name: name.as_str(), message }),
        },
        Downstream::Pong => DownstreamJson::Pong,
    };
    let text = serde_json::to_vec(&response).expect("strings and numbers always serialize");
    websocket::append(Opcode::Text, &text, out);
}

/// Appends a data frame: the serialized `Any` in base64 with `dataType` `protobuf`, which is how Azure sends an
/// `Any` to JSON clients (`docs/protocols/webpubsub.md`, "Data across protocols").
pub(super) fn append_data(group: &str, type_url: &str, payload: &[u8], out: &mut Vec<u8>) {
    const HEAD: &str = r#"{"type":"message","from":"group","group":"#;
    const MIDDLE: &str = r#","dataType":"protobuf","data":""#;
    const TAIL: &str = r#""}"#;
    let group = serde_json::to_string(group).expect("a string always serializes");
    let mut any = Vec::with_capacity(payload.len() + type_url.len() + 16);
    protobuf::append_any(type_url, payload, &mut any);
    let data = encoded_len(any.len(), true).expect("a payload is far below usize::MAX");

    websocket::append_header(Opcode::Text, HEAD.len() + group.len() + MIDDLE.len() + data + TAIL.len(), out);
    out.extend_from_slice(HEAD.as_bytes());
    out.extend_from_slice(group.as_bytes());
    out.extend_from_slice(MIDDLE.as_bytes());
    let start = out.len();
    out.resize(start + data, 0);
    STANDARD.encode_slice(&any, &mut out[start..]).expect("the slice has the encoded length");
    out.extend_from_slice(TAIL.as_bytes());
}

/// Appends a data frame whose data is the JSON value of this text.
pub(super) fn append_json_data(group: &str, text: &str, out: &mut Vec<u8>) {
    let group = serde_json::to_string(group).expect("a string always serializes");
    let message = format!(r#"{{"type":"message","from":"group","group":{group},"dataType":"json","data":{text}}}"#);
    websocket::append(Opcode::Text, message.as_bytes(), out);
}

/// The payload in a frame of [`append_data`].
pub(super) fn payload_of(frame: &[u8]) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct Data<'a> {
        data: &'a str,
    }
    let message: Data<'_> = serde_json::from_slice(websocket::payload(frame)).ok()?;
    let any = Any::decode(STANDARD.decode(message.data).ok()?.as_slice()).ok()?;
    Some(any.value.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::webpubsub::{AckResult, ErrorName};

    fn said(message: &Downstream<'_>) -> String {
        let mut frame = Vec::new();
        append(message, &mut frame);
        String::from_utf8(websocket::payload(&frame).to_vec()).unwrap()
    }

    #[test]
    fn requests_are_read_whatever_the_case_of_their_type() {
        let join = Upstream::Join { group: "g".into(), ack_id: Some(1) };
        assert_eq!(parse(r#"{"type":"joinGroup","group":"g","ackId":1}"#).unwrap(), join);
        assert_eq!(parse(r#"{"ackId":1,"TYPE":0,"group":"g","type":"JOINGROUP"}"#).unwrap(), join);
        assert_eq!(
            parse(r#"{"type":"leaveGroup","group":"g"}"#).unwrap(),
            Upstream::Leave { group: "g".into(), ack_id: None }
        );
        assert_eq!(parse(r#"{"type":"sequenceAck","sequenceId":7}"#).unwrap(), Upstream::SequenceAck(7));
        assert_eq!(parse(r#"{"type":"ping"}"#).unwrap(), Upstream::Ping);
        let send = r#"{"type":"sendToGroup","group":"g","ackId":3,"noEcho":false,"dataType":"json","data":{"a":1}}"#;
        assert_eq!(parse(send).unwrap(), Upstream::SendToGroup { ack_id: Some(3) });
        let event = r#"{"type":"event","event":"e","ackId":4,"dataType":"text","data":"x"}"#;
        assert_eq!(parse(event).unwrap(), Upstream::Event { ack_id: Some(4) });
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for text in [
            "",
            "null",
            "[]",
            r#"["joinGroup","g",null,null,1,null]"#,
            "{}",
            r#"{"type":"joinGroup"}"#,
            r#"{"type":"joinGroup","group":7}"#,
            r#"{"type":"joinGroup","group":"g","ackId":-1}"#,
            r#"{"type":"joinGroup","group":"g","ackId":1.5}"#,
            r#"{"type":"sendToGroup","group":"g"}"#,
            r#"{"type":"event"}"#,
            r#"{"type":"sequenceAck"}"#,
            r#"{"type":"dance"}"#,
            r#"{"type":"ping"} {"type":"ping"}"#,
        ] {
            assert!(matches!(parse(text), Err(Malformed::Unparsable(_))), "{text}");
        }
    }

    #[test]
    fn responses_have_the_shapes_the_sdks_read() {
        let connected = Downstream::Connected { connection_id: "c", user_id: "u\"", reconnection_token: None };
        assert_eq!(said(&connected), r#"{"type":"system","event":"connected","userId":"u\"","connectionId":"c"}"#);
        let connected = Downstream::Connected { connection_id: "c", user_id: "u", reconnection_token: Some("t") };
        assert_eq!(
            said(&connected),
            r#"{"type":"system","event":"connected","userId":"u","connectionId":"c","reconnectionToken":"t"}"#
        );
        let disconnected = Downstream::Disconnected { reason: "r" };
        assert_eq!(said(&disconnected), r#"{"type":"system","event":"disconnected","message":"r"}"#);
        let ok: AckResult<'_> = Ok(());
        assert_eq!(said(&Downstream::Ack { ack_id: 1, result: ok }), r#"{"type":"ack","ackId":1,"success":true}"#);
        assert_eq!(
            said(&Downstream::Ack { ack_id: u64::MAX, result: Err((ErrorName::Forbidden, "no")) }),
            r#"{"type":"ack","ackId":18446744073709551615,"success":false,"error":{"name":"Forbidden","message":"no"}}"#
        );
        assert_eq!(said(&Downstream::Pong), r#"{"type":"pong"}"#);
    }

    #[test]
    fn data_is_the_any_in_base64() {
        let mut frame = Vec::new();
        append_data("group\"Name", "example", b"xyz", &mut frame);
        assert_eq!(
            std::str::from_utf8(websocket::payload(&frame)).unwrap(),
            r#"{"type":"message","from":"group","group":"group\"Name","dataType":"protobuf","data":"CgdleGFtcGxlEgN4eXo="}"#
        );
        assert_eq!(payload_of(&frame).as_deref(), Some(&b"xyz"[..]));
    }
}
