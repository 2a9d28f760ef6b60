//! Faults about connections: they end, fall silent, or are pinged without end.

use std::sync::Arc;

use super::{Outbox, now_ms};
use crate::faults::fault_entry::{FaultDetail, FaultEntry};
use crate::faults::fault_plan::{FaultAction, FaultKind};
use crate::faults::schedule::InForce;
use crate::server::shard::close::{Close, CloseFrame};
use crate::server::shard::connection::Connection;
use crate::server::shard::lanes::Lanes;
use crate::server::shard::marks::Mark;
use crate::server::shard::poller::Interest;
use crate::server::shard::sessions::{Report, Sessions};
use crate::wire::websocket::{self, Opcode};

impl Outbox {
    /// Strikes the connections that a firing means.
    pub(super) fn strike_connections(&mut self, found: InForce, sessions: &mut Sessions, lanes: &Lanes) {
        let mut entries = Vec::new();
        let mut struck = Vec::new();
        let Some(run) = &mut self.faults.run else { return };
        let plan = Arc::clone(&run.plan);
        let action = &plan.faults[found.fault].action;
        if !found.is_new && action.kind() != FaultKind::PingFlood {
            return;
        }
        for key in sessions.keys() {
            let Some(session) = sessions.get(key) else { continue };
            if !session.connection.as_ref().is_some_and(Connection::is_open)
                // Web PubSub looks at a token when a client connects, and never again.
                || (action.kind() == FaultKind::ExpireToken && session.client.is_none())
                || !run.means(found, key, session, &self.faults.board)
                || !run.is_in_group(found, session, lanes)
            {
                continue;
            }
            struck.push(key);
            // It is entered when the frame comes.
            if action.kind() != FaultKind::ResetMidFrame {
                let identity = run.identity(key, session, &self.faults.board);
                let entry = run.entry(found, run.tick, session, identity);
                entries.push((run.place, FaultEntry { detail: detail(action), ..entry }));
            }
        }
        self.faults.board.count(run.number, found.fault, action.kind(), entries.len() as u64, 0);
        self.faults.enter(entries);
        for key in struck {
            self.strike_connection(key, found, action, sessions, lanes);
        }
    }

    fn strike_connection(
        &mut self,
        key: u32,
        found: InForce,
        action: &FaultAction,
        sessions: &mut Sessions,
        lanes: &Lanes,
    ) {
        let serial = sessions.serial(key);
        match action {
            FaultAction::Reset => sessions.report(key, Report::Lost(Close::FaultReset)),
            FaultAction::Close { code, reason } => {
                sessions.report(key, Report::Close(CloseFrame::ordered(*code, reason)));
            }
            FaultAction::ExpireToken => sessions.report(key, Report::Close(Close::TokenExpired.into())),
            FaultAction::ResetMidFrame => {
                if let Some(run) = &mut self.faults.run {
                    run.armed.insert(key, (serial, found));
                }
            }
            FaultAction::Stall { for_ms } => {
                stall(key, sessions);
                self.faults.stalls.insert((now_ms() + for_ms, key, serial));
            }
            FaultAction::PingFlood { count } => {
                if let Some(connection) = sessions.connection_mut(key) {
                    (0..*count).for_each(|_| websocket::append(Opcode::Ping, &[], connection.control()));
                }
                self.flush(key, sessions, lanes);
            }
            _ => {}
        }
    }
}

/// Lets nothing be sent to a connection any more.
pub(super) fn stall(key: u32, sessions: &mut Sessions) {
    if sessions.mark(key) == Mark::Blocked {
        sessions.report(key, Report::Awaits(Interest::Read));
    }
    sessions.set_mark(key, Mark::Stalled);
}

fn detail(action: &FaultAction) -> FaultDetail {
    match action {
        FaultAction::Close { code, reason } => {
            FaultDetail { code: Some(*code), reason: Some(reason.clone()), ..FaultDetail::default() }
        }
        FaultAction::ExpireToken => FaultDetail { code: Some(4401), ..FaultDetail::default() },
        FaultAction::Stall { for_ms } => FaultDetail { ms: Some(*for_ms), ..FaultDetail::default() },
        FaultAction::PingFlood { count } => FaultDetail { count: Some(*count), ..FaultDetail::default() },
        _ => FaultDetail::default(),
    }
}
