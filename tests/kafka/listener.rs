//! A client of `/ws` that listens to topics.

use serde_json::{Value, json};

use crate::common::server::Server;
use crate::common::socket::{Frame, Socket};

pub struct Listener {
    socket: Socket,
}

/// A message [`crate::topic::Writer::count`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Numbered {
    pub partition: u64,
    pub number: u64,
}

impl Listener {
    pub fn new(server: &Server, channels: &[&str]) -> Self {
        Self::on(Socket::open(server.address, "/ws", &[]).expect("an upgrade"), channels)
    }

    /// One whose kernel buffer is as small as it can be.
    pub fn small(server: &Server, channels: &[&str]) -> Self {
        Self::on(Socket::open_small(server.address, "/ws", &[]).expect("an upgrade"), channels)
    }

    fn on(mut socket: Socket, channels: &[&str]) -> Self {
        socket.send_text(&json!({"type": "subscribe", "channels": channels}).to_string());
        let mut listener = Self { socket };
        while listener.hear()["type"] != "subscribed" {}
        listener
    }

    /// The next message of any type.
    pub fn hear(&mut self) -> Value {
        serde_json::from_str(&self.hear_text()).expect("JSON")
    }

    /// The next message of any type, to the letter.
    pub fn hear_text(&mut self) -> String {
        loop {
            match self.socket.frame() {
                Frame::Text(text) => return text,
                Frame::Ping(_) => {}
                other => panic!("expected a message, got {other:?}"),
            }
        }
    }

    /// The next `count` numbered messages.
    pub fn take(&mut self, count: usize) -> Vec<Numbered> {
        (0..count).map(|_| Numbered::of(&self.hear())).collect()
    }
}

impl Numbered {
    pub fn of(message: &Value) -> Self {
        assert_eq!(message["type"], "message", "{message}");
        let number = |key: &str| message["payload"][key].as_u64().unwrap_or_else(|| panic!("{key} in {message}"));
        Self { partition: number("partition"), number: number("number") }
    }
}

/// The numbers of each partition, in the order they were heard.
pub fn by_partition(heard: &[Numbered], partitions: u64) -> Vec<Vec<u64>> {
    let of = |partition| heard.iter().filter(|one| one.partition == partition).map(|one| one.number).collect();
    (0..partitions).map(of).collect()
}

/// Every partition has its numbers of `numbers`, each once and in order.
pub fn assert_complete(heard: &[Numbered], partitions: u64, numbers: std::ops::Range<u64>) {
    for (partition, heard) in by_partition(heard, partitions).into_iter().enumerate() {
        let expected: Vec<u64> = numbers.clone().filter(|number| number % partitions == partition as u64).collect();
        assert_eq!(heard, expected, "partition {partition}");
    }
}
