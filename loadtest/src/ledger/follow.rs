//! Follows the tick ledger as server-sent events and hands every tick to all workers.
//!
//! A thread of its own reads the stream; it resumes after the last tick it has seen when the stream
//! breaks, and reports positions that are gone from the server's ring as a gap. It never ends a run:
//! it may sit in a read of a silent server, so nobody waits for it without a deadline.

use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Sender, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::epochs::Epochs;
use super::offset::Offset;
use super::{Now, Scope, Tick, parse_tick};
use crate::http::Http;

/// The longest line the ledger may send: a tick of some 20,000 groups.
const MAX_LINE_BYTES: u64 = 8 * 1024 * 1024;

/// How long the first event may take.
const FIRST_EVENT: Duration = Duration::from_secs(10);

/// Pause before the stream is opened again.
const REOPEN_AFTER: Duration = Duration::from_millis(200);

/// What workers hear from the ledger.
#[derive(Clone, Debug)]
pub enum Event {
    /// The next tick.
    Tick(Arc<Tick>),
    /// Faults that were ordered, from a ledger that is read for these only.
    Orders(Arc<Tick>),
    /// Ticks were lost before the next one.
    Gap,
}

/// How far the ledger has been read.
#[derive(Debug, Default)]
pub struct Status {
    /// Position of the last tick.
    pub seq: AtomicU64,
    /// Ticks read.
    pub ticks: AtomicU64,
    /// Publications in the run's groups.
    pub publications: AtomicU64,
    /// Ticks that were gone before they could be read.
    pub lost: AtomicU64,
    stop: AtomicBool,
    error: Mutex<Option<String>>,
    epochs: Mutex<Epochs>,
}

