//! How the server's monotonic clock relates to ours.
//!
//! On one host both read the same `CLOCK_MONOTONIC`, and the offset is exactly zero. Between hosts it
//! is estimated like NTP does: of several requests the one with the shortest round trip counts, the
//! server's reading is assumed to be from its middle, and the error is at most half the round trip.
//! A second estimate at the end of the run adds the drift between them to the error.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Now;
use crate::clock::now_ns;
use crate::http::{Http, HttpError};

/// Requests per estimate.
const SAMPLES: usize = 24;

/// The relation between the two clocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offset {
    /// The server's clock minus ours.
    pub server_minus_client_ns: i64,
    /// How far off that may be.
    pub error_ns: u64,
    /// How it was found, for the report.
    pub method: String,
}

impl Offset {
    /// One host, one clock.
    pub fn same_clock() -> Self {
        Self {
            server_minus_client_ns: 0,
            error_ns: 0,
            method: "one host: both sides read the same CLOCK_MONOTONIC".to_owned(),
        }
    }

    /// A reading of the server's clock in ours.
    pub fn to_client(&self, server_ns: u64) -> u64 {
        server_ns.saturating_add_signed(self.server_minus_client_ns.saturating_neg())
    }

    /// Estimates the offset; `ledger_url` is the server's `/ticks`.
    pub fn estimate(http: &Http, ledger_url: &str, server: Option<SocketAddr>) -> Result<Self, HttpError> {
        let url = format!("{ledger_url}?limit=1&after={}", u64::MAX >> 1);
        let mut best: Option<(u64, i64)> = None;
        for _ in 0..SAMPLES {
            let before = now_ns();
            let answer: Now = http.get_json(&url)?;
            let after = now_ns();
            let sample = sample(before, after, answer.now.monotonic_ns);
            if best.is_none_or(|(round_trip, _)| sample.0 < round_trip) {
                best = Some(sample);
            }
        }
        let (round_trip_ns, offset_ns) = best.unwrap_or_default();
        let error_ns = round_trip_ns / 2;
        let is_local = server.is_some_and(|address| address.ip().is_loopback());
        if is_local && offset_ns.unsigned_abs() <= error_ns.max(1_000_000) {
            return Ok(Self::same_clock());
        }
        Ok(Self {
            server_minus_client_ns: offset_ns,
            error_ns,
            method: format!(
                "shortest of {SAMPLES} round trips ({} µs), server time taken as its middle",
                round_trip_ns / 1_000
            ),
        })
    }

    /// Takes the drift up to a later estimate into the error.
    pub fn widen_to(&mut self, later: &Self) {
        let drift_ns = self.server_minus_client_ns.abs_diff(later.server_minus_client_ns);
        self.error_ns = self.error_ns.max(later.error_ns) + drift_ns;
    }
}

/// Round trip and offset from one exchange.
fn sample(before_ns: u64, after_ns: u64, server_ns: u64) -> (u64, i64) {
    let round_trip_ns = after_ns.saturating_sub(before_ns);
    let middle_ns = before_ns + round_trip_ns / 2;
    (round_trip_ns, server_ns.wrapping_sub(middle_ns).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_time_is_taken_as_the_middle_of_the_round_trip() {
        assert_eq!(sample(100, 300, 1_200), (200, 1_000));
        assert_eq!(sample(1_000, 1_200, 100), (200, -1_000));
    }

    #[test]
    fn conversion_undoes_the_offset() {
        let offset = Offset { server_minus_client_ns: -1_000, ..Offset::same_clock() };
        assert_eq!(offset.to_client(100), 1_100);
    }

    #[test]
    fn drift_widens_the_error() {
        let mut offset = Offset { server_minus_client_ns: 500, error_ns: 10, ..Offset::same_clock() };
        offset.widen_to(&Offset { server_minus_client_ns: 470, error_ns: 20, ..Offset::same_clock() });
        assert_eq!(offset.error_ns, 50);
    }
}
