//! The protobuf subprotocols: one `DownstreamMessage` or `UpstreamMessage` per binary frame.
//!
//! Control messages go through the generated types. Data frames, built once per record at start-up,
//! are written field by field with prost's primitives: no owned strings, no second pass.

use std::ops::Range;

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::control::{Downstream, Malformed, Upstream};
use crate::wire::proto::webpubsub::{
    DownstreamMessage, MessageData, UpstreamMessage, downstream_message, message_data, upstream_message,
};
use crate::wire::websocket::{self, Opcode};

/// Parses one binary message of a client.
pub(super) fn parse(bytes: &[u8]) -> Result<Upstream<'static>, Malformed> {
    use upstream_message::Message as Request;
    let message = UpstreamMessage::decode(bytes).map_err(Malformed::unparsable)?;
    match message.message {
        Some(Request::JoinGroup(join)) => Ok(Upstream::Join { group: join.group.into(), ack_id: join.ack_id }),
        Some(Request::LeaveGroup(leave)) => Ok(Upstream::Leave { group: leave.group.into(), ack_id: leave.ack_id }),
        Some(Request::SendToGroup(send)) => Ok(Upstream::SendToGroup { ack_id: send.ack_id }),
        Some(Request::Event(event)) => Ok(Upstream::Event { ack_id: event.ack_id }),
        Some(Request::SequenceAck(ack)) => Ok(Upstream::SequenceAck(ack.sequence_id)),
        Some(Request::Ping(_)) => Ok(Upstream::Ping),
        None => Err(Malformed::unparsable("a message of no known kind")),
    }
}

/// Appends a control message as a binary frame.
pub(super) fn append(message: &Downstream<'_>, out: &mut Vec<u8>) {
    use downstream_message::{Ack, Message as Response, Pong, System, ack, system};
    let system = |message| Response::System(System { message: Some(message) });
    let message = match *message {
        Downstream::Connected { connection_id, user_id, reconnection_token } => {
            system(system::Message::Connected(system::Connected {
                connection_id: connection_id.to_owned(),
                user_id: user_id.to_owned(),
                reconnection_token: reconnection_token.unwrap_or_default().to_owned(),
            }))
        }
        Downstream::Disconnected { reason } => {
            system(system::Message::Disconnected(system::Disconnected { reason: reason.to_owned() }))
        }
        Downstream::Ack { ack_id, result } => Response::Ack(Ack {
            ack_id,
            success: result.is_ok(),
            error: result
                .err()
                .map(|(name, message)| ack::Error { name: name.as_str().to_owned(), message: message.to_owned() }),
        }),
        Downstream::Pong => Response::Pong(Pong {}),
    };
    let message = DownstreamMessage { message: Some(message) };
    websocket::append_header(Opcode::Binary, message.encoded_len(), out);
    message.encode(out).expect("a Vec grows as needed");
}

// Field numbers of the nesting Downstream ▸ Data ▸ MessageData ▸ Any, from proto/webpubsub.proto.
const DOWNSTREAM_DATA: u32 = 2;
const DATA_FROM: u32 = 1;
const DATA_GROUP: u32 = 2;
const DATA_DATA: u32 = 3;
/// `sequence_id` in a data message; [`super::reliable`] appends it.
pub(super) const DATA_SEQUENCE_ID: u32 = 4;
const MESSAGE_DATA_PROTOBUF: u32 = 3;
const ANY_TYPE_URL: u32 = 1;
const ANY_VALUE: u32 = 2;

/// `from` of group data. With "server" the SDKs raise another event and group handlers stay
/// silent (`docs/protocols/webpubsub.md`, "Messages to the client").
const FROM: &str = "group";

/// Appends a data frame. The payload comes last, so that it can be found again and a sequence id
/// can be appended.
pub(super) fn append_data(group: &str, type_url: &str, payload: &[u8], out: &mut Vec<u8>) {
    let lengths = DataLengths::new(group.len(), type_url.len(), payload.len());
    websocket::append_header(Opcode::Binary, field_len(lengths.data), out);
    append_key(DOWNSTREAM_DATA, lengths.data, out);
    append_field(DATA_FROM, FROM.as_bytes(), out);
    append_field(DATA_GROUP, group.as_bytes(), out);
    append_key(DATA_DATA, lengths.message_data, out);
    append_key(MESSAGE_DATA_PROTOBUF, lengths.any, out);
    append_any(type_url, payload, out);
}

/// Appends a data frame whose data is the JSON value of this text.
pub(super) fn append_json_data(group: &str, text: &str, out: &mut Vec<u8>) {
    let data = MessageData { data: Some(message_data::Data::JsonData(text.to_owned())) };
    let data = downstream_message::Data {
        from: FROM.to_owned(),
        group: Some(group.to_owned()),
        data: Some(data),
        ..downstream_message::Data::default()
    };
    let message = DownstreamMessage { message: Some(downstream_message::Message::Data(data)) };
    websocket::append(Opcode::Binary, &message.encode_to_vec(), out);
}

/// Appends a serialized `Any`.
pub(super) fn append_any(type_url: &str, value: &[u8], out: &mut Vec<u8>) {
    append_field(ANY_TYPE_URL, type_url.as_bytes(), out);
    append_field(ANY_VALUE, value, out);
}

