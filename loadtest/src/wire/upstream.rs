//! What a client says: joins, sequence acks, pongs, and the close at the end, as finished frames.

use std::collections::BTreeMap;

use prost::Message as _;
use serde_json::json;

use super::form::Protocol;
use super::frame::{Opcode, write_masked};
use super::streams::{Position, is_topic};
use super::webpubsub::UpstreamMessage;
use super::webpubsub::upstream_message::{JoinGroup, Message, SequenceAck};
use crate::cli::SlowPolicy;

/// Appends a request to join `group`.
pub fn join(out: &mut Vec<u8>, protocol: Protocol, group: &str, ack_id: u64) {
    if protocol.is_protobuf() {
        let join = JoinGroup { group: group.to_owned(), ack_id: Some(ack_id) };
        protobuf(out, Message::JoinGroup(join));
    } else {
        text(out, &json!({"type": "joinGroup", "group": group, "ackId": ack_id}));
    }
}

/// Appends the acknowledgement that everything up to `sequence_id` has arrived.
pub fn sequence_ack(out: &mut Vec<u8>, protocol: Protocol, sequence_id: u64) {
    if protocol.is_protobuf() {
        protobuf(out, Message::SequenceAck(SequenceAck { sequence_id }));
    } else {
        text(out, &json!({"type": "sequenceAck", "sequenceId": sequence_id}));
    }
}

/// Appends the subscriptions of the JSON stream protocol; returns how many answers they get. Topics
/// have no symbols, so with symbols the trading streams are asked for apart, and positions and policy not at
/// all.
pub fn subscribe(
    out: &mut Vec<u8>,
    channels: &[String],
    symbols: &[String],
    since: &BTreeMap<&str, Position>,
    policy: Option<SlowPolicy>,
) -> u32 {
    if symbols.is_empty() {
        let mut request = json!({"type": "subscribe", "channels": channels});
        match (since.len(), since.values().next()) {
            (1, Some(position)) if channels.len() == 1 => request["since"] = json!(position),
            (1.., _) => request["since"] = json!(since),
            _ => {}
        }
        if let Some(policy) = policy {
            request["policy"] = json!(policy);
        }
        text(out, &request);
        return 1;
    }
    let (topics, trading): (Vec<&String>, Vec<&String>) = channels.iter().partition(|name| is_topic(name));
    text(out, &json!({"type": "subscribe", "channels": trading, "symbols": symbols}));
    if topics.is_empty() {
        return 1;
    }
    text(out, &json!({"type": "subscribe", "channels": topics}));
    2
}

/// Appends the answer to a ping.
pub fn pong(out: &mut Vec<u8>, payload: &[u8]) {
    write_masked(out, Opcode::Pong, payload);
}

/// Appends a close frame.
pub fn close(out: &mut Vec<u8>, code: u16) {
    write_masked(out, Opcode::Close, &code.to_be_bytes());
}

fn protobuf(out: &mut Vec<u8>, message: Message) {
    let message = UpstreamMessage { message: Some(message) };
    write_masked(out, Opcode::Binary, &message.encode_to_vec());
}

fn text(out: &mut Vec<u8>, message: &serde_json::Value) {
    write_masked(out, Opcode::Text, message.to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// The payload of one short masked frame.
    fn unmask(frame: &[u8]) -> Vec<u8> {
        let key = &frame[2..6];
        frame[6..].iter().zip(key.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
    }

    // Golden bytes of @azure/web-pubsub-client-protobuf's own tests.
    #[test]
    fn protobuf_messages_have_the_bytes_of_azures_add_on() {
        let mut out = Vec::new();
        join(&mut out, Protocol::Protobuf, "group", 44133);
        assert_eq!(out[0], 0x82);
        assert_eq!(STANDARD.encode(unmask(&out)), "MgsKBWdyb3VwEOXYAg==");
        out.clear();
        sequence_ack(&mut out, Protocol::ProtobufReliable, 123_456);
        assert_eq!(STANDARD.encode(unmask(&out)), "QgQIwMQH");
    }

    #[test]
    fn symbols_go_with_trading_streams_only() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut out = Vec::new();
        assert_eq!(subscribe(&mut out, &names(&["lines", "signals"]), &names(&["AAPL"]), &BTreeMap::new(), None), 2);
        let value: serde_json::Value = serde_json::from_slice(&unmask(&out[..6 + usize::from(out[1] & 0x7f)])).unwrap();
        assert_eq!(value, json!({"type": "subscribe", "channels": ["signals"], "symbols": ["AAPL"]}));
        out.clear();
        assert_eq!(subscribe(&mut out, &names(&["lines", "signals"]), &[], &BTreeMap::new(), None), 1);
        out.clear();
        let since = BTreeMap::from([("lines", Position { epoch: "e".to_owned(), seq: 7 })]);
        assert_eq!(subscribe(&mut out, &names(&["lines"]), &[], &since, Some(SlowPolicy::Skip)), 1);
        let value: serde_json::Value = serde_json::from_slice(&unmask(&out)).unwrap();
        let since = json!({"epoch": "e", "seq": 7});
        assert_eq!(value, json!({"type": "subscribe", "channels": ["lines"], "since": since, "policy": "skip"}));
    }

    #[test]
    fn json_messages_are_text_frames_with_the_keys_of_the_sdks() {
        let mut out = Vec::new();
        join(&mut out, Protocol::JsonReliable, "g", 1);
        assert_eq!(out[0], 0x81);
        let value: serde_json::Value = serde_json::from_slice(&unmask(&out)).unwrap();
        assert_eq!(value, json!({"type": "joinGroup", "group": "g", "ackId": 1}));
    }
}
