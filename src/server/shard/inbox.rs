//! Receiving: bytes from a socket, as messages for the client's dialect.

use std::sync::Arc;

use super::close::{Close, CloseFrame};
use super::connection::ConnectionState;
use super::dialect::Dialect;
use super::dialect::conversation::Conversation;
use super::sessions::Report;
use super::shard_options::ShardOptions;
use crate::engine::system_clock::monotonic_ms;
use crate::health::log_limit;
use crate::wire::byte_budget::ByteBudget;
use crate::wire::websocket::{self, ClientMessage, Opcode};

/// One read per readiness event; what is left raises the next event. It holds a thousand small requests: more
/// at once would keep the other clients waiting.
const READ_BUFFER: usize = 16 << 10;

/// Reads and understands what clients send.
pub struct Inbox {
    buffer: Box<[u8]>,
    max_message_bytes: usize,
    max_reply_bytes: usize,
    /// Shared with the other shards.
    unfinished: Arc<ByteBudget>,
}

impl Inbox {
    /// An inbox for messages up to the configured size.
    pub fn new(options: &ShardOptions, unfinished: Arc<ByteBudget>) -> Self {
        let ShardOptions { max_message_bytes, max_reply_bytes, .. } = *options;
        Self { buffer: vec![0; READ_BUFFER].into(), max_message_bytes, max_reply_bytes, unfinished }
    }

    /// Greets a client that has connected or come back, and hears what it sent behind its handshake.
    pub fn welcome(&mut self, read: &[u8], now_ms: u64, dialect: &mut dyn Dialect, talk: &mut Conversation<'_>) {
        dialect.keepalive().start(now_ms, talk.key, talk.sessions.serial(talk.key));
        dialect.greet(talk);
        if !read.is_empty() {
            self.hear(&mut read.to_vec(), dialect, talk);
        }
        talk.flush();
    }

    /// Reads once from a client's socket, and hears what it says.
    pub fn receive(&mut self, dialect: &mut dyn Dialect, talk: &mut Conversation<'_>) {
        let Some(connection) = talk.sessions.connection_mut(talk.key) else { return };
        match connection.receive(&mut self.buffer) {
            Ok(None) => {}
            Ok(Some(0)) => {
                let close = match connection.state {
                    ConnectionState::Lingering { close } | ConnectionState::Closing { close, .. } => close,
                    ConnectionState::Open => Close::Gone,
                };
                talk.sessions.report(talk.key, Report::Finished(close));
            }
            Ok(Some(length)) => {
                // Out of `self` while it is heard, so that the hearing may use `self`.
                let mut buffer = std::mem::take(&mut self.buffer);
                self.hear(&mut buffer[..length], dialect, talk);
                self.buffer = buffer;
            }
            Err(_) => talk.sessions.report(talk.key, Report::Lost(Close::Gone)),
        }
    }

    /// Parses what a client sent and hands it to the client's dialect.
    pub fn hear(&mut self, bytes: &mut [u8], dialect: &mut dyn Dialect, talk: &mut Conversation<'_>) {
        let Some(connection) = talk.sessions.connection_mut(talk.key) else { return };
        connection.heard_ms = monotonic_ms();
        let mut inbound = std::mem::take(&mut connection.inbound);
        let mut refused = None;
        let read = inbound.read(bytes, self.max_message_bytes, |message| {
            let heard = hear_message(&message, dialect, talk);
            heard.unwrap_or_else(|frame| {
                refused = Some(frame);
                false
            })
        });
        if let Err(violation) = read.and_then(|()| inbound.hold(&self.unfinished, monotonic_ms())) {
            refused = Some(CloseFrame::violation(violation.code(), &violation));
        }
        let Some(connection) = talk.sessions.connection_mut(talk.key) else { return };
        connection.inbound = inbound;
        let (unread, has_unsent) = (connection.control_bytes(), connection.has_unsent());
        if let Some(frame) = refused {
            warn(&frame, talk);
            talk.sessions.report(talk.key, Report::Close(frame));
        } else if unread > self.max_reply_bytes {
            talk.sessions.report(talk.key, Report::Close(Close::UnreadAnswers.into()));
        } else if has_unsent {
            talk.flush();
        }
    }
}

/// Logs how a client broke the protocol.
fn warn(frame: &CloseFrame, talk: &mut Conversation<'_>) {
    if frame.close().counter() == "protocol"
        && let Some(session) = talk.session()
        && log_limit::client_line(tracing::Level::WARN)
    {
        let (connection, code, reason) = (session.id, frame.code(), frame.reason());
        tracing::warn!(%connection, code, %reason, "a client broke the protocol and is closed");
    }
}

/// Handles one message. False if nothing more is wanted from this client.
fn hear_message(
    message: &ClientMessage<'_>,
    dialect: &mut dyn Dialect,
    talk: &mut Conversation<'_>,
) -> Result<bool, CloseFrame> {
    if let ClientMessage::Close(code) = message {
        talk.sessions.closed_by_client(talk.key, *code, talk.lanes);
        talk.flush();
        return Ok(false);
    }
    // Closing: only the client's close frame still matters.
    let Some(answer) = talk.answer() else { return Ok(true) };
    match message {
        ClientMessage::Ping(payload) => websocket::append(Opcode::Pong, payload, answer),
        ClientMessage::Text(_) | ClientMessage::Binary(_) => dialect.hear(message, talk)?,
        ClientMessage::Pong | ClientMessage::Close(_) => {}
    }
    Ok(true)
}
