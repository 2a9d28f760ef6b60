//! One connection to Kite's ticker.
//!
//! ```text
//! credentials ─▶ upgrade (the token is decided here) ─▶ subscribe, mode ─▶ packets ─▶ records
//! ```
//!
//! Source: `docs/protocols/kite.md`, "What flowcast does".

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{HeaderName, HeaderValue, USER_AGENT};
use secrecy::ExposeSecret;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_rustls::rustls::ClientConfig;
use tokio_tungstenite::tungstenite::{self, Message};

use super::assign::WantedInstruments;
use super::command::{self, SubscribedModes};
use super::packet;
use crate::source::broker::credentials::{Credentials, encoded};
use crate::source::broker::feed::FeedContext;
use crate::source::broker::feed_events::FeedEventKind;
use crate::source::broker::feed_settings::FeedSettings;
use crate::source::broker::net::rate::CallRate;
use crate::source::broker::net::recovery::{BrokerConnection, ConnectionEnd, Opened};
use crate::source::broker::net::socket::{self, ConnectError, Socket, SocketTarget};
use crate::source::broker::quote::ReceivedAt;

/// One of a key's connections.
pub struct KiteConnection {
    pub(super) context: FeedContext,
    pub(super) settings: Arc<FeedSettings>,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) calls: Arc<CallRate>,
    /// The instruments it should carry.
    pub(super) assigned: watch::Receiver<Arc<WantedInstruments>>,
    /// The credentials that were tried last.
    pub(super) tried: Option<Credentials>,
}

impl BrokerConnection for KiteConnection {
    async fn run(&mut self, opened: &mut Opened) -> ConnectionEnd {
        let credentials = match self.settings.credentials.load().await {
            Ok(credentials) => credentials,
            Err(error) => {
                self.tried = None;
                return ConnectionEnd::Refused(error.to_string());
            }
        };
        self.tried = Some(credentials.clone());
        let socket = match socket::connect(&self.target(&credentials)).await {
            Ok(socket) => socket,
            Err(error) => return refused(&error, &credentials),
        };
        opened.now();
        let silence = self.settings.silence.unwrap_or(Duration::from_secs(5));
        let mut live = Live {
            socket,
            context: self.context.clone(),
            current: Arc::default(),
            subscribed: SubscribedModes::new(),
            counted: 0,
            commands: VecDeque::new(),
            send_at: None,
            silence,
            credentials,
        };
        self.work(&mut live).await
    }

    async fn credentials_changed(&mut self) -> bool {
        self.settings.credentials.load().await.is_ok_and(|now| Some(&now) != self.tried.as_ref())
    }
}

/// Why no socket opened, as what to do about it.
fn refused(error: &ConnectError, credentials: &Credentials) -> ConnectionEnd {
    let reason = credentials.clean(&error.to_string());
    match error {
        ConnectError::Refused { status: 401 | 403, .. } => ConnectionEnd::Refused(format!(
            "{reason}; expected a valid api_key and today's access_token (Kite's tokens die every morning)"
        )),
        ConnectError::Refused { status: 429, retry_after, .. } => {
            ConnectionEnd::Busy { retry_after: *retry_after, reason }
        }
        _ => ConnectionEnd::Lost(reason),
    }
}

impl KiteConnection {
    fn target(&self, credentials: &Credentials) -> SocketTarget {
        let (key, token) = (encoded(credentials.key.expose_secret()), encoded(credentials.secret.expose_secret()));
        SocketTarget {
            url: format!("{}/?api_key={key}&access_token={token}", self.settings.ws_url),
            headers: vec![
                (HeaderName::from_static("x-kite-version"), HeaderValue::from_static("3")),
                (USER_AGENT, HeaderValue::from_static(concat!("flowcast/", env!("CARGO_PKG_VERSION")))),
            ],
            tls: Arc::clone(&self.tls),
            timeout: self.settings.limits.timeout,
            max_message_bytes: self.settings.limits.max_message_bytes,
        }
    }

    /// Reads and subscribes until the socket ends.
    async fn work(&mut self, live: &mut Live) -> ConnectionEnd {
        live.want(&self.assigned.borrow_and_update().clone(), self.settings.limits.batch);
        let mut deadline = Instant::now() + live.silence;
        loop {
            live.plan(&self.calls);
            let due = live.send_at.unwrap_or(deadline);
            // Every branch is cancel-safe: frames, changes and moments are kept by what is waited for.
            let ended = tokio::select! {
                frame = timeout_at(deadline, live.socket.next()) => {
                    let ended = live.take(frame).await;
                    // Waiting for room in the merged stream is not the server's silence.
                    deadline = Instant::now() + live.silence;
                    ended
                }
                Ok(()) = self.assigned.changed() => {
                    live.want(&self.assigned.borrow_and_update().clone(), self.settings.limits.batch);
                    None
                }
                () = sleep_until(due), if live.send_at.is_some() => live.send().await,
                () = self.context.stopped() => Some(live.goodbye().await),
            };
            if let Some(ended) = ended {
                return ended;
            }
        }
    }
}

