//! One connection to an XTS deployment: a session, its socket, its subscriptions.
//!
//! ```text
//! credentials ─▶ login (REST) ─▶ socket ─▶ handshake ─▶ joined ─┬─▶ events ─────┐
//!                                                               └─▶ subscriber ─┴─▶ decoder ─▶ records
//! ```
//!
//! A session outlives its socket, so a lost socket is opened again with the same token; a dead token
//! is replaced by one login. Source: `docs/protocols/xts.md`, "What flowcast does".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use secrecy::ExposeSecret;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};
use tokio_rustls::rustls::ClientConfig;
use tokio_tungstenite::tungstenite::{self, Message};

use super::event_decoder::EventDecoder;
use super::rest::{Login, Rest, RestError};
use super::socketio::{self, Eio, Frame};
use super::subscriber::Subscriber;
use crate::source::broker::credentials::{Credentials, encoded, hide};
use crate::source::broker::feed::FeedContext;
use crate::source::broker::feed_events::FeedEventKind;
use crate::source::broker::feed_settings::{BroadcastMode, FeedSettings};
use crate::source::broker::net::recovery::{BrokerConnection, ConnectionEnd, Opened};
use crate::source::broker::net::socket::{self, ConnectError, Socket, SocketTarget};
use crate::source::broker::quote::ReceivedAt;
use crate::source::broker::symbols::SymbolMap;

/// The connection of one key.
pub struct XtsConnection {
    pub(super) context: FeedContext,
    pub(super) settings: Arc<FeedSettings>,
    pub(super) symbols: Arc<SymbolMap>,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) rest: Rest,
    /// The credentials that were tried last.
    pub(super) tried: Option<Credentials>,
    /// The session, while it is good.
    pub(super) session: Option<XtsSession>,
}

/// A session, and whether the server ever took its token.
#[derive(Clone)]
pub(super) struct XtsSession {
    login: Login,
    proved: bool,
}

/// How often the server is pinged, and how long it may be silent.
struct Rhythm {
    ping_interval: Duration,
    silence: Duration,
}

impl BrokerConnection for XtsConnection {
    async fn run(&mut self, opened: &mut Opened) -> ConnectionEnd {
        let credentials = match self.settings.credentials.load().await {
            Ok(credentials) => credentials,
            Err(error) => {
                self.tried = None;
                return ConnectionEnd::Refused(error.to_string());
            }
        };
        if self.tried.as_ref() != Some(&credentials) {
            self.session = None;
        }
        self.tried = Some(credentials.clone());
        let login = match self.login(&credentials).await {
            Ok(login) => login,
            Err(ended) => return ended,
        };
        let (mut socket, rhythm) = match self.open(&login, &credentials).await {
            Ok(open) => open,
            Err(ended) => return ended,
        };
        self.prove();
        opened.now();
        let ended = self.work(&mut socket, &rhythm, &login, &credentials).await;
        if ended == ConnectionEnd::Stopped {
            goodbye(&mut socket).await;
            // The broker need not keep a session that nobody will use.
            let _ = self.rest.logout(&login, &credentials).await;
            self.session = None;
        }
        ended
    }

    async fn credentials_changed(&mut self) -> bool {
        self.settings.credentials.load().await.is_ok_and(|now| Some(&now) != self.tried.as_ref())
    }
}

async fn goodbye(socket: &mut Socket) {
    let _ = socket.send(Message::text("41")).await;
    let _ = socket.close(None).await;
}

impl XtsConnection {
    /// The session there is, or a new one.
    async fn login(&mut self, credentials: &Credentials) -> Result<Login, ConnectionEnd> {
        if let Some(session) = &self.session {
            return Ok(session.login.clone());
        }
        let login = self.rest.login(credentials).await.map_err(|error| match error {
            RestError::Busy { retry_after, reason } => {
                ConnectionEnd::Busy { retry_after, reason: format!("login: {reason}") }
            }
            RestError::Trouble(reason) => ConnectionEnd::Lost(format!("login: {reason}")),
            RestError::Auth(reason) | RestError::Refused(reason) | RestError::Already(reason) => {
                ConnectionEnd::Refused(format!("login: {reason}; expected a valid app_key and secret_key"))
            }
        })?;
        self.session = Some(XtsSession { login: login.clone(), proved: false });
        Ok(login)
    }

    fn prove(&mut self) {
        if let Some(session) = &mut self.session {
            session.proved = true;
        }
    }

    /// The token is dead. If the server took it before, a login brings another one; a token that is
    /// refused right after its login says that logging in again is no use.
    fn dead(&mut self, reason: &str) -> ConnectionEnd {
        match self.session.take() {
            Some(XtsSession { proved: true, .. }) => ConnectionEnd::Lost(format!("the session ended: {reason}")),
            _ => ConnectionEnd::Refused(format!("a new session's token is refused: {reason}")),
        }
    }

