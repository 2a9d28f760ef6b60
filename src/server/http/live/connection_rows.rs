//! Connections as rows: those that are open, and those that were closed.

use uuid::Uuid;

use super::live_options::LivePage;
use super::live_snapshot::{ClosedRow, ConnectionRow};
use super::live_state::LiveState;
use crate::server::shard::close::TABLE;
use crate::server::shard::closed_log::ClosedConnection;
use crate::server::shard::question::SeenConnection;
use crate::wire::Wire;
use crate::wire::gexbot::HubName;

/// What a hub or `/ws` is called in the tables.
fn hub_name(wire: Wire, hub: HubName) -> String {
    match wire {
        Wire::WebPubSub(_) => hub.name().to_owned(),
        Wire::Streams => "streams".to_owned(),
    }
}

/// A connection id as its client was told it.
pub fn shown_id(id: Uuid) -> String {
    id.to_string()
}

/// An open connection. A summary has neither its address nor its user.
pub fn open_row(live: &LiveState, seen: &SeenConnection, now: u64) -> ConnectionRow {
    let is_whole = live.options.live_page == LivePage::On;
    let (wire, profile) = match seen.wire {
        Wire::WebPubSub(wire) => (wire.subprotocol(), Some(wire.profile.name().to_owned())),
        Wire::Streams => ("json streams", None),
    };
    ConnectionRow {
        address: seen.address.filter(|_| is_whole).map(|address| address.to_string()),
        hub: hub_name(seen.wire, seen.hub),
        wire: wire.to_owned(),
        profile,
        user: is_whole.then(|| seen.user.clone()),
        agent: live.agents.name(seen.agent).map(|agent| agent.to_string()),
        session: seen.session.clone(),
        groups: seen.groups,
        behind_frames: seen.behind.0,
        behind_bytes: seen.behind.1,
        frames: seen.frames,
        bytes: seen.bytes,
        since: now.saturating_sub(seen.age_ms),
        seen: now.saturating_sub(seen.quiet_ms),
        state: seen.state.to_owned(),
    }
}

/// A connection that was closed.
pub fn closed_row(live: &LiveState, closed: &ClosedConnection) -> ClosedRow {
    let is_whole = live.options.live_page == LivePage::On;
    let reason = closed.ending.reason.to_string();
    ClosedRow {
        at: closed.at_unix_ms,
        id: shown_id(closed.id),
        hub: hub_name(closed.wire, closed.hub),
        user: is_whole.then(|| closed.user.clone()),
        agent: live.agents.name(closed.agent).map(|agent| agent.to_string()),
        address: closed.address.filter(|_| is_whole).map(|address| address.to_string()),
        label: TABLE[closed.close as usize].counter.to_owned(),
        code: closed.ending.code,
        reason: Some(reason).filter(|reason| !reason.is_empty()),
        lived_ms: closed.lived_ms,
        frames: closed.frames,
        behind_frames: closed.ending.behind,
    }
}
