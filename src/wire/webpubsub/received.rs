//! The client's side: reads what a service sends. For `flowcast tail` and the tests of captures.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use serde::Deserialize;

use super::control::Malformed;
use super::forms::Syntax;
use crate::wire::proto::webpubsub::{Any, DownstreamMessage, downstream_message, message_data};

/// A message of the service, as far as a reader of protobuf payloads needs it.
#[derive(Debug, Clone, PartialEq)]
pub enum ServiceMessage {
    /// The first message of a connection.
    Connected {
        /// The id of the session.
        connection_id: String,
        /// The secret for a recovery; empty on the plain subprotocols.
        reconnection_token: String,
    },
    /// The service is about to close the connection.
    Disconnected {
        /// For people to read; programs should not depend on it.
        reason: String,
    },
    /// The answer to a request.
    Ack {
        /// The id that the request carried.
        ack_id: u64,
        /// Error name and message, if it failed.
        error: Option<(String, String)>,
        /// Whether the request succeeded; a duplicate did not, although the SDKs take it as success.
        success: bool,
    },
    /// A group's data in an `Any`.
    Data {
        /// The group it was published to.
        group: String,
        /// Only on the reliable subprotocols.
        sequence_id: Option<u64>,
        /// The type of the payload, such as `proto.orderflow`.
        type_url: String,
        /// For orderflow: protobuf in zstd.
        payload: Vec<u8>,
    },
    /// Anything else: pongs, other kinds of data, messages of newer services.
    Other,
}

/// Parses one message of a service.
pub fn receive(syntax: Syntax, message: &[u8]) -> Result<ServiceMessage, Malformed> {
    match syntax {
        Syntax::Json => receive_json(message),
        Syntax::Protobuf => receive_protobuf(message),
    }
}

fn unparsable(error: impl std::fmt::Display) -> Malformed {
    Malformed::unparsable(error)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReceivedJson {
    r#type: String,
    event: Option<String>,
    message: Option<String>,
    connection_id: Option<String>,
    reconnection_token: Option<String>,
    ack_id: Option<u64>,
    success: Option<bool>,
    error: Option<ReceivedError>,
    from: Option<String>,
    group: Option<String>,
    data_type: Option<String>,
    data: Option<serde_json::Value>,
    sequence_id: Option<u64>,
}

#[derive(Deserialize)]
struct ReceivedError {
    name: String,
    message: Option<String>,
}

fn receive_json(message: &[u8]) -> Result<ServiceMessage, Malformed> {
    // serde would also read the fields from an array.
    if !message.trim_ascii_start().starts_with(b"{") {
        return Err(unparsable("expected a JSON object"));
    }
    let json: ReceivedJson = serde_json::from_slice(message).map_err(unparsable)?;
    Ok(match (json.r#type.as_str(), json.event.as_deref()) {
        ("system", Some("connected")) => ServiceMessage::Connected {
            connection_id: json.connection_id.unwrap_or_default(),
            reconnection_token: json.reconnection_token.unwrap_or_default(),
        },
        ("system", Some("disconnected")) => ServiceMessage::Disconnected { reason: json.message.unwrap_or_default() },
        ("ack", _) => ServiceMessage::Ack {
            ack_id: json.ack_id.ok_or_else(|| unparsable("an ack without ackId"))?,
            error: json.error.map(|error| (error.name, error.message.unwrap_or_default())),
            success: json.success.unwrap_or_default(),
        },
        ("message", _) if json.from.as_deref() == Some("group") => {
            match (json.data_type.as_deref(), json.data, json.group) {
                (Some("protobuf"), Some(serde_json::Value::String(data)), Some(group)) => {
                    let any = Any::decode(STANDARD.decode(data).map_err(unparsable)?.as_slice()).map_err(unparsable)?;
                    let payload = any.value.into();
                    ServiceMessage::Data { group, sequence_id: json.sequence_id, type_url: any.type_url, payload }
                }
                _ => ServiceMessage::Other,
            }
        }
        _ => ServiceMessage::Other,
    })
}

fn receive_protobuf(message: &[u8]) -> Result<ServiceMessage, Malformed> {
    use downstream_message::{Message, system};
    let message = DownstreamMessage::decode(message).map_err(unparsable)?.message;
    Ok(match message {
        Some(Message::System(system)) => match system.message {
            Some(system::Message::Connected(connected)) => ServiceMessage::Connected {
                connection_id: connected.connection_id,
                reconnection_token: connected.reconnection_token,
            },
            Some(system::Message::Disconnected(gone)) => ServiceMessage::Disconnected { reason: gone.reason },
            None => ServiceMessage::Other,
        },
        Some(Message::Ack(ack)) => ServiceMessage::Ack {
            ack_id: ack.ack_id,
            error: ack.error.map(|error| (error.name, error.message)),
            success: ack.success,
        },
        Some(Message::Data(data)) => match (data.data.and_then(|data| data.data), data.group) {
            (Some(message_data::Data::ProtobufData(any)), Some(group)) => {
                let payload = any.value.into();
                ServiceMessage::Data { group, sequence_id: data.sequence_id, type_url: any.type_url, payload }
            }
            _ => ServiceMessage::Other,
        },
        Some(Message::Pong(_)) | None => ServiceMessage::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::payload::Profile;
    use crate::wire::webpubsub::{Downstream, ErrorName, PubSubWire, append_data};
    use crate::wire::websocket;

    fn wire(syntax: Syntax) -> PubSubWire {
        PubSubWire { syntax, reliable: true, profile: Profile::V2026_04 }
    }

    #[test]
    fn what_is_written_is_read_in_both_syntaxes() {
        for syntax in [Syntax::Json, Syntax::Protobuf] {
            let read = |message: &Downstream<'_>| {
                let mut frame = Vec::new();
                wire(syntax).append(message, &mut frame);
                receive(syntax, websocket::payload(&frame)).unwrap()
            };
            assert_eq!(
                read(&Downstream::Connected { connection_id: "c", user_id: "u", reconnection_token: Some("t") }),
                ServiceMessage::Connected { connection_id: "c".to_owned(), reconnection_token: "t".to_owned() }
            );
            assert_eq!(
                read(&Downstream::Disconnected { reason: "r" }),
                ServiceMessage::Disconnected { reason: "r".to_owned() }
            );
            assert_eq!(
                read(&Downstream::Ack { ack_id: 1, result: Ok(()) }),
                ServiceMessage::Ack { ack_id: 1, error: None, success: true }
            );
            let error = Some(("Forbidden".to_owned(), "no".to_owned()));
            assert_eq!(
                read(&Downstream::Ack { ack_id: 2, result: Err((ErrorName::Forbidden, "no")) }),
                ServiceMessage::Ack { ack_id: 2, error, success: false }
            );
            assert_eq!(read(&Downstream::Pong), ServiceMessage::Other);

            let (mut plain, mut frame) = (Vec::new(), Vec::new());
            append_data(syntax, "g", "example", b"xyz", &mut plain);
            wire(syntax).finish(&plain, 7, &mut frame);
            assert_eq!(
                receive(syntax, websocket::payload(&frame)).unwrap(),
                ServiceMessage::Data {
                    group: "g".to_owned(),
                    sequence_id: Some(7),
                    type_url: "example".to_owned(),
                    payload: b"xyz".to_vec()
                }
            );
        }
    }
}
