//! Numbered messages: what takes the tick ledger's place on the JSON streams.
//!
//! ```text
//! publisher ─▶ POST /api/publish ─▶ server ─▶ clients       ticks: what was accepted, before it is judged
//!     └────────────── ticks ───────────────▶ workers
//!
//! somebody else ─▶ Kafka ─▶ server ─▶ clients ─▶ witness    ticks: number after number, as first heard
//!                                        ▲          └──▶ workers
//! ```
//!
//! Both give workers the events the tick ledger gives ([`crate::ledger::follow::Event`]), so messages
//! are verified, timed and reported exactly as orderflow frames are.

pub mod publisher;
pub mod token;
pub mod witness;

use crate::ledger::follow::Event;
use std::sync::mpsc::Sender;

/// Hands an event to all workers.
fn tell(sinks: &[Sender<Event>], event: &Event) {
    for sink in sinks {
        // A worker that has ended needs no more.
        let _ = sink.send(event.clone());
    }
}
