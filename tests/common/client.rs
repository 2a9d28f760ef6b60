//! A subscriber on any of the four subprotocols.

use std::collections::VecDeque;
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::dataset::Payload;
use super::protobuf::{Fields, bytes_field, number_field};
use super::server::Server;
use super::socket::{Frame, Socket};

pub const JSON: &str = "json.webpubsub.azure.v1";
pub const JSON_RELIABLE: &str = "json.reliable.webpubsub.azure.v1";
pub const PROTOBUF: &str = "protobuf.webpubsub.azure.v1";
pub const PROTOBUF_RELIABLE: &str = "protobuf.reliable.webpubsub.azure.v1";
pub const ALL: [&str; 4] = [JSON, JSON_RELIABLE, PROTOBUF, PROTOBUF_RELIABLE];
pub const RELIABLE: [&str; 2] = [JSON_RELIABLE, PROTOBUF_RELIABLE];
pub const PLAIN: [&str; 2] = [JSON, PROTOBUF];

/// The endpoint of the 2026 generation.
pub const CLIENT: &str = "/client/hubs/orderflow?access_token=some-key:1";
/// The hubs of the 2026 generation's endpoint.
pub const HUBS: [&str; 6] =
    ["classic", "state_gex", "state_greeks_zero", "state_greeks_one", "state_greeks", "orderflow"];

/// The endpoint of a hub, by the name of either generation of hubs.
pub fn hub_path(hub: &str) -> String {
    format!("/client/hubs/{hub}?access_token=some-key:1")
}

/// The endpoint of the 2025 generation.
pub const WS: &str = "/ws/orderflow?access_token=some-key:1";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    pub connection_id: String,
    pub user_id: String,
    pub token: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    pub id: u64,
    pub success: bool,
    /// Name and message.
    pub error: Option<(String, String)>,
}

