//! Socket.IO over Engine.IO 3 and 4, WebSocket transport only: what a text frame says.
//!
//! ```text
//! "0{…}" open   "2" ping  "3" pong   "40" joined  "41" left  "44…" refused   "42["name",payload]" event
//! ```
//!
//! No crate speaks Engine.IO 3, which the official SDKs pin. Here is the framing; who sends what and
//! when is the client's. Source: `docs/protocols/xts.md`, "Socket".

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use memchr::memchr2;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Which Engine.IO a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Eio {
    /// The client pings; the server joins the namespace unasked. The official SDKs' choice.
    #[default]
    V3,
    /// The server pings; the client asks to join.
    V4,
}

impl Eio {
    /// The number in the URL.
    pub const fn number(self) -> u8 {
        match self {
            Self::V3 => 3,
            Self::V4 => 4,
        }
    }
}

/// What one text frame says.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame<'a> {
    /// The handshake, always first.
    Open {
        /// How often to ping (3), or how often the server does (4).
        ping_interval: Duration,
        /// How long an answer may take.
        ping_timeout: Duration,
    },
    /// The server ends the transport.
    Close,
    /// To be answered with a pong.
    Ping,
    /// The answer to our ping.
    Pong,
    /// The namespace is joined: events may come.
    Joined,
    /// The server ends the session.
    Left,
    /// The server refuses the namespace; the reason, not longer than 200 characters.
    Refused(String),
    /// An event of the namespace: market data, mostly.
    Event {
        /// Such as `1501-json-full`.
        name: Cow<'a, str>,
        /// What a string holds, or JSON as it lies in the frame. Empty if there is none.
        payload: Cow<'a, str>,
    },
    /// An instrument property change, of which servers send many for instruments nobody asked for.
    Noise,
    /// What this transport has no use for: upgrades, acks, announcements of binary events.
    Skipped,
}

/// Why a text frame says nothing.
#[derive(Debug, thiserror::Error)]
pub enum FrameFault {
    /// No Engine.IO packet begins so.
    #[error("expected an Engine.IO packet type 0 to 6, got {0:?}")]
    UnknownType(Option<char>),
    /// No Socket.IO packet begins so.
    #[error("expected a Socket.IO packet type 0 to 6 behind 4, got {0:?}")]
    UnknownMessage(Option<char>),
    /// The handshake is no JSON object with two intervals.
    #[error("expected a handshake such as 0{{\"pingInterval\":20000,\"pingTimeout\":60000}}: {0}")]
    Handshake(serde_json::Error),
    /// The event is no array that begins with a name.
    #[error("expected an event [\"name\",payload]: {0}")]
    Event(serde_json::Error),
}

/// The pings' bounds: what a server asks for is not obeyed blindly.
const INTERVALS_MS: (u64, u64) = (100, 300_000);

/// Reads one text frame.
pub fn parse(text: &str) -> Result<Frame<'_>, FrameFault> {
    // About 45 of these come every second, most of what a quiet session receives.
    if text.starts_with("42[\"1105-") {
        return Ok(Frame::Noise);
    }
    let mut characters = text.chars();
    match characters.next() {
        Some('0') => open(characters.as_str()),
        Some('1') => Ok(Frame::Close),
        Some('2') => Ok(Frame::Ping),
        Some('3') => Ok(Frame::Pong),
        Some('4') => message(characters.as_str()),
        Some('5' | '6') => Ok(Frame::Skipped),
        other => Err(FrameFault::UnknownType(other)),
    }
}

fn open(json: &str) -> Result<Frame<'_>, FrameFault> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct OpenPacket {
        ping_interval: u64,
        ping_timeout: u64,
    }
    let OpenPacket { ping_interval, ping_timeout } = serde_json::from_str(json).map_err(FrameFault::Handshake)?;
    let bounded = |ms: u64| Duration::from_millis(ms.clamp(INTERVALS_MS.0, INTERVALS_MS.1));
    Ok(Frame::Open { ping_interval: bounded(ping_interval), ping_timeout: bounded(ping_timeout) })
}

fn message(text: &str) -> Result<Frame<'_>, FrameFault> {
    let mut characters = text.chars();
    match characters.next() {
        Some('0') => Ok(Frame::Joined),
        Some('1') => Ok(Frame::Left),
        Some('2') => event(characters.as_str()),
        Some('3' | '5' | '6') => Ok(Frame::Skipped),
        Some('4') => Ok(Frame::Refused(refusal(characters.as_str()))),
        other => Err(FrameFault::UnknownMessage(other)),
    }
}

/// Engine.IO 3 sends a string, 4 an object with a message.
fn refusal(json: &str) -> String {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Reason {
        Text(String),
        Object { message: String },
    }
    let reason = match serde_json::from_str(json) {
        Ok(Reason::Text(text) | Reason::Object { message: text }) => text,
        Err(_) => json.to_owned(),
    };
    reason.chars().filter(|character| !character.is_control()).take(200).collect()
}

fn event(text: &str) -> Result<Frame<'_>, FrameFault> {
    // A namespace and an ack id may stand before the array; nobody is known to send them.
    let array = text.find('[').map_or(text, |at| &text[at..]);
    if let Some((name, payload)) = usual(array) {
        return Ok(Frame::Event { name: name.into(), payload: payload.into() });
    }
    let Named { name, payload } = serde_json::from_str(array).map_err(FrameFault::Event)?;
    let payload = match payload.map(RawValue::get) {
        None => Cow::Borrowed(""),
        // JSON within a string, as the servers in the field send it.
        Some(text) if text.starts_with('"') => {
            Cow::Owned(serde_json::from_str::<String>(text).map_err(FrameFault::Event)?)
        }
        Some(json) => Cow::Borrowed(json),
    };
    Ok(Frame::Event { name, payload })
}

