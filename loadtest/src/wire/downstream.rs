//! What the service says, decoded in full: the slow and certain way to read a message.
//!
//! A worker decodes the first copy of a frame with this and compares the other copies with its
//! bytes; against servers that share no frames, every message goes through here.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::form::Protocol;
use super::payload::{Decoder, Payload, PayloadError};
use super::webpubsub::downstream_message::{self, Message as Wire, system};
use super::webpubsub::{DownstreamMessage, message_data};

/// A message from the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The first message of every connection.
    Connected {
        /// The name of the connection, needed for recovery.
        connection_id: String,
        /// The secret that allows recovery; reliable wires only.
        reconnection_token: Option<String>,
    },
    /// The service is about to close.
    Disconnected {
        /// Why, in its words.
        reason: String,
    },
    /// The answer to a join.
    Ack {
        /// The id of the request.
        ack_id: u64,
        /// `Err` holds the service's reason. A `Duplicate` counts as success, as in the SDKs.
        outcome: Result<(), String>,
    },
    /// A publication.
    Data(Data),
    /// The answer to a ping.
    Pong,
    /// A message of a newer protocol version.
    Unknown(String),
}

/// A publication as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// The group it was published to.
    pub group: String,
    /// The reliable wire's counter.
    pub sequence_id: Option<u64>,
    /// What was published.
    pub payload: Payload,
}

