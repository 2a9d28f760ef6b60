//! One connection to a hub: joins its groups, and turns what it receives into lines.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use http::header::SEC_WEBSOCKET_PROTOCOL;
use prost::Message as _;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::HubRequest;
use super::hub_address::{HubAddress, unprefixed};
use crate::source::broker::net::socket::{self, ConnectError, Socket, SocketTarget};
use crate::source::broker::net::tls::client_config;
use crate::wire::payload::Profile;
use crate::wire::payload::record_line::record_of;
use crate::wire::proto::webpubsub::{UpstreamMessage, upstream_message};
use crate::wire::webpubsub::received::{ServiceMessage, receive};
use crate::wire::webpubsub::{SUBPROTOCOLS, Syntax};

/// How long name, TCP, TLS and upgrade may take together.
const CONNECTING: Duration = Duration::from_secs(30);

/// The largest message of a hub.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// The largest record, decompressed.
const MAX_RECORD_BYTES: usize = 16 << 20;

/// Where messages of all connections are stored unchanged.
#[derive(Clone)]
pub struct Capture(Option<Arc<Mutex<BufWriter<File>>>>);

impl Capture {
    /// Creates the file, if one is asked for.
    pub fn create(path: Option<&Path>) -> anyhow::Result<Self> {
        let file = path.map(File::create).transpose().context("cannot create the capture")?;
        Ok(Self(file.map(|file| Arc::new(Mutex::new(BufWriter::new(file))))))
    }

    /// Stores nothing.
    pub const fn none() -> Self {
        Self(None)
    }

    fn store(&self, subprotocol: &str, message: &Message) -> anyhow::Result<()> {
        let Some(file) = &self.0 else { return Ok(()) };
        // Nothing panics while it is held, and a half-written line is the worst that could be seen.
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(file, "{}", captured(subprotocol, message)).context("cannot write the capture")?;
        file.flush().context("cannot write the capture")
    }
}

/// Why there is no connection, with a hint where the URL may be wrong.
fn refused(error: ConnectError) -> anyhow::Error {
    let hint = match &error {
        ConnectError::Refused { status: 404, .. } => {
            "; expected a hub's URL, such as ws://127.0.0.1:8080/client/hubs/orderflow?access_token=KEY"
        }
        _ => "",
    };
    match error {
        ConnectError::Refused { status, body, .. } => {
            anyhow::anyhow!("cannot connect to the hub: expected HTTP 101, got {status}: {body}{hint}")
        }
        error => anyhow::Error::new(error).context("cannot connect to the hub"),
    }
}

/// The service does not let this client join a group.
#[derive(Debug, thiserror::Error)]
#[error("cannot join {group}: {name}: {reason}")]
pub struct JoinRefused {
    group: String,
    /// The name of the error, such as `Forbidden`.
    name: String,
    reason: String,
}

/// A connection that has asked to join its groups.
pub struct HubConnection {
    socket: Socket,
    address: HubAddress,
    subprotocol: String,
    syntax: Syntax,
    reliable: bool,
    profile: Profile,
    silence: Option<Duration>,
    capture: Capture,
}

impl HubConnection {
    /// Connects, and asks to join.
    pub async fn connect(address: HubAddress, request: &HubRequest, capture: Capture) -> anyhow::Result<Self> {
        let (_, syntax, reliable) = SUBPROTOCOLS
            .into_iter()
            .find(|(name, ..)| *name == request.subprotocol)
            .context("checked when it was parsed")?;
        let target = SocketTarget {
            url: address.url.clone(),
            headers: vec![(SEC_WEBSOCKET_PROTOCOL, request.subprotocol.parse()?)],
            tls: client_config(None)?,
            timeout: CONNECTING,
            max_message_bytes: MAX_MESSAGE_BYTES,
        };
        let mut socket = socket::connect(&target).await.map_err(refused)?;
        for (at, group) in address.join.iter().enumerate() {
            socket.send(join(syntax, group, at as u64 + 1)).await.context("cannot join")?;
        }
        let (subprotocol, profile) = (request.subprotocol.clone(), request.profile);
        Ok(Self { socket, address, subprotocol, syntax, reliable, profile, silence: request.silence, capture })
    }

    /// Sends every record's line, and last the error that ended the connection. Closes it when nobody wants
    /// more.
    pub async fn forward(mut self, lines: mpsc::Sender<anyhow::Result<Value>>) {
        loop {
            // Both are cancel-safe: a message that was read completely is returned, and no line is sent twice.
            let message = tokio::select! {
                message = self.next() => message,
                () = lines.closed() => return self.close().await,
            };
            let heard = match message {
                Ok(message) => self.heard(&message).await,
                Err(error) => Err(error),
            };
            let has_ended = heard.is_err();
            if let Some(line) = heard.transpose()
                && lines.send(line).await.is_err()
            {
                return self.close().await;
            }
            if has_ended {
                return;
            }
        }
    }

