//! A reader of `/live/events`, which puts the snapshot together from its patches.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::PATIENCE;
use super::http::{Response, head};
use super::protobuf::bytes_field;

pub struct LiveEvents {
    stream: BufReader<TcpStream>,
    /// What came and is no whole event yet.
    text: String,
    /// The server now.
    pub snapshot: Value,
}

impl LiveEvents {
    pub fn open(address: SocketAddr) -> Self {
        Self::open_with(address, &[]).unwrap_or_else(|refused| panic!("expected events, got {refused:?}"))
    }

    /// With more headers; the error is what was answered instead of events.
    pub fn open_with(address: SocketAddr, headers: &[(&str, &str)]) -> Result<Self, Response> {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(head(address, "GET", "/live/events", headers, "").as_bytes()).unwrap();
        let mut stream = BufReader::new(stream);
        let mut answer = String::new();
        while !answer.ends_with("\r\n\r\n") {
            assert!(stream.read_line(&mut answer).unwrap() > 0, "expected an answer, got {answer:?}");
        }
        let mut response = Response::from_head(answer.trim_end());
        if response.status != 200 {
            let length = response.header("content-length").unwrap().parse().unwrap();
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            response.body = String::from_utf8(body).unwrap();
            return Err(response);
        }
        assert_eq!(response.header("content-type"), Some("text/event-stream"));
        Ok(Self { stream, text: String::new(), snapshot: Value::Null })
    }

    /// The next event's name and data; the snapshot is as it says then.
    pub fn event(&mut self) -> (String, Value) {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                let told = field("event:").map(|name| (name.to_owned(), field("data:").unwrap_or("null").to_owned()));
                self.text = rest.to_owned();
                let Some((name, data)) = told else { continue };
                let data: Value = serde_json::from_str(&data).unwrap();
                match name.as_str() {
                    "snapshot" => self.snapshot = data.clone(),
                    "patch" => merge(&mut self.snapshot, &data),
                    other => panic!("no event is called {other}"),
                }
                return (name, data);
            }
            let mut size = String::new();
            assert!(self.stream.read_line(&mut size).unwrap() > 0, "the events ended");
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            self.stream.read_exact(&mut chunk).unwrap();
            self.text.push_str(std::str::from_utf8(&chunk[..size]).unwrap());
        }
    }

    /// Reads on until the snapshot says what is wanted.
    pub fn until<T>(&mut self, what: &str, ask: impl Fn(&Value) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.event();
            if let Some(found) = ask(&self.snapshot) {
                return found;
            }
            assert!(Instant::now() < deadline, "waited in vain until {what}; the snapshot is {}", self.snapshot);
        }
    }
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Map::new().into();
    }
    let object = target.as_object_mut().unwrap();
    for (key, value) in patch {
        if value.is_null() {
            object.remove(key);
        } else {
            merge(object.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// A payload in an `Any` in base64: `data` of a JSON client's message.
pub fn any(type_url: &str, payload: &[u8]) -> String {
    STANDARD.encode([bytes_field(1, type_url.as_bytes()), bytes_field(2, payload)].concat())
}