impl Ack {
    pub fn error_name(&self) -> &str {
        self.error.as_ref().map_or("", |(name, _)| name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    pub group: String,
    pub sequence_id: Option<u64>,
    pub type_url: String,
    pub payload: Vec<u8>,
}

impl Data {
    pub fn payload(&self) -> Payload {
        Payload::read(&self.payload)
    }

    /// Which record of its ticker it is.
    pub fn index(&self) -> u64 {
        self.payload().index()
    }

    pub fn id(&self) -> u64 {
        self.sequence_id.expect("data of a reliable connection has a sequence id")
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Connected(Connected),
    Disconnected(String),
    Ack(Ack),
    Data(Data),
    Pong,
    Closed(Option<(u16, String)>),
    End,
    Reset,
}

/// How a recovery is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Before the upgrade, with this status and reason.
    Answer(u16, String),
    /// After the upgrade, with a close frame.
    Closed(Option<(u16, String)>),
}

impl Refused {
    /// Whether it says that there is no such session.
    pub fn is_final(&self) -> bool {
        *self == Self::Closed(Some((1008, "no such session to recover".to_owned())))
    }
}

/// What a client remembers when its socket is gone.
#[derive(Debug, Clone)]
pub struct Session {
    pub connected: Connected,
    pub subprotocol: String,
    pub address: SocketAddr,
    next_ack: u64,
}

impl Session {
    /// The same client before another server: one that a balancer has chosen, or this one after a restart.
    pub fn at(self, server: &Server) -> Self {
        Self { address: server.address, ..self }
    }

    /// Comes back, as the SDKs do, and goes on counting ack ids.
    pub fn recover(&self) -> Result<Client, Refused> {
        let token = self.connected.token.as_deref().expect("a reliable connection");
        let mut client = recover(self.address, &self.subprotocol, &self.connected.connection_id, token)?;
        client.session.next_ack = self.next_ack;
        Ok(client)
    }
}

#[derive(Debug)]
pub struct Client {
    pub socket: Socket,
    pub session: Session,
    is_json: bool,
    waiting: VecDeque<Said>,
}

impl Client {
    pub fn open(server: &Server, subprotocol: &str) -> Self {
        Self::open_at(server, CLIENT, subprotocol)
    }

    pub fn open_hub(server: &Server, hub: &str, subprotocol: &str) -> Self {
        Self::open_at(server, &hub_path(hub), subprotocol)
    }

    pub fn open_at(server: &Server, path: &str, subprotocol: &str) -> Self {
        let headers = [("Sec-WebSocket-Protocol", subprotocol)];
        let socket = Socket::open(server.address, path, &headers).expect("an upgrade");
        Self::on(socket, server.address, subprotocol)
    }

    /// One whose kernel buffer is as small as it can be.
    pub fn open_small(server: &Server, subprotocol: &str) -> Self {
        let headers = [("Sec-WebSocket-Protocol", subprotocol)];
        let socket = Socket::open_small(server.address, CLIENT, &headers).expect("an upgrade");
        Self::on(socket, server.address, subprotocol)
    }

    /// Takes over an upgraded socket, whose first message must be `connected`.
    pub fn on(socket: Socket, address: SocketAddr, subprotocol: &str) -> Self {
        Self::try_on(socket, address, subprotocol)
            .unwrap_or_else(|other| panic!("expected connected as the first message, got {other:?}"))
    }

    /// The same; the error is another first message.
    fn try_on(socket: Socket, address: SocketAddr, subprotocol: &str) -> Result<Self, Said> {
        let connected = Connected { connection_id: String::new(), user_id: String::new(), token: None };
        let session = Session { connected, subprotocol: subprotocol.to_owned(), address, next_ack: 1 };
        let is_json = subprotocol.starts_with("json");
        let mut client = Self { socket, session, is_json, waiting: VecDeque::new() };
        client.session.connected = match client.said() {
            Said::Connected(connected) => connected,
            other => return Err(other),
        };
        Ok(client)
    }

    /// What the server says next; its WebSocket pings are left out.
    pub fn said(&mut self) -> Said {
        loop {
            return match self.socket.frame() {
                Frame::Text(text) if self.is_json => read_json(&text),
                Frame::Binary(bytes) if !self.is_json => read_protobuf(&bytes),
                Frame::Ping(_) => continue,
                Frame::Close(close) => Said::Closed(close),
                Frame::End => Said::End,
                Frame::Reset => Said::Reset,
                other => panic!("{} does not say {other:?}", self.session.subprotocol),
            };
        }
    }

    /// The next data message; acks and pongs before it are dropped.
    pub fn data(&mut self) -> Data {
        loop {
            match self.waiting.pop_front().unwrap_or_else(|| self.said()) {
                Said::Data(data) => return data,
                Said::Ack(_) | Said::Pong => {}
                Said::Connected(connected) => self.renew(connected),
                other => panic!("expected data, got {other:?}"),
            }
        }
    }

    pub fn take(&mut self, count: usize) -> Vec<Data> {
        (0..count).map(|_| self.data()).collect()
    }

    /// Everything up to the end, which comes last. A close is answered.
    pub fn rest(&mut self) -> Vec<Said> {
        let mut rest = Vec::from(std::mem::take(&mut self.waiting));
        while !matches!(rest.last(), Some(Said::End | Said::Reset)) {
            let said = self.said();
            if let Said::Closed(close) = &said {
                let code = close.as_ref().map_or(1000, |(code, _)| *code);
                self.send_close(code);
            }
            rest.push(said);
        }
        rest
    }

    /// The ack with this id; data before it is kept for [`Client::data`].
    pub fn ack(&mut self, id: u64) -> Ack {
        loop {
            match self.said() {
                Said::Ack(ack) => {
                    assert_eq!(ack.id, id, "acks come in the order of the requests");
                    return ack;
                }
                data @ Said::Data(_) => self.waiting.push_back(data),
                Said::Connected(connected) => self.renew(connected),
                other => panic!("expected an ack, got {other:?}"),
            }
        }
    }

    /// Takes over another token, as the SDKs do. A server without a session key never sends one.
    fn renew(&mut self, connected: Connected) {
        assert_ne!(connected.token, self.session.connected.token, "a token that the client has already");
        self.session.connected = connected;
    }

    fn fresh_ack(&mut self) -> u64 {
        self.session.next_ack += 1;
        self.session.next_ack - 1
    }

    pub fn join(&mut self, group: &str) -> Ack {
        let id = self.fresh_ack();
        self.send_join(group, Some(id));
        self.ack(id)
    }

    /// Joins the groups of these tickers, which must succeed.
    pub fn joined(mut self, tickers: &[&str]) -> Self {
        for ticker in tickers {
            let ack = self.join(&super::dataset::group(ticker));
            assert_eq!((ack.success, ack.error), (true, None));
        }
        self
    }

    pub fn leave(&mut self, group: &str) -> Ack {
        let id = self.fresh_ack();
        self.send_leave(group, Some(id));
        self.ack(id)
    }

    pub fn send_join(&mut self, group: &str, ack: Option<u64>) {
        self.send_membership("joinGroup", 6, group, ack);
    }

    pub fn send_leave(&mut self, group: &str, ack: Option<u64>) {
        self.send_membership("leaveGroup", 7, group, ack);
    }

    fn send_membership(&mut self, kind: &str, field: u64, group: &str, ack: Option<u64>) {
        let json = json!({ "type": kind, "group": group });
        self.request(json, field, ack, 2, bytes_field(1, group.as_bytes()));
    }

    pub fn send_to_group(&mut self, group: &str, ack: Option<u64>) {
        let json = json!({ "type": "sendToGroup", "group": group, "dataType": "text", "data": "x" });
        let message = [bytes_field(1, group.as_bytes()), bytes_field(3, &bytes_field(1, b"x"))].concat();
        self.request(json, 1, ack, 2, message);
    }

    pub fn send_event(&mut self, ack: Option<u64>) {
        let json = json!({ "type": "event", "event": "e", "dataType": "text", "data": "x" });
        let message = [bytes_field(1, b"e"), bytes_field(2, &bytes_field(1, b"x"))].concat();
        self.request(json, 5, ack, 3, message);
    }

    /// Confirms a sequence id and waits until the server has read it.
    pub fn confirm(&mut self, sequence_id: u64) {
        let json = json!({ "type": "sequenceAck", "sequenceId": sequence_id });
        self.request(json, 8, None, 0, number_field(1, sequence_id));
        for said in self.ping() {
            self.waiting.push_back(Said::Data(said));
        }
    }

    /// Sends an application ping; returns the data that came before the pong.
    pub fn ping(&mut self) -> Vec<Data> {
        self.request(json!({ "type": "ping" }), 9, None, 0, Vec::new());
        let mut before = Vec::new();
        loop {
            match self.said() {
                Said::Pong => return before,
                Said::Data(data) => before.push(data),
                other => panic!("expected a pong, got {other:?}"),
            }
        }
    }

    fn request(&mut self, mut json: Value, field: u64, ack: Option<u64>, ack_field: u64, mut message: Vec<u8>) {
        if self.is_json {
            if let Some(ack) = ack {
                json["ackId"] = ack.into();
            }
            self.socket.send_text(&json.to_string());
        } else {
            if let Some(ack) = ack {
                message.extend(number_field(ack_field, ack));
            }
            self.socket.send_binary(&bytes_field(field, &message));
        }
    }

    /// Sends a close frame with this code.
    pub fn send_close(&mut self, code: u16) {
        self.socket.send(0x88, &code.to_be_bytes());
    }

    pub fn connected(&self) -> &Connected {
        &self.session.connected
    }

    /// The socket vanishes with a reset; the session remains.
    pub fn reset(self) -> Session {
        self.socket.reset();
        self.session
    }
}

/// Asks for a session, as the SDKs do.
pub fn recover(address: SocketAddr, subprotocol: &str, id: &str, token: &str) -> Result<Client, Refused> {
    recover_at(CLIENT, address, subprotocol, id, token)
}

/// The same over another URL; a good client uses the one that it had before.
pub fn recover_at(url: &str, address: SocketAddr, subprotocol: &str, id: &str, token: &str) -> Result<Client, Refused> {
    recover_as("a test", url, address, (subprotocol, id, token))
}

/// The same, by a client that calls itself by this name.
pub fn recover_as(
    agent: &str,
    url: &str,
    address: SocketAddr,
    (subprotocol, id, token): (&str, &str, &str),
) -> Result<Client, Refused> {
    let separator = if url.contains('?') { '&' } else { '?' };
    let path = format!("{url}{separator}awps_connection_id={id}&awps_reconnection_token={token}");
    let headers = [("Sec-WebSocket-Protocol", subprotocol), ("User-Agent", agent)];
    let socket =
        Socket::open(address, &path, &headers).map_err(|answer| Refused::Answer(answer.status, answer.error()))?;
    Client::try_on(socket, address, subprotocol).map_err(|said| match said {
        Said::Closed(close) => Refused::Closed(close),
        other => panic!("expected connected or a close, got {other:?}"),
    })
}

fn read_json(text: &str) -> Said {
    let message: Value = serde_json::from_str(text).expect("JSON");
    let text = |key: &str| message[key].as_str().unwrap_or_else(|| panic!("{key} in {message}")).to_owned();
    match (message["type"].as_str().unwrap(), message["event"].as_str()) {
        ("system", Some("connected")) => Said::Connected(Connected {
            connection_id: text("connectionId"),
            user_id: text("userId"),
            token: message["reconnectionToken"].as_str().map(str::to_owned),
        }),
        ("system", Some("disconnected")) => Said::Disconnected(text("message")),
        ("ack", None) => {
            let error = &message["error"];
            let word = |key: &str| error[key].as_str().expect("name and message").to_owned();
            let error = (!error.is_null()).then(|| (word("name"), word("message")));
            let id = message["ackId"].as_u64().unwrap();
            Said::Ack(Ack { id, success: message["success"].as_bool().unwrap(), error })
        }
        ("message", None) => {
            assert_eq!((text("from"), text("dataType")), ("group".to_owned(), "protobuf".to_owned()));
            let any = Fields::read(&STANDARD.decode(text("data")).expect("standard base64"));
            let sequence_id = message.get("sequenceId").map(|id| id.as_u64().unwrap());
            Said::Data(data(text("group"), sequence_id, &any))
        }
        ("pong", None) => Said::Pong,
        _ => panic!("expected a downstream message, got {message}"),
    }
}

fn read_protobuf(bytes: &[u8]) -> Said {
    let message = Fields::read(bytes);
    let [(kind, message)] = message.0.as_slice() else { panic!("expected one field, got {message:?}") };
    let message = message.message();
    match kind {
        1 => {
            let error = message.get(3).map(|error| (error.message().text(1), error.message().text(2)));
            Said::Ack(Ack { id: message.number(1), success: message.number(2) == 1, error })
        }
        2 => {
            assert_eq!(message.text(1), "group", "from");
            let any = message.expect(3).message().expect(3).message();
            Said::Data(data(message.text(2), message.get(4).map(super::protobuf::Value::number), &any))
        }
        3 => match message.0.as_slice() {
            [(1, connected)] => {
                let connected = connected.message();
                Said::Connected(Connected {
                    connection_id: connected.text(1),
                    user_id: connected.text(2),
                    token: Some(connected.text(3)).filter(|token| !token.is_empty()),
                })
            }
            [(2, disconnected)] => Said::Disconnected(disconnected.message().text(2)),
            other => panic!("expected connected or disconnected, got {other:?}"),
        },
        4 => Said::Pong,
        other => panic!("expected a downstream message, got field {other}"),
    }
}

fn data(group: String, sequence_id: Option<u64>, any: &Fields) -> Data {
    Data { group, sequence_id, type_url: any.text(1), payload: any.expect(2).bytes().to_vec() }
}