    /// Opens the socket and joins the namespace.
    async fn open(&mut self, login: &Login, credentials: &Credentials) -> Result<(Socket, Rhythm), ConnectionEnd> {
        let connected = socket::connect(&self.target(login)).await;
        let mut socket = connected.map_err(|error| {
            let reason = credentials.clean(&hide(&login.token, &error.to_string()));
            match error {
                ConnectError::Refused { status: 400 | 401 | 403, .. } => self.dead(&reason),
                ConnectError::Refused { status: 429, retry_after, .. } => ConnectionEnd::Busy { retry_after, reason },
                _ => ConnectionEnd::Lost(reason),
            }
        })?;
        let joining = self.join(&mut socket);
        let late = || {
            let eio = self.settings.xts.eio.number();
            let patience = self.settings.limits.timeout;
            JoinError::Lost(format!("the server did not join within {patience:?}; does it speak EIO={eio}?"))
        };
        let joined = timeout(self.settings.limits.timeout, joining).await.unwrap_or_else(|_| Err(late()));
        match joined {
            Ok(rhythm) => Ok((socket, rhythm)),
            Err(JoinError::Lost(reason)) => Err(ConnectionEnd::Lost(reason)),
            Err(JoinError::Refused(reason)) => Err(self.dead(&credentials.clean(&hide(&login.token, &reason)))),
        }
    }

    fn target(&self, login: &Login) -> SocketTarget {
        let Self { settings, .. } = self;
        let (eio, mode) = (settings.xts.eio.number(), settings.xts.broadcast_mode.name());
        let (token, user) = (encoded(login.token.expose_secret()), encoded(&login.user_id));
        SocketTarget {
            url: format!(
                "{}/?EIO={eio}&transport=websocket&token={token}&userID={user}&publishFormat=JSON&broadcastMode={mode}",
                settings.ws_url
            ),
            headers: Vec::new(),
            tls: Arc::clone(&self.tls),
            timeout: settings.limits.timeout,
            max_message_bytes: settings.limits.max_message_bytes,
        }
    }

    /// Reads up to the namespace. In Engine.IO 3 the server joins unasked.
    async fn join(&self, socket: &mut Socket) -> Result<Rhythm, JoinError> {
        let mut rhythm = None;
        loop {
            let message = match socket.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(JoinError::Lost(format!("no handshake: {}", socket::broken(&error)))),
                None => return Err(JoinError::Lost("no handshake: the server closed the connection".to_owned())),
            };
            let Message::Text(text) = message else { continue };
            match socketio::parse(&text) {
                Ok(Frame::Open { ping_interval, ping_timeout }) => {
                    let silence = self.settings.silence.unwrap_or(ping_interval + ping_timeout);
                    // A pong must have time to come before the silence is too long.
                    rhythm = Some(Rhythm { ping_interval: ping_interval.min(silence / 2), silence });
                    if self.settings.xts.eio == Eio::V4 {
                        let asked = socket.send(Message::text("40")).await;
                        asked.map_err(|error| JoinError::Lost(format!("no handshake: {}", socket::broken(&error))))?;
                    }
                }
                Ok(Frame::Joined) => {
                    return rhythm.ok_or_else(|| JoinError::Lost("the server joined before its handshake".to_owned()));
                }
                Ok(Frame::Refused(reason)) => return Err(JoinError::Refused(reason)),
                Ok(Frame::Close | Frame::Left) => {
                    return Err(JoinError::Lost("the server ended the session before it began".to_owned()));
                }
                Ok(_) => {}
                Err(fault) => self.context.health().malformed(&fault),
            }
        }
    }

    /// Both halves, until one of them ends.
    async fn work(
        &mut self,
        socket: &mut Socket,
        rhythm: &Rhythm,
        login: &Login,
        credentials: &Credentials,
    ) -> ConnectionEnd {
        let (context, settings) = (self.context.clone(), Arc::clone(&self.settings));
        // Every wanted instrument by every code.
        let pairs = settings.limits.instruments.saturating_mul(super::event_fields::Code::ALL.len());
        let partial = settings.xts.broadcast_mode == BroadcastMode::Partial;
        let decoder = EventDecoder::new(settings.broker, context.clone(), partial, pairs);
        let subscriber = Subscriber {
            context: context.clone(),
            settings: &settings,
            symbols: &self.symbols,
            rest: &self.rest,
            login,
            credentials,
            decoder: &decoder,
            wanted: BTreeMap::new(),
            have: BTreeSet::new(),
            refused: BTreeSet::new(),
            no_room: BTreeSet::new(),
            calls: Vec::new(),
            counted: 0,
        };
        let reader = SocketReader {
            socket,
            context: &context,
            decoder: &decoder,
            rhythm,
            eio: settings.xts.eio,
            login,
            credentials,
        };
        let ended = tokio::select! {
            ended = reader.run() => ended,
            dead = subscriber.run() => ReadEnd::SessionOver(dead),
            () = context.stopped() => ReadEnd::Socket(ConnectionEnd::Stopped),
        };
        match ended {
            ReadEnd::Socket(ended) => ended,
            ReadEnd::SessionOver(reason) => self.dead(&reason),
        }
    }
}

