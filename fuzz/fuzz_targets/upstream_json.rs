//! Can a client's JSON message panic the server, or be understood as something it does not say?
//!
//! What `parse` understands is compared with the same text read by serde_json as a plain value.
#![no_main]

use flowcast::wire::payload::Profile;
use flowcast::wire::webpubsub::{MAX_GROUP_NAME, PubSubWire, Syntax, Upstream};
use flowcast::wire::websocket::ClientMessage;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const WIRE: PubSubWire = PubSubWire { syntax: Syntax::Json, reliable: true, profile: Profile::V2026_04 };

fuzz_target!(|bytes: &[u8]| {
    // A frame of the wrong type is refused unread.
    assert_eq!(WIRE.parse(&ClientMessage::Binary(bytes)).map_err(|error| error.code()), Err(1003));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let upstream = match WIRE.parse(&ClientMessage::Text(text)) {
        Ok(upstream) => upstream,
        Err(error) => {
            // The reason goes to the log and back to the client, so it must stay short.
            assert!(error.to_string().len() < 1024, "{error}");
            return assert_eq!(error.code(), 1007);
        }
    };
    assert!(text.trim_ascii_start().starts_with('{'), "only an object is a message");
    // Fails where an unknown key holds a number no float holds; then there is nothing to compare with.
    let Ok(said) = serde_json::from_str::<Value>(text) else { return };
    let kind = said["type"].as_str().expect("a message has a type").to_ascii_lowercase();
    let (expected, ack_id) = match &upstream {
        Upstream::Join { group, ack_id } | Upstream::Leave { group, ack_id } => {
            assert_eq!(said["group"].as_str(), Some(group.as_ref()));
            assert!((1..=MAX_GROUP_NAME).contains(&group.chars().count()) && !group.trim().is_empty());
            (if matches!(upstream, Upstream::Join { .. }) { "joingroup" } else { "leavegroup" }, *ack_id)
        }
        Upstream::SendToGroup { ack_id } => ("sendtogroup", *ack_id),
        Upstream::Event { ack_id } => ("event", *ack_id),
        Upstream::SequenceAck(id) => {
            assert_eq!(said["sequenceId"].as_u64(), Some(*id));
            ("sequenceack", said["ackId"].as_u64())
        }
        Upstream::Ping => ("ping", said["ackId"].as_u64()),
    };
    assert_eq!(kind, expected);
    assert_eq!(said["ackId"].as_u64(), ack_id);
});
