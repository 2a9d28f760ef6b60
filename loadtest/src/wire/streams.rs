//! The JSON stream protocol of `/ws`: what a server message is, and whether it has the shape clients read.
//!
//! The wire carries no sequence and the tick ledger does not cover it. Topics carry any JSON, though,
//! so a publisher that numbers its payloads ([`Numbered`]) makes loss visible there; of the trading
//! streams only shape and the time of sending (milliseconds, the server's wall clock) can be checked.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::value::RawValue;

/// The channels with messages of their own; every other channel is a topic.
const TRADING: [&str; 4] = ["price_updates", "signals", "trades", "portfolio"];

/// Whether messages of a channel are a publisher's payloads, passed on unchanged.
pub fn is_topic(channel: &str) -> bool {
    !TRADING.contains(&channel)
}

/// The payload of a publisher that numbers its messages; it may hold more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Numbered {
    /// One more than the channel's last, from any number on.
    pub seq: u64,
    /// When it was sent or due, `CLOCK_MONOTONIC` in ns.
    pub sent_ns: u64,
}

/// Reads a topic's payload.
pub fn numbered(payload: &str) -> Result<Numbered, StreamError> {
    serde_json::from_str(payload).map_err(StreamError::Unnumbered)
}

/// One server message, as far as the swarm looks at it.
#[derive(Clone, Debug)]
pub enum StreamMessage<'a> {
    /// The answer to a subscription.
    Subscribed {
        /// Everything that is subscribed to now.
        channels: Vec<String>,
        /// Of the channels that were asked for with a position, whether all that was missed follows, or why not.
        recovered: HashMap<String, Result<(), String>>,
    },
    /// A topic's message.
    Topic {
        /// The topic.
        channel: Cow<'a, str>,
        /// As it was published.
        payload: &'a RawValue,
        /// Unix nanoseconds, to the millisecond.
        sent_unix_ns: u64,
        /// The channel's own number of it, if the server gives one.
        seq: Option<u64>,
    },
    /// Messages of a channel are left out: those with numbers in this range.
    Skipped {
        /// The channel.
        channel: Cow<'a, str>,
        /// The first number left out.
        from: u64,
        /// The last.
        to: u64,
    },
    /// A message of a trading stream, with its time of sending (Unix ns) if it carries one.
    Data {
        /// Unix nanoseconds, to the millisecond.
        sent_unix_ns: Option<u64>,
    },
    /// Pongs and messages of kinds added later.
    Other,
}

/// Why a stream message cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Not a JSON object with a `type`.
    #[error("a stream message is not the JSON it should be: {0}")]
    Json(#[from] serde_json::Error),
    /// The server refused something we asked for.
    #[error("the server answered with an error: {0}")]
    Refused(String),
    /// A data message without a key that clients read.
    #[error("a {0} message lacks its {1}")]
    Lacks(&'static str, &'static str),
    /// A payload that should be numbered and is not.
    #[error("a payload is not {{\"seq\":n,\"sent_ns\":…}}: {0}")]
    Unnumbered(serde_json::Error),
    /// Timestamps are RFC 3339 in UTC.
    #[error("a timestamp is not RFC 3339: {0:?}")]
    Timestamp(String),
}

#[derive(Deserialize)]
struct Shape<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    timestamp: Option<Cow<'a, str>>,
    channel: Option<Cow<'a, str>>,
    error: Option<Cow<'a, str>>,
    symbol: Option<Cow<'a, str>>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    #[serde(borrow)]
    symbols: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    channels: Option<Vec<String>>,
    #[serde(default)]
    positions: HashMap<String, Told>,
    seq: Option<u64>,
    from: Option<u64>,
    to: Option<u64>,
}

/// What `subscribed` says of a channel.
#[derive(Deserialize)]
struct Told {
    recovered: Option<bool>,
    reason: Option<String>,
}

/// Where a message stands: what a client says to get everything after it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
pub struct Position {
    /// In which epoch.
    pub epoch: String,
    /// Its number.
    pub seq: u64,
}

/// The position of a message that [`read`] understood; `None` if it has none, or one in another partition than 0.
pub fn position(message: &[u8]) -> Option<Position> {
    #[derive(Deserialize)]
    struct Placed {
        partition: Option<u32>,
        #[serde(flatten)]
        position: Position,
    }
    let placed: Placed = serde_json::from_slice(message).ok()?;
    placed.partition.is_none().then_some(placed.position)
}

/// Reads one text message.
pub fn read(message: &[u8]) -> Result<StreamMessage<'_>, StreamError> {
    let shape: Shape = serde_json::from_slice(message)?;
    let lacks = match shape.kind.as_ref() {
        "price_update" if shape.symbols.is_none() => Some(("price_update", "symbols")),
        "signal" if shape.symbol.is_none() => Some(("signal", "symbol")),
        "trade_executed" if shape.symbol.is_none() => Some(("trade_executed", "symbol")),
        "portfolio_update" if shape.data.is_none() => Some(("portfolio_update", "data")),
        "price_update" | "signal" | "trade_executed" | "portfolio_update" => None,
        "message" => return topic(shape),
        "subscribed" => {
            let channels = shape.channels.ok_or(StreamError::Lacks("subscribed", "channels"))?;
            let recovered = shape.positions.into_iter().filter_map(|(channel, Told { recovered, reason })| {
                let outcome = if recovered? { Ok(()) } else { Err(reason.unwrap_or_default()) };
                Some((channel, outcome))
            });
            return Ok(StreamMessage::Subscribed { channels, recovered: recovered.collect() });
        }
        "skipped" => {
            let (Some(channel), Some(from), Some(to)) = (shape.channel, shape.from, shape.to) else {
                return Err(StreamError::Lacks("skipped", "channel, from or to"));
            };
            return Ok(StreamMessage::Skipped { channel, from, to });
        }
        "error" => return Err(StreamError::Refused(shape.error.unwrap_or_default().into_owned())),
        _ => return Ok(StreamMessage::Other),
    };
    if let Some((kind, key)) = lacks {
        return Err(StreamError::Lacks(kind, key));
    }
    let sent_unix_ns = shape.timestamp.map(|text| sent(&text)).transpose()?;
    Ok(StreamMessage::Data { sent_unix_ns })
}

