//! Can a client's protobuf message panic the server, or change its meaning when it is written again?
#![no_main]

use flowcast::wire::payload::Profile;
use flowcast::wire::proto::webpubsub::UpstreamMessage;
use flowcast::wire::webpubsub::{MAX_GROUP_NAME, PubSubWire, Syntax, Upstream};
use flowcast::wire::websocket::ClientMessage;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

const WIRE: PubSubWire = PubSubWire { syntax: Syntax::Protobuf, reliable: true, profile: Profile::V2026_04 };

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        // A frame of the wrong type is refused unread.
        assert_eq!(WIRE.parse(&ClientMessage::Text(text)).map_err(|error| error.code()), Err(1003));
    }
    let upstream = match WIRE.parse(&ClientMessage::Binary(bytes)) {
        Ok(upstream) => upstream,
        Err(error) => return assert_eq!(error.code(), 1007),
    };
    if let Upstream::Join { group, .. } | Upstream::Leave { group, .. } = &upstream {
        assert!((1..=MAX_GROUP_NAME).contains(&group.chars().count()) && !group.trim().is_empty());
    }
    // Fields out of order, repeated or unknown: once written in canonical form it says the same.
    let canonical = UpstreamMessage::decode(bytes).expect("the wire has read it").encode_to_vec();
    assert_eq!(WIRE.parse(&ClientMessage::Binary(&canonical)), Ok(upstream));
});
