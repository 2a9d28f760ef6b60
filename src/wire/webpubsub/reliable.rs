//! Reliable frames: a plain frame with a sequence id in it.
//!
//! Azure numbers per connection; both SDKs need only that ids rise, so one frame with the hub's
//! own id serves every connection (`docs/protocols/webpubsub.md`, "Sequence ids"). Both functions copy the plain frame
//! once and change nothing in it: JSON gains a first key, protobuf a last field.

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::protobuf::DATA_SEQUENCE_ID;
use crate::wire::websocket::{self, Opcode};

/// `{"type":…` becomes `{"sequenceId":N,"type":…`.
pub(super) fn append_json(plain: &[u8], sequence_id: u64, out: &mut Vec<u8>) {
    const HEAD: &[u8] = br#"{"sequenceId":"#;
    let message = websocket::payload(plain);
    let digits = sequence_id.to_string();
    websocket::append_header(Opcode::Text, HEAD.len() + digits.len() + message.len(), out);
    out.extend_from_slice(HEAD);
    out.extend_from_slice(digits.as_bytes());
    out.push(b',');
    out.extend_from_slice(&message[1..]);
}

/// `Downstream { data }` gets `sequence_id` behind the last field of `data`.
pub(super) fn append_protobuf(plain: &[u8], sequence_id: u64, out: &mut Vec<u8>) {
    let message = websocket::payload(plain);
    let key = message[0];
    let body = &message[1 + varint_len(&message[1..])..];
    let length = body.len() + key_len(DATA_SEQUENCE_ID) + encoded_len_varint(sequence_id);
    websocket::append_header(Opcode::Binary, 1 + encoded_len_varint(length as u64) + length, out);
    out.push(key);
    encode_varint(length as u64, out);
    out.extend_from_slice(body);
    encode_key(DATA_SEQUENCE_ID, WireType::Varint, out);
    encode_varint(sequence_id, out);
}

fn varint_len(bytes: &[u8]) -> usize {
    1 + bytes.iter().take_while(|byte| **byte & 0x80 != 0).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::proto::webpubsub::{DownstreamMessage, downstream_message};
    use crate::wire::webpubsub::{Syntax, append_data};
    use proptest::prelude::*;
    use prost::Message;

    #[test]
    fn json_gains_the_sequence_id_as_its_first_key() {
        let (mut plain, mut frame) = (Vec::new(), Vec::new());
        append_data(Syntax::Json, "g", "example", b"xyz", &mut plain);
        append_json(&plain, 7, &mut frame);
        assert_eq!(
            std::str::from_utf8(websocket::payload(&frame)).unwrap(),
            r#"{"sequenceId":7,"type":"message","from":"group","group":"g","dataType":"protobuf","data":"CgdleGFtcGxlEgN4eXo="}"#
        );
    }

    proptest! {
        #[test]
        fn both_keep_everything_else(
            payload in prop::collection::vec(any::<u8>(), 0..70_000), sequence_id in 1u64..1 << 53,
        ) {
            let (mut plain, mut frame) = (Vec::new(), Vec::new());
            append_data(Syntax::Protobuf, "group", "example", &payload, &mut plain);
            append_protobuf(&plain, sequence_id, &mut frame);
            let decoded = |frame: &[u8]| match DownstreamMessage::decode(websocket::payload(frame)).unwrap().message {
                Some(downstream_message::Message::Data(data)) => data,
                other => panic!("expected data, got {other:?}"),
            };
            prop_assert_eq!(decoded(&frame), downstream_message::Data { sequence_id: Some(sequence_id), ..decoded(&plain) });

            let (mut plain, mut frame) = (Vec::new(), Vec::new());
            append_data(Syntax::Json, "group", "example", &payload, &mut plain);
            append_json(&plain, sequence_id, &mut frame);
            let mut decoded: serde_json::Value = serde_json::from_slice(websocket::payload(&frame)).unwrap();
            prop_assert_eq!(decoded.as_object_mut().unwrap().remove("sequenceId").unwrap(), serde_json::json!(sequence_id));
            prop_assert_eq!(decoded, serde_json::from_slice::<serde_json::Value>(websocket::payload(&plain)).unwrap());
        }
    }
}