fn topic(shape: Shape<'_>) -> Result<StreamMessage<'_>, StreamError> {
    let channel = shape.channel.ok_or(StreamError::Lacks("message", "channel"))?;
    let payload = shape.payload.ok_or(StreamError::Lacks("message", "payload"))?;
    let timestamp = shape.timestamp.ok_or(StreamError::Lacks("message", "timestamp"))?;
    Ok(StreamMessage::Topic { channel, payload, sent_unix_ns: sent(&timestamp)?, seq: shape.seq })
}

fn sent(timestamp: &str) -> Result<u64, StreamError> {
    let time = humantime::parse_rfc3339(timestamp).map_err(|_| StreamError::Timestamp(timestamp.to_owned()))?;
    Ok(unix_ns(time))
}

fn unix_ns(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_messages_give_their_time_of_sending() {
        let message =
            br#"{"type":"message","channel":"lines","payload":{"a":1},"timestamp":"2024-12-19T12:00:00.123Z"}"#;
        let Ok(StreamMessage::Topic { channel, payload, sent_unix_ns, seq: None }) = read(message) else {
            panic!("a topic")
        };
        assert_eq!((&*channel, payload.get(), sent_unix_ns), ("lines", r#"{"a":1}"#, 1_734_609_600_123_000_000));
        let signal = br#"{"type":"signal","symbol":"A","timestamp":"2024-12-19T12:00:00Z"}"#;
        let Ok(StreamMessage::Data { sent_unix_ns }) = read(signal) else { panic!("data") };
        assert_eq!(sent_unix_ns, Some(1_734_609_600_000_000_000));
    }

    #[test]
    fn a_numbered_payload_may_hold_more_but_not_less() {
        let payload = numbered(r#"{"seq":7,"pad":"x","sent_ns":9}"#).unwrap();
        assert_eq!(payload, Numbered { seq: 7, sent_ns: 9 });
        for bad in [r#"{"seq":7}"#, r#"{"seq":-1,"sent_ns":9}"#, r#"{"seq":"7","sent_ns":9}"#, "7"] {
            assert!(matches!(numbered(bad), Err(StreamError::Unnumbered(_))), "{bad}");
        }
    }

    #[test]
    fn a_message_without_what_clients_read_is_an_error() {
        for bad in [
            &br#"{"type":"message","channel":"lines","timestamp":"2024-12-19T12:00:00Z"}"#[..],
            br#"{"type":"message","channel":"lines","payload":1}"#,
            br#"{"type":"subscribed"}"#,
        ] {
            assert!(matches!(read(bad), Err(StreamError::Lacks(..))));
        }
        assert!(matches!(read(br#"{"type":"error","error":"no"}"#), Err(StreamError::Refused(_))));
        assert!(matches!(
            read(br#"{"type":"signal","symbol":"A","timestamp":"yesterday"}"#),
            Err(StreamError::Timestamp(_))
        ));
        assert!(matches!(read(b"[]"), Err(StreamError::Json(_))));
    }

    #[test]
    fn other_kinds_are_not_counted_as_data() {
        assert!(matches!(read(br#"{"type":"pong"}"#), Ok(StreamMessage::Other)));
        let subscribed = read(br#"{"type":"subscribed","channels":["lines"]}"#);
        assert!(matches!(subscribed, Ok(StreamMessage::Subscribed { channels, .. }) if channels == ["lines"]));
    }

    #[test]
    fn numbers_positions_and_what_is_left_out_are_read() {
        let message = br#"{"type":"message","channel":"lines","payload":1,"timestamp":"2024-12-19T12:00:00Z","seq":7,"epoch":"e"}"#;
        assert!(matches!(read(message), Ok(StreamMessage::Topic { seq: Some(7), .. })));
        assert_eq!(position(message), Some(Position { epoch: "e".to_owned(), seq: 7 }));
        let skipped = br#"{"type":"skipped","channel":"lines","epoch":"e","count":3,"from":8,"to":10}"#;
        assert!(matches!(read(skipped), Ok(StreamMessage::Skipped { from: 8, to: 10, .. })));
        let told = br#"{"type":"subscribed","channels":["a","b","c"],"positions":{"a":{"epoch":"e","seq":1},"b":{"epoch":"e","seq":1,"recovered":true},"c":{"epoch":"e","seq":1,"recovered":false,"reason":"too_old"}}}"#;
        let Ok(StreamMessage::Subscribed { recovered, .. }) = read(told) else { panic!("subscribed") };
        assert_eq!((recovered.get("a"), &recovered["b"], &recovered["c"]), (None, &Ok(()), &Err("too_old".to_owned())));
    }
}