/// The form every server in the field uses: `["name","text"]` with no escapes but those of quotes and
/// slashes. `None`: it is another one.
#[expect(clippy::needless_bitwise_bool, reason = "a branch per byte is what this avoids")]
fn usual(array: &str) -> Option<(&str, String)> {
    let rest = array.strip_prefix("[\"")?;
    let end = memchr2(b'"', b'\\', rest.as_bytes())?;
    let (name, rest) = rest.split_at(end);
    let escaped = rest.strip_prefix("\",\"")?.strip_suffix("\"]")?.as_bytes();
    // A quote or a slash stands behind each backslash, a backslash before each quote: the backslashes
    // may go. Both passes are without a branch per byte; an escape comes every eight bytes or so, and
    // searching from one to the next takes three times as long.
    let odd = |any: bool, (&byte, &next): (&u8, &u8)| {
        any | ((byte == b'\\') & (next != b'"') & (next != b'/')) | ((byte != b'\\') & (next == b'"'))
    };
    let pairs = escaped.iter().zip(escaped.get(1..).unwrap_or_default());
    if escaped.first() == Some(&b'"') || escaped.last() == Some(&b'\\') || pairs.fold(false, odd) {
        return None;
    }
    let mut text = vec![0; escaped.len()];
    let (mut length, (eights, rest)) = (0, escaped.as_chunks::<8>());
    for eight in eights {
        // Room of known size for bytes of known number: a loop without checks, unrolled.
        let (room, mut kept) = (text[length..].first_chunk_mut::<8>()?, 0);
        for &byte in eight {
            room[kept & 7] = byte;
            kept += usize::from(byte != b'\\');
        }
        length += kept;
    }
    for &byte in rest {
        text[length] = byte;
        length += usize::from(byte != b'\\');
    }
    text.truncate(length);
    Some((name, String::from_utf8(text).ok()?))
}

/// An event's name and its first argument; what follows is ignored.
struct Named<'a> {
    name: Cow<'a, str>,
    payload: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for Named<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Array;

        impl<'de> Visitor<'de> for Array {
            type Value = Named<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an array that begins with the event's name")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                #[derive(Deserialize)]
                struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
                let Some(Name(name)) = items.next_element()? else {
                    return Err(serde::de::Error::invalid_length(0, &self));
                };
                let payload = items.next_element()?;
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Named { name, payload })
            }
        }
        deserializer.deserialize_seq(Array)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_prefix_says_what_the_captures_mean() {
        let open = Frame::Open { ping_interval: Duration::from_secs(20), ping_timeout: Duration::from_mins(1) };
        let refused = Frame::Refused("Invalid Token".to_owned());
        for (text, expected) in [
            (r#"0{"sid":"x","upgrades":[],"pingInterval":20000,"pingTimeout":60000}"#, open),
            ("1", Frame::Close),
            ("2", Frame::Ping),
            ("3", Frame::Pong),
            ("40", Frame::Joined),
            (r#"40{"sid":"x"}"#, Frame::Joined),
            ("41", Frame::Left),
            (r#"44"Invalid Token""#, refused.clone()),
            (r#"44{"message":"Invalid Token"}"#, refused),
            (r#"451-["xts-binary-packet",{"_placeholder":true,"num":0}]"#, Frame::Skipped),
            ("6", Frame::Skipped),
            (r#"42["1105-json-partial","t:2_1"]"#, Frame::Noise),
        ] {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn an_event_gives_its_name_and_what_its_string_holds() {
        let event =
            |name: &'static str, payload: &'static str| Frame::Event { name: name.into(), payload: payload.into() };
        for (text, expected) in [
            (r#"42["1512-json-full","{\"a\":1}"]"#, event("1512-json-full", r#"{"a":1}"#)),
            (r#"42["1512-json-full",{"a":1}]"#, event("1512-json-full", r#"{"a":1}"#)),
            (r#"42["a","b","c",4]"#, event("a", "b")),
            (r#"42["a"]"#, event("a", "")),
            (r#"42/ns,7["a",null]"#, event("a", "null")),
        ] {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
        for text in ["42", "42[", "42[]", "42[1]", r#"42{"a":1}"#, "", "9", "4", "4x", "0", "0{}", "é"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn absurd_ping_intervals_are_bounded() {
        let Ok(Frame::Open { ping_interval, ping_timeout }) =
            parse(r#"0{"pingInterval":0,"pingTimeout":18446744073709551615}"#)
        else {
            panic!("a handshake");
        };
        assert_eq!((ping_interval, ping_timeout), (Duration::from_millis(100), Duration::from_mins(5)));
    }

    proptest! {
        #[test]
        fn the_quick_way_reads_what_the_thorough_one_reads(name in "[a-z0-9-]{0,12}", text in "[\\PC\\\\\"/\n\u{0}]{0,40}") {
            let array = serde_json::to_string(&[&name, &text]).unwrap();
            if let Some(read) = usual(&array) {
                prop_assert_eq!(read, (name.as_str(), text.clone()));
            }
            let frame = format!("42{array}");
            prop_assert_eq!(parse(&frame).unwrap(), Frame::Event { name: name.into(), payload: text.into() });
        }

        #[test]
        fn no_text_makes_it_panic(text in "(0|1|2|3|40|41|42|44|45)?[\\[\\]{}\",:a-z0-9\u{0}é]{0,60}") {
            let _ = parse(&text);
        }
    }
}