impl Status {
    /// Ends the reading thread at its next event.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Why the stream broke last, if it did.
    pub fn error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The epochs so far.
    pub fn epochs(&self) -> Epochs {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the thread was told to end.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Notes why the stream broke.
    pub fn set_error(&self, error: String) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

/// Why there is no ledger to follow.
#[derive(Debug, thiserror::Error)]
#[error("the tick ledger at {url} cannot be followed: {reason}")]
pub struct FollowError {
    url: String,
    reason: String,
}

struct Follower {
    http: Http,
    url: String,
    scope: Scope,
    offset: Offset,
    sinks: Vec<Sender<Event>>,
    status: Arc<Status>,
}

/// Starts to follow the ledger at `url` from the present on; returns once its first event is there.
pub fn follow(
    http: Http,
    url: &str,
    scope: Scope,
    offset: Offset,
    sinks: Vec<Sender<Event>>,
) -> Result<Arc<Status>, FollowError> {
    let status = Arc::new(Status::default());
    let fail = |reason: String| FollowError { url: url.to_owned(), reason };
    let (ready, is_ready) = sync_channel(1);
    let mut follower = Follower { http, url: url.to_owned(), scope, offset, sinks, status: Arc::clone(&status) };
    thread::Builder::new()
        .name("ledger".to_owned())
        .spawn(move || follower.run(&ready))
        .map_err(|error| fail(error.to_string()))?;
    if is_ready.recv_timeout(FIRST_EVENT).is_ok() {
        return Ok(status);
    }
    status.stop();
    Err(fail(status.error().unwrap_or_else(|| "no event within 10 s".to_owned())))
}

impl Follower {
    fn run(&mut self, ready: &SyncSender<()>) {
        let mut is_first = true;
        while !self.status.stop.load(Relaxed) {
            let url = if is_first {
                self.url.clone()
            } else {
                format!("{}?after={}", self.url, self.status.seq.load(Relaxed))
            };
            let outcome = match self.http.get_events(&url) {
                Ok(reader) => self.read(reader, &mut is_first, ready),
                Err(error) => Err(error.to_string()),
            };
            self.status.set_error(outcome.err().unwrap_or_else(|| "the stream ended".to_owned()));
            thread::sleep(REOPEN_AFTER);
        }
    }

    /// Reads events until the stream ends.
    fn read(&mut self, reader: impl Read, is_first: &mut bool, ready: &SyncSender<()>) -> Result<(), String> {
        let mut lines = BufReader::with_capacity(64 * 1024, reader);
        let (mut line, mut event, mut data) = (String::new(), String::new(), String::new());
        loop {
            line.clear();
            let read = (&mut lines).take(MAX_LINE_BYTES).read_line(&mut line).map_err(|error| error.to_string())?;
            if read == 0 || self.status.stop.load(Relaxed) {
                return Ok(());
            }
            if !line.ends_with('\n') {
                return Err(format!("a line of the stream is unfinished or over {MAX_LINE_BYTES} bytes"));
            }
            let text = line.trim_end_matches(['\r', '\n']);
            if let Some(value) = field(text, "event") {
                value.clone_into(&mut event);
            } else if let Some(value) = field(text, "data") {
                data.push_str(value);
            } else if text.is_empty() {
                self.dispatch(&event, &data, is_first)?;
                // The receiver is gone when `follow` has given up: `stop` says so too.
                let _ = ready.try_send(());
                event.clear();
                data.clear();
            }
        }
    }

    fn dispatch(&mut self, event: &str, data: &str, is_first: &mut bool) -> Result<(), String> {
        match event {
            "now" if *is_first => {
                let now: Now = serde_json::from_str(data).map_err(|error| error.to_string())?;
                self.status.seq.store(now.newest, Relaxed);
                *is_first = false;
            }
            "now" => {
                let now: Now = serde_json::from_str(data).map_err(|error| error.to_string())?;
                // A restarted server counts from one again; what happened in between is not known.
                if now.newest < self.status.seq.load(Relaxed) {
                    self.status.seq.store(now.newest, Relaxed);
                    self.status.lost.fetch_add(1, Relaxed);
                    self.send(&Event::Gap);
                }
            }
            "tick" => {
                let tick = parse_tick(data, &self.scope, &self.offset).map_err(|error| error.to_string())?;
                *is_first = false;
                self.deliver(tick);
            }
            _ => {}
        }
        Ok(())
    }

    fn deliver(&mut self, mut tick: Tick) {
        let last = self.status.seq.load(Relaxed);
        if tick.seq <= last {
            return;
        }
        let skipped = tick.seq - last - 1;
        if skipped > 0 {
            self.status.lost.fetch_add(skipped, Relaxed);
            self.send(&Event::Gap);
        }
        if self.scope.has_orders_only {
            self.status.seq.store(tick.seq, Relaxed);
            if !tick.orders.is_empty() {
                self.send(&Event::Orders(Arc::new(tick)));
            }
            return;
        }
        self.status.epochs.lock().unwrap_or_else(PoisonError::into_inner).see(&mut tick);
        self.status.ticks.fetch_add(1, Relaxed);
        self.status.publications.fetch_add(tick.publications.len() as u64, Relaxed);
        let seq = tick.seq;
        self.send(&Event::Tick(Arc::new(tick)));
        // After the send: who sees this position finds the tick in its channel.
        self.status.seq.store(seq, std::sync::atomic::Ordering::Release);
    }

    fn send(&self, event: &Event) {
        for sink in &self.sinks {
            // A worker that has ended needs no more ticks.
            let _ = sink.send(event.clone());
        }
    }
}

/// The value of an event-stream field, if the line holds that field.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let value = line.strip_prefix(name)?.strip_prefix(':')?;
    Some(value.strip_prefix(' ').unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::http::Trust;

    fn follower() -> (Follower, Receiver<Event>) {
        let (sink, events) = channel();
        let follower = Follower {
            http: Http::new(&Trust::default(), Duration::from_secs(1)),
            url: String::new(),
            scope: Scope::default(),
            offset: Offset::same_clock(),
            sinks: vec![sink],
            status: Arc::default(),
        };
        (follower, events)
    }

    fn tick(seq: u64) -> String {
        format!(
            "event: tick\nid: {seq}\ndata: {{\"seq\":{seq},\"ordinal\":1,\"scheduled_ns\":1,\"published_ns\":1,\"publications\":[]}}\n\n"
        )
    }

    fn read(stream: &str) -> (Result<(), String>, Vec<Option<u64>>, Arc<Status>) {
        let (mut follower, events) = follower();
        let (ready, _is_ready) = sync_channel(1);
        let outcome = follower.read(stream.as_bytes(), &mut true, &ready);
        let status = Arc::clone(&follower.status);
        drop(follower);
        let heard = events
            .iter()
            .map(|event| match event {
                Event::Tick(tick) => Some(tick.seq),
                Event::Gap | Event::Orders(_) => None,
            })
            .collect();
        (outcome, heard, status)
    }

    #[test]
    fn ticks_come_in_order_and_once() {
        let stream = format!(
            "event: now\ndata: {{\"hub\":\"orderflow\",\"now\":{{\"monotonic_ns\":1,\"unix_ns\":1}},\"oldest\":1,\"newest\":4}}\n\n: comment\n\n{}{}{}",
            tick(5),
            tick(6),
            tick(6)
        );
        let (outcome, heard, status) = read(&stream);
        assert_eq!(outcome, Ok(()));
        assert_eq!(heard, [Some(5), Some(6)]);
        assert_eq!(status.lost.load(Relaxed), 0);
    }

    #[test]
    fn positions_that_are_gone_are_a_gap() {
        let stream = format!(
            "event: now\ndata: {{\"now\":{{\"monotonic_ns\":1,\"unix_ns\":1}},\"newest\":4}}\n\n{}{}",
            tick(5),
            tick(9)
        );
        let (_, heard, status) = read(&stream);
        assert_eq!(heard, [Some(5), None, Some(9)]);
        assert_eq!(status.lost.load(Relaxed), 3);
    }

    #[test]
    fn a_tick_that_cannot_be_read_ends_the_stream_with_a_reason() {
        let (outcome, heard, _) = read("event: tick\ndata: {}\n\n");
        assert!(outcome.is_err());
        assert!(heard.is_empty());
    }
}
