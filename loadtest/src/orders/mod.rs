//! Faults that were ordered: `--faults expected` proves that exactly these happened, and nothing else.
//!
//! ```text
//! GET /ticks ─▶ orders ─▶ OrderBook ◀─ what each client got, missed, got twice, got broken; how its connections ended
//!                             └─▶ per kind: ordered, seen · whatever has no order, and every order without effect
//! ```
//!
//! The server enters a fault into its ledger before it sends the client anything that was published later. So a
//! client's messages are held until the ledger has been read past them ([`crate::worker`]'s `held`), and are judged with
//! all orders at hand. The ledger's side is docs/faults.md, "Entries".

pub mod book;
pub mod ending;
pub mod order;
pub mod outcome;
