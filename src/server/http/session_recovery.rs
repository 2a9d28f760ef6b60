//! A client that comes back for its session: to the shard that has it or, with a signed token, to a node that has not.
//!
//! Source: `docs/protocols/webpubsub.md`, "Recovery" and "Tokens that carry the session".

use std::time::Duration;

use http::StatusCode;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::app::App;
use super::auth;
use super::faults::request_faults::loses_session;
use crate::engine::system_clock;
use crate::server::shard::connection_id::shard_of;
use crate::server::shard::mailbox::{MailboxFull, SessionClaim, ShardHandle, ShardMessage};
use crate::server::shard::session_token::{SessionTicket, SessionTokens};
use crate::wire::gexbot::{GroupName, HubName};
use crate::wire::webpubsub::PubSubWire;

/// How often it is looked whether a batch has ended.
const LOOK: Duration = Duration::from_millis(1);

/// What a client says about the session that it wants back.
pub struct Recovery {
    id: Uuid,
    secret: u128,
    /// What its token says, if it is a signed one.
    ticket: Option<Box<SessionTicket<'static>>>,
}

impl Recovery {
    /// What the query says; `None` if it asks for no recovery. A text that is not a valid id or token is replaced by one that
    /// matches no session.
    pub fn of_query(query: Option<&str>, tokens: Option<&SessionTokens>) -> Option<Self> {
        let id = auth::parameter(query, "awps_connection_id")?;
        let token = auth::parameter(query, "awps_reconnection_token").unwrap_or_default();
        let parsed = |text: &str| Uuid::try_parse(text).unwrap_or(Uuid::nil());
        let id = parsed(&id);
        let ticket = tokens.and_then(|tokens| tokens.open(&token, system_clock::unix_ns() / 1_000_000_000));
        // A token is for its connection id alone.
        let ticket = ticket.filter(|ticket| ticket.id == id).map(Box::new);
        let secret = ticket.as_ref().map_or_else(|| parsed(&token).as_u128(), |ticket| ticket.secret);
        Some(Self { id, secret, ticket })
    }
}

/// What becomes of a recovery.
pub enum Recovered {
    /// The session is here. It has its assignment, and outlives its token.
    Here(ShardHandle, Uuid, PubSubWire),
    /// It is not, but the token says all of it.
    Elsewhere(Box<SessionTicket<'static>>),
    /// There is no such session.
    Unknown,
}

/// Looks for the session, before the client is answered. A plan of faults may have lost it: then the client learns so by
/// `status`.
pub async fn recover(
    app: &App,
    Recovery { id, secret, ticket }: Recovery,
    hub: HubName,
    key: &str,
    status: StatusCode,
) -> Result<Recovered, MailboxFull> {
    if loses_session(app, key, hub.name(), id, status) {
        return Ok(Recovered::Unknown);
    }
    let shard = shard_for(app, id);
    let (reply, answer) = oneshot::channel();
    shard.send(ShardMessage::Claim(SessionClaim { id, token: secret, hub, reply }))?;
    if let Ok(Some(wire)) = answer.await {
        return Ok(Recovered::Here(shard.clone(), id, wire));
    }
    let Some(ticket) = ticket.filter(|ticket| ticket.hub == hub && may_be_joined(app, ticket)) else {
        return Ok(Recovered::Unknown);
    };
    // The client drops what has a smaller id than it has seen on the other node.
    let floor = app.hub.sequencer().raise();
    while !app.hub.sequencer().is_raised(floor) {
        tokio::time::sleep(LOOK).await;
    }
    Ok(Recovered::Elsewhere(ticket))
}

/// The shard that has the session of this id, if there is one. The id may be of a node with more shards.
pub fn shard_for(app: &App, id: Uuid) -> &ShardHandle {
    &app.shards[usize::from(shard_of(id)) % app.shards.len()]
}

/// Whether this node allows all groups of the session. It takes back the whole of it or nothing: the client would not
/// learn which are missing.
fn may_be_joined(app: &App, ticket: &SessionTicket<'_>) -> bool {
    let is_joinable = |group: &str| GroupName::joinable(group, ticket.hub, &app.prefix).is_ok();
    ticket.groups.len() <= app.max_groups_per_connection && ticket.groups.iter().all(|group| is_joinable(group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_without_a_valid_id_or_token_matches_no_session() {
        assert!(Recovery::of_query(Some("access_token=x"), None).is_none());
        let nonsense = Recovery::of_query(Some("awps_connection_id=nonsense"), None).unwrap();
        assert_eq!((nonsense.id, nonsense.secret), (Uuid::nil(), 0));
    }
}
