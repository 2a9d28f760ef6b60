//! The swarm: tens of thousands of WebSocket clients in one process, and proof of what each of them
//! received.
//!
//! Reading order of a run: [`cli`] (what was typed) → [`preflight`] (whether server and machine
//! can do it) → [`membership`] (which groups, at which hubs) → [`plan`] (what will be done) → [`run`] (start, ramp, measure, finish) → [`worker`] (one
//! receiving thread) → [`verify`] (compares what was received with what was published) ← [`mod@reference`]
//! (where that is known from) → [`report`]. [`processes`] does the same in several processes.
//!
//! What was published is known from the server's tick ledger ([`ledger`]). The JSON streams have none,
//! so [`sequence`] replaces it: [`sequence::publisher`] publishes numbered messages itself, and
//! [`sequence::witness`] follows the numbers of another publisher.

pub mod cli;
pub mod clock;
pub mod collect;
pub mod gather;
pub mod http;
pub mod ledger;
pub mod limits;
pub mod live;
pub mod membership;
pub mod negotiate;
pub mod orders;
pub mod plan;
pub mod preflight;
pub mod processes;
pub mod reference;
pub mod report;
pub mod run;
pub mod sequence;
pub mod stats;
pub mod verify;
pub mod wire;
pub mod worker;
