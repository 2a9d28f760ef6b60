//! The swarm's own publisher: numbered messages at a steady rate over `POST /api/publish`.
//!
//! ```text
//! schedule ─▶ all messages due ─▶ one POST ─▶ accepted ─▶ their ticks to all workers ─▶ the next due
//! ```
//!
//! One thread and one request at a time, so numbers reach the server in order. A message's time is
//! when it was *due*: a publisher that is held up sends several in one request, each with its own time,
//! and their wait counts as latency. What was not accepted whole ends the run: what clients should have
//! received would be a guess.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

use super::tell;
use crate::clock::{SECOND, now_ns};
use crate::http::{Http, HttpError};
use crate::ledger::follow::{Event, Status};
use crate::ledger::{Publication, Tick};
use crate::verify::slot::LedgerTimes;

/// The smallest payload: number, time and the names of both, each number as long as it may get.
pub const MIN_BYTES: usize = 80;

/// The largest.
pub const MAX_BYTES: usize = 256 * 1024;

/// The most bytes in one request: what is due beyond them goes with the next one.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// The longest sleep: a publisher that is told to end does so in this time.
const NAP: Duration = Duration::from_millis(20);

/// What to publish, and where.
#[derive(Clone, Debug)]
pub struct Publishing {
    /// `…/api/publish`
    pub url: String,
    /// With the publisher's token.
    pub http: Http,
    /// The topics, in the order of the plan's groups.
    pub channels: Vec<String>,
    /// Messages per second to each of them.
    pub rate: u32,
    /// Bytes of each payload.
    pub bytes: usize,
}

/// A publisher at work.
#[derive(Debug)]
pub struct Publisher {
    /// How far it is; its error ends the run.
    pub status: Arc<Status>,
    thread: JoinHandle<()>,
}

#[derive(Deserialize)]
struct PublishAnswer {
    accepted: u64,
}

/// Why publishing ended.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error("publishing ended: {0}")]
    Http(#[from] HttpError),
    #[error("publishing ended: of {sent} messages the server accepted {accepted}")]
    Partly { sent: u64, accepted: u64 },
}

impl Publisher {
    /// Starts to publish; workers behind `sinks` hear of every message that was accepted.
    pub fn start(publishing: Publishing, sinks: Vec<Sender<Event>>) -> std::io::Result<Self> {
        let status = Arc::new(Status::default());
        let of_thread = Arc::clone(&status);
        let thread = thread::Builder::new().name("publisher".to_owned()).spawn(move || {
            if let Err(error) = publishing.run(&of_thread, &sinks) {
                of_thread.set_error(error.to_string());
            }
        })?;
        Ok(Self { status, thread })
    }

    /// Ends it; returns how far it came once the last request has been answered.
    pub fn stop(self) -> Arc<Status> {
        self.status.stop();
        // It does not panic, and a request is bounded in time.
        let _ = self.thread.join();
        self.status
    }
}

impl Publishing {
    fn run(&self, status: &Status, sinks: &[Sender<Event>]) -> Result<(), PublishError> {
        let start_ns = now_ns();
        let due_ns = |number: u64| start_ns + (number - 1).saturating_mul(SECOND) / u64::from(self.rate.max(1));
        let mut next = 1;
        let (mut body, mut ticks) = (String::new(), Vec::new());
        while !status.is_stopped() {
            let now = now_ns();
            if due_ns(next) > now {
                thread::sleep(Duration::from_nanos(due_ns(next) - now).min(NAP));
                continue;
            }
            body.clear();
            while due_ns(next) <= now && body.len() < MAX_BODY_BYTES {
                ticks.push(self.append(next, due_ns(next), now, &mut body));
                next += 1;
            }
            let sent = (ticks.len() * self.channels.len()) as u64;
            let PublishAnswer { accepted } = self.http.post_lines(&self.url, &body)?;
            if accepted != sent {
                return Err(PublishError::Partly { sent, accepted });
            }
            status.ticks.fetch_add(ticks.len() as u64, Relaxed);
            status.publications.fetch_add(sent, Relaxed);
            for tick in ticks.drain(..) {
                let seq = tick.seq;
                tell(sinks, &Event::Tick(Arc::new(tick)));
                // After the send: who sees this position finds the tick in its channel.
                status.seq.store(seq, Release);
            }
        }
        Ok(())
    }

    /// Appends message `seq` for every channel, one line each.
    fn append(&self, seq: u64, due_ns: u64, now: u64, body: &mut String) -> Tick {
        let payload = payload(seq, due_ns, self.bytes);
        let hash = Some(xxh3_64(payload.as_bytes()));
        let mut publications = Vec::with_capacity(self.channels.len());
        for (group, channel) in (0..).zip(&self.channels) {
            let channel = serde_json::Value::from(channel.as_str());
            // Writing to a string cannot fail.
            let _ = writeln!(body, r#"{{"channel":{channel},"data":{payload}}}"#);
            let record_timestamp = seq.cast_signed();
            publications.push(Publication { group, sequence_id: seq, record_timestamp, hashes: [hash; 2] });
        }
        // Sent, at the earliest, now: whoever was subscribed by then must receive it.
        let times = LedgerTimes { tick: seq, scheduled_ns: due_ns, published_ns: now, ..LedgerTimes::default() };
        Tick { seq, times, publications, heard_ns: now, opens: None, orders: Vec::new() }
    }
}

/// A payload of exactly `bytes` bytes; no two of a run are the same.
fn payload(seq: u64, due_ns: u64, bytes: usize) -> String {
    let mut payload = format!(r#"{{"seq":{seq},"sent_ns":{due_ns},"pad":""#);
    let (room, noise) = (bytes.saturating_sub(2), xxh3_64(&seq.to_le_bytes()));
    while payload.len() < room {
        let _ = write!(payload, "{noise:016x}");
    }
    payload.truncate(room);
    payload.push_str("\"}");
    payload
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::streams::numbered;

    #[test]
    fn a_payload_has_its_number_its_time_and_its_size() {
        for bytes in [MIN_BYTES, 300, 4_096] {
            let text = payload(u64::MAX, u64::MAX, bytes);
            assert_eq!(text.len(), bytes);
            let numbered = numbered(&text).unwrap();
            assert_eq!((numbered.seq, numbered.sent_ns), (u64::MAX, u64::MAX));
        }
        assert_ne!(payload(1, 5, 300), payload(2, 5, 300));
    }
}
