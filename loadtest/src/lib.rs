//! The swarm: tens of thousands of WebSocket clients in one process, and the truth about what each
//! of them received.
//!
//! Reading order of a run: [`cli`] (what was typed) → [`preflight`] (what the server and the machine
//! say to it) → [`plan`] (what will be done) → [`run`] (start, ramp, measure, finish) → [`worker`] (one
//! receiving thread) → [`verify`] (what was received against what was published) ← [`ledger`] (what was
//! published, and when) → [`report`]. [`processes`] does the same in several processes. On the JSON
//! streams, which have no ledger, [`sequence`] takes its place: [`sequence::publisher`] publishes and
//! knows what, [`sequence::witness`] follows the numbers somebody else publishes.

pub mod cli;
pub mod clock;
pub mod collect;
pub mod gather;
pub mod http;
pub mod ledger;
pub mod limits;
pub mod live;
pub mod negotiate;
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
