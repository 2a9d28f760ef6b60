//! What may be said about a run.

use serde::{Deserialize, Serialize};

/// What may be said about delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Every frame the ledger says a client had to receive was received, once, in order, unchanged.
    Proven,
    /// No fault was found, but the ledger does not cover everything.
    NotVerified,
    /// Something was lost, or a client could not be served.
    Failed,
}

/// What may be said about the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measurement {
    /// The server was measured.
    Valid,
    /// The generator was (also) measured.
    NotValid,
}
