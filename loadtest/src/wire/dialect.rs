//! What other servers speak in place of flowcast's JSON streams: just enough to subscribe to one channel and
//! to find the payloads in what comes.
//!
//! The payloads are the same numbered JSON everywhere ([`super::streams::Numbered`]), and no server changes
//! their bytes, so they are looked for by how they begin; what is around them is not checked.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::frame::{Opcode, write_masked};

/// How every numbered payload begins.
const BEGIN: &[u8] = br#"{"seq":"#;

/// The protocol of another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// Centrifugo's JSON protocol: commands and replies, one per line.
    Centrifugo,
    /// Centrifugo's protobuf protocol: each command and reply behind its length.
    CentrifugoProtobuf,
    /// NATS's text protocol in binary messages.
    Nats,
}

impl Dialect {
    /// Appends what a client says first: who it is, and that it wants the channel.
    pub fn subscribe(self, out: &mut Vec<u8>, channel: &str) {
        match self {
            Self::Centrifugo => {
                let channel = serde_json::Value::from(channel);
                let commands =
                    format!("{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":{channel}}}}}");
                write_masked(out, Opcode::Text, commands.as_bytes());
            }
            Self::CentrifugoProtobuf => {
                // Command { id (1): 1, connect (4): {} }, Command { id: 2, subscribe (5): { channel (1) } }; names
                // are short, so every length is one byte.
                let length = channel.len() as u8;
                let mut commands = vec![4, 0x08, 1, 0x22, 0, length + 6, 0x08, 2, 0x2a, length + 2, 0x0a, length];
                commands.extend_from_slice(channel.as_bytes());
                write_masked(out, Opcode::Binary, &commands);
            }
            Self::Nats => {
                let commands = format!("CONNECT {{\"verbose\":false}}\r\nSUB {channel} 1\r\nPING\r\n");
                write_masked(out, Opcode::Binary, commands.as_bytes());
            }
        }
    }

    /// Whether a message says that the client is subscribed.
    pub fn is_subscribed(self, message: &[u8]) -> bool {
        let answer: &[u8] = match self {
            Self::Centrifugo => br#"{"id":2,"subscribe":"#,
            // Reply { id (1): 2, subscribe (6) … }
            Self::CentrifugoProtobuf => &[0x08, 2, 0x32],
            Self::Nats => b"PONG\r\n",
        };
        find(message, answer).is_some()
    }

    /// The answer to a message that asks whether the client is still there.
    pub fn pong(self, message: &[u8]) -> Option<(Opcode, &'static [u8])> {
        match (self, message) {
            (Self::Centrifugo, b"{}") => Some((Opcode::Text, b"{}")),
            (Self::CentrifugoProtobuf, [0]) => Some((Opcode::Binary, &[0])),
            (Self::Nats, b"PING\r\n") => Some((Opcode::Binary, b"PONG\r\n")),
            _ => None,
        }
    }
}

/// The numbered payloads in a message, in order. A server may put several into one.
pub fn payloads(mut message: &[u8]) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let begin = find(message, BEGIN)?;
        let mut values = serde_json::Deserializer::from_slice(&message[begin..]).into_iter::<&RawValue>();
        let payload = values.next()?;
        message = &message[begin + values.byte_offset()..];
        // What is broken is no payload, and the verifier misses it.
        payload.ok().map(RawValue::get)
    })
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(message: &[u8]) -> Vec<&str> {
        payloads(message).collect()
    }

    #[test]
    fn payloads_are_found_whatever_is_around_them() {
        let (one, two) = (r#"{"seq":1,"sent_ns":5,"pad":"\"}"}"#, r#"{"seq":2,"sent_ns":6}"#);
        let pushes = format!(r#"{{"push":{{"channel":"c","pub":{{"data":{one}}}}}}}"#);
        assert_eq!(found(pushes.as_bytes()), [one]);
        assert_eq!(found(format!("MSG c 1 33\r\n{one}\r\nMSG c 1 21\r\n{two}\r\n").as_bytes()), [one, two]);
        assert_eq!(found(b"{}"), [""; 0]);
        assert_eq!(found(br#"{"seq":1,"#), [""; 0]);
    }

    // What centrifugo 6.9.1 and nats-server 2.15.3 answer.
    #[test]
    fn a_subscription_is_known_by_its_answer() {
        let replies = b"{\"id\":1,\"connect\":{\"client\":\"x\"}}\n{\"id\":2,\"subscribe\":{}}";
        assert!(Dialect::Centrifugo.is_subscribed(replies));
        assert!(!Dialect::Centrifugo.is_subscribed(b"{\"id\":2,\"error\":{\"code\":103}}"));
        assert!(Dialect::CentrifugoProtobuf.is_subscribed(&[4, 0x08, 2, 0x32, 0]));
        assert!(Dialect::Nats.is_subscribed(b"PONG\r\n"));
        assert!(!Dialect::Nats.is_subscribed(b"INFO {}\r\n"));
    }

    #[test]
    fn pings_are_answered() {
        assert_eq!(Dialect::Nats.pong(b"PING\r\n"), Some((Opcode::Binary, &b"PONG\r\n"[..])));
        assert_eq!(Dialect::Centrifugo.pong(b"{}"), Some((Opcode::Text, &b"{}"[..])));
        assert_eq!(Dialect::Centrifugo.pong(b"{\"id\":2}"), None);
    }
}