/// Why a message cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Not JSON, or without a key that every SDK needs.
    #[error("a message is not the JSON it should be: {0}")]
    Json(#[from] serde_json::Error),
    /// Not a `DownstreamMessage`.
    #[error("a message is not the protobuf it should be: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// The base64 around an `Any`.
    #[error("the data of a message is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    /// A data message whose payload is not orderflow.
    #[error("{0}")]
    Payload(#[from] PayloadError),
    /// A data message that no SDK would hand to a group handler.
    #[error("{0}")]
    Shape(&'static str),
}

/// Reads messages, one after the other.
pub struct Reader {
    decoder: Decoder,
    bytes: Vec<u8>,
}

impl Reader {
    /// A reader with its own scratch buffers.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { decoder: Decoder::new()?, bytes: Vec::new() })
    }

    /// Reads one message of `protocol`, which must not be [`Protocol::Streams`].
    pub fn read(&mut self, protocol: Protocol, message: &[u8]) -> Result<Message, MessageError> {
        if protocol.is_protobuf() { self.protobuf(message) } else { self.json(message) }
    }

    fn json(&mut self, message: &[u8]) -> Result<Message, MessageError> {
        let message: Json = serde_json::from_slice(message)?;
        Ok(match (message.kind.as_ref(), message.event.as_deref()) {
            ("message", _) => Message::Data(self.json_data(&message)?),
            ("ack", _) => Message::Ack {
                ack_id: message.ack_id.ok_or(MessageError::Shape("an ack without ackId"))?,
                outcome: match (message.success, message.error) {
                    (Some(true), _) => Ok(()),
                    (Some(false), error) => outcome(error.map(|error| (error.name, error.message))),
                    (None, _) => return Err(MessageError::Shape("an ack without success")),
                },
            },
            ("system", Some("connected")) => Message::Connected {
                connection_id: message
                    .connection_id
                    .ok_or(MessageError::Shape("a connected message without connectionId"))?,
                reconnection_token: message.reconnection_token,
            },
            ("system", Some("disconnected")) => Message::Disconnected { reason: message.message.unwrap_or_default() },
            ("pong", _) => Message::Pong,
            (other, _) => Message::Unknown(other.to_owned()),
        })
    }

    fn json_data(&mut self, message: &Json) -> Result<Data, MessageError> {
        check_sender(message.from.as_deref())?;
        let group = message.group.as_deref().ok_or(MessageError::Shape("group data without a group"))?;
        let data = message.data.ok_or(MessageError::Shape("group data without data"))?;
        match message.data_type.as_deref() {
            // "binary" is what the Go faker says of an Any; the vendor's client takes both.
            Some("protobuf" | "binary") => {}
            // Published by hand, on the live page.
            Some("json") => return Ok(data_of(group, message.sequence_id, Payload::of_json(data.get()))),
            _ => return Err(MessageError::Shape("data of another dataType than protobuf and json")),
        }
        let text: Cow<'_, str> = serde_json::from_str::<Text<'_>>(data.get())?.0;
        self.bytes.clear();
        STANDARD.decode_vec(text.as_bytes(), &mut self.bytes)?;
        let payload = self.decoder.serialized_any(&self.bytes)?;
        Ok(data_of(group, message.sequence_id, payload))
    }

    fn protobuf(&mut self, message: &[u8]) -> Result<Message, MessageError> {
        let message = DownstreamMessage::decode(message)?;
        Ok(match message.message {
            Some(Wire::Data(data)) => Message::Data(self.protobuf_data(data)?),
            Some(Wire::Ack(ack)) => Message::Ack {
                ack_id: ack.ack_id,
                outcome: if ack.success { Ok(()) } else { outcome(ack.error.map(|e| (e.name, e.message))) },
            },
            Some(Wire::System(system)) => match system.message {
                Some(system::Message::Connected(connected)) => Message::Connected {
                    connection_id: connected.connection_id,
                    reconnection_token: Some(connected.reconnection_token).filter(|token| !token.is_empty()),
                },
                Some(system::Message::Disconnected(gone)) => Message::Disconnected { reason: gone.reason },
                None => Message::Unknown("system".to_owned()),
            },
            Some(Wire::Pong(_)) => Message::Pong,
            None => Message::Unknown("empty".to_owned()),
        })
    }

    fn protobuf_data(&mut self, data: downstream_message::Data) -> Result<Data, MessageError> {
        check_sender(Some(&data.from))?;
        let group = data.group.ok_or(MessageError::Shape("group data without a group"))?;
        let payload = match data.data.and_then(|data| data.data) {
            Some(message_data::Data::ProtobufData(any)) => self.decoder.any(&any)?,
            Some(message_data::Data::JsonData(text)) => Payload::of_json(&text),
            _ => return Err(MessageError::Shape("data of another type than protobuf and JSON")),
        };
        Ok(Data { group, sequence_id: data.sequence_id, payload })
    }
}

fn data_of(group: &str, sequence_id: Option<u64>, payload: Payload) -> Data {
    Data { group: group.to_owned(), sequence_id, payload }
}

/// With any other sender than "group", the SDKs raise a server message and group handlers stay silent.
fn check_sender(from: Option<&str>) -> Result<(), MessageError> {
    match from {
        Some("group") => Ok(()),
        _ => Err(MessageError::Shape("group data that is not from \"group\"")),
    }
}

/// A failed ack. Without an error object the Python SDK takes it for success; we do not.
fn outcome(error: Option<(String, String)>) -> Result<(), String> {
    match error {
        Some((name, _)) if name == "Duplicate" => Ok(()),
        Some((name, message)) => Err(format!("{name}: {message}")),
        None => Err("no error object".to_owned()),
    }
}

/// A string of the message, borrowed unless it holds escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    event: Option<Cow<'a, str>>,
    from: Option<Cow<'a, str>>,
    group: Option<Cow<'a, str>>,
    data_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    sequence_id: Option<u64>,
    ack_id: Option<u64>,
    success: Option<bool>,
    error: Option<JsonError>,
    connection_id: Option<String>,
    reconnection_token: Option<String>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct JsonError {
    name: String,
    message: String,
}

#[cfg(test)]
mod tests {
    use super::super::webpubsub::MessageData;
    use super::*;

    fn read(protocol: Protocol, message: &[u8]) -> Result<Message, MessageError> {
        Reader::new().unwrap().read(protocol, message)
    }

    fn golden(base64: &str) -> Message {
        read(Protocol::ProtobufReliable, &STANDARD.decode(base64).unwrap()).unwrap()
    }

    // Golden bytes of @azure/web-pubsub-client-protobuf's own tests.
    #[test]
    fn azures_own_protobuf_bytes_are_read() {
        assert_eq!(golden("CgQIexAB"), Message::Ack { ack_id: 123, outcome: Ok(()) });
        assert_eq!(
            golden("ChoIexAAGhQKCUZvcmJpZGRlbhIHbWVzc2FnZQ=="),
            Message::Ack { ack_id: 123, outcome: Err("Forbidden: message".to_owned()) }
        );
        assert_eq!(
            golden("GhkKFwoKY29ubmVjdGlvbhIEdXNlchoDcmVj"),
            Message::Connected { connection_id: "connection".to_owned(), reconnection_token: Some("rec".to_owned()) }
        );
        assert_eq!(golden("GgcSBRIDbXNn"), Message::Disconnected { reason: "msg".to_owned() });
    }

    #[test]
    fn json_system_messages_and_acks_are_read() {
        let connected = br#"{"type":"system","event":"connected","userId":null,"connectionId":"c"}"#;
        assert_eq!(
            read(Protocol::Json, connected).unwrap(),
            Message::Connected { connection_id: "c".to_owned(), reconnection_token: None }
        );
        let duplicate = br#"{"type":"ack","ackId":2,"success":false,"error":{"name":"Duplicate","message":""}}"#;
        assert_eq!(read(Protocol::Json, duplicate).unwrap(), Message::Ack { ack_id: 2, outcome: Ok(()) });
        let silent = br#"{"type":"ack","ackId":2,"success":false}"#;
        assert!(matches!(read(Protocol::Json, silent).unwrap(), Message::Ack { outcome: Err(_), .. }));
    }

    #[test]
    fn a_json_value_is_known_by_its_text_on_both_wires() {
        let json = br#"{"type":"message","from":"group","group":"g","dataType":"json","data":{"a": 1}}"#;
        let data = message_data::Data::JsonData(r#"{"a": 1}"#.to_owned());
        let data = downstream_message::Data {
            from: "group".to_owned(),
            group: Some("g".to_owned()),
            data: Some(MessageData { data: Some(data) }),
            ..downstream_message::Data::default()
        };
        let protobuf = DownstreamMessage { message: Some(Wire::Data(data)) }.encode_to_vec();
        let expected = Data { group: "g".to_owned(), sequence_id: None, payload: Payload::of_json(r#"{"a": 1}"#) };
        assert_eq!(read(Protocol::Json, json).unwrap(), Message::Data(expected.clone()));
        assert_eq!(read(Protocol::Protobuf, &protobuf).unwrap(), Message::Data(expected));
    }

    #[test]
    fn data_the_sdks_would_not_deliver_is_an_error() {
        let server = br#"{"type":"message","from":"server","group":"g","dataType":"protobuf","data":"AA=="}"#;
        assert!(matches!(read(Protocol::Json, server), Err(MessageError::Shape(_))));
        let text = br#"{"type":"message","from":"group","group":"g","dataType":"text","data":"AA=="}"#;
        assert!(matches!(read(Protocol::Json, text), Err(MessageError::Shape(_))));
        let base64 = br#"{"type":"message","from":"group","group":"g","dataType":"protobuf","data":"A"}"#;
        assert!(matches!(read(Protocol::Json, base64), Err(MessageError::Base64(_))));
        assert!(matches!(read(Protocol::Protobuf, &[0xff]), Err(MessageError::Protobuf(_))));
    }
}
