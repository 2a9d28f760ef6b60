//! A client of the JSON streams, and tokens signed by hand.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::http::Response;
use super::server::{Server, program, run};
use super::socket::{Frame, Socket};

pub const SECRET: &str = "a secret of the tests, 32 bytes or more";

/// What a client heard.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    Message(Value),
    Closed(Option<(u16, String)>),
    End,
    Reset,
}

pub struct StreamClient {
    pub socket: Socket,
}

impl StreamClient {
    /// Connects to a server without a secret.
    pub fn open(server: &Server) -> Self {
        Self::at(server, "/ws").unwrap()
    }

    pub fn at(server: &Server, path: &str) -> Result<Self, Response> {
        Socket::open(server.address, path, &[]).map(|socket| Self { socket })
    }

    pub fn open_small(server: &Server) -> Self {
        Self { socket: Socket::open_small(server.address, "/ws", &[]).unwrap() }
    }

    pub fn send(&mut self, message: &Value) {
        self.socket.send_text(&message.to_string());
    }

    /// The next thing heard, pings answered.
    pub fn heard(&mut self) -> Heard {
        loop {
            match self.socket.frame() {
                Frame::Text(text) => {
                    return Heard::Message(serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}")));
                }
                Frame::Ping(payload) => self.socket.send(0x8a, &payload),
                Frame::Close(close) => return Heard::Closed(close),
                Frame::End => return Heard::End,
                Frame::Reset => return Heard::Reset,
                other => panic!("expected text, got {other:?}"),
            }
        }
    }

    pub fn message(&mut self) -> Value {
        match self.heard() {
            Heard::Message(message) => message,
            other => panic!("expected a message, got {other:?}"),
        }
    }

    /// The next message of a type; others are passed over.
    pub fn next(&mut self, kind: &str) -> Value {
        loop {
            let message = self.message();
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// Sends a request and waits for `subscribed` or an error.
    pub fn ask(&mut self, request: &Value) -> Value {
        self.send(request);
        loop {
            let message = self.message();
            if message["type"] == "subscribed" || message["type"] == "error" {
                return message;
            }
        }
    }

    pub fn subscribed(mut self, channels: &[&str]) -> Self {
        let answer = self.ask(&json!({"type": "subscribe", "channels": channels}));
        assert_eq!(answer["type"], "subscribed", "{answer}");
        self
    }

    /// Everything up to the answer to a ping.
    pub fn until_pong(&mut self) -> Vec<Value> {
        self.send(&json!({"type": "ping"}));
        let mut before = Vec::new();
        loop {
            let message = self.message();
            if message == json!({"type": "pong"}) {
                return before;
            }
            before.push(message);
        }
    }

    /// Everything until the connection is over.
    pub fn rest(&mut self) -> Vec<Heard> {
        let mut heard = Vec::new();
        loop {
            let next = self.heard();
            let over = matches!(next, Heard::End | Heard::Reset);
            heard.push(next);
            if over {
                return heard;
            }
        }
    }
}

/// `flowcast token`.
pub fn token(args: &[&str]) -> String {
    let output = run(program(&[&["token", "--secret", SECRET, "--sub", "test"], args].concat()).env_clear());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The token of one who may publish: made once, since some tests publish thousands of times.
pub fn publisher() -> String {
    static TOKEN: OnceLock<String> = OnceLock::new();
    TOKEN.get_or_init(|| token(&["--role", "publisher"])).clone()
}

/// Any claims, signed with any algorithm of HMAC, by another library than the server's.
pub fn signed(claims: &Value, algorithm: &str, secret: &str) -> String {
    signed_with(&json!({"alg": algorithm, "typ": "JWT"}), claims, secret)
}

/// The same with any header.
pub fn signed_with(header: &Value, claims: &Value, secret: &str) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let content = format!("{}.{}", part(header), part(claims));
    let signature = match header["alg"].as_str() {
        Some("HS256") => hmac_sha256(secret.as_bytes(), content.as_bytes()).to_vec(),
        _ => Vec::new(),
    };
    format!("{content}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn hmac_sha256(key: &[u8], content: &[u8]) -> [u8; 32] {
    use hmac::Mac;
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
    mac.update(content);
    mac.finalize().into_bytes().into()
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// `POST /api/publish`.
pub fn publish(server: &Server, token: &str, body: &str) -> Response {
    post(server, "/api/publish", &[("Authorization", &format!("Bearer {token}"))], body)
}

pub fn post(server: &Server, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
    super::http::request_with(server.address, "POST", path, headers, body)
}