enum JoinError {
    Lost(String),
    Refused(String),
}

/// How reading ended.
enum ReadEnd {
    Socket(ConnectionEnd),
    /// The session is over, not only the socket.
    SessionOver(String),
}

/// The socket's half of a connection.
struct SocketReader<'a> {
    socket: &'a mut Socket,
    context: &'a FeedContext,
    decoder: &'a EventDecoder,
    rhythm: &'a Rhythm,
    eio: Eio,
    login: &'a Login,
    credentials: &'a Credentials,
}

impl SocketReader<'_> {
    async fn run(mut self) -> ReadEnd {
        let mut deadline = Instant::now() + self.rhythm.silence;
        // The official client's first ping goes out at once.
        let mut pings = interval(self.rhythm.ping_interval);
        // Pings that fell due while a record waited for room are one ping.
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let ended = tokio::select! {
                frame = timeout_at(deadline, self.socket.next()) => {
                    let ended = self.take(frame).await;
                    // Waiting for room in the merged stream is not the server's silence.
                    deadline = Instant::now() + self.rhythm.silence;
                    ended
                }
                _ = pings.tick(), if self.eio == Eio::V3 => self.send("2").await,
            };
            if let Some(ended) = ended {
                return ended;
            }
        }
    }

    async fn send(&mut self, text: &'static str) -> Option<ReadEnd> {
        match timeout(self.rhythm.silence, self.socket.send(Message::text(text))).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => lost(format!("the connection ended: {}", socket::broken(&error))),
            Err(_) => lost("the server does not read what it is sent".to_owned()),
        }
    }

    async fn take(
        &mut self,
        read: Result<Option<Result<Message, tungstenite::Error>>, tokio::time::error::Elapsed>,
    ) -> Option<ReadEnd> {
        // Before parsing.
        let received = ReceivedAt::now();
        let message = match read {
            Err(_) => return lost(format!("the server was silent for {:?}", self.rhythm.silence)),
            Ok(None) => return lost("the connection ended: the server closed it".to_owned()),
            Ok(Some(Err(error))) => {
                if matches!(error, tungstenite::Error::Capacity(_) | tungstenite::Error::Utf8(_)) {
                    self.context.health().malformed(&socket::broken(&error));
                }
                return lost(format!("the connection ended: {}", socket::broken(&error)));
            }
            Ok(Some(Ok(message))) => message,
        };
        self.context.message(received);
        match message {
            Message::Text(text) => self.text(&text, received).await,
            Message::Binary(_) => {
                // The binary product's packets; JSON was asked for.
                self.context.health().ignored();
                None
            }
            Message::Close(close) => {
                let said = close.map(|close| format!(" with {} {}", close.code, close.reason)).unwrap_or_default();
                lost(format!("the server closed the connection{}", self.clean(&said)))
            }
            // tungstenite answers the WebSocket's own pings.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => None,
        }
    }

    fn clean(&self, text: &str) -> String {
        self.credentials.clean(&hide(&self.login.token, text))
    }

    async fn text(&mut self, text: &str, received: ReceivedAt) -> Option<ReadEnd> {
        let frame = match socketio::parse(text) {
            Ok(frame) => frame,
            Err(fault) => {
                self.context.health().malformed(&fault);
                return None;
            }
        };
        match frame {
            Frame::Event { name, payload } => self.event(&name, &payload, received).await,
            Frame::Ping => self.send("3").await,
            Frame::Close => lost("the server ended the connection".to_owned()),
            Frame::Left => lost("the server left the namespace".to_owned()),
            Frame::Refused(reason) => Some(ReadEnd::SessionOver(self.clean(&reason))),
            Frame::Noise | Frame::Skipped => {
                self.context.health().ignored();
                None
            }
            Frame::Open { .. } | Frame::Pong | Frame::Joined => None,
        }
    }

    async fn event(&self, name: &str, payload: &str, received: ReceivedAt) -> Option<ReadEnd> {
        match name {
            "joined" | "success" => return None,
            "error" => {
                self.context.tell(FeedEventKind::Error, format!("the server reports: {}", self.clean(payload)));
                return None;
            }
            "warning" => {
                self.context.tell(FeedEventKind::Notice, self.clean(payload));
                return None;
            }
            // Somebody logged in with the same key, or the day is over.
            "logout" => return Some(ReadEnd::SessionOver(format!("logged out: {}", self.clean(payload)))),
            _ => {}
        }
        let decoded = self.decoder.event(name, payload, received);
        if let Some(fault) = decoded.fault {
            self.context.health().malformed(&fault);
        }
        for notice in decoded.notices {
            self.context.tell(FeedEventKind::Notice, notice);
        }
        for record in decoded.records {
            if !self.context.send(record).await {
                return Some(ReadEnd::Socket(ConnectionEnd::Stopped));
            }
        }
        None
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the arms beside it may go on")]
fn lost(reason: String) -> Option<ReadEnd> {
    Some(ReadEnd::Socket(ConnectionEnd::Lost(reason)))
}
