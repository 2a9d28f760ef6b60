//! What can be asked of a replay, and what it answers: the words that its clock (`source::recorded::player`) and those
//! who steer it (`server::http::replay`, `commands::replay`) share.
//!
//! ```text
//! PATCH /replay ─▶ Change ─▶ Remote ─▶ player ─▶ Snapshot ─▶ GET /replay, events, status
//! ```

pub mod change;
pub mod change_json;
pub mod moment;
pub mod moment_text;
pub mod remote;
pub mod replays;
pub mod seat;
pub mod snapshot;
pub mod wanted_dates;