/// Where the payload lies in a frame of [`append_data`].
pub(super) fn payload_of(frame: &[u8], group: &str, type_url: &str) -> Range<usize> {
    // Everything before the payload is a function of the payload's length: find the length whose
    // frame is this long. Each byte of payload makes the frame at least one byte longer.
    let overhead = |payload: usize| {
        let lengths = DataLengths::new(group.len(), type_url.len(), payload);
        let message = field_len(lengths.data);
        let header = match message {
            0..=125 => 2,
            126..=0xffff => 4,
            _ => websocket::MAX_HEADER,
        };
        header + message - payload
    };
    let mut payload = frame.len() - overhead(0);
    while payload + overhead(payload) > frame.len() {
        payload -= 1;
    }
    frame.len() - payload..frame.len()
}

/// Lengths from the inside out; each level needs the one below.
struct DataLengths {
    any: usize,
    message_data: usize,
    data: usize,
}

impl DataLengths {
    fn new(group: usize, type_url: usize, payload: usize) -> Self {
        let any = field_len(type_url) + field_len(payload);
        let message_data = field_len(any);
        let data = field_len(FROM.len()) + field_len(group) + field_len(message_data);
        Self { any, message_data, data }
    }
}

/// Bytes of a length-delimited field with a number below 16.
fn field_len(len: usize) -> usize {
    key_len(1) + encoded_len_varint(len as u64) + len
}

fn append_key(field: u32, len: usize, out: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

fn append_field(field: u32, bytes: &[u8], out: &mut Vec<u8>) {
    append_key(field, bytes.len(), out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::proto::webpubsub::Any;
    use crate::wire::webpubsub::ErrorName;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    fn said(message: &Downstream<'_>) -> String {
        let mut frame = Vec::new();
        append(message, &mut frame);
        STANDARD.encode(websocket::payload(&frame))
    }

    fn heard(golden: &str) -> Upstream<'static> {
        parse(&STANDARD.decode(golden).unwrap()).unwrap()
    }

    /// Bytes from the tests of Azure's protobuf add-on (`docs/protocols/webpubsub.md`, "Golden bytes").
    #[test]
    fn messages_are_azures_golden_bytes() {
        assert_eq!(heard("MgsKBWdyb3VwEOXYAg=="), Upstream::Join { group: "group".into(), ack_id: Some(44_133) });
        assert_eq!(heard("OgoKBWdyb3VwELlg"), Upstream::Leave { group: "group".into(), ack_id: Some(12_345) });
        assert_eq!(heard("QgQIwMQH"), Upstream::SequenceAck(123_456));
        assert_eq!(heard("Cg4KBWdyb3VwGgUKA3h6eQ=="), Upstream::SendToGroup { ack_id: None });
        assert_eq!(
            heard("Ch4KBWdyb3VwELlgGhAaDgoHZXhhbXBsZRIDeHl6IAE="),
            Upstream::SendToGroup { ack_id: Some(12_345) }
        );

        assert_eq!(said(&Downstream::Ack { ack_id: 123, result: Ok(()) }), "CgQIexAB");
        let connected =
            Downstream::Connected { connection_id: "connection", user_id: "user", reconnection_token: None };
        assert_eq!(said(&connected), "GhQKEgoKY29ubmVjdGlvbhIEdXNlcg==");
        let connected =
            Downstream::Connected { connection_id: "connection", user_id: "user", reconnection_token: Some("rec") };
        assert_eq!(said(&connected), "GhkKFwoKY29ubmVjdGlvbhIEdXNlchoDcmVj");
        assert_eq!(said(&Downstream::Disconnected { reason: "msg" }), "GgcSBRIDbXNn");
    }

    #[test]
    fn a_failed_ack_carries_name_and_message() {
        let mut frame = Vec::new();
        append(&Downstream::Ack { ack_id: 123, result: Err((ErrorName::Forbidden, "message")) }, &mut frame);
        // Azure's golden bytes spell out `success = false`; proto3 leaves the default away.
        let golden =
            DownstreamMessage::decode(STANDARD.decode("ChoIexAAGhQKCUZvcmJpZGRlbhIHbWVzc2FnZQ==").unwrap().as_slice());
        assert_eq!(DownstreamMessage::decode(websocket::payload(&frame)), golden);
    }

    #[test]
    fn group_data_is_azures_golden_bytes() {
        let mut frame = Vec::new();
        append_data("groupName", "example", b"xyz", &mut frame);
        assert_eq!(STANDARD.encode(websocket::payload(&frame)), "EiQKBWdyb3VwEglncm91cE5hbWUaEBoOCgdleGFtcGxlEgN4eXo=");
    }

    #[test]
    fn an_empty_or_unknown_message_is_refused() {
        for bytes in [&[][..], &[0xff], &[0x32, 0x05, 0x0a], &[0x9a, 0x06, 0x00]] {
            assert!(matches!(parse(bytes), Err(Malformed::Unparsable(_))), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn data_frames_decode_to_what_went_in(
            group in "[a-z_]{1,200}", type_url in "[a-z.]{1,20}", payload in prop::collection::vec(any::<u8>(), 0..70_000),
        ) {
            let mut frame = Vec::new();
            append_data(&group, &type_url, &payload, &mut frame);
            prop_assert_eq!(&frame[payload_of(&frame, &group, &type_url)], payload.as_slice());

            let message = DownstreamMessage::decode(websocket::payload(&frame)).unwrap();
            let any = Any { type_url, value: payload.into() };
            let data = downstream_message::Data {
                from: "group".to_owned(),
                group: Some(group),
                data: Some(MessageData { data: Some(message_data::Data::ProtobufData(any)) }),
                ..Default::default()
            };
            prop_assert_eq!(message.message, Some(downstream_message::Message::Data(data)));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