    /// The next message. The end of the connection is an error.
    async fn next(&mut self) -> anyhow::Result<Message> {
        let next = self.socket.next();
        let next = match self.silence {
            Some(silence) => match tokio::time::timeout(silence, next).await {
                Ok(next) => next,
                Err(_) => bail!("nothing arrived for {silence:?}"),
            },
            None => next.await,
        };
        match next {
            Some(Ok(Message::Close(Some(close)))) => {
                bail!("the service closed the connection: {} {}", close.code, close.reason)
            }
            None | Some(Ok(Message::Close(None))) => bail!("the service closed the connection"),
            Some(message) => message.context("the connection broke"),
        }
    }

    /// Captures and understands a message; returns the line, if it is a record.
    async fn heard(&mut self, message: &Message) -> anyhow::Result<Option<Value>> {
        let bytes = match message {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
            _ => return Ok(None),
        };
        self.capture.store(&self.subprotocol, message)?;
        match receive(self.syntax, bytes)? {
            ServiceMessage::Data { group, sequence_id, type_url, payload } => {
                if let (true, Some(id)) = (self.reliable, sequence_id) {
                    self.socket.send(sequence_ack(self.syntax, id)).await.context("the connection broke")?;
                }
                // The vendor may choose the prefix of groups that it joins for us.
                if self.address.print.iter().all(|wanted| unprefixed(wanted) != unprefixed(&group)) {
                    return Ok(None);
                }
                return self.line(group, sequence_id, (&type_url, &payload)).map(Some);
            }
            ServiceMessage::Ack { ack_id, success: false, error } => {
                let at = ack_id.saturating_sub(1) as usize;
                let group = self.address.join.get(at).map_or("?", String::as_str);
                let (name, reason) = error.unwrap_or_default();
                bail!(JoinRefused { group: group.to_owned(), name, reason });
            }
            ServiceMessage::Disconnected { reason } => eprintln!("the service disconnects: {reason}"),
            ServiceMessage::Connected { .. } | ServiceMessage::Ack { .. } | ServiceMessage::Other => {}
        }
        Ok(None)
    }

    /// The record after its group and, on reliable subprotocols, its sequence id.
    fn line(
        &self,
        group: String,
        sequence_id: Option<u64>,
        (type_url, payload): (&str, &[u8]),
    ) -> anyhow::Result<Value> {
        let (record, _) =
            record_of(type_url, payload, self.profile, MAX_RECORD_BYTES).with_context(|| group.clone())?;
        let mut line = Map::new();
        line.insert("group".to_owned(), group.into());
        line.extend(sequence_id.map(|id| ("sequence_id".to_owned(), id.into())));
        line.extend(record);
        Ok(line.into())
    }

    /// Code 1000 ends a reliable session at once. If the service is gone, so is the session.
    async fn close(mut self) {
        let _ = self.socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).await;
    }
}

fn join(syntax: Syntax, group: &str, ack_id: u64) -> Message {
    match syntax {
        Syntax::Json => Message::text(json!({ "type": "joinGroup", "group": group, "ackId": ack_id }).to_string()),
        Syntax::Protobuf => {
            let join = upstream_message::JoinGroup { group: group.to_owned(), ack_id: Some(ack_id) };
            upstream(upstream_message::Message::JoinGroup(join))
        }
    }
}

fn sequence_ack(syntax: Syntax, sequence_id: u64) -> Message {
    match syntax {
        Syntax::Json => Message::text(json!({ "type": "sequenceAck", "sequenceId": sequence_id }).to_string()),
        Syntax::Protobuf => {
            upstream(upstream_message::Message::SequenceAck(upstream_message::SequenceAck { sequence_id }))
        }
    }
}

fn upstream(message: upstream_message::Message) -> Message {
    Message::binary(UpstreamMessage { message: Some(message) }.encode_to_vec())
}

/// One captured message: `{"subprotocol":…,"text":…}` or `{"subprotocol":…,"binary":base64}`.
fn captured(subprotocol: &str, message: &Message) -> Value {
    match message {
        Message::Text(text) => json!({ "subprotocol": subprotocol, "text": text.as_str() }),
        _ => json!({ "subprotocol": subprotocol, "binary": STANDARD.encode(message.clone().into_data()) }),
    }
}
