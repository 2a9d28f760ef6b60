//! The JSON stream protocol of `/ws`: messages are checked for shape and counted.
//!
//! It carries no sequence and the tick ledger does not cover it, so nothing can be said about loss;
//! the report says exactly that. What the wire does carry is the time of sending (milliseconds, the
//! server's wall clock).

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;

/// One server message, as far as the swarm looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamMessage {
    /// The answer to a subscription.
    Subscribed,
    /// A market-data message, with its time of sending (Unix ns) if it carries one.
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
    payload: Option<&'a serde_json::value::RawValue>,
    #[serde(borrow)]
    symbols: Option<&'a serde_json::value::RawValue>,
    #[serde(borrow)]
    data: Option<&'a serde_json::value::RawValue>,
}

/// Reads one text message.
pub fn read(message: &[u8]) -> Result<StreamMessage, StreamError> {
    let shape: Shape = serde_json::from_slice(message)?;
    let lacks = match shape.kind.as_ref() {
        "message" if shape.channel.is_none() => Some(("message", "channel")),
        "message" if shape.payload.is_none() => Some(("message", "payload")),
        "price_update" if shape.symbols.is_none() => Some(("price_update", "symbols")),
        "signal" if shape.symbol.is_none() => Some(("signal", "symbol")),
        "trade_executed" if shape.symbol.is_none() => Some(("trade_executed", "symbol")),
        "portfolio_update" if shape.data.is_none() => Some(("portfolio_update", "data")),
        "message" | "price_update" | "signal" | "trade_executed" | "portfolio_update" => None,
        "subscribed" => return Ok(StreamMessage::Subscribed),
        "error" => return Err(StreamError::Refused(shape.error.unwrap_or_default().into_owned())),
        _ => return Ok(StreamMessage::Other),
    };
    if let Some((kind, key)) = lacks {
        return Err(StreamError::Lacks(kind, key));
    }
    let sent_unix_ns = match shape.timestamp {
        None => None,
        Some(text) => {
            let time = humantime::parse_rfc3339(&text).map_err(|_| StreamError::Timestamp(text.into_owned()))?;
            Some(unix_ns(time))
        }
    };
    Ok(StreamMessage::Data { sent_unix_ns })
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
        let sent_unix_ns = Some(1_734_609_600_123_000_000);
        assert_eq!(read(message).unwrap(), StreamMessage::Data { sent_unix_ns });
    }

    #[test]
    fn a_message_without_what_clients_read_is_an_error() {
        assert!(matches!(read(br#"{"type":"message","channel":"lines"}"#), Err(StreamError::Lacks(..))));
        assert!(matches!(read(br#"{"type":"error","error":"no"}"#), Err(StreamError::Refused(_))));
        assert!(matches!(
            read(br#"{"type":"signal","symbol":"A","timestamp":"yesterday"}"#),
            Err(StreamError::Timestamp(_))
        ));
        assert!(matches!(read(b"[]"), Err(StreamError::Json(_))));
    }

    #[test]
    fn other_kinds_are_not_counted_as_data() {
        assert_eq!(read(br#"{"type":"pong"}"#).unwrap(), StreamMessage::Other);
        assert_eq!(read(br#"{"type":"subscribed","channels":[]}"#).unwrap(), StreamMessage::Subscribed);
    }
}