/// A connection while its socket is open.
struct Live {
    socket: Socket,
    context: FeedContext,
    /// What records are taken of: what is unsubscribed may still be on its way.
    current: Arc<WantedInstruments>,
    subscribed: SubscribedModes,
    /// Instruments that the feed's figures count for this socket.
    counted: usize,
    commands: VecDeque<String>,
    /// When the next command may be sent.
    send_at: Option<Instant>,
    silence: Duration,
    credentials: Credentials,
}

/// A task may be cut off: the figures are right even then.
impl Drop for Live {
    fn drop(&mut self) {
        self.context.health().subscribed(0, self.counted);
    }
}

impl Live {
    /// Turns what is subscribed into what is wanted.
    fn want(&mut self, assigned: &Arc<WantedInstruments>, batch: usize) {
        self.current = Arc::clone(assigned);
        self.commands.extend(command::commands(&mut self.subscribed, assigned, batch));
        self.context.health().subscribed(self.subscribed.len(), self.counted);
        self.counted = self.subscribed.len();
    }

    /// Takes a moment for the next command, if there is one.
    fn plan(&mut self, calls: &CallRate) {
        if self.send_at.is_none() && !self.commands.is_empty() {
            self.send_at = Some(calls.reserve());
        }
    }

    async fn send(&mut self) -> Option<ConnectionEnd> {
        self.send_at = None;
        let text = self.commands.pop_front()?;
        match timeout(self.silence, self.socket.send(Message::text(text))).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(ConnectionEnd::Lost(format!("the connection ended: {}", socket::broken(&error)))),
            Err(_) => Some(ConnectionEnd::Lost("the server does not read what it is sent".to_owned())),
        }
    }

    async fn goodbye(&mut self) -> ConnectionEnd {
        let _ = self.socket.close(None).await;
        ConnectionEnd::Stopped
    }

    /// Takes what was read, or that nothing was.
    async fn take(
        &mut self,
        read: Result<Option<Result<Message, tungstenite::Error>>, tokio::time::error::Elapsed>,
    ) -> Option<ConnectionEnd> {
        // Before parsing.
        let received = ReceivedAt::now();
        let message = match read {
            Err(_) => return Some(ConnectionEnd::Lost(format!("the server was silent for {:?}", self.silence))),
            Ok(None) => return Some(ConnectionEnd::Lost("the connection ended: the server closed it".to_owned())),
            Ok(Some(Err(error))) => {
                if matches!(error, tungstenite::Error::Capacity(_) | tungstenite::Error::Utf8(_)) {
                    self.context.health().malformed(&socket::broken(&error));
                }
                return Some(ConnectionEnd::Lost(format!("the connection ended: {}", socket::broken(&error))));
            }
            Ok(Some(Ok(message))) => message,
        };
        self.context.message(received);
        match message {
            Message::Binary(frame) => self.binary(&frame, received).await,
            Message::Text(text) => {
                self.text(&text);
                None
            }
            Message::Close(close) => {
                let said = close.map(|close| format!(" with {} {}", close.code, close.reason)).unwrap_or_default();
                Some(ConnectionEnd::Lost(format!("the server closed the connection{}", self.credentials.clean(&said))))
            }
            // tungstenite answers pings.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => None,
        }
    }

    async fn binary(&mut self, frame: &Bytes, received: ReceivedAt) -> Option<ConnectionEnd> {
        if packet::is_heartbeat(frame) {
            return None;
        }
        for packet in packet::packets(frame) {
            let packet = match packet {
                Ok(packet) => packet,
                Err(fault) => {
                    self.context.health().malformed(&fault);
                    continue;
                }
            };
            let Some(entry) = self.current.get(&packet.token) else {
                self.context.health().ignored();
                continue;
            };
            let record = packet.market_data(self.context.id(), &entry.instrument, received);
            if !self.context.send(record).await {
                return Some(ConnectionEnd::Stopped);
            }
        }
        None
    }

    /// Text is for people, or about orders. What is odd must not end the connection.
    fn text(&self, text: &str) {
        #[derive(Deserialize)]
        struct TextMessage {
            r#type: String,
            #[serde(default)]
            data: serde_json::Value,
        }
        let said: TextMessage = match serde_json::from_str(text) {
            Ok(said) => said,
            Err(error) => {
                self.context.health().malformed(&format_args!("expected a text {{\"type\",\"data\"}}: {error}"));
                return;
            }
        };
        let words = || self.credentials.clean(&said.data.as_str().map_or_else(|| said.data.to_string(), str::to_owned));
        match said.r#type.as_str() {
            "error" => self.context.tell(FeedEventKind::Error, format!("the server reports: {}", words())),
            "message" => self.context.tell(FeedEventKind::Notice, words()),
            _ => self.context.health().ignored(),
        }
    }
}
