//! Faults on demand: what a plan says, and when it strikes whom (`docs/faults.md`).
//!
//! ```text
//! plan_reader ─▶ fault_plan ─▶ schedule (which faults are in force at a tick) ─▶ fault_run ─▶ fault_board ─▶ shards, HTTP
//!                                          every batch of the hubs ─▶ batch_notes ──┘ └─▶ fault_entry ─▶ the ledger
//! ```
//!
//! Nothing here knows a socket. Who is struck is a pure function of the plan's seed, the fault, the tick and the client
//! ([`draw`]), so the same plan strikes the same clients again. What a fault does to a connection is in
//! `server/shard/outbox/faults`, to a request in `server/http/faults`.

pub mod batch_notes;
pub mod draw;
pub mod fault_board;
pub mod fault_entry;
pub mod fault_plan;
pub mod fault_run;
pub mod glob;
pub mod plan_moment;
pub mod plan_reader;
pub mod schedule;
