//! The JSON streams of the fake: `/ws`, `POST /api/publish`, and a producer of its own.

use std::fmt::Write as _;
use std::io::{BufReader, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::handshake::derive_accept_key;

use super::http::read_frame;
use super::{Inner, Tamper, bytes, now_ns};

/// Between two messages of the producer.
const PACE: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
pub struct State {
    clients: Vec<Client>,
    upgrades: usize,
}

#[derive(Debug)]
struct Client {
    number: usize,
    socket: TcpStream,
    channels: Vec<String>,
    held: Vec<u8>,
    has_policy: bool,
}

/// Publishes until the number at which the producer ends; it goes on without clients.
pub fn produce(server: &Inner) {
    let Some(last) = server.behaviour.produces else { return };
    for seq in 1..=last {
        thread::sleep(PACE);
        if server.stop.load(Relaxed) {
            return;
        }
        let ahead_ns = if server.behaviour.has_foreign_clock { 3_600_000_000_000 } else { 0 };
        send(server, "lines", &format!(r#"{{"seq":{seq},"sent_ns":{}}}"#, now_ns() + ahead_ns));
    }
}

/// Takes lines; returns status and body.
pub fn publish(server: &Inner, authorization: Option<&str>, body: &[u8]) -> (&'static str, String) {
    if let Some(token) = server.behaviour.token
        && authorization != Some(&format!("Bearer {token}"))
    {
        return ("401 Unauthorized", r#"{"error":"missing token"}"#.to_owned());
    }
    let mut accepted = 0;
    for line in std::str::from_utf8(body).unwrap().lines() {
        // Cut out by hand: the payload must stay as it is, byte for byte.
        let (head, payload) = line.split_once(r#","data":"#).unwrap();
        let channel: Value = serde_json::from_str(&format!("{head}}}")).unwrap();
        let payload = payload.strip_suffix('}').unwrap();
        let seq = serde_json::from_str::<Value>(payload).unwrap()["seq"].as_u64().unwrap();
        if server.behaviour.full_at.is_some_and(|full| seq >= full) {
            return ("503 Service Unavailable", r#"{"error":"full"}"#.to_owned());
        }
        send(server, channel["channel"].as_str().unwrap(), payload);
        accepted += 1;
    }
    ("200 OK", json!({ "accepted": accepted }).to_string())
}

/// The channel's own number of a message.
fn channel_seq(seq: u64) -> u64 {
    seq + 1_000
}

fn envelope(channel: &str, payload: &str, seq: u64) -> Vec<u8> {
    let seq = channel_seq(seq);
    bytes::text(&format!(
        r#"{{"type":"message","channel":"{channel}","epoch":"e","seq":{seq},"payload":{payload},"timestamp":"2026-11-21T12:00:00.000Z"}}"#
    ))
}

fn send(server: &Inner, channel: &str, payload: &str) {
    let seq = serde_json::from_str::<Value>(payload).unwrap()["seq"].as_u64().unwrap();
    if server.behaviour.unsent.contains(&seq) {
        return;
    }
    let frame = envelope(channel, payload, seq);
    let mut entries = Vec::new();
    let mut state = server.streams.lock().unwrap();
    for client in state.clients.iter_mut().filter(|client| client.channels.iter().any(|name| name == channel)) {
        let (first, last) = server.behaviour.of_policy;
        if client.has_policy && !(first..=last).contains(&seq) {
            continue;
        }
        let tamper = server.behaviour.tamper.filter(|&(number, which, _)| number == client.number && which == seq);
        let ordered = server.behaviour.orders.iter().find(|one| one.client == client.number && one.publication == seq);
        let tamper = tamper.map(|(.., tamper)| tamper).or(ordered.and_then(|one| one.does));
        if let Some(kind) = ordered.and_then(|one| one.kind) {
            let user = xxhash_rust::xxh3::xxh3_64(format!("swarm-{}", client.number).as_bytes());
            entries.push(bytes::stream_order(kind, tamper, user, channel, channel_seq(seq)));
        }
        let mut out = match tamper {
            // Channels have neither tickers nor kinds.
            None | Some(Tamper::Misplace | Tamper::Mistype | Tamper::Shorten(_) | Tamper::Close(_)) => frame.clone(),
            Some(Tamper::Flip(bit)) => bytes::flipped(&frame, bit),
            Some(Tamper::Drop) => continue,
            Some(Tamper::Duplicate) => [&frame[..], &frame].concat(),
            Some(Tamper::Swap) => {
                client.held.clone_from(&frame);
                continue;
            }
            Some(Tamper::Forge) => envelope(channel, &payload.replacen('{', r#"{"forged":1,"#, 1), seq),
            Some(Tamper::Break) => envelope(channel, r#""no number""#, seq),
            Some(Tamper::Cut) => {
                let reason = [&1008_u16.to_be_bytes()[..], b"policy violation: slow consumer"].concat();
                let _ = client.socket.write_all(&bytes::frame(0x88, &reason));
                let _ = client.socket.shutdown(Shutdown::Write);
                client.channels.clear();
                continue;
            }
        };
        out.append(&mut client.held);
        // A client that is gone is noticed by its reader.
        let _ = client.socket.write_all(&out);
    }
    drop(state);
    if !entries.is_empty() {
        server.order(&mut server.state.lock().unwrap(), &entries.join(","));
        server.ticked.notify_all();
    }
}

/// The upgrade, and what a client says after it.
pub fn socket_of(server: &Inner, mut reader: BufReader<TcpStream>, path: &str, key: &str) {
    let mut socket = reader.get_ref().try_clone().unwrap();
    if let Some(token) = server.behaviour.token
        && !path.ends_with(&format!("token={token}"))
    {
        let _ = socket.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 5\r\n\r\ntoken");
        return;
    }
    let mut head = String::from("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    write!(head, "Sec-WebSocket-Accept: {}\r\n\r\n", derive_accept_key(key.as_bytes())).unwrap();
    let number = {
        let mut state = server.streams.lock().unwrap();
        socket.write_all(head.as_bytes()).unwrap();
        let number = state.upgrades;
        state.upgrades += 1;
        state.clients.push(Client { number, socket, channels: Vec::new(), held: Vec::new(), has_policy: false });
        number
    };
    while let Some((opcode, payload)) = read_frame(&mut reader) {
        let mut state = server.streams.lock().unwrap();
        let Some(client) = state.clients.iter_mut().find(|client| client.number == number) else { return };
        if opcode == 0x8 {
            client.channels.clear();
            return;
        }
        let request: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(request["type"], "subscribe");
        client.has_policy = request["policy"].is_string();
        let asked = request["channels"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned());
        client.channels.extend(asked.filter(|name| server.behaviour.unsubscribed != Some(name)));
        let answer = json!({"type": "subscribed", "channels": client.channels}).to_string();
        let _ = client.socket.write_all(&bytes::text(&answer));
    }
}
