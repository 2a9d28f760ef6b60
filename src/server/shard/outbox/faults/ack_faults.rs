//! Faults about acks: they do not come, or late.

use std::sync::Arc;

use super::Outbox;
use crate::faults::fault_entry::{FaultDetail, FaultEntry};
use crate::faults::fault_plan::{FaultAction, FaultClass};
use crate::server::shard::lanes::Lanes;
use crate::server::shard::sessions::Sessions;

/// What becomes of an ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckFault {
    /// It is not sent.
    Lost,
    /// It is sent so much later.
    Late {
        /// In milliseconds.
        by_ms: u64,
    },
}

impl Outbox {
    /// What a plan does to an ack of a client. The plan is looked at as of the last drain.
    pub fn strike_ack(&mut self, key: u32, ack_id: u64, sessions: &Sessions, lanes: &Lanes) -> Option<AckFault> {
        let run = self.faults.run.as_mut()?;
        let session = sessions.get(key)?;
        let plan = Arc::clone(&run.plan);
        for found in run.in_force.clone() {
            let action = &plan.faults[found.fault].action;
            if action.kind().class() != FaultClass::Acks
                || !run.means(found, key, session, &self.faults.board)
                || !run.is_in_group(found, session, lanes)
            {
                continue;
            }
            let identity = run.identity(key, session, &self.faults.board);
            if !run.counts(found, session.id, identity) {
                continue;
            }
            let (fault, ms) = match action {
                FaultAction::LateAck { by_ms } => (AckFault::Late { by_ms: *by_ms }, Some(*by_ms)),
                _ => (AckFault::Lost, None),
            };
            let detail = FaultDetail { ack_id: Some(ack_id), ms, ..FaultDetail::default() };
            let entry = FaultEntry { detail, ..run.entry(found, run.tick, session, identity) };
            self.faults.board.count(run.number, found.fault, action.kind(), 1, 0);
            let place = run.place;
            self.faults.enter(vec![(place, entry)]);
            return Some(fault);
        }
        None
    }
}
