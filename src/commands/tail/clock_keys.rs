//! Keys in a terminal steer the replay: space, s and the arrows.

use std::io::{self, Read};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::commands::control_client::ControlToken;
use crate::commands::replay::{ClockClient, clock_line};
use crate::replay::change::Speed;

/// Keys that wait while the server answers; further ones are dropped.
const WAITING: usize = 16;

/// How long a server may take to show that it has a clock.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest interval that a key sets, ms.
const LONGEST_MS: f64 = 86_400_000.0;

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClockKey {
    PauseOrPlay,
    Step,
    StepBack,
    Faster,
    Slower,
}

/// The server's clock, if it replays something.
pub(super) async fn clock_of(url: &str, token: &ControlToken) -> Option<ClockClient> {
    let client = ClockClient::new(url, None, token.clone()).ok()?;
    let clock = tokio::time::timeout(PATIENCE, client.clock()).await.ok()?.ok()?;
    clock["epoch"].is_u64().then_some(client)
}

/// Does what the keys ask for, until standard input ends. Every answer is one line on standard error.
pub(super) async fn steer(client: &ClockClient) {
    eprintln!("space: pause or play; s or right: step; left: step back; up, down: faster, slower");
    let mut keys = read_keys();
    while let Some(key) = keys.recv().await {
        match act(client, key).await {
            Ok(clock) => eprintln!("{}", clock_line(&clock)),
            Err(error) => eprintln!("{error}"),
        }
    }
}

async fn act(client: &ClockClient, key: ClockKey) -> anyhow::Result<Value> {
    let clock = match key {
        ClockKey::Step | ClockKey::StepBack => Value::Null,
        _ => client.clock().await?,
    };
    client.change(&change(key, &clock)).await
}

fn change(key: ClockKey, clock: &Value) -> Value {
    match key {
        ClockKey::PauseOrPlay if clock["state"] == "playing" => json!({ "state": "paused" }),
        ClockKey::PauseOrPlay => json!({ "state": "playing" }),
        ClockKey::Step => json!({ "state": "paused", "step": 1 }),
        ClockKey::StepBack => json!({ "state": "paused", "step": -1 }),
        ClockKey::Faster => paced(clock, 2.0),
        ClockKey::Slower => paced(clock, 0.5),
    }
}

/// So many times as fast as now, within what the server takes. From `max` it becomes the recorded speed.
fn paced(clock: &Value, times: f64) -> Value {
    if let Some(interval_ms) = clock["interval_ms"].as_f64() {
        let microseconds = (interval_ms / times).clamp(0.01, LONGEST_MS) * 1000.0;
        return json!({ "interval": format!("{}us", microseconds.round()) });
    }
    let speed = clock["speed"].as_f64().map_or(1.0, |speed| speed * times);
    json!({ "speed": speed.clamp(Speed::LEAST, Speed::MOST) })
}

/// Reads standard input on a thread of its own, which ends with the process.
fn read_keys() -> mpsc::Receiver<ClockKey> {
    let (sender, keys) = mpsc::channel(WAITING);
    thread::spawn(move || {
        let (mut read, mut bytes) = (KeyReader::default(), [0; 64]);
        while let Ok(length @ 1..) = io::stdin().read(&mut bytes) {
            for key in bytes[..length].iter().filter_map(|&byte| read.key(byte)) {
                if matches!(sender.try_send(key), Err(mpsc::error::TrySendError::Closed(_))) {
                    return;
                }
            }
        }
    });
    keys
}

/// From bytes to keys. An arrow is `ESC [ A` to `D`, or with `O` in place of `[`.
#[derive(Default)]
enum KeyReader {
    #[default]
    Plain,
    Escape,
    Arrow,
}

impl KeyReader {
    fn key(&mut self, byte: u8) -> Option<ClockKey> {
        let before = std::mem::take(self);
        match (before, byte) {
            (_, 0x1b) => *self = Self::Escape,
            (Self::Escape, b'[' | b'O') => *self = Self::Arrow,
            (Self::Arrow, b'A') => return Some(ClockKey::Faster),
            (Self::Arrow, b'B') => return Some(ClockKey::Slower),
            (Self::Arrow, b'D') => return Some(ClockKey::StepBack),
            (Self::Plain, b' ') => return Some(ClockKey::PauseOrPlay),
            (Self::Plain, b's' | b'S') | (Self::Arrow, b'C') => return Some(ClockKey::Step),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_from_bytes_and_what_means_nothing_is_left_out() {
        use ClockKey::{Faster, PauseOrPlay, Slower, Step, StepBack};
        let mut reader = KeyReader::default();
        let keys: Vec<ClockKey> =
            b" s\x1b[A\x1b[B\x1bOC\x1b[Dx\x1b[3~q\x1b\x1b[A".iter().filter_map(|&b| reader.key(b)).collect();
        assert_eq!(keys, [PauseOrPlay, Step, Faster, Slower, Step, StepBack, Faster]);
    }

    #[test]
    fn a_key_changes_the_clock_from_where_it_is() {
        let clock = json!({ "state": "playing", "speed": 4, "interval_ms": null });
        assert_eq!(change(ClockKey::PauseOrPlay, &clock), json!({ "state": "paused" }));
        assert_eq!(change(ClockKey::PauseOrPlay, &json!({ "state": "ended" })), json!({ "state": "playing" }));
        assert_eq!(change(ClockKey::Faster, &clock), json!({ "speed": 8.0 }));
        assert_eq!(change(ClockKey::Slower, &clock), json!({ "speed": 2.0 }));
        assert_eq!(change(ClockKey::Slower, &json!({ "speed": 0.01 })), json!({ "speed": 0.01 }));
        assert_eq!(change(ClockKey::Slower, &json!({ "speed": "max" })), json!({ "speed": 1.0 }));
        assert_eq!(change(ClockKey::Faster, &json!({ "interval_ms": 1000 })), json!({ "interval": "500000us" }));
    }
}
